//! The one task that owns the core: everything that happens passes here, one thing at a time.
//!
//! ```text
//!   TCP events ──────┐                                  ┌─▶ connections, dials
//!   save results ────┤                                  ├─▶ writer thread
//!   worker reports ──┼─▶ one Input ─▶ core ─▶ Outputs ──┼─▶ packet workers
//!   look-ups, checks ┤                                  ├─▶ snapshots (watch): kernel planner
//!   API requests ────┤                                  ├─▶ events, progress, replies
//!   deadline ────────┘                                  └─▶ look-ups, checks
//! ```
//!
//! A turn is one input and all that follows from it. The next one is chosen at random among the sources that have one,
//! so no source starves another: a request for status waits for a handful of turns, however busy the mesh is.
//!
//! Frames never come here. Every queue into the hub is bounded, and slows down who fills it.
//! **Failure policy.** What cannot be done becomes an input; the core decides. Only the core ends the hub, or whoever
//! started it.

mod deeds;
mod names;
mod verify;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{debug, error, info, warn};
use weft_api::events::EventKind;
use weft_kernel::event::alarm;
use weft_router_proto::genesis::Genesis;
use weft_router_proto::io::{Command, ConnId, Event, Input, Output, Reply, RequestId, Target};
use weft_router_proto::snapshot::Snapshot;
use weft_router_proto::status::RouterStatus;
use weft_types::{Code, Problem};

use self::deeds::Deeds;
pub(crate) use self::names::Names;
use self::verify::{Link, Verification};
use crate::api::{self, ApiRequest};
use crate::ask::Waiter;
use crate::datapath::DataPath;
use crate::persist::Writer;
use crate::progress::{Membership, Progress};
use crate::resolve::Resolver;
use crate::status::{self, ForgeryWatch, SwitchClock};
use crate::tcp::{Tcp, TcpEvent};
use crate::worker::Report;

/// Answers of look-ups and checks that wait: each is asked for by the core, which has few under way.
pub(crate) const SIDE_QUEUE: usize = 64;
/// Events that a slow listener may be behind.
pub(crate) const EVENT_QUEUE: usize = 256;
/// Commands under way. Each belongs to a local caller who waits for it.
const COMMANDS: usize = 256;

/// How many different failures of a join are told one by one: as many as a person reads.
const MAX_TRIED: usize = 32;
/// The least between two wake-ups by the clock. A core whose deadline lies in the past is wrong, but shall not take a
/// processor for that.
const REST: Duration = Duration::from_millis(1);
/// How long peers get for taking in the last words.
const FAREWELL: Duration = Duration::from_millis(500);

/// What a hub drives: the verbs of [`weft_router_proto::router::Router`].
pub(crate) trait Core: Send {
    fn handle_input(&mut self, input: Input, now: Instant);
    fn poll_output(&mut self) -> Option<Output>;
    fn poll_timeout(&self) -> Option<(Instant, &'static str)>;
    fn handle_timeout(&mut self, now: Instant);
    fn status(&self, now: Instant) -> RouterStatus;
}

/// Compares this machine with what a mesh needs. Called on a thread that may block.
pub type Checks = dyn Fn(&Genesis) -> Result<(), Problem> + Send + Sync;

/// What the hub acts on.
pub(crate) struct Effects {
    pub(crate) tcp: Tcp,
    pub(crate) writer: Writer,
    pub(crate) data: Box<dyn DataPath>,
    pub(crate) checks: Arc<Checks>,
    /// Answers of look-ups and checks come back on [`Sources::side`].
    pub(crate) side: mpsc::Sender<Input>,
    pub(crate) events: broadcast::Sender<weft_api::events::Event>,
    pub(crate) snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    pub(crate) progress: watch::Sender<Progress>,
}

/// Where inputs come from.
pub(crate) struct Sources {
    pub(crate) tcp: mpsc::Receiver<TcpEvent>,
    pub(crate) saved: mpsc::Receiver<Input>,
    pub(crate) workers: mpsc::Receiver<Report>,
    pub(crate) side: mpsc::Receiver<Input>,
    pub(crate) api: mpsc::Receiver<ApiRequest>,
    /// Problems that others on this host have met: the kernel planner.
    pub(crate) problems: watch::Receiver<Vec<Problem>>,
    /// Resolves when the router shall stop, also by being dropped.
    pub(crate) stop: oneshot::Receiver<()>,
}

/// Why the hub ended.
enum End {
    Asked,
    Halted(Problem),
}

pub(crate) struct Hub<C> {
    core: C,
    effects: Effects,
    /// What could not be done at once, on its way back into the core.
    pending: VecDeque<Input>,
    waiters: BTreeMap<RequestId, Waiter>,
    requests: u64,
    verification: Verification,
    clock: SwitchClock,
    names: Names,
    deeds: Deeds,
    forgery: ForgeryWatch,
    resolver: Resolver,
    end: Option<End>,
}

impl<C: Core> Hub<C> {
    pub(crate) fn new(core: C, effects: Effects) -> Self {
        Self {
            core,
            effects,
            pending: VecDeque::new(),
            waiters: BTreeMap::new(),
            requests: 0,
            verification: Verification::Wanted,
            clock: SwitchClock::default(),
            names: Names::default(),
            deeds: Deeds::default(),
            forgery: ForgeryWatch::default(),
            resolver: Resolver::new(),
            end: None,
        }
    }

    /// Runs until the core halts or somebody stops it. What was to be saved is saved when it returns, and peers have
    /// been told what was to be told.
    pub(crate) async fn run(mut self, mut sources: Sources) {
        let mut rested = Instant::now();
        loop {
            self.settle();
            if let Some(end) = self.end.take() {
                return self.wind_up(end, sources).await;
            }
            let deadline = self.core.poll_timeout().map(|(at, _)| at.max(rested));
            let input = tokio::select! {
                () = alarm(deadline) => {
                    let now = Instant::now();
                    rested = now + REST;
                    self.core.handle_timeout(now);
                    continue;
                }
                _ = &mut sources.stop => {
                    self.end = Some(End::Asked);
                    continue;
                }
                Some(event) = sources.tcp.recv() => {
                    self.pending.extend(self.effects.tcp.absorb(event));
                    continue;
                }
                Some(request) = sources.api.recv() => {
                    self.answer(request, &sources.problems);
                    continue;
                }
                Some(input) = sources.saved.recv() => input,
                Some(report) = sources.workers.recv() => report.into(),
                Some(input) = sources.side.recv() => input,
            };
            self.pending.push_back(input);
        }
    }

    /// Feeds what waits and carries out all that follows, until there is nothing left.
    fn settle(&mut self) {
        loop {
            while let Some(output) = self.core.poll_output() {
                self.carry_out(output);
            }
            let Some(input) = self.pending.pop_front() else {
                return;
            };
            self.core.handle_input(input, Instant::now());
        }
    }

    fn carry_out(&mut self, output: Output) {
        let Effects {
            tcp, writer, data, ..
        } = &mut self.effects;
        match output {
            Output::Authenticated { conn } => tcp.trust(conn),
            Output::CheckGenesis { conn, genesis } => self.check(conn, genesis),
            Output::Close { conn } => self.pending.extend(tcp.close(conn)),
            Output::Connect { conn, to } => tcp.connect(conn, to),
            Output::DataPlane(command) => data.apply(command),
            Output::Event(event) => self.tell(event),
            Output::Halt(problem) => self.end = Some(End::Halted(problem)),
            Output::Reply { id, reply } => self.reply(id, reply),
            Output::Resolve { target } => self.look_up(target),
            Output::Save { ticket, changes } => writer.save(ticket, changes),
            Output::Send { conn, bytes } => self.pending.extend(tcp.send(conn, bytes)),
            Output::SendDatagram { to, bytes } => data.send_link(to, bytes),
            Output::Snapshot(snapshot) => self.forward_by(snapshot),
        }
    }

    fn forward_by(&mut self, snapshot: Arc<Snapshot>) {
        self.effects.data.forward_by(Arc::clone(&snapshot));
        self.effects.snapshots.send_replace(Some(snapshot));
        let progress = &self.effects.progress;
        progress.send_if_modified(|progress| !std::mem::replace(&mut progress.ready, true));
    }

    fn check(&self, conn: ConnId, genesis: Arc<Genesis>) {
        let checks = Arc::clone(&self.effects.checks);
        let side = self.effects.side.clone();
        tokio::task::spawn_blocking(move || {
            let verdict = checks(&genesis);
            // Nobody waits once the hub is gone.
            let _ = side.blocking_send(Input::GenesisChecked { conn, verdict });
        });
    }

    fn look_up(&self, target: Target) {
        let side = self.effects.side.clone();
        let resolver = self.resolver.clone();
        tokio::spawn(async move {
            let addresses = resolver.resolve(&target).await;
            let _ = side.send(Input::Resolved { target, addresses }).await;
        });
    }

    fn tell(&mut self, event: Event) {
        self.names.note(&event);
        note(&event, &self.names);
        let clock = SystemTime::now();
        match &event {
            Event::Joined {
                mesh,
                addresses,
                mtu,
            } => {
                self.joined(Membership {
                    mesh: mesh.clone(),
                    addresses: addresses.clone(),
                    mtu: *mtu,
                });
            }
            Event::JoinAttemptFailed(problem) => self.cannot_join(problem.clone()),
            Event::LinkUp { node, nickname, .. } => self.verify(Link {
                node: *node,
                nickname: nickname.clone(),
            }),
            Event::PathChanged { node, at, .. } => self.clock.note(*node, *at, clock),
            Event::LinkDown { .. }
            | Event::MemberJoined { .. }
            | Event::MemberLeft { .. }
            | Event::Problem(_)
            | Event::SessionUp { .. }
            | Event::SessionDown { .. } => {}
        }
        let told = api::told(event.clone(), &self.names, clock);
        self.names.told(&event);
        // Fails where nobody listens.
        let _ = self.effects.events.send(told);
    }

    fn joined(&self, joined: Membership) {
        self.effects.progress.send_modify(|progress| {
            progress.joined = Some(joined);
            progress.failure = None;
        });
    }

    fn cannot_join(&self, problem: Problem) {
        let progress = &self.effects.progress;
        progress.send_modify(|progress| {
            if progress.tried.len() < MAX_TRIED && !progress.tried.contains(&problem) {
                progress.tried.push(problem.clone());
            }
            progress.failure = Some(problem);
        });
    }

    /// Tries a link, if it is the first.
    fn verify(&mut self, link: Link) {
        let id = self.next_id();
        if let Some(command) = self.verification.link_up(link, id) {
            self.pending.push_back(Input::Command { id, command });
        }
    }

    fn next_id(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    fn reply(&mut self, id: RequestId, reply: Reply) {
        if let Some(deed) = self.deeds.end(id, &reply) {
            deeds::note(&deed);
            // Fails where nobody listens.
            let told = api::stamped(deed, SystemTime::now());
            let _ = self.effects.events.send(told);
        }
        if let Some(waiter) = self.waiters.remove(&id) {
            return waiter.reply(reply);
        }
        let Some((verdict, again)) = self.verification.replied(id, reply) else {
            return debug!(?id, "a reply that nobody waits for");
        };
        self.effects
            .progress
            .send_modify(|progress| progress.verified = Some(verdict));
        if let Some(link) = again {
            self.verify(link);
        }
    }

    fn answer(&mut self, request: ApiRequest, problems: &watch::Receiver<Vec<Problem>>) {
        match request {
            ApiRequest::Command { command, waiter } => self.command(command, waiter),
            ApiRequest::Shutdown { answer } => {
                self.end = Some(End::Asked);
                // The caller may have gone.
                let _ = answer.send(());
            }
            ApiRequest::Status { answer } => {
                // The caller may have gone.
                drop(answer.send(self.report(&problems.borrow())));
            }
        }
    }

    fn command(&mut self, command: Command, waiter: Waiter) {
        if self.waiters.len() >= COMMANDS {
            let problem = Problem::new(Code::Internal, "too many commands are under way")
                .fix("Wait a moment and try again");
            return waiter.reply(Reply::Failed(problem));
        }
        let id = self.next_id();
        self.waiters.insert(id, waiter);
        self.deeds.begin(id, &command);
        self.pending.push_back(Input::Command { id, command });
    }

    fn report(&mut self, met: &[Problem]) -> api::Report {
        let now = Instant::now();
        let core = self.core.status(now);
        let times = self.clock.times(&core, now, SystemTime::now());
        let traffic = self.effects.data.traffic();
        let forged = self.forgery.problems(&core, &traffic, now);
        let met = [met, &forged].concat();
        status::report(core, times, traffic, self.effects.tcp.counters(), &met)
    }

    async fn wind_up(self, end: End, mut sources: Sources) {
        let problem = match end {
            End::Asked => None,
            End::Halted(problem) => Some(problem),
        };
        let event = EventKind::Stopping {
            problem: problem.clone(),
        };
        let _ = self
            .effects
            .events
            .send(api::stamped(event, SystemTime::now()));
        self.effects.tcp.shut_down(&mut sources.tcp, FAREWELL).await;
        drop(self.effects.data);
        // Waits for the disk, on a thread that may.
        let writer = self.effects.writer;
        if tokio::task::spawn_blocking(move || writer.finish())
            .await
            .is_err()
        {
            error!("the last changes may not be saved");
        }
        self.effects
            .progress
            .send_modify(|progress| progress.ended = Some(problem.map_or(Ok(()), Err)));
    }
}

/// Writes the log an operator reads. Addresses are for `debug`.
fn note(event: &Event, names: &Names) {
    match event {
        Event::Joined { mesh, .. } => info!(%mesh, "joined"),
        Event::JoinAttemptFailed(problem) => {
            warn!(code = %problem.code, "cannot join yet: {problem}");
        }
        Event::LinkUp { node, endpoint, .. } => {
            let node = names.spoken(*node);
            info!(node, "link up");
            debug!(node, %endpoint, "link up");
        }
        Event::LinkDown { node, reason } => {
            info!(node = names.spoken(*node), %reason, "link down");
        }
        Event::MemberJoined { node, .. } => info!(node = names.spoken(*node), "member joined"),
        Event::MemberLeft { node } => info!(node = names.spoken(*node), "member left"),
        Event::PathChanged {
            node,
            to,
            via,
            reason,
            ..
        } => {
            let (node, via) = (names.spoken(*node), via.map(|via| names.spoken(via)));
            info!(node, path = ?to, via, %reason, "another path");
        }
        Event::Problem(problem) => warn!(code = %problem.code, "{problem}"),
        Event::SessionUp { node } => debug!(node = names.spoken(*node), "session up"),
        Event::SessionDown { node } => debug!(node = names.spoken(*node), "session down"),
    }
}

#[cfg(test)]
mod tests;
