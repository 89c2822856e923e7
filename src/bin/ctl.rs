use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    holdfast::ctl::main().await
}
