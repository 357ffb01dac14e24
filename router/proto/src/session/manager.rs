//! Holds the sessions with every peer: says when to make, use and wipe keys.
//!
//! ```text
//!   want ─▶ INITIATE ──────────────▶ InstallReceiving, RESPOND
//!           Install, Up ◀──────────
//!           CONFIRM ═══════════════▶ Up: sends by the keys too          ══ inside the session
//!           old keys wiped in 10 s ◀═ CONFIRMED, old keys wiped in 10 s
//! ```
//!
//! Drive it like every machine: a `handle_*` method or [`Sessions::want`] when something happened, then
//! [`Sessions::poll_output`] until `None`, then [`Sessions::handle_timeout`] at [`Sessions::poll_timeout`]. The methods
//! take their [`Surroundings`] each time, because the rest of the router uses them too.
//!
//! **Invariant.** Whatever a node sends by, its peer can receive by: the responder receives under new keys before it
//! answers and sends by them only after something arrived under them, and nobody wipes the keys before until the other
//! side is known to have left them. No keys live longer than 180 s after their handshake, used or not.
//! **Failure policy.** A lost message is repeated as it was (300 ms, doubling to 5 s) while somebody wants the session;
//! a message that is not authentic, not for us or not new is counted and changes nothing.

use std::collections::BTreeMap;
use std::time::Instant;

use weft_types::{Boot, NodeId};

use super::around::{Counters, Output, Shared, Surroundings, Via};
use super::handshake::Local;
use super::message::{self, Message};
use super::peer;
use crate::keys::Cipher;

/// The sessions with every peer.
pub struct Sessions {
    peers: BTreeMap<NodeId, peer::PeerSessions>,
    shared: Shared,
}

impl Sessions {
    /// Begins without any.
    pub fn new(local: Local) -> Self {
        Self {
            peers: BTreeMap::new(),
            shared: Shared::new(local),
        }
    }

    /// Steps to another run of this node: what the last one agreed to is void at both ends.
    pub fn set_boot(&mut self, boot: Boot, around: &mut Surroundings<'_>) {
        for sessions in self.peers.values_mut() {
            sessions.close(&mut self.shared, around);
        }
        self.shared.local.boot = boot;
    }

    /// Somebody has a frame for `peer` and no session to send it in. Say it again as long as it is so.
    pub fn want(&mut self, peer: NodeId, around: &mut Surroundings<'_>, now: Instant) {
        if peer == self.shared.local.node || around.directory.facts(peer).is_none() {
            return;
        }
        self.peers
            .entry(peer)
            .or_insert_with(|| peer::PeerSessions::new(peer))
            .want(&mut self.shared, around, now);
    }

    /// Frames went to the peer, or came from it. Saying it every few seconds is enough.
    pub fn note_used(&mut self, peer: NodeId, now: Instant) {
        if let Some(sessions) = self.peers.get_mut(&peer) {
            sessions.note_used(now);
        }
    }

    /// Takes a message. One that makes no sense is counted.
    pub fn handle_message(
        &mut self,
        from: NodeId,
        bytes: &[u8],
        via: Via,
        around: &mut Surroundings<'_>,
        now: Instant,
    ) {
        let Ok(message) = message::decode(bytes) else {
            self.shared.counters.failures += 1;
            return;
        };
        // Only a first message from a member begins a peer's state, so strangers cost no memory.
        if let Message::Initiate(_) = message
            && from != self.shared.local.node
            && around.directory.facts(from).is_some()
        {
            self.peers
                .entry(from)
                .or_insert_with(|| peer::PeerSessions::new(from));
        }
        if let Some(sessions) = self.peers.get_mut(&from) {
            sessions.handle_message(message, via, &mut self.shared, around, now);
        }
    }

    /// The peer is unreachable: wipe what there is with it. [`Self::peer_back`] is to follow when it is reachable again.
    pub fn peer_gone(&mut self, peer: NodeId, around: &mut Surroundings<'_>) {
        if let Some(sessions) = self.peers.get_mut(&peer) {
            sessions.close(&mut self.shared, around);
        }
    }

    /// The peer is reachable again. It may not have noticed that it was not, and would go on sending in a session that is
    /// wiped here: so one that was is made anew.
    pub fn peer_back(&mut self, peer: NodeId, around: &mut Surroundings<'_>, now: Instant) {
        if let Some(sessions) = self.peers.get_mut(&peer) {
            sessions.back(&mut self.shared, around, now);
        }
    }

    /// The peer is no member any more: wipe what there is with it and forget it.
    pub fn peer_removed(&mut self, peer: NodeId, around: &mut Surroundings<'_>) {
        self.peer_gone(peer, around);
        self.peers.remove(&peer);
    }

    /// The peer runs as `boot` from here on: sessions with an earlier run of it are void.
    pub fn peer_restarted(&mut self, peer: NodeId, boot: Boot, around: &mut Surroundings<'_>) {
        if let Some(sessions) = self.peers.get_mut(&peer) {
            sessions.void_before(boot, &mut self.shared, around);
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.shared.outputs.pop_front()
    }

    /// When to call [`Self::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.peers
            .values()
            .filter_map(peer::PeerSessions::deadline)
            .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, around: &mut Surroundings<'_>, now: Instant) {
        for sessions in self.peers.values_mut() {
            sessions.handle_timeout(&mut self.shared, around, now);
        }
    }

    /// Whether there is a session to send in.
    pub fn is_up(&self, peer: NodeId) -> bool {
        self.peers
            .get(&peer)
            .is_some_and(|sessions| sessions.cipher().is_some())
    }

    /// What the session with a peer is sealed with, if there is one.
    pub fn cipher(&self, peer: NodeId) -> Option<Cipher> {
        self.peers.get(&peer)?.cipher()
    }

    /// What was counted since the start.
    pub const fn counters(&self) -> Counters {
        self.shared.counters
    }
}

#[cfg(test)]
mod tests;
