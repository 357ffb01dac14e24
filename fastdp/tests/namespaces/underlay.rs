//! Which of a host's addresses are found, and when.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;
use weft_fastdp::host::Host;
use weft_fastdp::names::DeviceNames;
use weft_fastdp::underlay;
use weft_kernel::netlink::{Netlink, Request};
use weft_kernel::netns::NetNs;
use weft_kernel::tap::TapOptions;
use weft_lab::{in_namespace, net};

/// Long for a notice, short beside the audit: what is found so soon was heard of.
const SOON: Duration = Duration::from_secs(4);

/// A host with one network card, `eth0`, on a wire to nobody.
fn host() -> NetNs {
    let here = NetNs::current().unwrap();
    net::cable((&here, "eth0"), (&here, "far0"), 1500).unwrap();
    give(&here, "eth0", "192.0.2.7/24");
    here
}

fn give(host: &NetNs, device: &str, address: &str) {
    net::address(host, device, address.parse().unwrap()).unwrap();
}

fn list(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|it| it.parse().unwrap()).collect()
}

async fn finder() -> watch::Receiver<Vec<IpAddr>> {
    underlay::watch(&DeviceNames::default()).await.unwrap()
}

async fn becomes(found: &mut watch::Receiver<Vec<IpAddr>>, expected: &[&str]) {
    let expected = list(expected);
    let wanted = found.wait_for(|addresses| *addresses == expected);
    if tokio::time::timeout(SOON, wanted).await.is_err() {
        assert_eq!(*found.borrow(), expected);
    }
}

/// A bridge that leads to a container, as container runtimes make them.
fn container_bridge(host: &NetNs, name: &str, address: &str) {
    let (near, far) = (format!("{name}v"), format!("{name}c"));
    net::switch(host, name).unwrap();
    net::cable((host, &near), (host, &far), 1500).unwrap();
    net::plug(host, &near, Some(name)).unwrap();
    give(host, name, address);
}

#[test]
fn an_address_is_found_as_it_comes_and_lost_as_it_goes() {
    in_namespace(async || {
        let here = host();
        let mut found = finder().await;
        assert_eq!(*found.borrow(), list(&["192.0.2.7"]));

        give(&here, "eth0", "2001:db8::7/64");
        becomes(&mut found, &["192.0.2.7", "2001:db8::7"]).await;

        let netlink = Netlink::connect().unwrap();
        let eth0 = netlink.link("eth0").await.unwrap().unwrap().index;
        let gone = Request::delete_address(eth0, "192.0.2.7/24".parse().unwrap());
        netlink.change(gone).await.unwrap();
        becomes(&mut found, &["2001:db8::7"]).await;

        give(&here, "eth0", "198.51.100.7/24");
        net::down(&here, "eth0").unwrap();
        becomes(&mut found, &[]).await;
    });
}

#[test]
fn a_bridge_counts_from_the_moment_a_network_card_is_behind_it() {
    in_namespace(async || {
        let here = host();
        container_bridge(&here, "br-lan", "203.0.113.7/24");
        // It has the kind of a network card: neither a TAP nor one end of a pair.
        net::card(&here, "eth1", "far0").unwrap();
        let mut found = finder().await;
        assert_eq!(*found.borrow(), list(&["192.0.2.7"]));

        net::plug(&here, "eth1", Some("br-lan")).unwrap();
        becomes(&mut found, &["192.0.2.7", "203.0.113.7"]).await;

        net::plug(&here, "eth1", None).unwrap();
        becomes(&mut found, &["192.0.2.7"]).await;
    });
}

#[test]
fn bridges_of_containers_and_the_mesh_s_own_are_left_out() {
    in_namespace(async || {
        let here = host();
        let mut found = finder().await;

        let (_devices, _tap) = Host::open(&DeviceNames::default(), TapOptions::default())
            .await
            .unwrap();
        give(&here, "weft", "10.32.0.1/12");
        container_bridge(&here, "whatever", "172.17.0.1/16");
        // Last: when this is found the others have been seen.
        give(&here, "eth0", "192.0.2.8/24");

        becomes(&mut found, &["192.0.2.7", "192.0.2.8"]).await;
    });
}
