//! What is known of the kernel between two looks: how its ports stand, and that its tables are as planned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_fastdp_proto::diff::{Patch, diff};
use weft_fastdp_proto::plan::Plan;
use weft_fastdp_proto::tables::{Devices, Observed, Port, Tables};
use weft_kernel::fdb::{FdbEntry, Hold};
use weft_kernel::link::Link;
use weft_kernel::netlink::LinkIndex;
use weft_router_proto::snapshot::Snapshot;
use weft_types::MacAddr;

use crate::heard::Heard;
use crate::observe::{PortDevice, Sight, device, port};

/// What is known of the kernel since the last look.
pub(crate) struct Known {
    pub(crate) bridge: LinkIndex,
    pub(crate) devices: Arc<Devices>,
    pub(crate) ports: BTreeMap<String, PortDevice>,
    /// How the ports stand.
    stand: BTreeMap<String, Port>,
    /// Ports that may stand otherwise than planned.
    seen: BTreeSet<String>,
    /// What the tables of the kernel are taken to be; `None` before the first snapshot.
    plan: Option<Plan>,
}

impl Known {
    /// Begins with what a look has found, and with what was planned for it.
    pub(crate) fn new(sight: &Sight, plan: Option<Plan>) -> Self {
        let devices = Arc::clone(&sight.devices);
        let stand = sight.observed.ports.iter();
        let stand = stand.filter(|(name, _)| devices.ports.contains(*name));
        Self {
            bridge: sight.bridge,
            ports: sight.ports.clone(),
            stand: stand
                .map(|(name, port)| (name.clone(), port.clone()))
                .collect(),
            devices,
            seen: BTreeSet::new(),
            plan,
        }
    }

    /// What leads from the tables that were found to those that are planned.
    pub(crate) fn corrects(&self, found: Observed) -> Patch {
        let Some(plan) = &self.plan else {
            return Patch::default();
        };
        let want = plan.tables();
        diff(&found.ours(&self.devices, want), want)
    }

    /// What a snapshot asks for beyond what is planned; `None` where that cannot be told without looking.
    pub(crate) fn follow(&mut self, snapshot: &Arc<Snapshot>) -> Option<Patch> {
        let seen = std::mem::take(&mut self.seen);
        self.plan
            .as_mut()?
            .follow(snapshot, &self.devices, &self.stand, &seen)
    }

    /// Whether entries that changed are as they shall be, or of no concern.
    pub(crate) fn is_as_planned(&self, heard: &Heard) -> bool {
        let Some(plan) = &self.plan else { return true };
        let tables = plan.tables();
        let mut fdb = heard.fdb.values();
        let mut neighbours = heard.neighbours.iter();
        fdb.all(|(entry, there)| self.is_entry_as_planned(tables, entry, *there))
            && neighbours.all(|(address, mac)| tables.neighbours.get(address) == mac.as_ref())
    }

    fn is_entry_as_planned(&self, tables: &Tables, entry: &FdbEntry, there: bool) -> bool {
        let port = self.name_of(entry.port);
        let wanted = tables.fdb.get(&entry.mac);
        let sticky = there && entry.hold == Hold::Sticky;
        match wanted {
            Some(_) if wanted == port => sticky,
            Some(_) => !there,
            None => !(sticky && port == Some(&self.devices.tap)),
        }
    }

    fn name_of(&self, index: LinkIndex) -> Option<&String> {
        let mut ports = self.ports.iter();
        let found = ports.find(|(_, port)| port.index == index);
        found.map(|(name, _)| name)
    }

    /// Takes what a device is by now; `port` where it is a port of ours. False where that changes more than ports.
    pub(crate) fn handle_link(
        &mut self,
        index: LinkIndex,
        link: Option<&Link>,
        port: Option<&Link>,
    ) -> bool {
        if index == self.bridge {
            return link.is_some_and(|link| self.is_bridge_as_planned(link));
        }
        let before = self.name_of(index).cloned();
        if let Some(link) = port {
            return before.is_none_or(|before| before == link.name) && self.set_port(link);
        }
        if let Some(name) = before {
            self.ports.remove(&name);
            self.stand.remove(&name);
        }
        true
    }

    pub(crate) fn is_bridge_as_planned(&self, link: &Link) -> bool {
        let Some(plan) = &self.plan else { return true };
        let bridge = &plan.tables().bridge;
        let renamed = bridge.mac.is_some() && bridge.mac != link.mac;
        link.up && link.as_made && link.mtu == bridge.mtu && !renamed
    }

    fn set_port(&mut self, link: &Link) -> bool {
        let before = self.ports.insert(link.name.clone(), device(link));
        self.stand.insert(link.name.clone(), port(link));
        self.seen.insert(link.name.clone());
        // Another device of the name: the entries of the first are gone.
        before.is_none_or(|before| before.index == link.index)
    }

    pub(crate) fn list_devices(&mut self) {
        let (was, ports) = (&self.devices, self.ports.iter());
        let own: BTreeSet<MacAddr> = self.ports.values().filter_map(|port| port.mac).collect();
        if was.own != own || !was.ports.iter().eq(ports.map(|(name, _)| name)) {
            self.devices = Arc::new(Devices {
                ports: self.ports.keys().cloned().collect(),
                own,
                ..Devices::clone(was)
            });
        }
    }
}
