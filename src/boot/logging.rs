//! Logs: one JSON object a line for machines, coloured text for a terminal.

use std::{
    io::{IsTerminal, stdout},
    panic::{self, PanicHookInfo},
};

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Sends everything that is logged to the standard output, panics included.
pub(super) fn start(filter: &str, format: LogFormat) {
    // It reports every connection that Redis drops as an error; our transport says it once, in our words.
    let filter = EnvFilter::new(format!("apalis_core=off,{filter}"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter);
    match format {
        LogFormat::Json => subscriber.json().flatten_event(true).with_span_list(false).init(),
        LogFormat::Text => subscriber.with_ansi(stdout().is_terminal()).init(),
    }
    panic::set_hook(Box::new(log_panic));
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or_default();
    tracing::error!(panic.location = location, panic.message = message, "panicked");
}
