//! Logs to standard error.

use tracing_subscriber::EnvFilter;
use weft_types::{Code, Problem};

use crate::config::{Config, LogFormat};

/// Logs to standard error from here on.
pub(super) fn to_stderr(config: &Config) -> Result<(), Problem> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| {
        Problem::new(
            Code::Configuration,
            format!("{:?} says not what to log", config.log),
        )
        .why(error.to_string())
        .fix("Write a level: error, warn, info, debug or trace")
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Json => builder.json().init(),
        // The journal knows the time.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            builder.without_time().init()
        }
        LogFormat::Text => builder.init(),
    }
    Ok(())
}
