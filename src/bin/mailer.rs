use std::process::ExitCode;

use holdfast::{
    boot::{self, Ending, Process},
    config,
    fleet::{self, Pulse},
};
use secrecy::ExposeSecret;

fn main() -> ExitCode {
    boot::run(async |process: Process, settings: config::Mailer| {
        let pulse = Pulse::default();
        let common = &settings.common;
        let work = fleet::run(
            fleet::Process::Mailer,
            process.cx,
            common.redis_url.expose_secret(),
            &common.queue_namespace,
            pulse.clone(),
            process.shutdown,
        );
        process.liveness.ask(move || pulse.is_alive());
        work.await?;
        Ok(Ending::Clean)
    })
}
