use std::process::ExitCode;

use holdfast::{assembly, boot};

fn main() -> ExitCode {
    boot::run(assembly::serve)
}
