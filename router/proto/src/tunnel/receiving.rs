//! The receiving end of one session, and what is said of what comes out of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use weft_types::NodeId;

use super::chatter::{Chatter, Load};
use super::counters::PeerCell;
use super::ports::Turn;
use super::report::Report;
use super::said::{Said, is_due};
use crate::io::Direction;
use crate::sleeve::fragment::Rejoiner;
use crate::sleeve::lane::ReceiveLanes;
use crate::sleeve::payload::{self, Kind};

/// A session's receiving end.
pub(super) struct Session {
    pub(super) peer: NodeId,
    /// Where the peer is in the snapshot, if it is.
    pub(super) position: Option<usize>,
    pub(super) lanes: ReceiveLanes,
    pub(super) rejoiner: Rejoiner,
    heard: Option<(SocketAddr, Instant)>,
    pub(super) said: Said,
    chatter: Chatter,
    /// Nothing came yet, and sending waits for that.
    pub(super) held: bool,
    pub(super) cell: Arc<PeerCell>,
}

/// What a session begins with.
pub(super) struct Beginning {
    pub(super) peer: NodeId,
    pub(super) position: Option<usize>,
    pub(super) lanes: ReceiveLanes,
    pub(super) said: Said,
    pub(super) held: bool,
    pub(super) cell: Arc<PeerCell>,
}

impl Session {
    pub(super) fn new(beginning: Beginning, now: Instant) -> Self {
        let Beginning {
            peer,
            position,
            lanes,
            said,
            held,
            cell,
        } = beginning;
        Self {
            peer,
            position,
            lanes,
            rejoiner: Rejoiner::default(),
            heard: None,
            said,
            chatter: Chatter::new(now),
            held,
            cell,
        }
    }

    /// Says now and then that frames come: `kind` is that of the payload `plain`, and `of` that of the whole if it is a
    /// piece of one.
    pub(super) fn say(&mut self, (kind, of): (Kind, Kind), plain: &[u8], turn: &mut Turn<'_>) {
        let chatter = &mut self.chatter;
        let now = turn.now;
        let about = (self.peer, Direction::Received);
        match (kind, of) {
            (Kind::Frames, _) => {
                let body = &plain[payload::LEN..];
                self.said.say(about, || chatter.judge_body(body, now), turn);
            }
            // A frame that fills more than one datagram.
            (Kind::Car, _) | (Kind::Piece, Kind::Frames) => {
                self.said.say(about, || Load::Traffic, turn);
            }
            _ => {}
        }
    }

    /// Says from where the peer is heard: at first, when that changes, and now and then.
    pub(super) fn hear(&mut self, from: SocketAddr, turn: &mut Turn<'_>) {
        let heard = self.heard.filter(|(last, _)| *last == from);
        if !is_due(heard.map(|(_, at)| at), turn.now) {
            return;
        }
        let peer = self.peer;
        if turn.ports.report(Report::Heard { peer, from }) {
            self.heard = Some((from, turn.now));
        }
    }
}
