//! Asks the hub, from a handler or from within the daemon.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{broadcast, mpsc, oneshot};
use weft_api::PATIENCE;
use weft_api::events::Event;
use weft_api::settings::Settings;
use weft_router_proto::io::Command;
use weft_types::{Code, Problem};

use super::report::Report;
use crate::ask::{Ask, Waiter};

/// How many requests may wait for the hub: people and scrapers are few, and a full queue makes them wait, not fail.
pub const QUEUE: usize = 32;

/// How many past events are kept for a person who comes late: what a screen shows.
const HISTORY: usize = 64;

/// What somebody on this host wants from the hub.
#[derive(Debug)]
pub enum ApiRequest {
    /// Hand a command to the core, and its reply back.
    Command {
        /// What.
        command: Command,
        /// Where the reply goes.
        waiter: Waiter,
    },
    /// Stop: close connections, remove devices, end the process. Answered when the stop has begun.
    Shutdown {
        /// Where the answer goes.
        answer: oneshot::Sender<()>,
    },
    /// Say how things stand.
    Status {
        /// Where the answer goes.
        answer: oneshot::Sender<Report>,
    },
}

/// The API's ends of the hub.
#[derive(Clone, Debug)]
pub struct HubEnds {
    /// Where requests go.
    pub requests: mpsc::Sender<ApiRequest>,
    /// Where events come from. A listener that is too slow is told how many it missed.
    pub events: broadcast::Sender<Event>,
}

/// The way to ask a router. What can be asked stands with each resource.
#[derive(Clone, Debug)]
pub struct Api(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hub: HubEnds,
    release: String,
    settings: Settings,
    problems: Vec<Problem>,
    history: Mutex<VecDeque<Event>>,
}

impl Api {
    /// Speaks for a router of this release that was told these settings; `problems` are what its API itself has met.
    pub fn new(hub: HubEnds, release: String, settings: Settings, problems: Vec<Problem>) -> Self {
        Self(Arc::new(Inner {
            hub,
            release,
            settings,
            problems,
            history: Mutex::new(VecDeque::with_capacity(HISTORY)),
        }))
    }

    /// The release, for people.
    pub(super) fn release(&self) -> &str {
        &self.0.release
    }

    /// What the router was told at its start.
    pub(super) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// What the API itself has met.
    pub(super) fn problems(&self) -> &[Problem] {
        &self.0.problems
    }

    /// Hears what happens from here on.
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.0.hub.events.subscribe()
    }

    /// Puts a command to the core and waits for its answer.
    pub async fn ask<A: Send + 'static>(&self, ask: Ask<A>) -> Result<A, Problem> {
        let (command, waiter, answer) = ask.begin();
        self.put(ApiRequest::Command { command, waiter }, answer)
            .await?
    }

    /// How things stand, not yet in words.
    pub async fn report(&self) -> Result<Report, Problem> {
        let (answer, report) = oneshot::channel();
        self.put(ApiRequest::Status { answer }, report).await
    }

    /// Stops the router; it is going when this returns.
    pub async fn shutdown(&self) -> Result<(), Problem> {
        let (answer, begun) = oneshot::channel();
        self.put(ApiRequest::Shutdown { answer }, begun).await
    }

    async fn put<T>(
        &self,
        request: ApiRequest,
        answer: oneshot::Receiver<T>,
    ) -> Result<T, Problem> {
        let asked = async {
            self.0.hub.requests.send(request).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(stopping()),
            Err(_) => Err(silent()),
        }
    }

    pub(super) fn remember(&self, event: Event) {
        let mut history = self.history();
        if history.len() == HISTORY {
            history.pop_front();
        }
        history.push_back(event);
    }

    /// Nothing that holds the lock can panic halfway, so a poisoned one is whole.
    pub(super) fn history(&self) -> MutexGuard<'_, VecDeque<Event>> {
        let history = self.0.history.lock();
        history.unwrap_or_else(PoisonError::into_inner)
    }
}

fn stopping() -> Problem {
    Problem::new(Code::DaemonNotRunning, "the router is stopping")
        .fix("Start it again: sudo weft up")
}

fn silent() -> Problem {
    let limit = PATIENCE.as_secs();
    let what = format!("the router did not answer within {limit} s");
    Problem::new(Code::Internal, what)
        .fix("Look into its log, and restart it: sudo weft down, sudo weft up")
}
