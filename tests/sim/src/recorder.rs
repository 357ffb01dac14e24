//! Records what every core of a run puts out, so that two builds can be compared: whether they do the same, and where not.
//!
//! ```text
//!   Output, delivered frame ──▶ a line: when, which node, what ─┬─▶ digest of its kind, digest of all
//!                                                               ├─▶ without time and wording: events, frames
//!                                                               └─▶ the text, where it was asked for
//!   the end of the run ──▶ membership and registers of every node, decoded
//! ```
//!
//! **Strict**: the digest of each kind of output and of all, with times, lengths and hashes of bytes. A change of an encoding
//! changes them. **Lasting**: frames, events, membership, registers ([`LASTING`]), without times, random ids, wording, versions
//! and slots: what users see, which no change of structure or of encoding alters.
//!
//! Lines are written by hand, not by `Debug`, so that renamed and moved types leave them alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Write as _};
use std::time::Duration;

use weft_router_proto::io::Output;
use weft_router_proto::router::Router;
use weft_types::{NodeId, Problem};

use crate::names::{FNV_OFFSET, Names, fnv, told};
use crate::node::NodeIndex;

/// The columns that no change of structure or of encoding alters.
pub const LASTING: [&str; 4] = ["events", "frames", "membership", "registers"];

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Count and digest of each kind of output and of all, and of what lasts: `name=count:digest`, separated by blanks.
    pub columns: String,
    /// Everything, line by line; empty unless it was asked for.
    pub text: String,
}

/// How many lines there were, and what follows from them and their order (FNV-1a, 64 bits: nobody forges here).
#[derive(Clone, Copy)]
struct Tally {
    count: u64,
    hash: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            count: 0,
            hash: FNV_OFFSET,
        }
    }
}

impl Tally {
    fn add(&mut self, line: &str) {
        self.count += 1;
        self.hash = fnv(fnv(self.hash, line.as_bytes()), b"\n");
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:016x}", self.count, self.hash)
    }
}

/// Notes what happens.
#[derive(Default)]
pub(crate) struct Recorder {
    text: Option<String>,
    names: BTreeMap<NodeId, NodeIndex>,
    all: Tally,
    kinds: BTreeMap<&'static str, Tally>,
    /// Of each node in order; nodes are put together in the end, since who is first by a microsecond does not matter.
    events: BTreeMap<NodeIndex, Tally>,
    /// Of each flow, in order of arrival.
    frames: BTreeMap<[NodeIndex; 2], Tally>,
    /// By what the simulation calls a frame: which of which flow it is.
    offered: BTreeMap<u64, ([NodeIndex; 2], u64)>,
    flows: BTreeMap<[NodeIndex; 2], u64>,
}

impl Recorder {
    /// Begins; with `text` it keeps every line.
    pub(crate) fn new(text: bool) -> Self {
        Self {
            text: text.then(String::new),
            ..Self::default()
        }
    }

    /// A router starts: from here on its id is written as its host.
    pub(crate) fn name(&mut self, id: NodeId, index: NodeIndex) {
        self.names.entry(id).or_insert(index);
    }

    /// A core puts something out.
    pub(crate) fn output(&mut self, at: Duration, index: NodeIndex, output: &Output) {
        if let Output::Event(event) = output {
            let line = self.names().event(event);
            self.events.entry(index).or_default().add(&line);
        }
        let (kind, line) = self.names().output(output);
        self.line(at, index, kind, &line);
    }

    /// A core does not start.
    pub(crate) fn refused(&mut self, at: Duration, index: NodeIndex, problem: &Problem) {
        self.line(at, index, "halt", &format!("at start {}", told(problem)));
    }

    /// A frame is handed to a data plane.
    pub(crate) fn offered(&mut self, flow: [NodeIndex; 2], number: u64) {
        let nth = self.flows.entry(flow).or_default();
        *nth += 1;
        self.offered.insert(number, (flow, *nth));
    }

    /// A frame comes out at the other end.
    pub(crate) fn delivered(&mut self, at: Duration, index: NodeIndex, number: u64) {
        let Some(&(flow, nth)) = self.offered.get(&number) else {
            return;
        };
        let line = format!("n{} of n{} number {nth}", index.0, flow[0].0);
        self.frames.entry(flow).or_default().add(&line);
        self.line(
            at,
            index,
            "frame",
            &format!("of n{} number {nth}", flow[0].0),
        );
    }

    fn line(&mut self, at: Duration, index: NodeIndex, kind: &'static str, what: &str) {
        let (secs, nanos) = (at.as_secs(), at.subsec_nanos());
        let line = format!("{secs}.{nanos:09} n{} {kind} {what}", index.0);
        self.all.add(&line);
        self.kinds.entry(kind).or_default().add(&line);
        if let Some(text) = &mut self.text {
            text.push_str(&line);
            text.push('\n');
        }
    }

    const fn names(&self) -> Names<'_> {
        Names(&self.names)
    }

    /// What was noted until here, and how these see the mesh.
    pub(crate) fn close<'a>(&self, cores: impl Iterator<Item = (NodeIndex, &'a Router)>) -> Record {
        let (mut membership, mut registers) = (BTreeSet::new(), BTreeSet::new());
        for (index, core) in cores {
            let by = format!("n{} knows", index.0);
            let members = core
                .membership()
                .map(|known| self.names().membership(known));
            let said = core.registers().map(|known| self.names().registers(known));
            membership.extend(
                members
                    .into_iter()
                    .flatten()
                    .map(|what| format!("{by} {what}")),
            );
            registers.extend(
                said.into_iter()
                    .flatten()
                    .map(|what| format!("{by} {what}")),
            );
        }
        let events = self.events.iter();
        let events = events.map(|(node, tally)| (format!("n{}", node.0), *tally));
        let frames = self.frames.iter();
        let frames = frames.map(|([from, to], tally)| (format!("n{} n{}", from.0, to.0), *tally));
        let mut columns = format!("all={}", self.all);
        for (kind, tally) in &self.kinds {
            let _ = write!(columns, " {kind}={tally}");
        }
        let lasting = [
            together(events),
            together(frames),
            tally(membership.iter().cloned()),
            tally(registers.iter().cloned()),
        ];
        for (name, tally) in LASTING.into_iter().zip(lasting) {
            let _ = write!(columns, " {name}={tally}");
        }
        let mut text = self.text.clone().unwrap_or_default();
        if self.text.is_some() {
            for line in membership.iter().chain(&registers) {
                text.push_str(line);
                text.push('\n');
            }
        }
        Record { columns, text }
    }
}

/// Puts the tallies of parts together: all that they count, and what follows from each.
fn together(parts: impl Iterator<Item = (String, Tally)>) -> Tally {
    let (mut all, mut count) = (Tally::default(), 0);
    for (name, part) in parts {
        all.add(&format!("{name} {part}"));
        count += part.count;
    }
    Tally { count, ..all }
}

fn tally(lines: impl Iterator<Item = String>) -> Tally {
    let mut tally = Tally::default();
    lines.for_each(|line| tally.add(&line));
    tally
}
