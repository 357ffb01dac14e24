//! The host's devices, as the daemon holds them, and containers on them.
//!
//! Devices are named after the bridge, so one flag keeps two routers of one host apart. A bridge with containers on it
//! outlives its router: they go on talking to each other, and the next router takes it over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use weft_fastdp::follow::follow;
use weft_fastdp::names::DeviceNames;
use weft_fastdp::{check, host, underlay};
use weft_kernel::event::alarm;
use weft_kernel::tap::{Tap, TapOptions};
use weft_router::Running;
use weft_router::api::Api;
use weft_router::hub::Checks;
use weft_router_proto::snapshot::{Endpoint, EndpointKind, Endpoints, Snapshot};
use weft_types::{Code, MacAddr, NodeId, Problem};

/// How long a container's port may be missing before the container counts as gone: the kernel's notice of a port may come
/// after the word of who made it.
const GONE: Duration = Duration::from_secs(2);

/// What the devices of a bridge's family are called.
pub(crate) fn names(bridge: &str) -> DeviceNames {
    DeviceNames {
        bridge: bridge.to_owned(),
        tap: format!("{bridge}-tap"),
    }
}

/// This host's devices, held by the daemon.
pub(crate) struct Host {
    devices: host::Host,
    names: DeviceNames,
    /// Those at which others may reach this host.
    addresses: watch::Receiver<Vec<IpAddr>>,
    /// Whether the bridge was made by this run.
    fresh: bool,
    tasks: Vec<JoinHandle<()>>,
}

impl Host {
    /// Makes the devices, or takes over those that a router left here.
    pub(crate) async fn open(bridge: &str) -> Result<(Self, Tap), Problem> {
        let names = names(bridge);
        // Not by /sys, which shows the devices of the namespace it was mounted in.
        let fresh = nix::net::if_::if_nametoindex(bridge).is_err();
        let addresses = underlay::watch(&names).await?;
        let (devices, tap) = host::Host::open(&names, TapOptions::default()).await?;
        let host = Self {
            devices,
            names,
            addresses,
            fresh,
            tasks: Vec::new(),
        };
        Ok((host, tap))
    }

    /// What compares this machine with a mesh.
    pub(crate) fn checks(&self) -> Arc<Checks> {
        let names = self.names.clone();
        Arc::new(move |genesis| check::genesis_blocking(&names, genesis))
    }

    /// The addresses at which others may reach this host, kept up to date.
    pub(crate) fn addresses(&self) -> watch::Receiver<Vec<IpAddr>> {
        self.addresses.clone()
    }

    /// Keeps the kernel's tables equal to the router's snapshots from here on, and tells the router of containers that
    /// have gone.
    pub(crate) fn follow(&mut self, running: &Running) {
        let devices = self.devices.clone();
        let snapshots = running.snapshots.clone();
        let problems = running.problems.clone();
        self.tasks.push(tokio::spawn(async move {
            follow(&devices, snapshots, problems).await;
        }));
        self.tasks.push(tokio::spawn(withdraw(
            self.devices.ports(),
            running.snapshots.clone(),
            running.api.clone(),
        )));
    }

    /// Lets go for a moment: the next router takes over what stands.
    pub(crate) fn leave_standing(self) {
        for task in &self.tasks {
            task.abort();
        }
    }

    /// Lets go for good: the devices go, unless containers are on them.
    pub(crate) async fn close(self) {
        self.put_away(true).await;
    }

    /// Removes what a start that failed has made.
    pub(crate) async fn undo(self) {
        let fresh = self.fresh;
        self.put_away(fresh).await;
    }

    async fn put_away(self, remove: bool) {
        for task in &self.tasks {
            task.abort();
        }
        if remove && let Err(problem) = self.devices.remove_unused().await {
            tracing::warn!(code = %problem.code, %problem, "devices are left");
        }
    }
}

/// Withdraws the endpoints of containers whose port has vanished: a container that ends says nothing.
async fn withdraw(
    mut ports: watch::Receiver<Option<BTreeSet<String>>>,
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    api: Api,
) {
    let mut containers = Containers::default();
    loop {
        if let Some(snapshot) = snapshots.borrow_and_update().as_deref() {
            containers.learn(snapshot);
        }
        // Until the first look at the kernel nothing is known about any port.
        if let Some(ports) = &*ports.borrow_and_update() {
            containers.look(ports, Instant::now());
        }
        for mac in containers.take_gone(Instant::now()) {
            tracing::info!(%mac, "a container is gone");
            let told = api.detach(mac).await;
            if told.is_err_and(|problem| problem.code == Code::DaemonNotRunning) {
                return;
            }
        }
        tokio::select! {
            () = alarm(containers.deadline()) => {}
            changed = ports.changed() => if changed.is_err() { return },
            changed = snapshots.changed() => if changed.is_err() { return },
        }
    }
}

/// The containers of this host, and those of them that miss their port.
#[derive(Default)]
struct Containers {
    /// What `ports` was made of.
    known: Endpoints,
    /// The port of each.
    ports: BTreeMap<MacAddr, String>,
    /// Since when.
    missing: BTreeMap<MacAddr, Instant>,
}

impl Containers {
    /// Takes over what has changed since the snapshot before; what has not is shared with it, and not looked at.
    fn learn(&mut self, snapshot: &Snapshot) {
        for (was, is) in snapshot.endpoints.changed(&self.known) {
            for (mac, _) in attached(was, snapshot.node) {
                self.ports.remove(&mac);
            }
            let ports = attached(is, snapshot.node);
            self.ports
                .extend(ports.map(|(mac, port)| (mac, port.clone())));
        }
        self.known = snapshot.endpoints.clone();
    }

    /// Notes whose port is not among those that there are.
    fn look(&mut self, there: &BTreeSet<String>, now: Instant) {
        let absent = |port: &String| !there.contains(port);
        let ports = &self.ports;
        self.missing
            .retain(|mac, _| ports.get(mac).is_some_and(absent));
        for (&mac, _) in ports.iter().filter(|(_, port)| absent(port)) {
            self.missing.entry(mac).or_insert(now);
        }
    }

    /// Those that have missed it for so long that they are gone.
    fn take_gone(&mut self, now: Instant) -> Vec<MacAddr> {
        let gone = |_: &MacAddr, since: &mut Instant| now.duration_since(*since) >= GONE;
        self.missing
            .extract_if(.., gone)
            .map(|(mac, _)| mac)
            .collect()
    }

    /// When the next one counts as gone.
    fn deadline(&self) -> Option<Instant> {
        self.missing.values().min().map(|first| *first + GONE)
    }
}

/// The containers of a node, with their ports.
fn attached(endpoints: &[Endpoint], owner: NodeId) -> impl Iterator<Item = (MacAddr, &String)> {
    let own = endpoints.iter().filter(move |one| one.owner == owner);
    own.filter_map(|endpoint| match &endpoint.kind {
        EndpointKind::Attached { port } => Some((endpoint.mac, port)),
        EndpointKind::Host => None,
    })
}

#[cfg(test)]
mod tests {
    use weft_types::{Mtu, Segment};

    use super::*;

    const NODE: NodeId = NodeId::new([1; 32]);

    fn mac(last: u8) -> MacAddr {
        MacAddr::new([2, 0, 0, 0, 0, last])
    }

    fn endpoint(owner: NodeId, last: u8, kind: EndpointKind) -> Endpoint {
        Endpoint {
            segment: Segment::DEFAULT,
            mac: mac(last),
            addresses: Vec::new(),
            owner,
            kind,
            metadata: None,
        }
    }

    /// The host itself, containers of ours on ports that are called like them, and one container of another host.
    fn snapshot(ours: &[u8]) -> Snapshot {
        let attached = |port: String| EndpointKind::Attached { port };
        let own = ours
            .iter()
            .map(|&last| endpoint(NODE, last, attached(last.to_string())));
        let others = [
            endpoint(NODE, 100, EndpointKind::Host),
            endpoint(NodeId::new([2; 32]), 101, attached(String::new())),
        ];
        Snapshot {
            generation: 1,
            node: NODE,
            mtu: Mtu::MESH,
            ranges: Vec::new(),
            host_addresses: Vec::new(),
            peers: Vec::new(),
            endpoints: own.chain(others).collect(),
        }
    }

    fn ports(names: &[u8]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_container_that_misses_its_port_for_long_is_gone() {
        let now = Instant::now();
        let mut containers = Containers::default();
        containers.learn(&snapshot(&[1, 2]));

        containers.look(&ports(&[2]), now);
        let early = containers.take_gone(now + GONE / 2);
        containers.look(&ports(&[2]), now + GONE / 2);
        let deadline = containers.deadline();
        let late = containers.take_gone(now + GONE);

        assert_eq!(early, []);
        assert_eq!(deadline, Some(now + GONE));
        assert_eq!(late, [mac(1)]);
        assert_eq!(containers.deadline(), None);
    }

    #[test]
    fn a_port_that_comes_after_the_word_of_it_is_not_missed() {
        let now = Instant::now();
        let mut containers = Containers::default();
        containers.learn(&snapshot(&[1]));

        containers.look(&ports(&[]), now);
        containers.look(&ports(&[1]), now + GONE / 2);

        assert_eq!(containers.take_gone(now + GONE), []);
    }

    #[test]
    fn what_was_withdrawn_is_missed_no_more_and_what_came_is() {
        let now = Instant::now();
        let mut containers = Containers::default();
        containers.learn(&snapshot(&[1]));
        containers.look(&ports(&[]), now);

        containers.learn(&snapshot(&[3]));
        containers.look(&ports(&[]), now);

        assert_eq!(containers.take_gone(now + GONE), [mac(3)]);
    }
}
