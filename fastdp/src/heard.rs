//! Gathers what the kernel tells of within a short time: the last word on each thing.
//!
//! **Invariant.** At most [`MAX_HEARD`] things are held; where more changed, it is only known that much did.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::{Instant, timeout_at};
use weft_kernel::event::alarm;
use weft_kernel::fdb::FdbEntry;
use weft_kernel::monitor::{Change, Monitor};
use weft_kernel::netlink::LinkIndex;
use weft_types::MacAddr;

use crate::check::concerns;

/// How long notices are gathered: a device that appears or goes causes several.
const SETTLE: Duration = Duration::from_millis(100);
/// Entries that notices are gathered of: with more, looking costs less.
const MAX_HEARD: usize = 4096;

/// What was told and not acted upon yet.
#[derive(Default)]
pub(crate) struct Heard {
    /// Whose entries and neighbours are listened to.
    pub(crate) bridge: Option<LinkIndex>,
    /// Routes to which are listened to.
    pub(crate) ranges: Vec<IpNet>,
    pub(crate) fdb: BTreeMap<MacAddr, (FdbEntry, bool)>,
    pub(crate) neighbours: BTreeMap<IpAddr, Option<MacAddr>>,
    pub(crate) links: BTreeSet<LinkIndex>,
    /// Addresses of other devices, or routes, that may concern the mesh.
    pub(crate) around: bool,
    /// More changed than is known.
    pub(crate) lost: bool,
    /// When this is acted upon; `None` while nothing was heard.
    until: Option<Instant>,
}

impl Heard {
    fn take_in(&mut self, change: Change) {
        if !self.concerns(change) {
            return;
        }
        match change {
            Change::Fdb { entry, there, .. } => self.take_entry(entry, there),
            Change::Neighbour { address, mac, .. } => {
                self.neighbours.insert(address, mac);
            }
            Change::Link { link, .. } => {
                self.links.insert(link);
            }
            Change::Address(link) if self.bridge != Some(link) => self.around = true,
            Change::Address(_) | Change::Lost => self.lost = true,
            Change::Route(_) => self.around = true,
        }
        self.forget_if_many();
        self.until.get_or_insert_with(|| Instant::now() + SETTLE);
    }

    fn forget_if_many(&mut self) {
        if self.fdb.len() + self.neighbours.len() + self.links.len() > MAX_HEARD {
            (self.fdb, self.neighbours, self.links) = Default::default();
            self.lost = true;
        }
    }

    fn concerns(&self, change: Change) -> bool {
        match change {
            Change::Fdb { bridge: link, .. } | Change::Neighbour { link, .. } => {
                self.bridge == Some(link)
            }
            Change::Route(route) => {
                let mut ranges = self.ranges.iter();
                ranges.any(|range| concerns(&route.net, range))
            }
            // It may be a port of ours that appears, or an address of the mesh elsewhere.
            Change::Address(_) | Change::Link { .. } | Change::Lost => true,
        }
    }

    fn take_entry(&mut self, entry: FdbEntry, there: bool) {
        // An address is behind one port: an entry that goes from another does not matter.
        let moved = self.fdb.get(&entry.mac);
        if there || moved.is_none_or(|(now, there)| now.port == entry.port || !there) {
            self.fdb.insert(entry.mac, (entry, there));
        }
    }

    pub(crate) fn take(&mut self) -> Self {
        let rest = Self {
            bridge: self.bridge,
            ranges: self.ranges.clone(),
            ..Self::default()
        };
        std::mem::replace(self, rest)
    }
}

/// Gathers notices until it is time to act upon them. Safe to cancel.
pub(crate) async fn hear(monitor: &mut Option<Monitor>, heard: &mut Heard) {
    loop {
        let Some(open) = monitor else {
            return alarm(heard.until).await;
        };
        let next = match heard.until {
            Some(until) => timeout_at(until, open.next()).await,
            None => Ok(open.next().await),
        };
        match next {
            Ok(Some(change)) => heard.take_in(change),
            Ok(None) => *monitor = None,
            Err(_) => return,
        }
    }
}
