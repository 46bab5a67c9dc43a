//! Log lines: their shape and their filter. No prompt, no body and no header value of a client is ever logged.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::TryInitError;

use crate::config::{Log, LogFormat};

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.filter` cannot be read.
    #[error("log filter \"{0}\" cannot be read")]
    Filter(String, #[source] ParseError),
    /// Somebody set logging up before.
    #[error("logging is set up already")]
    Twice(#[from] TryInitError),
}

/// Sends the log lines of this process to standard error. Call it once, before anything that logs.
pub fn init(log: &Log) -> Result<(), LogError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let filter = EnvFilter::try_new(&log.filter).map_err(|error| LogError::Filter(log.filter.clone(), error))?;
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match log.format {
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
        LogFormat::Pretty => lines.compact().finish().try_init()?,
    }
    Ok(())
}
