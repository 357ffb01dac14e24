//! The machine made of all the others: one whole router, without its sockets, disk and clock.
//!
//! ```text
//!   Starting ──boot counter durable──▶ Joining ──Welcome──▶ Member ──▶ Halted
//!       │                                                    ▲
//!       ├──────────── a mesh in the store, or created ───────┘
//!       └──▶ Outside: in no mesh, and asked to join none
//! ```
//!
//! Call [`Router::handle_input`] when something happened, then [`Router::poll_output`] until `None`, then sleep until
//! [`Router::poll_timeout`] and call [`Router::handle_timeout`].
//!
//! `ground` is what everything stands on; `parts` are what a member does, each by itself; `member` puts them together and is
//! the only one that knows them all; `joiner` is a node that is not in yet; `start` makes them of what was saved; `report`
//! tells people. [`crate::gossip::channels`] says which channels there are.
//!
//! **Invariant.** Nothing leaves before the boot counter is durable. Nobody is told of a record, a token or an address
//! before it is durable.

mod config;
mod ground;
#[cfg(feature = "seeded")]
mod inspect;
mod joiner;
mod member;
mod parts;
mod report;
mod saved;
mod start;
#[cfg(test)]
mod testing;

use std::collections::VecDeque;
use std::time::Instant;

use weft_types::{Code, Problem};

use crate::dialer::DialError;
use crate::handshake::Keyring;
use crate::io::{Command, ConnId, Input, Output, Reply, RequestId, Ticket};
use ground::Ground;
use ground::conn::ConnEvent;
use ground::own_log::too_early;
use ground::saves::Part;
use joiner::Joiner;
use member::Member;

pub use config::{Intent, RouterConfig};
pub use saved::{SavedMesh, first_changes, last_boot, saved_node};

/// How many inputs wait for the boot counter: a start takes milliseconds.
const MAX_DEFERRED: usize = 256;

/// One whole router.
pub struct Router {
    ground: Ground,
    life: Life,
}

/// What a router is.
enum Life {
    /// It cannot go on. Final.
    Halted,
    /// It waits for its welcome.
    Joining(Box<Joiner>),
    /// It is in a mesh.
    Member(Box<Member>),
    /// It is in no mesh, and asked to join none.
    Outside,
    /// The boot counter is not durable yet.
    Starting(Box<Starting>),
}

/// A router whose boot counter is not durable yet.
struct Starting {
    ticket: Ticket,
    deferred: VecDeque<Input>,
    then: Life,
}

impl Router {
    fn starting(ground: Ground, ticket: Ticket, then: Life) -> Self {
        let deferred = VecDeque::new();
        let life = Life::Starting(Box::new(Starting {
            ticket,
            deferred,
            then,
        }));
        Self { ground, life }
    }

    /// Takes in what happened.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        self.dispatch(input, now);
        self.settle(now);
    }

    /// Gives out what shall happen, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.ground.poll_output()
    }

    /// Says when it wants to be woken, and for what.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let own = match &self.life {
            Life::Halted | Life::Starting(_) => return None,
            Life::Joining(_) | Life::Outside => None,
            Life::Member(member) => member.poll_timeout(),
        };
        own.into_iter().chain(self.ground.poll_timeout()).min()
    }

    /// Wakes it.
    pub fn handle_timeout(&mut self, now: Instant) {
        let ground = &mut self.ground;
        if matches!(self.life, Life::Halted | Life::Starting(_)) {
            return;
        }
        ground.dialer.handle_timeout(&mut *ground.crypto, now);
        ground.wake_channels(now);
        self.look_at_conns(now);
        let ground = &mut self.ground;
        match &mut self.life {
            Life::Joining(joiner) => joiner.handle_timeout(ground, now),
            Life::Member(member) => member.step(ground).handle_timeout(now),
            Life::Halted | Life::Outside | Life::Starting(_) => {}
        }
        self.look_at_conns(now);
        self.settle(now);
    }

    fn dispatch(&mut self, input: Input, now: Instant) {
        let ground = &mut self.ground;
        match &mut self.life {
            Life::Halted => {}
            Life::Joining(joiner) => joiner.handle_input(input, ground, now),
            Life::Member(member) => member.step(ground).handle_input(input, now),
            Life::Outside => handle_outside(input, ground, now),
            Life::Starting(starting) => {
                if let Some(woken) = starting.handle_input(input, ground) {
                    self.wake(woken, now);
                }
            }
        }
        self.look_at_conns(now);
    }

    /// The boot counter is durable: begin.
    fn wake(&mut self, (then, deferred): (Life, VecDeque<Input>), now: Instant) {
        self.life = then;
        if let Life::Member(member) = &mut self.life {
            let mut step = member.step(&mut self.ground);
            step.ask_for_own_log(now);
            step.begin(now);
            self.ground.dialer.hurry(now);
        }
        for input in deferred {
            self.dispatch(input, now);
        }
    }

    /// Acts upon what connections have brought.
    fn look_at_conns(&mut self, now: Instant) {
        while let Some((conn, event)) = self.ground.poll_event() {
            self.conn_event(conn, event, now);
        }
        if self.ground.is_halted() {
            self.life = Life::Halted;
        }
    }

    fn conn_event(&mut self, conn: ConnId, event: ConnEvent, now: Instant) {
        let ground = &mut self.ground;
        if ground.is_halted() {
            return;
        }
        match &mut self.life {
            Life::Joining(joiner) => {
                let Some(admitted) = joiner.conn_event(conn, event, ground, now) else {
                    return;
                };
                let issuer = joiner.issuer.clone();
                match Member::admitted(admitted, issuer, ground, now) {
                    Some(member) => self.life = Life::Member(Box::new(member)),
                    None => joiner.give_up(conn, DialError::NotAdmitted, ground, now),
                }
            }
            Life::Member(member) => member.step(ground).conn_event(conn, event, now),
            Life::Halted | Life::Outside | Life::Starting(_) => {}
        }
    }

    /// Lets everything say what it wants until nothing wants anything.
    fn settle(&mut self, now: Instant) {
        let ground = &mut self.ground;
        match &mut self.life {
            Life::Joining(joiner) => while joiner.pump_dialer(ground) {},
            Life::Member(member) => member.step(ground).settle(now),
            Life::Outside => {
                while let Some(output) = ground.dialer.poll_output() {
                    let _ = ground.dialer_wants(output);
                }
            }
            Life::Halted | Life::Starting(_) => {}
        }
        self.look_at_conns(now);
    }

    fn member(&self) -> Option<&Member> {
        match &self.life {
            Life::Member(member) => Some(member),
            Life::Starting(starting) => match &starting.then {
                Life::Member(member) => Some(member),
                Life::Halted | Life::Joining(_) | Life::Outside | Life::Starting(_) => None,
            },
            Life::Halted | Life::Joining(_) | Life::Outside => None,
        }
    }
}

impl Starting {
    /// Keeps what happens for later; gives what is to live by once the boot counter is durable.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever else happens is put off"
    )]
    fn handle_input(
        &mut self,
        input: Input,
        ground: &mut Ground,
    ) -> Option<(Life, VecDeque<Input>)> {
        match input {
            Input::Saved { ticket } if ticket == self.ticket => {
                ground.saved(ticket);
                let then = std::mem::replace(&mut self.then, Life::Halted);
                return Some((then, std::mem::take(&mut self.deferred)));
            }
            // Without a boot counter on disk there is nothing to run on.
            Input::SaveFailed { problem, .. } => ground.halt(problem),
            input => self.defer(input, ground),
        }
        None
    }

    /// A driver that has more to say than is kept before it has saved eight bytes has a dead disk.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "only who waits for an answer is told"
    )]
    fn defer(&mut self, input: Input, ground: &mut Ground) {
        if self.deferred.len() < MAX_DEFERRED {
            return self.deferred.push_back(input);
        }
        match input {
            Input::Accepted { conn, .. } => ground.push(Output::Close { conn }),
            Input::Command { id, .. } => ground.reply(id, Reply::Failed(too_early())),
            _ => {}
        }
    }
}

impl Joiner {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what is alike in all lives without a mesh is matched whole there"
    )]
    fn handle_input(&mut self, input: Input, ground: &mut Ground, now: Instant) {
        match input {
            Input::Accepted { conn, from } => {
                let ourself = self.ourself(ground);
                ground.accept(conn, from, ourself, now);
            }
            Input::Closed { conn } => self.closed(conn, ground, now),
            Input::ConnectFailed { conn, why } => self.connect_failed(conn, why, ground, now),
            Input::Connected { conn } => self.connected(conn, ground, now),
            Input::GenesisChecked { conn, verdict } => self.genesis_checked(conn, verdict, ground),
            Input::Saved { ticket } => {
                if ground.saved(ticket) == Some(Part::Clones)
                    && let Some(boot) = ground.stepped(ticket)
                {
                    self.close_all(ground, now);
                    ground.boot = boot;
                }
            }
            input => handle_alike(input, ground, now),
        }
    }
}

/// What happens to a node that is in no mesh, and asked to join none: it has nothing to say to anybody.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is alike in all lives without a mesh is matched whole there"
)]
fn handle_outside(input: Input, ground: &mut Ground, now: Instant) {
    match input {
        Input::Accepted { conn, .. } => ground.push(Output::Close { conn }),
        Input::Connected { conn } => ground.close(conn),
        Input::Closed { conn } => {
            ground.closed(conn, now);
        }
        Input::ConnectFailed { conn, why } => {
            if ground.conns.remove(&conn).is_some() {
                ground.led_nowhere(conn, DialError::Connect(why), now);
            }
        }
        Input::Saved { ticket } => {
            ground.saved(ticket);
        }
        input => handle_alike(input, ground, now),
    }
}

/// What is the same in all lives without a mesh.
fn handle_alike(input: Input, ground: &mut Ground, now: Instant) {
    match input {
        Input::Command { id, command } => command_outside(id, command, ground, now),
        Input::LocalAddresses(addresses) => {
            ground.set_local_addresses(addresses);
        }
        Input::Received { conn, bytes } => {
            ground.received(conn, &bytes, &mut Keyring::default(), now);
        }
        Input::Resolved { target, addresses } => ground.resolved(&target, addresses, now),
        Input::SaveFailed { ticket, problem } => {
            if ground.save_failed(ticket, &problem, now).is_some() {
                ground.halt(problem);
            }
        }
        Input::Sent { conn, bytes } => ground.sent(conn, bytes),
        // There is no data plane, and nothing was asked for, before there is a mesh.
        Input::Accepted { .. }
        | Input::ByControl { .. }
        | Input::Chatter { .. }
        | Input::Closed { .. }
        | Input::ConnectFailed { .. }
        | Input::Connected { .. }
        | Input::GenesisChecked { .. }
        | Input::Heard { .. }
        | Input::LinkDatagram { .. }
        | Input::PathAnswered(_)
        | Input::ProbeAnswered { .. }
        | Input::Saved { .. }
        | Input::SessionMessage { .. }
        | Input::SessionWanted { .. }
        | Input::TooBig { .. }
        | Input::Traffic { .. } => {}
    }
}

fn command_outside(id: RequestId, command: Command, ground: &mut Ground, now: Instant) {
    let done = match command {
        Command::Connect { targets } => {
            ground.connect(id, targets, now);
            Ok(())
        }
        Command::Forget { targets } => ground.forget(id, &targets),
        Command::Retry => {
            ground.retry(id, now);
            Ok(())
        }
        Command::Attach { .. }
        | Command::Detach { .. }
        | Command::Leave
        | Command::Ping { .. }
        | Command::TokenCreate { .. }
        | Command::TokenRevoke { .. }
        | Command::Trace { .. } => Err(not_joined()),
    };
    if let Err(problem) = done {
        ground.reply(id, Reply::Failed(problem));
    }
}

fn not_joined() -> Problem {
    Problem::new(Code::NotJoined, "this node is in no mesh yet")
        .fix("`weft up` begins one, `weft join` joins one")
}

#[cfg(test)]
mod tests {
    use super::testing::{creator, origin};
    use super::*;

    #[test]
    fn a_command_that_cannot_wait_for_the_boot_counter_is_answered() {
        let now = origin();
        let mut router = creator(now);
        let retry = |number| Input::Command {
            id: RequestId(number),
            command: Command::Retry,
        };
        let kept = MAX_DEFERRED as u64;
        let mut refused = Vec::new();

        for number in 0..=kept {
            router.handle_input(retry(number), now);
        }
        while let Some(output) = router.poll_output() {
            if let Output::Reply { id, reply } = output {
                refused.push((id, matches!(reply, Reply::Failed(_))));
            }
        }

        assert_eq!(refused, [(RequestId(kept), true)]);
    }
}
