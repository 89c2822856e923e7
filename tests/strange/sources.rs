//! What must not be written anywhere.

use std::{fs, path::Path};

/// Every Rust file below the folder.
fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path.display().to_string(), text));
        }
    }
}

#[test]
fn sql_injection_and_redos_no_sql_is_put_together_and_no_pattern_compiled_for_a_request() {
    let mut found = Vec::new();
    sources(Path::new("src"), &mut found);
    sources(Path::new("jobs/src"), &mut found);
    assert!(found.len() > 100, "{}", found.len());

    for (path, text) in found {
        // sqlx takes no text but what is written in the program, unless somebody says this. PostgreSQL
        // takes no parameters in `GRANT`: an operator's command writes names of roles into it.
        let is_grant = path.ends_with("src/ctl/privileges/store.rs");
        assert!(is_grant || !text.contains("AssertSqlSafe"), "{path}");
        // The framework compiles the pattern of a validator anew for every request.
        assert!(!text.contains("validator(pattern") && !text.contains(", pattern ="), "{path}");
    }
}
