//! Counts what a tunnel does: written without waiting, read at any time.
//!
//! Every number only grows and is written by relaxed atomics; a reader may see one a moment before its neighbour.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use weft_types::NodeId;

use crate::overlay::Slot;
use crate::switch::DropReason;

/// What has crossed the sleeve to and from one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerTraffic {
    /// Bytes of UDP payload that came and were authentic.
    pub rx_bytes: u64,
    /// Datagrams that came and were authentic.
    pub rx_datagrams: u64,
    /// Frames out of its sessions that were dropped because they spoke in another's name.
    pub rx_forged: u64,
    /// Bytes of UDP payload that left.
    pub tx_bytes: u64,
    /// Datagrams that left.
    pub tx_datagrams: u64,
    /// Frames and datagrams for it that were dropped.
    pub tx_dropped: u64,
}

/// What this node has passed on from one member to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// Whom it came from: a relay itself, maybe.
    pub from: NodeId,
    /// Whom it is for in the end.
    pub to: NodeId,
    /// Bytes of UDP payload.
    pub bytes: u64,
    /// Datagrams.
    pub datagrams: u64,
}

/// Everything that was counted since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams that no live session or link has sealed, and whatever else came to the port.
    pub auth_drops: u64,
    /// Datagrams that were authentic, and had been seen or were too old to tell.
    pub replay_drops: u64,
    /// Frames that were not carried, by reason, in the order of [`DropReason::ALL`].
    pub drops: Vec<(DropReason, u64)>,
    /// By peer, in order; peers that are away included.
    pub peers: Vec<(NodeId, PeerTraffic)>,
    /// What was passed on for others, by the member that it came from and the one that it is for.
    pub relayed: Vec<Relayed>,
    /// Reports for the hub that found its queue full.
    pub reports_lost: u64,
}

/// The numbers of one peer.
#[derive(Default)]
pub(super) struct PeerCell {
    pub(super) rx_bytes: AtomicU64,
    pub(super) rx_datagrams: AtomicU64,
    pub(super) rx_forged: AtomicU64,
    pub(super) tx_bytes: AtomicU64,
    pub(super) tx_datagrams: AtomicU64,
    pub(super) tx_dropped: AtomicU64,
    /// Datagrams of frames that left, by the slot of their path.
    pub(super) frames: [AtomicU64; Slot::COUNT as usize],
}

/// What is passed on from one member to another.
#[derive(Default)]
pub(super) struct RelayCell {
    pub(super) bytes: AtomicU64,
    pub(super) datagrams: AtomicU64,
}

/// All numbers of a tunnel: its halves write them, whoever wants to know reads them.
pub struct Cells {
    pub(super) auth_drops: AtomicU64,
    pub(super) replay_drops: AtomicU64,
    reports_lost: AtomicU64,
    drops: Box<[AtomicU64]>,
    /// Locked when a peer appears and when somebody reads, never for a packet.
    peers: Mutex<BTreeMap<NodeId, Arc<PeerCell>>>,
    /// The same; from whom and for whom.
    relayed: Mutex<BTreeMap<(NodeId, NodeId), Arc<RelayCell>>>,
}

pub(super) fn add(cell: &AtomicU64, amount: usize) {
    cell.fetch_add(amount as u64, Relaxed);
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            auth_drops: AtomicU64::new(0),
            replay_drops: AtomicU64::new(0),
            reports_lost: AtomicU64::new(0),
            drops: DropReason::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            peers: Mutex::default(),
            relayed: Mutex::default(),
        }
    }
}

impl Cells {
    /// A frame or datagram was dropped.
    pub fn discard(&self, reason: DropReason) {
        self.discard_many(reason, 1);
    }

    /// Several were.
    pub fn discard_many(&self, reason: DropReason, amount: usize) {
        if let Some(cell) = self.drops.get(reason.index()) {
            add(cell, amount);
        }
    }

    pub(super) fn peer(&self, node: NodeId) -> Arc<PeerCell> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(peers.entry(node).or_default())
    }

    pub(super) fn relay(&self, from: NodeId, to: NodeId) -> Arc<RelayCell> {
        let mut relayed = self.relayed.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(relayed.entry((from, to)).or_default())
    }

    /// A report found the hub's queue full.
    pub fn lose_report(&self) {
        add(&self.reports_lost, 1);
    }

    /// What has been counted so far.
    pub fn read(&self) -> Counters {
        let relayed = self.relayed.lock().unwrap_or_else(PoisonError::into_inner);
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        Counters {
            auth_drops: self.auth_drops.load(Relaxed),
            replay_drops: self.replay_drops.load(Relaxed),
            reports_lost: self.reports_lost.load(Relaxed),
            drops: DropReason::ALL
                .iter()
                .zip(&self.drops)
                .map(|(&reason, cell)| (reason, cell.load(Relaxed)))
                .collect(),
            peers: peers
                .iter()
                .map(|(&node, cell)| (node, cell.read()))
                .collect(),
            relayed: relayed
                .iter()
                .map(|(&(from, to), cell)| Relayed {
                    from,
                    to,
                    bytes: cell.bytes.load(Relaxed),
                    datagrams: cell.datagrams.load(Relaxed),
                })
                .collect(),
        }
    }
}

impl PeerCell {
    fn read(&self) -> PeerTraffic {
        PeerTraffic {
            rx_bytes: self.rx_bytes.load(Relaxed),
            rx_datagrams: self.rx_datagrams.load(Relaxed),
            rx_forged: self.rx_forged.load(Relaxed),
            tx_bytes: self.tx_bytes.load(Relaxed),
            tx_datagrams: self.tx_datagrams.load(Relaxed),
            tx_dropped: self.tx_dropped.load(Relaxed),
        }
    }
}
