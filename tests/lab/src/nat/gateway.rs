//! Decides what becomes of each frame that reaches a gateway from either side.
//!
//! Pure: frames and time come in, frames go out.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

use weft_kernel::packet::Offload;

use super::neighbours::Neighbours;
use super::packet::{End, Flow, Packet, Sight};
use super::profile::{NatCounters, NatProfile};
use super::table::{Protocol, Table, socket};

/// Which side of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Inside,
    Outside,
}

/// A box with two sides and a table between them.
#[derive(Debug)]
pub(super) struct Gateway {
    counters: NatCounters,
    hairpin: bool,
    inside: Neighbours,
    outside: Neighbours,
    table: Table,
}

/// Why a packet goes nowhere, for the counter of it.
enum Refusal {
    Filtered,
    Foreign,
    Unroutable,
}

impl Gateway {
    pub(super) fn new(
        inside: Neighbours,
        outside: Neighbours,
        seed: u64,
        profile: NatProfile,
    ) -> Self {
        Self {
            counters: NatCounters::default(),
            hairpin: profile.hairpin,
            inside,
            outside,
            table: Table::new(seed, profile),
        }
    }

    pub(super) fn counters(&self) -> NatCounters {
        self.counters
    }

    pub(super) fn mappings(&self, now: Instant) -> usize {
        self.table.len(now)
    }

    /// Forgets every mapping.
    pub(super) fn forget(&mut self) {
        self.table.clear();
    }

    /// Takes a frame from one side, and returns what to send on which.
    pub(super) fn take(
        &mut self,
        side: Side,
        frame: &[u8],
        offload: &Offload,
        now: Instant,
    ) -> Vec<(Side, Vec<u8>)> {
        let neighbours = self.side(side);
        let Some(packet) = neighbours.packet(frame) else {
            let answers = neighbours.hear(frame);
            return answers.into_iter().map(|answer| (side, answer)).collect();
        };
        // Bundles do not come here: the devices before us cut them.
        let parsed = Packet::parse(packet).filter(|_| offload.segmentation().is_none());
        let Some(mut packet) = parsed else {
            self.counters.foreign += 1;
            return Vec::new();
        };
        packet.finish(offload);
        let outcome = match side {
            Side::Inside => self.outwards(&mut packet, now),
            Side::Outside => self.inwards(&mut packet, now),
        };
        let (side, to) = match outcome {
            Ok(way) if packet.hop() => way,
            Ok(_) | Err(Refusal::Unroutable) => {
                self.counters.unroutable += 1;
                return Vec::new();
            }
            Err(Refusal::Filtered) => {
                self.counters.filtered += 1;
                return Vec::new();
            }
            Err(Refusal::Foreign) => {
                self.counters.foreign += 1;
                return Vec::new();
            }
        };
        self.counters.translated += 1;
        let frames = self.side(side).send(to, packet.into_bytes(), now);
        frames.into_iter().map(|frame| (side, frame)).collect()
    }

    /// Returns what is due to be sent on which side without a frame that causes it.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<(Side, Vec<u8>)> {
        let mut out = Vec::new();
        for side in [Side::Inside, Side::Outside] {
            let questions = self.side(side).handle_timeout(now);
            out.extend(questions.into_iter().map(|question| (side, question)));
        }
        out
    }

    /// Translates a packet from inside, and returns where it goes.
    fn outwards(&mut self, packet: &mut Packet, now: Instant) -> Result<(Side, Ipv4Addr), Refusal> {
        match packet.sight().ok_or(Refusal::Foreign)? {
            Sight::Error { to, about, .. } => {
                self.leads_out(to)?;
                // About what came from there to somebody inside.
                let port = self
                    .table
                    .known_as(about.protocol, about.to, about.from, now)
                    .ok_or(Refusal::Filtered)?;
                packet.set_error(End::Source, self.public(port));
                Ok((Side::Outside, to))
            }
            Sight::Flow(flow) => {
                // Nobody outside has asked.
                if flow.protocol == Protocol::Echo && flow.from.port() == 0 {
                    return Err(Refusal::Filtered);
                }
                if *flow.to.ip() == self.outside.address() {
                    return self.around(packet, flow, now);
                }
                self.leads_out(*flow.to.ip())?;
                let port = self
                    .table
                    .out(flow.protocol, flow.from, flow.to, now)
                    .ok_or(Refusal::Filtered)?;
                packet.set(End::Source, self.public(port));
                Ok((Side::Outside, *flow.to.ip()))
            }
        }
    }

    /// Translates a packet from outside, and returns where it goes.
    fn inwards(&self, packet: &mut Packet, now: Instant) -> Result<(Side, Ipv4Addr), Refusal> {
        match packet.sight().ok_or(Refusal::Foreign)? {
            Sight::Error { to, about, .. } => {
                // About what somebody inside has sent.
                if to != self.outside.address() {
                    return Err(Refusal::Filtered);
                }
                let host = self
                    .table
                    .back(about.protocol, about.from.port(), about.to, now)
                    .ok_or(Refusal::Filtered)?;
                packet.set_error(End::Target, host);
                Ok((Side::Inside, *host.ip()))
            }
            Sight::Flow(flow) => {
                if *flow.to.ip() != self.outside.address() {
                    return Err(Refusal::Filtered);
                }
                let host = self
                    .table
                    .back(flow.protocol, flow.to.port(), flow.from, now)
                    .ok_or(Refusal::Filtered)?;
                packet.set(End::Target, host);
                Ok((Side::Inside, *host.ip()))
            }
        }
    }

    /// Turns a packet round that somebody inside sends to somebody inside by the outer address (RFC 4787 §6).
    fn around(
        &mut self,
        packet: &mut Packet,
        flow: Flow,
        now: Instant,
    ) -> Result<(Side, Ipv4Addr), Refusal> {
        if !self.hairpin || flow.protocol == Protocol::Echo {
            return Err(Refusal::Filtered);
        }
        let port = self
            .table
            .out(flow.protocol, flow.from, flow.to, now)
            .ok_or(Refusal::Filtered)?;
        let source = self.public(port);
        let host = self
            .table
            .back(flow.protocol, flow.to.port(), source, now)
            .ok_or(Refusal::Filtered)?;
        packet.set(End::Source, source);
        packet.set(End::Target, host);
        Ok((Side::Inside, *host.ip()))
    }

    fn leads_out(&self, to: Ipv4Addr) -> Result<(), Refusal> {
        if self.inside.spans(to) || !self.outside.reaches(to) {
            Err(Refusal::Unroutable)
        } else {
            Ok(())
        }
    }

    fn public(&self, port: u16) -> SocketAddrV4 {
        socket(self.outside.address(), port)
    }

    fn side(&mut self, side: Side) -> &mut Neighbours {
        match side {
            Side::Inside => &mut self.inside,
            Side::Outside => &mut self.outside,
        }
    }
}
