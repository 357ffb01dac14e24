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
use weft_kernel::tap::{Tap, TapOptions};
use weft_router::Running;
use weft_router::api::Api;
use weft_router::hub::Checks;
use weft_router_proto::snapshot::{EndpointKind, Snapshot};
use weft_types::{Code, MacAddr, Problem};

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
    mut ports: watch::Receiver<BTreeSet<String>>,
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    api: Api,
) {
    // Until the first look at the kernel nothing is known about any port.
    if ports.changed().await.is_err() {
        return;
    }
    let mut missing: BTreeMap<MacAddr, Instant> = BTreeMap::new();
    loop {
        let now = Instant::now();
        let absent = {
            let ports = ports.borrow_and_update();
            let snapshot = snapshots.borrow_and_update();
            snapshot
                .as_deref()
                .map(|snapshot| without_port(snapshot, &ports))
                .unwrap_or_default()
        };
        missing.retain(|mac, _| absent.contains(mac));
        for mac in absent {
            let since = *missing.entry(mac).or_insert(now);
            if now.duration_since(since) >= GONE {
                tracing::info!(%mac, "a container is gone");
                if api
                    .detach(mac)
                    .await
                    .is_err_and(|problem| problem.code == Code::DaemonNotRunning)
                {
                    return;
                }
                missing.remove(&mac);
            }
        }
        let wake = async {
            match missing.values().min() {
                Some(first) => tokio::time::sleep_until(*first + GONE).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wake => {}
            changed = ports.changed() => if changed.is_err() { return },
            changed = snapshots.changed() => if changed.is_err() { return },
        }
    }
}

/// Endpoints attached here whose port does not exist.
fn without_port(snapshot: &Snapshot, ports: &BTreeSet<String>) -> Vec<MacAddr> {
    snapshot
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.owner == snapshot.node)
        .filter_map(|endpoint| match &endpoint.kind {
            EndpointKind::Attached { port } => (!ports.contains(port)).then_some(endpoint.mac),
            EndpointKind::Host => None,
        })
        .collect()
}
