use std::process::ExitCode;

use holdfast::{boot, fleet};

fn main() -> ExitCode {
    boot::run(fleet::webhooks)
}
