//! Tells the core at which addresses others may reach this host.
//!
//! Who starts the router finds them ([`crate::start`]). Left out are the mesh's own, wherever they stand: a host that can
//! be reached only through the mesh cannot be dialled to build it.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use weft_router_proto::io::Input;
use weft_router_proto::snapshot::Snapshot;

/// Tells the hub about the host's addresses until either is gone. A host that listens on some addresses only (`listening`
/// is not empty) has no others.
pub(crate) async fn tell(
    listening: Vec<IpAddr>,
    mut found: watch::Receiver<Vec<IpAddr>>,
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    inputs: mpsc::Sender<Input>,
) {
    let everywhere = listening.is_empty() || listening.iter().any(IpAddr::is_unspecified);
    let mut told = None;
    loop {
        let addresses = if everywhere {
            outside(
                &found.borrow_and_update(),
                snapshots.borrow_and_update().as_deref(),
            )
        } else {
            listening.clone()
        };
        if told.as_ref() != Some(&addresses) {
            let input = Input::LocalAddresses(addresses.clone());
            if inputs.send(input).await.is_err() {
                return;
            }
            told = Some(addresses);
        }
        tokio::select! {
            changed = found.changed() => if changed.is_err() { return },
            changed = snapshots.changed() => if changed.is_err() { return },
        }
    }
}

fn outside(found: &[IpAddr], snapshot: Option<&Snapshot>) -> Vec<IpAddr> {
    found
        .iter()
        .copied()
        .filter(|&address| !snapshot.is_some_and(|snapshot| is_overlay(snapshot, address)))
        .collect()
}

fn is_overlay(snapshot: &Snapshot, address: IpAddr) -> bool {
    let own = |host: &ipnet::IpNet| host.addr() == address;
    snapshot.in_range(address) || snapshot.host_addresses.iter().any(own)
}

#[cfg(test)]
mod tests {
    use weft_types::{Mtu, NodeId};

    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            generation: 1,
            node: NodeId::new([0; 32]),
            mtu: Mtu::MESH,
            ranges: vec!["10.32.0.0/12".parse().unwrap()],
            host_addresses: vec!["192.0.2.9/24".parse().unwrap()],
            peers: Vec::new(),
            endpoints: weft_router_proto::snapshot::Endpoints::default(),
        }
    }

    fn list<const N: usize>(addresses: [&str; N]) -> Vec<IpAddr> {
        addresses.map(|it| it.parse().unwrap()).into()
    }

    async fn told(inputs: &mut mpsc::Receiver<Input>) -> Vec<IpAddr> {
        let Some(Input::LocalAddresses(addresses)) = inputs.recv().await else {
            panic!("no addresses");
        };
        addresses
    }

    #[tokio::test]
    async fn what_is_found_is_told_when_it_changes_but_for_the_mesh_s_own() {
        let (finder, found) = watch::channel(list(["192.0.2.8", "192.0.2.9"]));
        let (forwarding, snapshots) = watch::channel(None);
        let (inputs, mut received) = mpsc::channel(1);
        tokio::spawn(tell(Vec::new(), found, snapshots, inputs));

        let before_any_mesh = told(&mut received).await;
        forwarding.send_replace(Some(Arc::new(snapshot())));
        let in_the_mesh = told(&mut received).await;
        finder.send_replace(list(["192.0.2.8", "10.33.1.1", "2001:db8::8"]));
        let later = told(&mut received).await;

        assert_eq!(before_any_mesh, list(["192.0.2.8", "192.0.2.9"]));
        assert_eq!(in_the_mesh, list(["192.0.2.8"]));
        assert_eq!(later, list(["192.0.2.8", "2001:db8::8"]));
    }

    #[tokio::test]
    async fn a_router_that_listens_on_one_address_has_no_other() {
        let only = list(["127.0.0.1"]);
        let (_finder, found) = watch::channel(list(["192.0.2.8"]));
        let (_forwarding, snapshots) = watch::channel(None);
        let (inputs, mut received) = mpsc::channel(1);

        tokio::spawn(tell(only.clone(), found, snapshots, inputs));

        assert_eq!(told(&mut received).await, only);
    }
}
