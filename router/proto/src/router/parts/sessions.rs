//! Data sessions, and what they look up in the mesh.

use std::collections::BTreeSet;
use std::time::Instant;

use weft_types::{Boot, NodeId};

use crate::gossip::registers::ENDPOINTS;
use crate::io::{DataPlane, Event};
use crate::router::ground::Reach;
use crate::router::ground::mesh::Mesh;
use crate::session::handshake::MAX_REGISTERS;
use crate::session::{
    Cipher, Counters, Directory, Output, PeerFacts, Sessions, Surroundings, Via, handshake::Local,
};
use crate::unicast::{Body, Unicast};

/// The feature that says that hardware has AES.
const AES: &str = "aes";

/// Data sessions with every peer.
pub(crate) struct DataSessions {
    sessions: Sessions,
    /// What there was a session with since the start: sessions come with frames and go without.
    used: BTreeSet<Cipher>,
}

/// What others may want to know of a session.
pub(crate) enum SessionNews {
    /// One came up, or the last is gone.
    Changed(NodeId),
    /// A peer's endpoints came with its handshake, ahead of its first frame.
    Registers(NodeId, Vec<Vec<u8>>),
    /// Nothing that others do not know already.
    Done,
}

/// What sessions look up.
struct Facts<'a> {
    mesh: &'a Mesh,
    aes: bool,
}

impl Directory for Facts<'_> {
    fn facts(&self, peer: NodeId) -> Option<PeerFacts> {
        let member = self.mesh.membership.member(peer)?;
        let theirs = self.mesh.topology.record(peer)?.has(AES);
        Some(PeerFacts {
            key: member.noise_key,
            cipher: Cipher::between(self.aes, theirs),
        })
    }

    fn registers(&self) -> Vec<Vec<u8>> {
        let own = self.mesh.registers.owned(self.mesh.ourself, ENDPOINTS);
        let mut own: Vec<_> = own.collect();
        // The last ones are those that the other side may not have heard of.
        own.sort_by_key(|signed| std::cmp::Reverse(signed.register().version.sequence));
        let own = own.into_iter().take(MAX_REGISTERS);
        own.map(|signed| signed.signed().encode()).collect()
    }
}

impl DataSessions {
    pub(crate) fn new(local: Local) -> Self {
        Self {
            sessions: Sessions::new(local),
            used: BTreeSet::new(),
        }
    }

    /// Calls the sessions with what they share with the rest.
    fn with(
        &mut self,
        reach: &mut Reach<'_>,
        act: impl FnOnce(&mut Sessions, &mut Surroundings<'_>),
    ) {
        let features = &reach.ground.settings.features;
        let directory = Facts {
            mesh: reach.mesh,
            aes: features.iter().any(|feature| feature == AES),
        };
        let mut around = Surroundings {
            crypto: &mut *reach.ground.crypto,
            indices: &mut reach.ground.indices,
            directory: &directory,
        };
        act(&mut self.sessions, &mut around);
    }

    /// There is a frame for a peer and no session.
    pub(crate) fn want(&mut self, peer: NodeId, reach: &mut Reach<'_>, now: Instant) {
        self.with(reach, |sessions, around| sessions.want(peer, around, now));
    }

    /// Something is about to be sent to a peer. One that has a session keeps it: to want another would renew it each time.
    pub(crate) fn expect(&mut self, peer: NodeId, reach: &mut Reach<'_>, now: Instant) {
        if !self.is_up(peer) {
            self.want(peer, reach, now);
        }
    }

    /// Frames went to a peer, or came from it.
    pub(crate) fn note_used(&mut self, peer: NodeId, now: Instant) {
        self.sessions.note_used(peer, now);
    }

    pub(crate) fn handle_message(
        &mut self,
        from: NodeId,
        bytes: &[u8],
        via: Via,
        reach: &mut Reach<'_>,
        now: Instant,
    ) {
        self.with(reach, |sessions, around| {
            sessions.handle_message(from, bytes, via, around, now)
        });
    }

    /// We step to another run of ours.
    pub(crate) fn set_boot(&mut self, boot: Boot, reach: &mut Reach<'_>) {
        self.with(reach, |sessions, around| sessions.set_boot(boot, around));
    }

    pub(crate) fn peer_back(&mut self, peer: NodeId, reach: &mut Reach<'_>, now: Instant) {
        self.with(reach, |sessions, around| {
            sessions.peer_back(peer, around, now)
        });
    }

    pub(crate) fn peer_gone(&mut self, peer: NodeId, reach: &mut Reach<'_>) {
        self.with(reach, |sessions, around| sessions.peer_gone(peer, around));
    }

    pub(crate) fn peer_removed(&mut self, peer: NodeId, reach: &mut Reach<'_>) {
        self.with(reach, |sessions, around| {
            sessions.peer_removed(peer, around)
        });
    }

    pub(crate) fn peer_restarted(&mut self, peer: NodeId, boot: Boot, reach: &mut Reach<'_>) {
        self.with(reach, |sessions, around| {
            sessions.peer_restarted(peer, boot, around)
        });
    }

    /// Whether frames for a peer can be sealed.
    pub(crate) fn is_up(&self, peer: NodeId) -> bool {
        self.sessions.is_up(peer)
    }

    pub(crate) fn cipher(&self, peer: NodeId) -> Option<Cipher> {
        self.sessions.cipher(peer)
    }

    /// Every cipher that a session has had since the start.
    pub(crate) const fn used(&self) -> &BTreeSet<Cipher> {
        &self.used
    }

    /// What was counted since the start.
    pub(crate) const fn counters(&self) -> Counters {
        self.sessions.counters()
    }

    /// Does the next thing that a session wants done; `None` when there is none.
    pub(crate) fn pump(&mut self, reach: &mut Reach<'_>) -> Option<SessionNews> {
        let ground = &mut *reach.ground;
        match self.sessions.poll_output()? {
            Output::Down { peer } => {
                ground.event(Event::SessionDown { node: peer });
                return Some(SessionNews::Changed(peer));
            }
            Output::Up { peer } => {
                self.used.extend(self.sessions.cipher(peer));
                ground.event(Event::SessionUp { node: peer });
                return Some(SessionNews::Changed(peer));
            }
            Output::Registers { peer, registers } => {
                return Some(SessionNews::Registers(peer, registers));
            }
            Output::Install { peer, keys } => ground.data_plane(DataPlane::Install { peer, keys }),
            Output::InstallReceiving { peer, keys } => {
                ground.data_plane(DataPlane::InstallReceiving { peer, keys })
            }
            Output::Retire { index } => ground.data_plane(DataPlane::Retire { index }),
            Output::SessionMessage { to: peer, bytes } => {
                ground.data_plane(DataPlane::SessionMessage { peer, bytes })
            }
            Output::Unicast { to, bytes } => {
                let body = Body::Session(&bytes).encode();
                reach.route(Unicast::new(reach.mesh.ourself, to, body), None);
            }
        }
        Some(SessionNews::Done)
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.sessions.poll_timeout()
    }

    pub(crate) fn handle_timeout(&mut self, reach: &mut Reach<'_>, now: Instant) {
        self.with(reach, |sessions, around| {
            sessions.handle_timeout(around, now)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::registers::{Register, TOPOLOGY};
    use crate::router::ground::mesh::local;
    use crate::router::testing::{Fixture, boot};

    fn sessions(fixture: &Fixture) -> DataSessions {
        let settings = &fixture.ground.settings;
        DataSessions::new(local(settings, boot(1), fixture.mesh.id))
    }

    #[test]
    fn no_session_is_begun_with_who_has_said_nothing_of_itself() {
        let mut fixture = Fixture::new();
        let (silent, now) = (fixture.admit("b"), fixture.now);
        let (known, _) = fixture.link_to("c", &[]);
        let mut sessions = sessions(&fixture);

        sessions.want(silent, &mut fixture.reach(), now);
        let first = sessions.pump(&mut fixture.reach()).is_some();
        sessions.want(known, &mut fixture.reach(), now);
        let second = sessions.pump(&mut fixture.reach()).is_some();

        assert_eq!((first, second), (false, true));
        assert!(!sessions.is_up(known), "it has not answered");
        assert!(sessions.poll_timeout().is_some_and(|(at, _)| at > now));
    }

    #[test]
    fn a_cipher_for_aes_hardware_needs_it_at_both_ends() {
        let mut fixture = Fixture::new();
        let (with, _) = fixture.link_to("b", &[AES]);
        let (without, _) = fixture.link_to("c", &[]);

        let cipher = |aes, peer| {
            let mesh = &fixture.mesh;
            let facts = Facts { mesh, aes }.facts(peer);
            facts.map(|facts| facts.cipher)
        };

        assert_eq!(cipher(true, with), Some(Cipher::Aes256Gcm));
        assert_eq!(cipher(true, without), Some(Cipher::ChaCha20Poly1305));
        assert_eq!(cipher(false, with), Some(Cipher::ChaCha20Poly1305));
    }

    #[test]
    fn the_endpoints_that_were_announced_last_come_along_first() {
        let mut fixture = Fixture::new();
        let key = fixture.ground.settings.keys.signing().clone();
        let own = &mut fixture.mesh.registers;
        for slot in [5, 9, 7] {
            own.write(ENDPOINTS, slot, vec![1], &key).expect("news");
        }
        own.write(TOPOLOGY, 7, vec![1], &key).expect("news");

        let (mesh, aes) = (&fixture.mesh, false);
        let along = Facts { mesh, aes }.registers();

        let mut expected: Vec<&Register> = Vec::new();
        for slot in [7, 9, 5] {
            expected.extend(mesh.registers.get(ENDPOINTS, mesh.ourself, slot));
        }
        let own = mesh.registers.owned(mesh.ourself, ENDPOINTS);
        let own: Vec<_> = own.collect();
        let read = along.iter().take(3).map(|bytes| {
            let its = own.iter().find(|it| it.signed().encode() == *bytes);
            its.expect("one of ours").register()
        });
        assert_eq!(read.collect::<Vec<_>>(), expected);
        assert_eq!(along.len(), own.len());
    }
}
