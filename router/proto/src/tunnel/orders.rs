//! What the core says, taken apart into what each half of a tunnel is told.

use std::sync::Arc;

use arrayvec::ArrayVec;
use weft_types::NodeId;

use super::probes::PathQuestion;
use super::sending::{SendSession, SessionChange};
use crate::crypto::seal::Backend;
use crate::io::DataPlane;
use crate::session::SessionKeys;
use crate::sleeve::SessionIndex;
use crate::sleeve::lane::{Part, ReceiveLanes, SendLanes};

/// What the receiving half is told.
pub enum Order {
    /// Datagrams with this index are for the hub.
    AdmitLink(SessionIndex),
    /// Take what came over control connections.
    Arrived(Vec<Vec<u8>>),
    /// Receive by these.
    Install {
        /// From whom.
        peer: NodeId,
        /// Our index of the session.
        index: SessionIndex,
        /// Open.
        lanes: ReceiveLanes,
        /// Promote the sending end once something came.
        held: bool,
    },
    /// Send a message.
    Message {
        /// To whom.
        peer: NodeId,
        /// As the peer's core reads it.
        bytes: Vec<u8>,
    },
    /// Probe a way.
    PathProbe(PathQuestion),
    /// Probe a peer as a frame would.
    Probe {
        /// Which.
        peer: NodeId,
        /// Comes back.
        id: u64,
        /// The frame's bytes.
        size: u16,
    },
    /// Wipe a session.
    Retire(SessionIndex),
    /// Forget a link.
    RetireLink(SessionIndex),
    /// Send messages and probes by another session.
    Session(SessionChange),
}

/// What one command of the core comes to. The receiving half is told first: an answer to what leaves may be quick.
#[derive(Default)]
pub struct Orders {
    /// In order.
    pub inbound: ArrayVec<Order, 2>,
    /// For the half that reads the TAP.
    pub outbound: Option<SessionChange>,
}

impl Orders {
    /// Takes a command apart. `backend` is what seals with a session's keys; they are made here, so that no packet waits
    /// for that.
    pub fn new(command: DataPlane, backend: impl FnOnce(&SessionKeys) -> Backend) -> Self {
        match command {
            DataPlane::AdmitLink(index) => Order::AdmitLink(index).into(),
            DataPlane::Datagrams { datagrams, .. } => Order::Arrived(datagrams).into(),
            DataPlane::Install { peer, keys } => {
                Self::install(peer, &keys, backend(&keys), Begin::AtOnce)
            }
            DataPlane::InstallReceiving { peer, keys } => {
                Self::install(peer, &keys, backend(&keys), Begin::WhenHeard)
            }
            DataPlane::PathProbe {
                peer,
                via,
                slot,
                id,
                datagram,
            } => Order::PathProbe(PathQuestion {
                peer,
                via,
                slot,
                id,
                datagram,
            })
            .into(),
            DataPlane::Probe { peer, id, size } => Order::Probe { peer, id, size }.into(),
            DataPlane::Retire { index } => Self {
                inbound: [Order::Retire(index)].into_iter().collect(),
                outbound: Some(SessionChange::Retire { index }),
            },
            DataPlane::RetireLink(index) => Order::RetireLink(index).into(),
            DataPlane::SessionMessage { peer, bytes } => Order::Message { peer, bytes }.into(),
        }
    }

    fn install(peer: NodeId, keys: &SessionKeys, backend: Backend, begin: Begin) -> Self {
        let refused = Arc::default();
        let change = |part| {
            let session = SendSession {
                local: keys.local,
                lanes: SendLanes::new(keys, part, backend),
                refused: Arc::clone(&refused),
            };
            match begin {
                Begin::AtOnce => SessionChange::Install { peer, session },
                Begin::WhenHeard => SessionChange::Hold { peer, session },
            }
        };
        let receive = Order::Install {
            peer,
            index: keys.local,
            lanes: ReceiveLanes::new(keys, backend),
            held: begin == Begin::WhenHeard,
        };
        let send = Order::Session(change(Part::Control));
        Self {
            inbound: [receive, send].into_iter().collect(),
            outbound: Some(change(Part::Frames)),
        }
    }
}

/// When a session is sent by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begin {
    AtOnce,
    WhenHeard,
}

impl From<Order> for Orders {
    fn from(order: Order) -> Self {
        Self {
            inbound: [order].into_iter().collect(),
            outbound: None,
        }
    }
}
