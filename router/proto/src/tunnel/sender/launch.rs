//! Sends datagrams to an address: by one call, or one by one where that is refused.
//!
//! **Failure policy.** What cannot leave at once is dropped and counted, for that peer only; probes are no traffic, and not counted. Where one call for many
//! datagrams is refused, that peer's leave one by one until its path changes.

use std::io::IoSlice;
use std::net::SocketAddr;

use super::super::counters::{Cells, add};
use super::super::ports::{Ports, Refusal};
use super::super::route::Route;
use crate::switch::DropReason;

/// What became of datagrams that were to leave; what is missing was dropped for another reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Departure {
    /// How many have left.
    pub(in super::super) left: usize,
    /// For how many the socket was too full.
    pub(in super::super) refused: usize,
}

/// Whether what cannot leave is counted among the drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Drops {
    /// Somebody misses it.
    Counted,
    /// It is a question of ours, or the answer to one: that it cannot leave is an answer.
    Ours,
}

/// One launch: whose datagrams, where to, and what has become of them so far.
pub(super) struct Launch<'a> {
    pub(super) route: &'a mut Route,
    pub(super) cells: &'a Cells,
    pub(super) to: SocketAddr,
    drops: Drops,
    departure: Departure,
    bytes: usize,
}

impl<'a> Launch<'a> {
    pub(super) fn new(route: &'a mut Route, cells: &'a Cells, to: SocketAddr) -> Self {
        Self {
            route,
            cells,
            to,
            drops: Drops::Counted,
            departure: Departure::default(),
            bytes: 0,
        }
    }

    pub(super) const fn with(self, drops: Drops) -> Self {
        Self { drops, ..self }
    }

    /// Sends datagrams of equal size but the last.
    pub(super) fn send(mut self, ports: &mut dyn Ports, datagrams: &[IoSlice<'_>]) -> Departure {
        if datagrams.len() == 1 || self.route.single {
            self.one_by_one(ports, datagrams);
        } else {
            match ports.send(self.to, datagrams) {
                Ok(()) => self.left(datagrams),
                Err(Refusal::NotTogether) => {
                    self.route.single = true;
                    self.one_by_one(ports, datagrams);
                }
                Err(refusal) => self.refused(refusal, datagrams.len()),
            }
        }
        add(&self.route.cell.tx_bytes, self.bytes);
        add(&self.route.cell.tx_datagrams, self.departure.left);
        self.departure
    }

    fn one_by_one(&mut self, ports: &mut dyn Ports, datagrams: &[IoSlice<'_>]) {
        let mut too_long = usize::MAX;
        for datagram in datagrams {
            if datagram.len() >= too_long {
                self.discard(DropReason::TooLong, 1);
                continue;
            }
            match ports.send(self.to, &[IoSlice::new(datagram)]) {
                Ok(()) => self.left(&[IoSlice::new(datagram)]),
                Err(refusal) => {
                    if refusal == Refusal::TooLong {
                        too_long = datagram.len();
                    }
                    self.refused(refusal, 1);
                }
            }
        }
    }

    fn left(&mut self, datagrams: &[IoSlice<'_>]) {
        self.departure.left += datagrams.len();
        self.bytes += datagrams.iter().map(|one| one.len()).sum::<usize>();
    }

    fn refused(&mut self, refusal: Refusal, count: usize) {
        if refusal == Refusal::Full {
            self.departure.refused += count;
        }
        self.discard(refusal.reason(), count);
    }

    fn discard(&self, reason: DropReason, count: usize) {
        if self.drops == Drops::Ours {
            return;
        }
        self.cells.discard_many(reason, count);
        add(&self.route.cell.tx_dropped, count);
    }
}
