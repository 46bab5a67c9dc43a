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

/// Changes the filter of the log lines that [`init`] sends to standard error.
pub struct LogControl(Box<dyn Fn(EnvFilter) + Send + Sync>);

impl std::fmt::Debug for LogControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogControl").finish_non_exhaustive()
    }
}

impl LogControl {
    /// Hands filters to `change`.
    pub fn new(change: impl Fn(EnvFilter) + Send + Sync + 'static) -> Self {
        Self(Box::new(change))
    }

    /// Takes another filter.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn set_filter(&self, filter: &str) -> Result<(), LogError> {
        (self.0)(parsed(filter)?);
        Ok(())
    }
}

fn parsed(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(filter).map_err(|error| LogError::Filter(filter.to_owned(), error))
}

/// Sends the log lines of this process to standard error. Call it once, before anything that logs.
pub fn init(log: &Log) -> Result<LogControl, LogError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(colours);
    let lines = lines.with_env_filter(parsed(&log.filter)?);
    // Reloading fails only for a subscriber that is gone, and this one lives as long as the process.
    match log.format {
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let handle = lines.reload_handle();
            lines.finish().try_init()?;
            Ok(LogControl::new(move |filter| drop(handle.reload(filter))))
        }
        LogFormat::Pretty => {
            let lines = lines.compact().with_filter_reloading();
            let handle = lines.reload_handle();
            lines.finish().try_init()?;
            Ok(LogControl::new(move |filter| drop(handle.reload(filter))))
        }
    }
}
