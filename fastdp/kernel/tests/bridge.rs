//! What the kernel makes of our requests, in namespaces that the tests make and that are gone with them.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails its test"
)]

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use weft_kernel::event::{PollFd, PollFlags, wait};
use weft_kernel::fdb::{FdbEntry, Hold};
use weft_kernel::link::{BridgeOptions, Link, LinkChange, LinkKind, VethEnd};
use weft_kernel::monitor::{Change, Monitor, Subject};
use weft_kernel::neigh::Neighbour;
use weft_kernel::netlink::{LinkIndex, Netlink, NetlinkError, Request};
use weft_kernel::netns::NetNs;
use weft_kernel::probe::{Feature, Finding, probe};
use weft_kernel::tap::{Tap, TapOptions};
use weft_types::{MacAddr, PortFlag};

const MAC: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 7]);

/// Runs `work` in a namespace of its own. Where none can be made the test is skipped, and says so. (The lab, which has the
/// like for everybody else, stands on this crate.)
#[expect(
    clippy::print_stdout,
    reason = "a test that is skipped says so where its output is read"
)]
fn in_namespace<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send) {
    match NetNs::create() {
        Ok(netns) => netns.block_on(work).expect("a namespace of ours"),
        Err(error) => println!("skipped: {error}"),
    }
}

async fn bridge(netlink: &Netlink) -> Link {
    let options = BridgeOptions {
        name: "br".into(),
        mac: Some(MAC),
        mtu: 1350,
        alias: "a test".into(),
    };
    netlink.create_bridge(&options).await.unwrap();
    netlink.link("br").await.unwrap().unwrap()
}

async fn tap_on(netlink: &Netlink, bridge: &Link) -> (Tap, Link) {
    let tap = Tap::open("tap", TapOptions::default()).unwrap();
    let port = netlink.link("tap").await.unwrap().unwrap();
    let enslave = LinkChange {
        controller: Some(bridge.index),
        up: Some(true),
        ..LinkChange::default()
    };
    netlink
        .change(Request::change_link(port.index, &enslave))
        .await
        .unwrap();
    (tap, netlink.link("tap").await.unwrap().unwrap())
}

#[test]
fn a_bridge_is_what_was_asked_for_and_keeps_its_mtu() {
    in_namespace(async || {
        let netlink = Netlink::connect().unwrap();

        let bridge = bridge(&netlink).await;
        let (_tap, port) = tap_on(&netlink, &bridge).await;

        assert_eq!(bridge.kind, LinkKind::Bridge);
        assert_eq!(
            (bridge.mac, bridge.mtu, bridge.up),
            (Some(MAC), 1350, false)
        );
        assert_eq!(bridge.alias.as_deref(), Some("a test"));
        assert_eq!(
            (port.kind, port.controller),
            (LinkKind::Tun, Some(bridge.index))
        );
        // Its port has 1500.
        let after = netlink.link_at(bridge.index).await.unwrap().unwrap();
        assert_eq!(after.mtu, 1350);
        netlink
            .change(Request::delete_link(bridge.index))
            .await
            .unwrap();
        assert_eq!(netlink.link("br").await.unwrap(), None);
        let index = netlink.index_of("br").await;
        assert_eq!(index, Err(NetlinkError::NoDevice));
    });
}

#[test]
fn every_switch_of_a_port_can_be_turned_both_ways() {
    in_namespace(async || {
        let netlink = Netlink::connect().unwrap();
        let bridge = bridge(&netlink).await;
        let (_tap, port) = tap_on(&netlink, &bridge).await;

        for on in [true, false] {
            let flags: BTreeMap<_, _> = PortFlag::ALL.into_iter().map(|flag| (flag, on)).collect();
            netlink
                .change(Request::set_port_flags(port.index, &flags))
                .await
                .unwrap();

            let port = netlink.link_at(port.index).await.unwrap().unwrap();
            let known = port.port.unwrap();
            assert!(known.iter().all(|(_, state)| *state == on), "{known:?}");
            assert!(known.contains_key(&PortFlag::NeighSuppress));
        }
    });
}

#[test]
fn refusals_are_told_apart() {
    in_namespace(async || {
        let netlink = Netlink::connect().unwrap();
        let bridge = bridge(&netlink).await;
        let again = BridgeOptions {
            name: "br".into(),
            mac: None,
            mtu: 1350,
            alias: String::new(),
        };

        assert_eq!(
            netlink.create_bridge(&again).await,
            Err(NetlinkError::Exists)
        );
        netlink
            .change(Request::delete_link(bridge.index))
            .await
            .unwrap();
        let gone = netlink
            .change(Request::delete_link(bridge.index))
            .await
            .unwrap_err();
        assert!(gone.is_absent());
    });
}

#[test]
fn an_fdb_entry_is_written_moved_and_removed() {
    in_namespace(async || {
        let netlink = Netlink::connect().unwrap();
        let bridge = bridge(&netlink).await;
        let (_tap, port) = tap_on(&netlink, &bridge).await;
        let end = |name| VethEnd {
            name,
            mac: None,
            mtu: 1350,
            netns: None,
        };
        netlink.create_veth(&end("a"), &end("b")).await.unwrap();
        let other = netlink.link("a").await.unwrap().unwrap();
        let enslave = LinkChange {
            controller: Some(bridge.index),
            ..LinkChange::default()
        };
        netlink
            .change(Request::change_link(other.index, &enslave))
            .await
            .unwrap();
        let mac = MacAddr::new([2, 0, 0, 0, 0, 9]);
        let at = |port| FdbEntry {
            mac,
            port,
            hold: Hold::Sticky,
        };

        netlink
            .change(Request::set_fdb(mac, port.index))
            .await
            .unwrap();
        netlink
            .change(Request::set_fdb(mac, port.index))
            .await
            .unwrap();
        let mut entries = netlink.fdb(bridge.index).await.unwrap();
        entries.retain(|entry| entry.mac == mac);
        assert_eq!(entries, [at(port.index)]);

        netlink
            .change(Request::set_fdb(mac, other.index))
            .await
            .unwrap();
        let mut entries = netlink.fdb(bridge.index).await.unwrap();
        entries.retain(|entry| entry.mac == mac);
        assert_eq!(entries, [at(other.index)]);

        netlink
            .change(Request::delete_fdb(mac, other.index))
            .await
            .unwrap();
        let gone = netlink
            .change(Request::delete_fdb(mac, other.index))
            .await
            .unwrap_err();
        assert!(gone.is_absent());
    });
}

/// What an attachment of a thousand containers writes: an FDB entry and a neighbour each.
fn thousand(port: LinkIndex, bridge: LinkIndex) -> Vec<Request> {
    let of = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let mac = MacAddr::new([2, 0, 0, 1, high, low]);
        let address = IpAddr::from([10, 32, high, low]);
        let neighbour = Request::set_neighbour(bridge, &Neighbour { address, mac });
        [Request::set_fdb(mac, port), neighbour]
    };
    (1..=1000).flat_map(of).collect()
}

#[test]
fn a_thousand_entries_are_written_in_a_handful_of_calls_but_for_the_one_refused() {
    in_namespace(async || {
        let netlink = Netlink::connect().unwrap();
        let bridge = bridge(&netlink).await;
        let (_tap, port) = tap_on(&netlink, &bridge).await;
        let up = LinkChange {
            up: Some(true),
            ..LinkChange::default()
        };
        netlink
            .change(Request::change_link(bridge.index, &up))
            .await
            .unwrap();
        let mut requests = thousand(port.index, bridge.index);
        requests[777] = Request::delete_link(LinkIndex::new(9_999_999));

        let ends = netlink.change_all(requests).await;

        assert_eq!(ends.len(), 2000);
        for (position, end) in ends.into_iter().enumerate() {
            let expected = if position == 777 {
                Err(NetlinkError::NoDevice)
            } else {
                Ok(())
            };
            assert_eq!(end, expected, "request {position}");
        }
        let mut entries = netlink.fdb(bridge.index).await.unwrap();
        entries.retain(|entry| entry.hold == Hold::Sticky);
        assert_eq!(entries.len(), 1000);
        assert_eq!(netlink.neighbours(bridge.index).await.unwrap().len(), 999);
    });
}

#[test]
fn a_batch_of_which_every_request_is_refused_says_so_of_each() {
    in_namespace(async || {
        let netlink = Netlink::connect().unwrap();
        let nowhere = LinkIndex::new(9_999_999);

        let ends = netlink.change_all(thousand(nowhere, nowhere)).await;

        assert_eq!(ends, [Err(NetlinkError::NoDevice); 2000]);
    });
}

#[test]
fn a_batch_that_nobody_waits_for_leaves_no_answer_to_the_next() {
    in_namespace(async || {
        let netlink = Netlink::connect().unwrap();
        let absent = || Request::delete_link(LinkIndex::new(9_999_999));
        let lo = netlink.link("lo").await.unwrap().unwrap();
        let up = LinkChange {
            up: Some(true),
            ..LinkChange::default()
        };

        // Sent when polled, and given up before the answers are read.
        let mut given_up = Box::pin(netlink.change_all(vec![absent(); 3]));
        let polled = futures_util::poll!(&mut given_up);
        drop(given_up);
        let ends = netlink
            .change_all(vec![Request::change_link(lo.index, &up)])
            .await;

        assert!(polled.is_pending());
        assert_eq!(ends, [Ok(())]);
    });
}

#[expect(clippy::print_stderr, reason = "a measurement is read by people")]
#[test]
#[ignore = "a measurement: cargo test --release -p weft-kernel -- --ignored --nocapture batches"]
fn batches_against_single_requests() {
    in_namespace(async || {
        let netlink = Netlink::connect().unwrap();
        let bridge = bridge(&netlink).await;
        let (_tap, port) = tap_on(&netlink, &bridge).await;
        for round in 1..=5 {
            for way in ["batch", "one by one", "pipelined"] {
                let requests = thousand(port.index, bridge.index);
                let begin = Instant::now();
                match way {
                    "batch" => drop(netlink.change_all(requests).await),
                    "pipelined" => {
                        drop(join_all(requests.into_iter().map(|it| netlink.change(it))).await)
                    }
                    _ => {
                        for request in requests {
                            netlink.change(request).await.unwrap();
                        }
                    }
                }
                eprintln!("round {round}, 2000 requests, {way}: {:?}", begin.elapsed());
            }
        }
    });
}

#[test]
fn neighbours_and_addresses_of_both_families_are_read_back() {
    in_namespace(async || {
        let netlink = Netlink::connect().unwrap();
        let bridge = bridge(&netlink).await;
        let up = LinkChange {
            up: Some(true),
            ..LinkChange::default()
        };
        netlink
            .change(Request::change_link(bridge.index, &up))
            .await
            .unwrap();
        let nets = ["10.32.0.1/12", "fd00::1/64"].map(|net| net.parse().unwrap());
        let neighbours = ["10.32.0.2", "fd00::2"].map(|address| Neighbour {
            address: address.parse::<IpAddr>().unwrap(),
            mac: MAC,
        });

        for (net, neighbour) in nets.into_iter().zip(&neighbours) {
            netlink
                .change(Request::add_address(bridge.index, net))
                .await
                .unwrap();
            netlink
                .change(Request::set_neighbour(bridge.index, neighbour))
                .await
                .unwrap();
        }

        assert_eq!(netlink.neighbours(bridge.index).await.unwrap(), neighbours);
        let addresses = netlink.addresses().await.unwrap();
        let usable = |net| addresses.iter().any(|a| a.net == net && a.usable);
        assert!(nets.into_iter().all(usable));
        let routes = netlink.routes().await.unwrap();
        assert!(
            routes
                .iter()
                .any(|r| r.net == "10.32.0.0/12".parse().unwrap())
        );
        for (net, neighbour) in nets.into_iter().zip(&neighbours) {
            netlink
                .change(Request::delete_neighbour(bridge.index, neighbour.address))
                .await
                .unwrap();
            netlink
                .change(Request::delete_address(bridge.index, net))
                .await
                .unwrap();
        }
        assert_eq!(netlink.neighbours(bridge.index).await.unwrap(), []);
    });
}

#[test]
fn a_change_by_somebody_else_is_heard() {
    in_namespace(async || {
        let mut monitor = Monitor::open(&[Subject::Links]).unwrap();
        let netlink = Netlink::connect().unwrap();

        let bridge = bridge(&netlink).await;

        let born = Change::Link {
            link: bridge.index,
            controller: None,
        };
        let heard = async { while monitor.next().await != Some(born) {} };
        let heard = tokio::time::timeout(Duration::from_secs(30), heard).await;
        assert!(heard.is_ok());
    });
}

#[test]
fn the_probe_names_every_feature_and_leaves_nothing_behind() {
    in_namespace(async || {
        let netlink = Netlink::connect().unwrap();
        let before = netlink.links().await.unwrap();

        let findings = probe(&netlink).await;

        assert_eq!(findings.len(), 13);
        assert!(findings.contains(&(Feature::CapNetAdmin, Finding::Present)));
        assert!(findings.contains(&(Feature::Bridge, Finding::Present)));
        assert_eq!(netlink.links().await.unwrap(), before);
    });
}

#[test]
fn a_second_tap_of_one_name_is_refused_and_the_first_dies_with_its_handle() {
    in_namespace(async || {
        let netlink = Netlink::connect().unwrap();
        let tap = Tap::open("tap", TapOptions::default()).unwrap();

        let refused = Tap::open("tap", TapOptions::default()).unwrap_err();

        assert_eq!(refused.raw_os_error(), Some(libc::EBUSY));
        drop(tap);
        assert_eq!(netlink.link("tap").await.unwrap(), None);
    });
}

#[test]
fn what_the_host_sends_comes_out_of_the_tap_with_its_header() {
    in_namespace(async || {
        let netlink = Netlink::connect().unwrap();
        let bridge = bridge(&netlink).await;
        let (tap, _) = tap_on(&netlink, &bridge).await;
        let up = LinkChange {
            up: Some(true),
            ..LinkChange::default()
        };
        netlink
            .change(Request::change_link(bridge.index, &up))
            .await
            .unwrap();
        let net = "10.32.0.1/24".parse().unwrap();
        netlink
            .change(Request::add_address(bridge.index, net))
            .await
            .unwrap();

        let socket = std::net::UdpSocket::bind("10.32.0.1:0").unwrap();
        socket.send_to(b"who has it?", "10.32.0.2:9").unwrap();

        let arp = loop {
            let mut fds = [PollFd::new(tap.as_fd(), PollFlags::POLLIN)];
            assert_eq!(wait(&mut fds, Some(Duration::from_secs(5))).unwrap(), 1);
            let (mut header, mut frame) = ([0; 10], [0; 2048]);
            let mut buffers = [
                std::io::IoSliceMut::new(&mut header),
                std::io::IoSliceMut::new(&mut frame),
            ];
            let len = tap.read_vectored(&mut buffers).unwrap();
            if frame[12..14] == [8, 6] {
                break frame[..len - 10].to_vec();
            }
        };
        assert_eq!(arp[..6], [0xff; 6]);
        assert_eq!(arp[6..12], *MAC.as_bytes());
        assert_eq!(arp[38..42], [10, 32, 0, 2]);
    });
}
