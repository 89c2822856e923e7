//! For tests: the legal moves of a state machine as the migrations write them.

use std::fs;

/// The rows that the migrations insert into the table of two text columns, sorted.
pub fn in_migrations(table: &str) -> Vec<(String, String)> {
    let insert = format!("INSERT INTO {table} ");
    let mut rows = Vec::new();
    for file in fs::read_dir("migrations").unwrap() {
        let sql = fs::read_to_string(file.unwrap().path()).unwrap();
        for statement in sql.split(&insert).skip(1) {
            let (statement, _) = statement.split_once(';').unwrap();
            let (_, values) = statement.split_once("VALUES").unwrap();
            // Every other quoted text is a value.
            let values: Vec<_> = values.split('\'').skip(1).step_by(2).collect();
            rows.extend(values.chunks(2).map(|row| (row[0].to_owned(), row[1].to_owned())));
        }
    }
    rows.sort_unstable();
    rows
}
