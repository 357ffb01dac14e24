//! TCP connections: from the first byte until they are a member's link, or over.
//!
//! ```text
//!   Handshaking ─▶ Joining (we hold a token) ─────────────────▶ Linked ─▶ closed
//!        │  └────▶ Admitting (they hold one) ──────────────────▶ │
//!        └───────▶ Proving (we do not know them yet) ──────────▶ │
//! ```
//!
//! *Proving* is for a member whose admission has not reached us: it holds the door key, so it may bring the records that
//! prove it. All it can send until then is membership.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_types::{Code, NodeId, Problem};

use super::Router;
use crate::control::{ControlMessage, Refused};
use crate::dialer::{DialError, DialerOutput, LetGo};
use crate::gossip::exchange::Exchange;
use crate::handshake::{
    ChannelOutput, ControlChannel, HandshakeError, Keyring, Other, Ourself, Refusal,
};
use crate::io::{ConnId, ConnectError, Event, Output};
use crate::membership::{MembershipDelta, Standing};
use crate::wire::preface::Repr;

/// How long an unknown member may take to bring its admission.
const PROOF: Duration = Duration::from_secs(3);
/// How long a joiner waits for its welcome: the introducer may have to ask the creator.
const WELCOME: Duration = Duration::from_secs(8);
/// How long we are refused as a clone before we believe it: longer than any link takes to notice silence.
const CLONE_PATIENCE: Duration = Duration::from_secs(3);
/// Messages of a link that came before we were ready for it, in bytes.
const MAX_EARLY: usize = 2 << 20;

/// One TCP connection.
pub(super) struct Conn {
    pub(super) channel: Option<ControlChannel>,
    /// Where it leads, or where it came from.
    pub(super) remote: SocketAddr,
    pub(super) other: Option<Other>,
    pub(super) stage: Stage,
    /// Bytes given to the driver that have not left yet.
    pub(super) unsent: usize,
    /// What a link sent before we were ready for it.
    pub(super) early: Vec<Vec<u8>>,
    /// What is exchanged with a node that must prove to be a member.
    pub(super) proof: Option<Exchange<MembershipDelta>>,
    /// It is closed from our side: nothing that comes on it counts any more.
    pub(super) closing: bool,
    refused: bool,
    /// The driver was told that a stranger is none.
    told: bool,
}

/// A letter to the creator that asks for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) request: u64,
    /// When it is said again: letters get lost while the mesh learns who is where.
    pub(super) again_at: Instant,
}

/// How far a connection is.
pub(super) enum Stage {
    /// The TCP connection is being made.
    Dialling,
    Handshaking,
    /// A joiner waits for an address, or for its admission to be durable.
    Admitting {
        request: Option<Asked>,
        until: Instant,
    },
    /// We wait for our welcome, or for it to be durable.
    Joining {
        until: Instant,
    },
    /// A member's, in use.
    Linked,
    /// A member at the door: one of us may have to bring the records that prove it, and a dialler waits for the first
    /// word of a link, which tells that the listener took it (`confirmed`).
    Proving {
        until: Instant,
        confirmed: bool,
    },
}

impl Conn {
    fn new(remote: SocketAddr, stage: Stage) -> Self {
        Self {
            channel: None,
            remote,
            other: None,
            stage,
            unsent: 0,
            early: Vec::new(),
            proof: None,
            closing: false,
            refused: false,
            told: false,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let stage = match &self.stage {
            Stage::Admitting {
                until,
                request: Some(asked),
            } if asked.again_at < *until => Some((asked.again_at, "an address is asked for again")),
            Stage::Admitting { until, .. } => Some((*until, "an admission takes too long")),
            Stage::Joining { until } => Some((*until, "a welcome takes too long")),
            Stage::Proving { until, .. } => Some((*until, "a proof of membership takes too long")),
            Stage::Dialling | Stage::Handshaking | Stage::Linked => None,
        };
        let channel = self.channel.as_ref().and_then(ControlChannel::poll_timeout);
        if self.closing {
            None
        } else {
            [stage, channel].into_iter().flatten().min()
        }
    }
}

impl Router {
    pub(super) fn accept(&mut self, conn: ConnId, from: SocketAddr, now: Instant) {
        let Some(ourself) = self.ourself() else {
            // Whoever is in no mesh has nothing to say to anybody.
            return self.outputs.push_back(Output::Close { conn });
        };
        let mut accepted = Conn::new(from, Stage::Handshaking);
        accepted.channel = Some(ControlChannel::accept(ourself, now));
        self.conns.insert(conn, accepted);
    }

    pub(super) fn pump_dialer(&mut self) -> bool {
        let mut busy = false;
        while let Some(output) = self.dialer.poll_output() {
            busy = true;
            match output {
                DialerOutput::Abandon(conn) => self.close(conn),
                DialerOutput::Dial { conn, to } => {
                    self.conns.insert(conn, Conn::new(to, Stage::Dialling));
                    self.outputs.push_back(Output::Connect { conn, to });
                }
                DialerOutput::Resolve(target) => self.outputs.push_back(Output::Resolve { target }),
                DialerOutput::RoundFailed {
                    target,
                    address,
                    error,
                } => {
                    if self
                        .joining
                        .as_ref()
                        .is_some_and(|joining| joining.is_worth_telling(&target))
                    {
                        let problem = error.problem(&target, address);
                        self.outputs
                            .push_back(Output::Event(Event::JoinAttemptFailed(problem)));
                    }
                }
            }
        }
        busy
    }

    pub(super) fn connect_failed(&mut self, conn: ConnId, why: ConnectError, now: Instant) {
        if self.conns.remove(&conn).is_some() {
            self.led_nowhere(conn, DialError::Connect(why), now);
        }
    }

    pub(super) fn connected(&mut self, conn: ConnId, now: Instant) {
        let Some(ourself) = self.ourself() else {
            return self.close(conn);
        };
        let (asked, secret) = match (&self.mesh, &self.joining) {
            (Some(mesh), _) => match mesh.newest_door_key() {
                Some((id, key)) => (Repr::Member(id), key.clone()),
                None => return self.close(conn),
            },
            (None, Some(joining)) => (Repr::Token(joining.token.id), joining.token.secret.clone()),
            (None, None) => return self.close(conn),
        };
        let Some(dialled) = self.conns.get_mut(&conn) else {
            return self.outputs.push_back(Output::Close { conn });
        };
        dialled.stage = Stage::Handshaking;
        dialled.channel = Some(ControlChannel::dial(
            ourself,
            asked,
            &secret,
            &mut *self.crypto,
            now,
        ));
        self.pump_conn(conn, now);
    }

    pub(super) fn received(&mut self, conn: ConnId, bytes: &[u8], now: Instant) {
        let none = Keyring::default();
        let keyring = self.mesh.as_ref().map_or(&none, |mesh| &mesh.keyring);
        if let Some(Conn {
            channel: Some(channel),
            closing: false,
            ..
        }) = self.conns.get_mut(&conn)
        {
            channel.handle_bytes(bytes, keyring, &mut *self.crypto);
            self.pump_conn(conn, now);
        }
    }

    pub(super) fn sent(&mut self, conn: ConnId, bytes: usize) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.unsent = conn.unsent.saturating_sub(bytes);
        }
    }

    pub(super) fn closed(&mut self, conn: ConnId, now: Instant) {
        let Some(over) = self.conns.remove(&conn) else {
            return;
        };
        if over.closing || matches!(over.stage, Stage::Linked) {
            self.unchoose(conn, now);
        } else {
            // Closed under our hands: by a listener that does not know our secret, if it was before its first word.
            let error = match over.other {
                Some(_) => DialError::Cut,
                None => DialError::ClosedSilently,
            };
            self.led_nowhere(conn, error, now);
        }
        if let Some(other) = over.other
            && matches!(over.stage, Stage::Linked)
        {
            self.link_closed(other.node, conn, now);
        }
    }

    /// Ends a connection from our side.
    pub(super) fn close(&mut self, conn: ConnId) {
        if let Some(open) = self.conns.get_mut(&conn) {
            open.closing = true;
            open.early = Vec::new();
            open.proof = None;
            if matches!(open.stage, Stage::Admitting { .. }) {
                // An answer that comes now is nobody's.
                open.stage = Stage::Handshaking;
            }
        }
        self.outputs.push_back(Output::Close { conn });
    }

    /// Tells the driver, once, that an accepted connection is no stranger's.
    pub(super) fn tell_authenticated(&mut self, conn: ConnId) {
        if let Some(open) = self.conns.get_mut(&conn)
            && !conn.dialled
            && !std::mem::replace(&mut open.told, true)
        {
            self.outputs.push_back(Output::Authenticated { conn });
        }
    }

    /// Ends a connection that led nowhere.
    pub(super) fn give_up(&mut self, conn: ConnId, error: DialError, now: Instant) {
        self.close(conn);
        self.led_nowhere(conn, error, now);
    }

    /// No link comes of a connection: another one may try the token, and the dialer another address.
    fn led_nowhere(&mut self, conn: ConnId, error: DialError, now: Instant) {
        self.unchoose(conn, now);
        if conn.dialled {
            self.dialer
                .handle_failure(conn, error, &mut *self.crypto, now);
        }
    }

    /// Says no under seal, then closes.
    pub(super) fn refuse(&mut self, conn: ConnId, code: Code, now: Instant) {
        self.tell(
            conn,
            &ControlMessage::Refused(Refused {
                code: crate::handshake::Refusal::new(code),
            }),
            now,
        );
        self.close(conn);
    }

    /// Seals a message and sends it.
    pub(super) fn tell(&mut self, conn: ConnId, message: &ControlMessage, now: Instant) {
        if let Some(Conn {
            channel: Some(channel),
            ..
        }) = self.conns.get_mut(&conn)
        {
            channel.send(&message.encode());
        }
        self.pump_conn(conn, now);
    }

    pub(super) fn wake_conns(&mut self, now: Instant) {
        let due = |conn: &Conn| conn.poll_timeout().is_some_and(|(at, _)| at <= now);
        let due: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| due(conn))
            .map(|(&id, _)| id)
            .collect();
        for id in due {
            let Some(conn) = self.conns.get_mut(&id) else {
                continue;
            };
            match conn.stage {
                Stage::Admitting { until, .. } if until <= now => {
                    self.refuse(id, Code::CreatorUnreachable, now)
                }
                Stage::Admitting {
                    request: Some(asked),
                    ..
                } if asked.again_at <= now => {
                    // Without a way now there may be one before the time is up.
                    self.ask_creator(id, asked.request, now);
                }
                Stage::Proving { until, .. } if until <= now && !id.dialled => {
                    self.refuse(id, Code::NotAMember, now);
                }
                Stage::Joining { until } | Stage::Proving { until, .. } if until <= now => {
                    let error = DialError::Handshake(HandshakeError::TimedOut);
                    self.give_up(id, error, now);
                }
                Stage::Admitting { .. }
                | Stage::Dialling
                | Stage::Handshaking
                | Stage::Joining { .. }
                | Stage::Linked
                | Stage::Proving { .. } => {
                    if let Some(channel) = &mut conn.channel {
                        channel.handle_timeout(now);
                    }
                    self.pump_conn(id, now);
                }
            }
        }
    }

    /// What this node says of itself in handshakes; nothing while it neither is nor becomes a member.
    fn ourself(&self) -> Option<Ourself> {
        let (mesh, genesis, wanted) = match (&self.mesh, &self.joining) {
            (Some(mesh), _) => (mesh.id, Some(mesh.genesis.encode()), None),
            (None, Some(joining)) => (
                joining.token.mesh,
                None,
                joining.wanted.map(|wanted| wanted.to_string()),
            ),
            (None, None) => return None,
        };
        Some(Ourself {
            keys: self.settings.keys.clone(),
            mesh,
            boot: self.boot,
            nickname: self.settings.nickname.clone(),
            features: self.settings.features.clone(),
            port: self.settings.port,
            wanted,
            genesis,
        })
    }

    /// Does what a channel wants done.
    pub(super) fn pump_conn(&mut self, id: ConnId, now: Instant) {
        loop {
            let Some(conn) = self.conns.get_mut(&id) else {
                return;
            };
            let Some(output) = conn.channel.as_mut().and_then(ControlChannel::poll_output) else {
                return;
            };
            match output {
                ChannelOutput::Send(bytes) => {
                    conn.unsent += bytes.len();
                    self.outputs.push_back(Output::Send { conn: id, bytes });
                }
                ChannelOutput::Authenticated(other) => self.authenticated(id, *other, now),
                ChannelOutput::GenesisReceived(genesis) => self.genesis_received(id, &genesis, now),
                ChannelOutput::Message(message) => self.message(id, message, now),
                ChannelOutput::Failed(error) => self.failed(id, error, now),
            }
        }
    }

    fn failed(&mut self, id: ConnId, error: HandshakeError, now: Instant) {
        if let HandshakeError::Refused(refusal) = error {
            self.refused(id, refusal.code(), now);
        } else {
            self.give_up(id, DialError::Handshake(error), now);
        }
    }

    /// The other side said no.
    pub(super) fn refused(&mut self, id: ConnId, code: Code, now: Instant) {
        if let Some(conn) = self.conns.get_mut(&id) {
            if conn.refused {
                return;
            }
            conn.refused = true;
        }
        let refusal = Refusal::new(code);
        self.give_up(id, HandshakeError::Refused(refusal).into(), now);
        if self.joining.is_some() {
            if refusal.is_final() {
                self.halt(refusal.problem("the other side"));
            }
        } else if code == Code::Clone {
            // Whoever refuses has another run of this node linked. After a restart that passes with the old run's last
            // heartbeat; a clone's does not.
            let since = *self.refused_as_clone.get_or_insert(now);
            if now >= since + CLONE_PATIENCE
                && !self.mesh.as_ref().is_some_and(super::mesh::Mesh::has_links)
            {
                self.halt(super::clone_problem());
            }
        } else if code == Code::NotAMember
            && self
                .mesh
                .as_ref()
                .is_some_and(|mesh| mesh.is_gone(self.node()))
        {
            self.halt(Problem::new(
                Code::NotAMember,
                "this node was removed from its mesh",
            ));
        }
    }

    fn authenticated(&mut self, id: ConnId, other: Other, now: Instant) {
        let ourself = self.node();
        let (node, boot, asked) = (other.node, other.boot, other.asked);
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.other = Some(other);
        }
        if node == ourself {
            return self.met_ourself(id, boot, now);
        }
        match (asked, id.dialled) {
            (Repr::Token(_), true) => {
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.stage = Stage::Joining {
                        until: now + WELCOME,
                    };
                }
            }
            (Repr::Token(token), false) => self.admit(id, token, now),
            (Repr::Member(_), _) => self.member_at_the_door(id, node, now),
        }
    }

    /// The other end has our own key.
    fn met_ourself(&mut self, id: ConnId, theirs: weft_types::Boot, now: Instant) {
        if theirs.id == self.boot.id {
            self.close(id);
            if id.dialled {
                self.dialer.handle_ourself(id, &mut *self.crypto, now);
            }
            return;
        }
        if let Some(remote) = self.conns.get(&id).map(|conn| conn.remote) {
            self.clone_seen(theirs, remote, None, now);
        }
        if id.dialled {
            self.give_up(id, DialError::LetGo(LetGo::AnotherSelf), now);
        } else {
            self.refuse(id, Code::Clone, now);
        }
        self.meet_ourself(theirs, now);
    }

    fn member_at_the_door(&mut self, id: ConnId, node: NodeId, now: Instant) {
        let Some(mesh) = &self.mesh else {
            return self.close(id);
        };
        match mesh.membership.standing(node) {
            Standing::Member if !id.dialled => self.link_up(id, now),
            Standing::Gone(_) if id.dialled => {
                self.give_up(id, DialError::LetGo(LetGo::NotAMember), now);
            }
            Standing::Gone(_) => self.refuse(id, Code::NotAMember, now),
            standing @ (Standing::Member | Standing::Unknown) => {
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.stage = Stage::Proving {
                        until: now + PROOF,
                        confirmed: false,
                    };
                }
                self.begin_proof(id, now);
                if standing == Standing::Unknown {
                    self.offer_membership(id, now);
                }
            }
        }
    }

    /// Whoever was proving is looked at again: membership has changed.
    pub(super) fn recheck_proving(&mut self, now: Instant) {
        let proving =
            |conn: &super::Conn| matches!(conn.stage, Stage::Proving { .. }) && !conn.closing;
        let waiting: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| proving(conn))
            .map(|(&id, _)| id)
            .collect();
        for id in waiting {
            self.promote(id, now);
        }
    }

    /// Makes a link of who was at the door, if nothing is missing any more.
    fn promote(&mut self, id: ConnId, now: Instant) {
        let Some(conn) = self.conns.get(&id) else {
            return;
        };
        let Stage::Proving { confirmed, .. } = conn.stage else {
            return;
        };
        let node = conn.other.as_ref().map(|other| other.node);
        let standing = node.and_then(|node| Some(self.mesh.as_ref()?.membership.standing(node)));
        if standing == Some(Standing::Member) && (confirmed || !id.dialled) {
            self.link_up(id, now);
        }
    }

    fn message(&mut self, id: ConnId, bytes: Vec<u8>, now: Instant) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        if conn.closing {
            return;
        }
        let message = ControlMessage::decode(&bytes);
        match (&conn.stage, message) {
            (_, Ok(ControlMessage::Refused(refused))) => self.refused(id, refused.code.code(), now),
            (Stage::Linked, Ok(message)) => self.link_message(id, message, now),
            (Stage::Joining { .. }, Ok(ControlMessage::Welcome(welcome))) => {
                self.welcomed(id, *welcome, now)
            }
            (Stage::Proving { .. }, Ok(message)) if message.is_membership() => {
                self.link_message(id, message, now)
            }
            (Stage::Proving { until, .. }, Ok(ControlMessage::LinkKeys(_))) if id.dialled => {
                conn.stage = Stage::Proving {
                    until: *until,
                    confirmed: true,
                };
                conn.early.push(bytes);
                self.promote(id, now);
            }
            // A joiner has nothing to say before it is in.
            (Stage::Admitting { .. }, Ok(_)) => {}
            // The other end is ready before we are: what it says is for the link to come.
            (Stage::Joining { .. } | Stage::Proving { .. }, Ok(_)) => {
                let held: usize = conn.early.iter().map(Vec::len).sum();
                if held + bytes.len() <= MAX_EARLY {
                    conn.early.push(bytes);
                }
            }
            (Stage::Dialling | Stage::Handshaking, Ok(_)) => {}
            // A bad payload costs that payload.
            (_, Err(_)) => {
                if let Some(mesh) = &mut self.mesh {
                    mesh.bad_payloads += 1;
                }
            }
        }
    }

    /// What came too early is said again, in order.
    pub(super) fn replay_early(&mut self, id: ConnId, now: Instant) {
        let early = self
            .conns
            .get_mut(&id)
            .map(|conn| std::mem::take(&mut conn.early))
            .unwrap_or_default();
        for bytes in early {
            self.message(id, bytes, now);
        }
    }
}
