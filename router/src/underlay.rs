//! Watches the host's own addresses, which others may reach it at.
//!
//! They are read every [`PERIOD`] and told when they have changed: a new address matters once somebody dials it, which
//! takes longer than that. Left out is what no other host can dial: loopback, link-local addresses, the mesh's own,
//! and the bridges that container runtimes make, whose addresses are the same on every host.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tracing::warn;
use weft_router_proto::io::Input;
use weft_router_proto::snapshot::Snapshot;

/// Short beside the 15 s that a peer waits at most before it dials again.
const PERIOD: Duration = Duration::from_secs(5);
/// Interfaces of container and machine runtimes, by the beginning of their names.
const PRIVATE: [&str; 5] = ["docker", "br-", "virbr", "cni", "podman"];

/// Tells the hub about the host's addresses until it is gone. A host that listens on some addresses only
/// (`listening` is not empty) has no others.
pub(crate) async fn watch(
    listening: Vec<IpAddr>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    inputs: mpsc::Sender<Input>,
) {
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = None;
    loop {
        tick.tick().await;
        let snapshot = snapshots.borrow().clone();
        let addresses = if listening.is_empty() || listening.iter().any(IpAddr::is_unspecified) {
            addresses(snapshot.as_deref())
        } else {
            listening.iter().copied().collect()
        };
        if known.as_ref() == Some(&addresses) {
            continue;
        }
        let input = Input::LocalAddresses(addresses.iter().copied().collect());
        if inputs.send(input).await.is_err() {
            return;
        }
        known = Some(addresses);
    }
}

/// What others may reach this host at.
fn addresses(snapshot: Option<&Snapshot>) -> BTreeSet<IpAddr> {
    let interfaces = match getifaddrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            warn!(%error, "cannot read the host's addresses");
            return BTreeSet::new();
        }
    };
    interfaces
        .filter(|interface| {
            interface.flags.contains(InterfaceFlags::IFF_UP)
                && !PRIVATE
                    .iter()
                    .any(|name| interface.interface_name.starts_with(name))
        })
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
        })
        .filter(|&address| can_be_dialled(address))
        .filter(|&address| !snapshot.is_some_and(|snapshot| is_overlay(snapshot, address)))
        .collect()
}

fn can_be_dialled(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_link_local() || v4.is_unspecified()),
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified()),
    }
}

fn is_overlay(snapshot: &Snapshot, address: IpAddr) -> bool {
    let own = |host: &ipnet::IpNet| host.addr() == address;
    snapshot.in_range(address) || snapshot.host_addresses.iter().any(own)
}

#[cfg(test)]
mod tests {
    use weft_types::{Mtu, NodeId};

    use super::*;

    #[test]
    fn what_nobody_can_dial_is_left_out() {
        for address in [
            "127.0.0.1",
            "169.254.1.1",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "::",
        ] {
            assert!(!can_be_dialled(address.parse().unwrap()), "{address}");
        }
        for address in ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fd00::1"] {
            assert!(can_be_dialled(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn the_mesh_s_own_addresses_are_left_out() {
        let snapshot = Snapshot {
            generation: 1,
            node: NodeId::new([0; 32]),
            mtu: Mtu::MESH,
            ranges: vec!["10.32.0.0/12".parse().unwrap()],
            host_addresses: vec!["192.0.2.9/24".parse().unwrap()],
            peers: Vec::new(),
            endpoints: weft_router_proto::snapshot::Endpoints::default(),
        };

        assert!(is_overlay(&snapshot, "10.33.1.1".parse().unwrap()));
        assert!(is_overlay(&snapshot, "192.0.2.9".parse().unwrap()));
        assert!(!is_overlay(&snapshot, "192.0.2.8".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_router_that_listens_on_one_address_has_no_other() {
        let only: IpAddr = "127.0.0.1".parse().unwrap();
        let (_sender, snapshots) = watch::channel(None);
        let (inputs, mut received) = mpsc::channel(1);

        let watching = tokio::spawn(super::watch(vec![only], snapshots, inputs));

        let Some(Input::LocalAddresses(addresses)) = received.recv().await else {
            panic!("no addresses");
        };
        assert_eq!(addresses, [only]);
        watching.abort();
    }
}
