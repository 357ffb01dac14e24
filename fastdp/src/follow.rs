//! Keeps the kernel as the latest snapshot wants it, whatever others do to it meanwhile.
//!
//! ```text
//!   look: dump ─▶ plan ─▶ diff ─▶ apply      at a start, after a refusal, when somebody else changed what is ours, and
//!     │                                      every [`AUDIT`]
//!     ▼
//!   known: plan ─┬─ snapshot ─▶ what differs from the one before ─▶ apply in one go
//!                └─ notice ──▶ as planned: ours, or of no concern │ a port: asked for │ else: look
//! ```
//!
//! Between two looks the kernel is taken to have what was planned. It tells of every change: our own come back as notices
//! too, and say what is planned. Of several snapshots that come while the kernel is busy the last one counts.
//! **Failure policy.** A step that fails does not stop the others; the kernel is looked at soon, and later and later. A
//! step that this kernel cannot do is reported and waits for the next look.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, info, warn};
use weft_fastdp_proto::diff::{Patch, Step, diff};
use weft_fastdp_proto::plan::Plan;
use weft_fastdp_proto::tables::{Devices, Port};
use weft_kernel::fdb::{FdbEntry, Hold};
use weft_kernel::link::Link;
use weft_kernel::monitor::{Change, Monitor, Subject};
use weft_kernel::netlink::{LinkIndex, NetlinkError};
use weft_router_proto::snapshot::Snapshot;
use weft_types::{Code, MacAddr, Problem};

use crate::apply::apply;
use crate::bridge::create_bridge;
use crate::fault;
use crate::host::Host;
use crate::observe::{PortDevice, Sight, device, is_port, look, port};

/// How long notices are gathered: a device that appears or goes causes several.
const SETTLE: Duration = Duration::from_millis(100);
/// The first wait after a failed turn.
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// The longest wait after failed turns.
const RETRY_LAST: Duration = Duration::from_secs(15);
/// A look without a reason. The kernel says when notices were lost, so this is for what nobody thought of; in a mesh of
/// 24 000 endpoints it takes about a tenth of a second.
const AUDIT: Duration = Duration::from_secs(300);
/// The same where there are no notices.
const AUDIT_DEAF: Duration = Duration::from_secs(30);
/// Entries that notices are gathered of: with more, looking costs less.
const MAX_HEARD: usize = 4096;

/// Keeps the kernel's tables equal to what the snapshots ask for, until there will be no more of them.
///
/// `problems` always holds everything that is wrong with them at the moment. Must be called within a tokio runtime, in the
/// network namespace of the router.
pub async fn follow(
    host: &Host,
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    problems: watch::Sender<Vec<Problem>>,
) {
    let mut monitor = open_monitor();
    let mut heard = Heard::default();
    let mut follower = Follower::new(host);
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        follower.catch_up(snapshot, monitor.is_some()).await;
        heard.bridge = follower.known.as_ref().map(|known| known.bridge);
        follower.tell(&problems);
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() {
                return;
            },
            () = hear(&mut monitor, &mut heard) => follower.handle_heard(heard.take()).await,
            () = sleep_until(follower.look_at) => follower.known = None,
        }
        if monitor.is_none() {
            monitor = open_monitor();
        }
    }
}

fn open_monitor() -> Option<Monitor> {
    Monitor::open(&[Subject::Addresses, Subject::Links, Subject::Neighbours])
        .inspect_err(
            |error| warn!(%error, "no notices from the kernel: changes are found by looking"),
        )
        .ok()
}

struct Follower<'a> {
    host: &'a Host,
    /// `None` where the kernel is to be looked at.
    known: Option<Known>,
    /// What is wrong, in words.
    problems: Vec<Problem>,
    /// When the kernel is looked at for no other reason.
    look_at: Instant,
    /// How long the next look after a failure is put off.
    patience: Duration,
}

/// What is known of the kernel since the last look.
struct Known {
    bridge: LinkIndex,
    devices: Arc<Devices>,
    ports: BTreeMap<String, PortDevice>,
    /// How the ports stand.
    stand: BTreeMap<String, Port>,
    /// Ports that may stand otherwise than planned.
    seen: BTreeSet<String>,
    /// What the tables of the kernel are taken to be; `None` before the first snapshot.
    plan: Option<Plan>,
}

impl<'a> Follower<'a> {
    fn new(host: &'a Host) -> Self {
        Self {
            host,
            known: None,
            problems: Vec::new(),
            look_at: Instant::now(),
            patience: RETRY_FIRST,
        }
    }

    /// Does what the snapshot asks for beyond what is planned; looks first where that is not enough.
    async fn catch_up(&mut self, snapshot: Option<Arc<Snapshot>>, hears: bool) {
        let patch = match (&mut self.known, &snapshot) {
            (Some(_), None) => return,
            (Some(known), Some(snapshot)) => known.follow(snapshot),
            (None, _) => None,
        };
        match patch {
            Some(patch) => {
                if self.carry_out(&patch).await {
                    self.look_at = self.look_at.min(Instant::now() + self.patience);
                }
            }
            None => self.look(snapshot, hears).await,
        }
    }

    /// Looks at everything, plans, and changes what differs.
    async fn look(&mut self, snapshot: Option<Arc<Snapshot>>, hears: bool) {
        self.problems.clear();
        let again = match find(self.host).await {
            Ok(sight) => self.converge(sight, snapshot).await,
            Err(error) => {
                let problem = fault::refused("read the kernel's tables", error);
                self.problems.push(problem);
                self.known = None;
                true
            }
        };
        let wait = match (again, hears) {
            (true, _) => self.patience,
            (false, true) => AUDIT,
            (false, false) => AUDIT_DEAF,
        };
        self.look_at = Instant::now() + wait;
        self.patience = if again {
            (self.patience * 2).min(RETRY_LAST)
        } else {
            RETRY_FIRST
        };
    }

    async fn converge(&mut self, sight: Sight, snapshot: Option<Arc<Snapshot>>) -> bool {
        if !sight.devices.has_tap() {
            self.problems.push(no_tap(&self.host.names.tap));
        }
        let devices = Arc::new(sight.devices);
        let plan = snapshot.map(|snapshot| Plan::new(snapshot, Arc::clone(&devices)));
        let mut stand = sight.observed.ports.clone();
        stand.retain(|name, _| devices.ports.contains(name));
        let patch = plan.as_ref().map(|plan| {
            let have = sight.observed.ours(&devices, plan.tables());
            diff(&have, plan.tables())
        });
        self.known = Some(Known {
            bridge: sight.bridge,
            devices,
            ports: sight.ports,
            stand,
            seen: BTreeSet::new(),
            plan,
        });
        self.publish_ports();
        self.carry_out(&patch.unwrap_or_default()).await
    }

    /// Changes the kernel; tells whether it is to be looked at soon.
    async fn carry_out(&mut self, patch: &Patch) -> bool {
        let Some(known) = self.known.as_ref().filter(|_| !patch.is_empty()) else {
            return false;
        };
        debug!(steps = patch.steps.len(), "changing kernel tables");
        let index = known.ports.iter();
        let index = index
            .map(|(name, port)| (name.clone(), port.index))
            .collect();
        let refused = apply(&self.host.netlink, known.bridge, &index, &patch.steps).await;
        let mut again = false;
        let mut failure = None;
        for (step, error) in refused {
            info!(?step, %error, "the kernel refuses a change");
            // A device that went away meanwhile is no problem, but a reason to look again.
            again |= error != NetlinkError::Unsupported;
            if !error.is_absent() && failure.is_none() {
                failure = Some(explain(&self.host.names.bridge, step, error));
            }
        }
        let news = failure.filter(|failure| !self.problems.contains(failure));
        self.problems.extend(news);
        again
    }

    /// Finds out what notices mean.
    async fn handle_heard(&mut self, heard: Heard) {
        let Some(known) = &mut self.known else { return };
        if heard.lost {
            self.known = None;
            return;
        }
        let asked = heard.links.iter().copied();
        let links = self.host.netlink.links_at(asked).await;
        let names = &self.host.names;
        let fits = links.is_ok_and(|links| {
            let mut links = links.iter();
            links.all(|(index, link)| {
                let link = link.as_ref();
                let port = link.filter(|link| is_port(link, known.bridge, names));
                known.handle_link(*index, link, port)
            })
        });
        // After the ports: the entries of one that is gone went with it.
        if !fits || !known.is_as_planned(&heard) {
            self.known = None;
            return;
        }
        known.list_devices();
        self.publish_ports();
    }

    fn publish_ports(&self) {
        let Some(known) = &self.known else { return };
        let mut ports = known.devices.ports.clone();
        ports.remove(&self.host.names.tap);
        self.host.ports.send_if_modified(|shown| {
            let news = *shown != ports;
            if news {
                *shown = ports;
            }
            news
        });
    }

    fn tell(&self, problems: &watch::Sender<Vec<Problem>>) {
        let known = self.host.lacks.iter();
        let all: Vec<Problem> = known.chain(&self.problems).cloned().collect();
        problems.send_if_modified(|shown| {
            let news = *shown != all;
            shown.clone_from(&all);
            news
        });
    }
}

impl Known {
    /// What a snapshot asks for beyond what is planned; `None` where that cannot be told without looking.
    fn follow(&mut self, snapshot: &Arc<Snapshot>) -> Option<Patch> {
        let seen = std::mem::take(&mut self.seen);
        self.plan
            .as_mut()?
            .follow(snapshot, &self.devices, &self.stand, &seen)
    }

    /// Whether entries that changed are as they shall be, or of no concern.
    fn is_as_planned(&self, heard: &Heard) -> bool {
        let Some(plan) = &self.plan else { return true };
        let tables = plan.tables();
        let mut fdb = heard.fdb.values();
        let mut neighbours = heard.neighbours.iter();
        fdb.all(|(entry, there)| {
            let port = self.ports.iter().find(|(_, port)| port.index == entry.port);
            let port = port.map(|(name, _)| name);
            let wanted = tables.fdb.get(&entry.mac);
            let sticky = *there && entry.hold == Hold::Sticky;
            match wanted {
                Some(_) if wanted == port => sticky,
                Some(_) => !there,
                None => !(sticky && port == Some(&self.devices.tap)),
            }
        }) && neighbours.all(|(address, mac)| tables.neighbours.get(address) == mac.as_ref())
    }

    /// Takes what a device is by now; `port` where it is a port of ours. False where that changes more than ports.
    fn handle_link(&mut self, index: LinkIndex, link: Option<&Link>, port: Option<&Link>) -> bool {
        if index == self.bridge {
            return link.is_some_and(|link| self.is_bridge_as_planned(link));
        }
        let before = self.ports.iter().find(|(_, port)| port.index == index);
        let before = before.map(|(name, _)| name.clone());
        if let Some(link) = port {
            return before.is_none_or(|before| before == link.name) && self.set_port(link);
        }
        if let Some(name) = before {
            self.ports.remove(&name);
            self.stand.remove(&name);
        }
        true
    }

    fn is_bridge_as_planned(&self, link: &Link) -> bool {
        let Some(plan) = &self.plan else { return true };
        let bridge = &plan.tables().bridge;
        let renamed = bridge.mac.is_some() && bridge.mac != link.mac;
        link.up && link.mtu == bridge.mtu && !renamed
    }

    fn set_port(&mut self, link: &Link) -> bool {
        let before = self.ports.insert(link.name.clone(), device(link));
        self.stand.insert(link.name.clone(), port(link));
        self.seen.insert(link.name.clone());
        // Another device of the name: the entries of the first are gone.
        before.is_none_or(|before| before.index == link.index)
    }

    fn list_devices(&mut self) {
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

/// Looks; makes the bridge anew where somebody has removed it.
async fn find(host: &Host) -> Result<Sight, NetlinkError> {
    if let Some(sight) = look(&host.netlink, &host.names).await? {
        return Ok(sight);
    }
    warn!(bridge = %host.names.bridge, "the bridge was removed: making it again");
    create_bridge(&host.netlink, &host.names).await?;
    look(&host.netlink, &host.names)
        .await?
        .ok_or(NetlinkError::NoDevice)
}

fn explain(bridge: &str, step: &Step, error: NetlinkError) -> Problem {
    // The kernel's answer to an IPv6 address on a device that shall have none.
    if let (Step::AddAddress(IpNet::V6(net)), NetlinkError::Denied) = (step, error) {
        return Problem::new(
            Code::KernelFeatureMissing,
            format!("IPv6 is switched off on {bridge}: this host has no address {net}"),
        )
        .fix(format!("sysctl net.ipv6.conf.{bridge}.disable_ipv6=0"));
    }
    fault::refused("write the kernel's tables", error)
}

fn no_tap(name: &str) -> Problem {
    Problem::new(
        Code::Internal,
        format!("the device {name} was removed: no frames leave this host"),
    )
    .fix("Restart weft: weft down, then weft up")
}

/// What the kernel has told of within a short time: the last word on each thing.
#[derive(Default)]
struct Heard {
    /// Whose entries and neighbours are listened to.
    bridge: Option<LinkIndex>,
    fdb: BTreeMap<MacAddr, (FdbEntry, bool)>,
    neighbours: BTreeMap<IpAddr, Option<MacAddr>>,
    links: BTreeSet<LinkIndex>,
    /// More changed than is known.
    lost: bool,
    /// When this is acted upon; `None` while nothing was heard.
    until: Option<Instant>,
}

impl Heard {
    fn take_in(&mut self, change: Change) {
        let ours = |link| self.bridge == Some(link);
        match change {
            Change::Fdb {
                bridge,
                entry,
                there,
            } if ours(bridge) => {
                // An address is behind one port: an entry that goes from another does not matter.
                let moved = self.fdb.get(&entry.mac);
                if there || moved.is_none_or(|(now, there)| now.port == entry.port || !there) {
                    self.fdb.insert(entry.mac, (entry, there));
                }
            }
            Change::Neighbour { link, address, mac } if ours(link) => {
                self.neighbours.insert(address, mac);
            }
            Change::Address(link) if ours(link) => self.lost = true,
            // It may be a port of ours that appears.
            Change::Link { link, .. } => {
                self.links.insert(link);
            }
            Change::Lost => self.lost = true,
            Change::Address(_) | Change::Fdb { .. } | Change::Neighbour { .. } => return,
        }
        if self.fdb.len() + self.neighbours.len() + self.links.len() > MAX_HEARD {
            (self.fdb, self.neighbours, self.links) = Default::default();
            self.lost = true;
        }
        self.until.get_or_insert_with(|| Instant::now() + SETTLE);
    }

    fn take(&mut self) -> Self {
        let bridge = self.bridge;
        std::mem::replace(
            self,
            Self {
                bridge,
                ..Self::default()
            },
        )
    }
}

/// Gathers notices until it is time to act upon them. Safe to cancel.
async fn hear(monitor: &mut Option<Monitor>, heard: &mut Heard) {
    loop {
        let Some(open) = monitor else {
            return match heard.until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            };
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
