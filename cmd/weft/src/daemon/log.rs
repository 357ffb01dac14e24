//! Logs to standard error: a line that cannot be written is lost, and nothing else is.
//!
//! ```text
//!   event ──▶ Brief: is there room for one of its kind? ──▶ Sink ──▶ standard error: terminal, journal, or weft.log
//! ```
//!
//! What is said too often is left out and counted (`limit`); a log in the state directory is put aside when it is long,
//! and leaves the room that the state needs (`sink`).

mod brief;
mod limit;
mod sink;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::format::{DefaultFields, Format, JsonFields};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, fmt};
use weft_types::{Code, Problem};

use self::brief::Brief;
use self::limit::{Limiter, lock};
use self::sink::Sink;
use crate::config::{Config, LogFormat};

/// How often it is seen whether something that was left out may be said.
const LOOK: Duration = Duration::from_secs(10);

/// What was left out and is to be said later.
pub(super) struct Later {
    limiter: Arc<Mutex<Limiter>>,
    sink: Sink,
}

impl Later {
    /// Says it when its time has come. Never returns.
    pub(super) async fn say(self) {
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            ticks.tick().await;
            let due = lock(&self.limiter).due(Instant::now());
            for line in due {
                self.sink.put(line.as_bytes());
            }
        }
    }
}

/// Logs to standard error from here on.
pub(super) fn to_stderr(config: &Config) -> Result<Later, Problem> {
    let filter = filter(&config.log)?;
    let limiter = Arc::new(Mutex::new(Limiter::default()));
    let sink = Sink::open(&config.state_dir);
    let (limits, out) = (Arc::clone(&limiter), sink.clone());
    // What cannot be written is not complained about either: the complaint would go the same way.
    let layer = fmt::layer()
        .with_ansi(false)
        .with_writer(move || out.clone())
        .log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(filter);
    match config.log_format {
        LogFormat::Json => {
            let brief = Brief::new(Format::default().json(), limits);
            let layer = layer.event_format(brief).fmt_fields(JsonFields::new());
            registry.with(layer).init();
        }
        // The journal knows the time.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            let plain = Format::default().with_ansi(false).without_time();
            let layer = layer.event_format(Brief::new(plain, limits));
            registry.with(layer.fmt_fields(DefaultFields::new())).init();
        }
        LogFormat::Text => {
            let plain = Format::default().with_ansi(false);
            let layer = layer.event_format(Brief::new(plain, limits));
            registry.with(layer.fmt_fields(DefaultFields::new())).init();
        }
    }
    Ok(Later { limiter, sink })
}

fn filter(said: &str) -> Result<EnvFilter, Problem> {
    EnvFilter::try_new(said).map_err(|error| {
        Problem::new(
            Code::Configuration,
            format!("{said:?} says not what to log"),
        )
        .why(error.to_string())
        .fix("Write a level: error, warn, info, debug or trace")
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::process::{Command, ExitStatus};

    use super::*;
    use crate::state_dir;

    const STATE: &str = "WEFT_TEST_LOG";
    const LINES: usize = 12_000;

    /// Not a test by itself: what the others run, with a standard error of their choice.
    #[test]
    fn child_that_logs_much() {
        let Some(state_dir) = std::env::var_os(STATE) else {
            return;
        };
        let mut config = crate::config::parsed("weft up --name a --log debug", "").unwrap();
        config.state_dir = state_dir.into();
        let _later = to_stderr(&config).unwrap();
        let text = "x".repeat(1000);
        for line in 0..LINES {
            tracing::debug!(line, text);
        }
        tracing::warn!("the last line");
    }

    fn logged(state_dir: &Path, stderr: File) -> ExitStatus {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "daemon::log::tests::child_that_logs_much"])
            .env(STATE, state_dir)
            .env_remove("JOURNAL_STREAM")
            .stdout(std::process::Stdio::null())
            .stderr(stderr)
            .status()
            .unwrap()
    }

    #[test]
    fn what_cannot_be_written_is_lost_and_nothing_else_is() {
        let state_dir = tempfile::tempdir().unwrap();
        let full = File::options().write(true).open("/dev/full").unwrap();

        assert!(logged(state_dir.path(), full).success());
    }

    #[test]
    fn a_long_log_is_put_aside_while_it_is_written() {
        let state_dir = tempfile::tempdir().unwrap();
        let log = state_dir::open_log(state_dir.path()).unwrap();

        assert!(logged(state_dir.path(), log).success());

        let files: Vec<u64> = fs::read_dir(state_dir.path())
            .unwrap()
            .map(|file| file.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(files.len(), 2);
        assert!(files.iter().all(|&length| length <= state_dir::LOG_LIMIT));
        let text = fs::read_to_string(state_dir::log(state_dir.path())).unwrap();
        assert!(text.contains(&format!("line={}", LINES - 1)));
        assert!(text.trim_end().ends_with("the last line"));
    }
}
