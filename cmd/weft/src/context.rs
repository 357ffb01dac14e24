//! What every verb gets: where the router is, how to answer, and the way to ask.

use tokio::signal::unix::{Signal, SignalKind, signal};
use weft_api::Client;
use weft_types::{Code, Problem};

use crate::config::{self, Global, Place};
use crate::fault::broken;
use crate::output::{Outcome, Output};
use crate::state_dir;

/// What every verb gets.
pub(crate) struct Context {
    /// What was said for every verb.
    pub(crate) global: Global,
    /// How to answer.
    pub(crate) out: Output,
    /// What can be said: for completion and manual.
    pub(crate) grammar: fn() -> clap::Command,
}

impl Context {
    /// Finds where the router is.
    pub(crate) fn place(&self) -> Result<Place, Problem> {
        Place::new(&self.global, &config::read_file(&self.global)?)
    }

    /// Does what needs a router that runs.
    pub(crate) fn with_router(&self, verb: impl AsyncFnOnce(Client) -> Outcome) -> Outcome {
        let place = self.place()?;
        block_on(verb(Client::new(&place.socket)))
            .map_err(|problem| with_last_words(problem, &place))
    }
}

/// Where no router runs, the one that did may have said why it ended.
fn with_last_words(problem: Problem, place: &Place) -> Problem {
    if problem.code != Code::DaemonNotRunning {
        return problem;
    }
    let Some(words) = state_dir::last_words(&place.state_dir) else {
        return problem;
    };
    let why = format!("{}; the last one ended with {words}", problem.why);
    problem.why(why)
}

/// Hears Ctrl-C: for verbs that end by it as they are meant to.
pub(crate) fn interrupt() -> Result<Signal, Problem> {
    signal(SignalKind::interrupt()).map_err(broken("the command cannot listen for Ctrl-C"))
}

/// Runs a verb's I/O on this thread.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(broken("the command cannot start"))?
        .block_on(work)
}
