//! What a scenario found, for people and for programs.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::statistics::rounded;

/// What one scenario found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    title: String,
    lines: Vec<String>,
    figures: Map<String, Value>,
    bars: Vec<Bar>,
    wrong: Vec<String>,
}

/// A figure and what it should reach.
#[derive(Debug)]
struct Bar {
    text: String,
    is_reached: bool,
}

impl Report {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// Adds a line of the table.
    pub(crate) fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Adds a measured figure.
    pub(crate) fn figure(&mut self, name: &str, value: f64) {
        self.figures.insert(name.to_owned(), json!(rounded(value, 2)));
    }

    /// Adds anything else that a program may want to know.
    pub(crate) fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.to_owned(), value.into());
    }

    /// Adds a bar. Speed is a matter of the machine: a bar that is missed is told and nothing more.
    pub(crate) fn bar(&mut self, text: impl Into<String>, is_reached: bool) {
        self.bars.push(Bar { text: text.into(), is_reached });
    }

    /// Adds a promise that was broken.
    pub(crate) fn broken(&mut self, text: impl Into<String>) {
        self.wrong.push(text.into());
    }

    pub(crate) fn is_well(&self) -> bool {
        self.wrong.is_empty()
    }

    /// All of it as one object.
    pub(crate) fn into_json(mut self) -> Value {
        let bars: Map<_, _> =
            self.bars.into_iter().map(|bar| (bar.text, bar.is_reached.into())).collect();
        self.figures.insert("bars".to_owned(), bars.into());
        self.figures.insert("broken".to_owned(), self.wrong.into());
        self.figures.into()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        for line in &self.lines {
            writeln!(f, "  {line}")?;
        }
        for bar in &self.bars {
            let verdict = if bar.is_reached { "reached" } else { "MISSED" };
            writeln!(f, "  {:<7} {}", verdict, bar.text)?;
        }
        for wrong in &self.wrong {
            writeln!(f, "  BROKEN  {wrong}")?;
        }
        Ok(())
    }
}

/// Writes the reports to standard output.
#[expect(clippy::print_stdout, reason = "the figures are what the program is for")]
pub(crate) fn print(reports: Vec<(&'static str, Report)>, as_json: bool) {
    if !as_json {
        for (_, report) in reports {
            println!("{report}");
        }
        return;
    }
    let mut reports: Vec<_> =
        reports.into_iter().map(|(name, report)| (name, report.into_json())).collect();
    // One scenario is one flat object, several are one of each.
    let object = match (reports.pop(), reports.is_empty()) {
        (Some((_, only)), true) => only,
        (last, _) => {
            reports.extend(last);
            reports.into_iter().map(|(name, json)| (name.to_owned(), json)).collect()
        }
    };
    println!("{object}");
}
