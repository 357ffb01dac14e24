//! The daemon: a router, the host's devices, and the ties between them and to whoever started it.

use weft_types::{Code, Problem};

use crate::commands::Outcome;
use crate::config::Config;
use crate::output::Output;

/// Runs as the daemon that [`crate::launch`] starts: configuration on standard input, progress on standard output.
pub(crate) fn detached() -> Outcome {
    Err(absent())
}

/// Runs in the foreground, as under systemd.
pub(crate) fn foreground(config: Config, out: Output) -> Outcome {
    let _ = (config, out);
    Err(absent())
}

fn absent() -> Problem {
    Problem::new(Code::Internal, "this build has no router")
}
