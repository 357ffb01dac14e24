//! Keeps the kernel as the latest snapshot wants it, whatever others do to it meanwhile.
//!
//! ```text
//!   look: dump ─▶ plan ─▶ diff ─▶ apply      at a start, after a refusal, when somebody else changed what is ours, and
//!     │                                      every [`AUDIT`]; of what no notice tells, every [`GLANCE`]
//!     ▼
//!   known: plan ─┬─ snapshot ─▶ what differs from the one before ─▶ apply in one go
//!                └─ notice ──▶ as planned: ours, or of no concern │ a port: asked for │ else: look
//! ```
//!
//! Between two looks the kernel is taken to have what was planned. It tells of every change: our own come back as notices
//! too, and say what is planned. Of several snapshots that come while the kernel is busy the last one counts.
//! **Failure policy.** A step that fails does not stop the others; the kernel is looked at soon, and later and later. A
//! step that this kernel cannot do is reported and waits for the next look.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};
use weft_fastdp_proto::diff::{Patch, Step};
use weft_fastdp_proto::plan::Plan;
use weft_kernel::monitor::Subject;
use weft_kernel::netlink::NetlinkError;
use weft_kernel::sysctl::{self, Setting};
use weft_router_proto::snapshot::Snapshot;
use weft_types::{Code, Problem};

use crate::apply::apply;
use crate::around::Around;
use crate::bridge::create_bridge;
use crate::fault;
use crate::heard::{Heard, hear};
use crate::host::Host;
use crate::known::Known;
use crate::notices::{open_monitor, show};
use crate::observe::{Sight, is_port, look};

/// The first wait after a failed turn.
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// The longest wait after failed turns.
const RETRY_LAST: Duration = Duration::from_secs(15);
/// A look without a reason. The kernel says when notices were lost, so this is for what nobody thought of; in a mesh of
/// 24 000 endpoints it takes about a tenth of a second.
const AUDIT: Duration = Duration::from_secs(300);
/// The same where there are no notices.
const AUDIT_DEAF: Duration = Duration::from_secs(30);

/// How often what changes without a notice is looked at: the kernel gives up multicast snooping by itself, and packet
/// filters have notices of their own.
const GLANCE: Duration = Duration::from_secs(10);

/// What the kernel is listened to about.
const SUBJECTS: [Subject; 4] = [
    Subject::Addresses,
    Subject::Links,
    Subject::Neighbours,
    Subject::Routes,
];

/// Keeps the kernel's tables equal to what the snapshots ask for, until there will be no more of them.
///
/// `problems` always holds everything that is wrong with them at the moment. Must be called within a tokio runtime, in the
/// network namespace of the router.
pub async fn follow(
    host: &Host,
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    problems: watch::Sender<Vec<Problem>>,
) {
    let mut monitor = open_monitor(&SUBJECTS);
    let mut heard = Heard::default();
    let mut follower = Follower::new(host);
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        follower.catch_up(snapshot.clone(), monitor.is_some()).await;
        follower.look_around(snapshot.as_deref()).await;
        heard.bridge = follower.known.as_ref().map(|known| known.bridge);
        heard.ranges = snapshot.map_or_else(Vec::new, |snapshot| snapshot.ranges.clone());
        follower.tell(&problems);
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() {
                return;
            },
            () = hear(&mut monitor, &mut heard) => follower.handle_heard(heard.take()).await,
            () = sleep_until(follower.look_at) => follower.known = None,
            () = sleep_until(follower.glance_at) => follower.glance().await,
        }
        if monitor.is_none() {
            monitor = open_monitor(&SUBJECTS);
        }
    }
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
    /// What is around the tables.
    around: Around,
    /// Whether that is to be looked at.
    unseen: bool,
    /// When what no notice tells of is looked at.
    glance_at: Instant,
}

impl<'a> Follower<'a> {
    fn new(host: &'a Host) -> Self {
        Self {
            host,
            known: None,
            problems: Vec::new(),
            look_at: Instant::now(),
            patience: RETRY_FIRST,
            around: Around::default(),
            unseen: true,
            glance_at: Instant::now(),
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
        self.unseen = true;
        let again = match find(self.host).await {
            Ok(sight) => self.converge(sight, snapshot).await,
            Err(error) => {
                let problem = fault::refused("read the kernel's tables", error);
                self.problems.push(problem);
                self.known = None;
                true
            }
        };
        self.set_look_at(again, hears);
    }

    /// Says when to look for no other reason: later each time that it has to be done `again`.
    fn set_look_at(&mut self, again: bool, hears: bool) {
        let (wait, patience) = match (again, hears) {
            (true, _) => (self.patience, (self.patience * 2).min(RETRY_LAST)),
            (false, true) => (AUDIT, RETRY_FIRST),
            (false, false) => (AUDIT_DEAF, RETRY_FIRST),
        };
        self.look_at = Instant::now() + wait;
        self.patience = patience;
    }

    async fn converge(&mut self, sight: Sight, snapshot: Option<Arc<Snapshot>>) -> bool {
        if !sight.devices.has_tap() {
            self.problems.push(no_tap(&self.host.names.tap));
        }
        let plan = snapshot.map(|snapshot| Plan::new(snapshot, Arc::clone(&sight.devices)));
        let known = Known::new(&sight, plan);
        let patch = known.corrects(sight.observed);
        self.known = Some(known);
        self.publish_ports();
        self.carry_out(&patch).await
    }

    /// Changes the kernel; tells whether it is to be looked at soon.
    async fn carry_out(&mut self, patch: &Patch) -> bool {
        let Some(known) = self.known.as_ref().filter(|_| !patch.is_empty()) else {
            return false;
        };
        debug!(steps = patch.steps.len(), "changing kernel tables");
        let index = known.ports.iter();
        let index = index.map(|(name, port)| (name.clone(), port.index));
        let (bridge, index) = (known.bridge, index.collect());
        let refused = apply(&self.host.netlink, bridge, &index, &patch.steps).await;
        self.note_refused(&refused)
    }

    /// Puts the refusals that mean something among the problems, each cause once; tells whether the kernel is to be looked
    /// at soon.
    fn note_refused(&mut self, refused: &[(&Step, NetlinkError)]) -> bool {
        for (step, error) in refused {
            info!(?step, %error, "the kernel refuses a change");
        }
        let bridge = &self.host.names.bridge;
        let has_ipv6 = !sysctl::is_on(bridge, Setting::Ipv6Disabled);
        for (step, error) in refused.iter().filter(|(_, error)| !error.is_absent()) {
            let failure = if !has_ipv6 && is_about_ipv6(step) {
                no_ipv6(bridge)
            } else {
                fault::refused("write the kernel's tables", *error)
            };
            if !self.problems.contains(&failure) {
                self.problems.push(failure);
            }
        }
        // A device that went away meanwhile is no problem, but a reason to look again.
        let mut refused = refused.iter();
        refused.any(|(_, error)| *error != NetlinkError::Unsupported)
    }

    /// Finds out what notices mean.
    async fn handle_heard(&mut self, heard: Heard) {
        let Some(known) = &mut self.known else { return };
        // The ports first: the entries of one that is gone went with it.
        self.unseen |= heard.around;
        if heard.lost || !take_ports(self.host, known, &heard).await || !known.is_as_planned(&heard)
        {
            self.known = None;
            return;
        }
        known.list_devices();
        self.publish_ports();
    }

    /// Looks around where something may be another's than it was.
    async fn look_around(&mut self, snapshot: Option<&Snapshot>) {
        let (Some(known), Some(snapshot)) = (&self.known, snapshot) else {
            return;
        };
        if std::mem::take(&mut self.unseen) {
            let (netlink, bridge) = (&self.host.netlink, known.bridge);
            self.around.look(netlink, bridge, snapshot).await;
        }
    }

    /// Looks at what changes without a notice.
    async fn glance(&mut self) {
        self.glance_at = Instant::now() + GLANCE;
        self.around.look_at_filter(&self.host.names.bridge);
        let Some(known) = &self.known else { return };
        let bridge = self.host.netlink.link_at(known.bridge).await;
        if bridge.is_ok_and(|bridge| bridge.is_some_and(|it| !known.is_bridge_as_planned(&it))) {
            self.known = None;
        }
    }

    fn publish_ports(&self) {
        let Some(known) = &self.known else { return };
        let mut ports = known.devices.ports.clone();
        ports.remove(&self.host.names.tap);
        show(&self.host.ports, &Some(ports));
    }

    fn tell(&self, problems: &watch::Sender<Vec<Problem>>) {
        let known = self.host.lacks.iter();
        let found = self.problems.iter().chain(self.around.problems());
        let all: Vec<Problem> = known.chain(found).cloned().collect();
        show(problems, &all);
    }
}

/// Asks what the devices are by now that were told of; false where they cannot be told, or more changed than ports.
async fn take_ports(host: &Host, known: &mut Known, heard: &Heard) -> bool {
    let asked = heard.links.iter().copied();
    let Ok(links) = host.netlink.links_at(asked).await else {
        return false;
    };
    let mut links = links.iter();
    links.all(|(index, link)| {
        let link = link.as_ref();
        let port = link.filter(|link| is_port(link, known.bridge, &host.names));
        known.handle_link(*index, link, port)
    })
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

/// Whether a step is refused where a device has no IPv6.
fn is_about_ipv6(step: &Step) -> bool {
    match step {
        Step::AddAddress(net) | Step::RemoveAddress(net) => net.addr().is_ipv6(),
        Step::RemoveNeighbour(address) | Step::SetNeighbour { address, .. } => address.is_ipv6(),
        Step::Enslave(_)
        | Step::RemoveFdb { .. }
        | Step::ResetBridge
        | Step::SetBridgeMac(_)
        | Step::SetBridgeMtu(_)
        | Step::SetFdb { .. }
        | Step::SetPortFlags { .. }
        | Step::SetPortGroups { .. }
        | Step::SetPortMtu { .. }
        | Step::StartBridge
        | Step::StartPort(_) => false,
    }
}

fn no_ipv6(bridge: &str) -> Problem {
    Problem::new(
        Code::KernelFeatureMissing,
        format!("IPv6 is switched off on {bridge}: this host is on the mesh by IPv4 only"),
    )
    .why(format!("net.ipv6.conf.{bridge}.disable_ipv6 is 1"))
    .fix(format!("sysctl net.ipv6.conf.{bridge}.disable_ipv6=0"))
}

fn no_tap(name: &str) -> Problem {
    Problem::new(
        Code::Internal,
        format!("the device {name} was removed: no frames leave this host"),
    )
    .fix("Restart weft: weft down, then weft up")
}
