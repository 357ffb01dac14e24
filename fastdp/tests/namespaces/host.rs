//! A host on the virtual Ethernet, in namespaces that the tests make and that are gone with them.

use std::collections::BTreeSet;
use std::io::IoSliceMut;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use weft_fastdp::attach::{Attached, Attachment, attach, detach};
use weft_fastdp::check;
use weft_fastdp::follow::follow;
use weft_fastdp::host::Host;
use weft_fastdp::names::{CONTAINER_DEVICE, DeviceNames};
use weft_fastdp::target::Target;
use weft_kernel::event::{PollFd, PollFlags, wait};
use weft_kernel::fdb::Hold;
use weft_kernel::link::{BridgeOptions, LinkChange};
use weft_kernel::netlink::{Netlink, Request};
use weft_kernel::netns::NetNs;
use weft_kernel::packet::{Options, PacketSocket};
use weft_kernel::tap::{Tap, TapOptions};
use weft_lab::packet::{Arp, Operation, ethernet, ethertype};
use weft_lab::{in_namespace, net};
use weft_router_proto::snapshot::{Endpoint, EndpointKind, Snapshot};
use weft_types::{Code, MacAddr, Mtu, NodeId, Problem, Segment};

const OURS: NodeId = NodeId::new([1; 32]);
const THEIRS: NodeId = NodeId::new([2; 32]);
const HOST: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);
const REMOTE: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 2]);
pub(super) const CONTAINER: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 3]);
const OTHER: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 4]);
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// An ethertype for local experiments (IEEE 802 §9.2.4): nobody else sends it.
const EXPERIMENT: u16 = 0x88b5;

/// A host whose tables follow what the test publishes.
pub(super) struct Stage {
    host: Host,
    tap: Tap,
    pub(super) netlink: Netlink,
    names: DeviceNames,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    pub(super) problems: watch::Receiver<Vec<Problem>>,
}

impl Stage {
    async fn open() -> Self {
        let names = DeviceNames::default();
        let (host, tap) = Host::open(&names, TapOptions::default()).await.unwrap();
        let (snapshots, follower) = watch::channel(None);
        let (report, problems) = watch::channel(Vec::new());
        let following = host.clone();
        tokio::spawn(async move { follow(&following, follower, report).await });
        Self {
            host,
            tap,
            netlink: Netlink::connect().unwrap(),
            names,
            snapshots,
            problems,
        }
    }

    /// Publishes a snapshot and waits until the kernel has what it asks for.
    pub(super) async fn settle(&self, snapshot: Snapshot) {
        let expected = tables_of(&snapshot);
        self.snapshots.send(Some(Arc::new(snapshot))).unwrap();
        self.until(&expected).await;
    }

    /// Attaches a container for each address; the mesh knows them, and one endpoint elsewhere.
    pub(super) async fn attach<const N: usize>(
        &self,
        macs: [MacAddr; N],
    ) -> [(NetNs, Attached); N] {
        let mut containers = Vec::new();
        for mac in macs {
            let (netns, target) = empty_container();
            let attached = attach(&attachment(&target, mac)).await.unwrap();
            containers.push((netns, attached));
        }
        let here = containers.iter().map(|(_, attached)| container(attached));
        self.settle(snapshot(here.chain([remote()]))).await;
        containers.try_into().unwrap()
    }

    async fn until(&self, expected: &str) {
        let reach = async {
            while self.tables().await != expected {
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(PATIENCE, reach).await.is_err() {
            assert_eq!(self.tables().await, expected);
        }
    }

    /// What the kernel has, as text: our part of it.
    async fn tables(&self) -> String {
        let links = self.netlink.links().await.unwrap();
        let name = |index| {
            let link = links.iter().find(|link| link.index == index);
            link.map_or_else(String::new, |link| link.name.clone())
        };
        let Some(bridge) = links.iter().find(|link| link.name == self.names.bridge) else {
            return "no bridge".into();
        };
        let mut lines = vec![format!("bridge {} mtu {}", bridge.mac.unwrap(), bridge.mtu)];
        for address in self.netlink.addresses().await.unwrap() {
            let link_local =
                matches!(address.net.addr(), IpAddr::V6(v6) if v6.is_unicast_link_local());
            if address.link == bridge.index && !link_local {
                lines.push(format!("address {}", address.net));
            }
        }
        for entry in self.netlink.fdb(bridge.index).await.unwrap() {
            if entry.hold == Hold::Sticky {
                lines.push(format!("fdb {} {}", entry.mac, name(entry.port)));
            }
        }
        for neighbour in self.netlink.neighbours(bridge.index).await.unwrap() {
            lines.push(format!("neighbour {} {}", neighbour.address, neighbour.mac));
        }
        lines[1..].sort();
        lines.join("\n")
    }

    /// The next frame with this ethertype that comes out of the TAP; `None` where none does for a long time.
    fn next_outgoing(&self, ethertype: u16) -> Option<Vec<u8>> {
        loop {
            let mut fds = [PollFd::new(self.tap.as_fd(), PollFlags::POLLIN)];
            if wait(&mut fds, Some(PATIENCE)).unwrap() == 0 {
                return None;
            }
            let (mut header, mut frame) = ([0; 10], vec![0; 1 << 16]);
            let mut buffers = [IoSliceMut::new(&mut header), IoSliceMut::new(&mut frame)];
            let len = self.tap.read_vectored(&mut buffers).unwrap();
            frame.truncate(len - 10);
            if frame[12..14] == ethertype.to_be_bytes() {
                return Some(frame);
            }
        }
    }
}

/// Runs a test on a host of its own.
pub(super) fn on_stage(test: impl AsyncFnOnce(Stage) + Send) {
    in_namespace(async || test(Stage::open().await).await);
}

fn endpoint(owner: NodeId, mac: MacAddr, kind: EndpointKind) -> Endpoint {
    let last = mac.as_bytes()[5];
    Endpoint {
        segment: Segment::DEFAULT,
        mac,
        addresses: vec![
            IpAddr::from([10, 32, 0, last]),
            format!("fd00::{last}").parse().unwrap(),
        ],
        owner,
        kind,
        metadata: None,
    }
}

pub(super) fn remote() -> Endpoint {
    endpoint(
        THEIRS,
        REMOTE,
        EndpointKind::Attached {
            port: String::new(),
        },
    )
}

fn container(attached: &Attached) -> Endpoint {
    let port = attached.port.clone();
    endpoint(OURS, attached.mac, EndpointKind::Attached { port })
}

pub(super) fn snapshot(endpoints: impl IntoIterator<Item = Endpoint>) -> Snapshot {
    let mut all = vec![endpoint(OURS, HOST, EndpointKind::Host)];
    all.extend(endpoints);
    Snapshot {
        generation: 1,
        node: OURS,
        mtu: Mtu::new(1400).unwrap(),
        ranges: vec![
            "10.32.0.0/12".parse().unwrap(),
            "fd00::/64".parse().unwrap(),
        ],
        host_addresses: vec![
            "10.32.0.1/12".parse().unwrap(),
            "fd00::1/64".parse().unwrap(),
        ],
        peers: Vec::new(),
        endpoints: all.into_iter().collect(),
    }
}

/// What the kernel shall have for a snapshot, as [`Stage::tables`] writes it.
fn tables_of(snapshot: &Snapshot) -> String {
    let mut lines = Vec::new();
    for net in &snapshot.host_addresses {
        lines.push(format!("address {net}"));
    }
    for endpoint in &snapshot.endpoints {
        match &endpoint.kind {
            EndpointKind::Attached { port } if endpoint.owner == OURS => {
                lines.push(format!("fdb {} {port}", endpoint.mac));
            }
            EndpointKind::Attached { .. } => {
                lines.push(format!("fdb {} weft-tap", endpoint.mac));
                for address in &endpoint.addresses {
                    lines.push(format!("neighbour {address} {}", endpoint.mac));
                }
            }
            EndpointKind::Host => {}
        }
    }
    lines.sort();
    lines.insert(0, format!("bridge {HOST} mtu {}", snapshot.mtu));
    lines.join("\n")
}

/// A container without anything in it.
fn empty_container() -> (NetNs, Target) {
    let netns = NetNs::create().unwrap();
    let path = format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&netns.as_fd())
    );
    (netns, Target::Path(PathBuf::from(path)))
}

fn attachment(target: &Target, mac: MacAddr) -> Attachment {
    let last = mac.as_bytes()[5];
    Attachment {
        target: target.clone(),
        bridge: "weft".into(),
        device: CONTAINER_DEVICE.into(),
        mac: Some(mac),
        addresses: vec![
            format!("10.32.0.{last}/12").parse().unwrap(),
            format!("fd00::{last}/64").parse().unwrap(),
        ],
    }
}

fn listen(netns: &NetNs) -> PacketSocket {
    netns
        .run(|| PacketSocket::open(CONTAINER_DEVICE, &Options::capture()))
        .unwrap()
        .unwrap()
}

fn frame(to: MacAddr, from: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(to, from, ethertype, payload);
    frame.resize(frame.len().max(60), 0);
    frame
}

/// Who has `target`?
fn arp_request(from: MacAddr, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let question = Arp {
        operation: Operation::Request,
        sender: (from, sender.into()),
        target: (MacAddr::new([0; 6]), target.into()),
    };
    question.frame(MacAddr::BROADCAST)
}

/// Waits for a frame that arrives and that `wanted` likes.
fn receive(socket: &PacketSocket, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 1 << 17];
    while socket.wait(PATIENCE).unwrap() {
        let received = socket.recv(&mut buffer).unwrap();
        let incoming = received.direction == weft_kernel::packet::Direction::Incoming;
        if incoming && wanted(received.frame) {
            return Some(received.frame.to_vec());
        }
    }
    None
}

#[test]
fn the_tables_are_what_the_snapshot_asks_for() {
    on_stage(async |stage| {
        stage.settle(snapshot([remote()])).await;

        // Reviewed once by a person: what an operator sees with `bridge fdb`, `ip neighbour` and `ip address`.
        let golden = "\
bridge 02:00:00:00:00:01 mtu 1400
address 10.32.0.1/12
address fd00::1/64
fdb 02:00:00:00:00:02 weft-tap
neighbour 10.32.0.2 02:00:00:00:00:02
neighbour fd00::2 02:00:00:00:00:02";
        assert_eq!(stage.tables().await, golden);
        stage.settle(snapshot([])).await;
        assert!(stage.problems.borrow().is_empty(), "{:?}", stage.problems);
    });
}

#[test]
fn what_somebody_breaks_is_mended() {
    on_stage(async |stage| {
        let asked = snapshot([remote()]);
        let golden = tables_of(&asked);
        stage.settle(asked).await;
        let bridge = stage.netlink.link("weft").await.unwrap().unwrap();
        let tap = stage.netlink.link("weft-tap").await.unwrap().unwrap();

        let address = "10.32.0.2".parse().unwrap();
        stage
            .netlink
            .change(Request::delete_neighbour(bridge.index, address))
            .await
            .unwrap();
        stage.until(&golden).await;
        stage
            .netlink
            .change(Request::delete_fdb(REMOTE, tap.index))
            .await
            .unwrap();
        stage.until(&golden).await;
        let off = LinkChange {
            up: Some(false),
            ..LinkChange::default()
        };
        stage
            .netlink
            .change(Request::change_link(bridge.index, &off))
            .await
            .unwrap();
        stage.until(&golden).await;
        stage
            .netlink
            .change(Request::delete_link(bridge.index))
            .await
            .unwrap();
        stage.until(&golden).await;
    });
}

#[test]
fn an_address_of_a_remote_endpoint_is_answered_for_by_the_bridge() {
    on_stage(async |stage| {
        let [(netns, _)] = stage.attach([CONTAINER]).await;
        let socket = listen(&netns);

        socket
            .send(&arp_request(CONTAINER, [10, 32, 0, 3], [10, 32, 0, 2]))
            .unwrap();
        let reply =
            |frame: &[u8]| Arp::of_frame(frame).filter(|word| word.operation == Operation::Reply);
        let heard = receive(&socket, |frame| reply(frame).is_some());

        let told = heard.and_then(|frame| reply(&frame)).expect("an answer");
        assert_eq!(told.sender, (REMOTE, [10, 32, 0, 2].into()));
        // The question itself stays here; one that nobody here can answer leaves by the TAP.
        socket
            .send(&arp_request(CONTAINER, [10, 32, 0, 3], [10, 32, 0, 77]))
            .unwrap();
        let asked = stage.next_outgoing(ethertype::ARP).expect("a question");
        let asked = Arp::of_frame(&asked).expect("a question");
        assert_eq!(asked.target.1.octets(), [10, 32, 0, 77]);
    });
}

#[test]
fn a_container_s_own_stack_finds_remote_endpoints_without_asking_the_mesh() {
    on_stage(async |stage| {
        let [(netns, _)] = stage.attach([CONTAINER]).await;

        for (from, to, ethertype) in [
            ("10.32.0.3:0", "10.32.0.2:9", ethertype::IPV4),
            ("[fd00::3]:0", "[fd00::2]:9", ethertype::IPV6),
        ] {
            let socket = netns
                .run(|| std::net::UdpSocket::bind(from))
                .unwrap()
                .unwrap();
            socket.send_to(b"over there", to).unwrap();

            // Multicast is for everybody; the datagram is the first frame for one station.
            let sent = loop {
                let frame = stage.next_outgoing(ethertype).expect("a datagram");
                if frame[0] & 1 == 0 {
                    break frame;
                }
            };
            assert_eq!(sent[..6], *REMOTE.as_bytes());
            assert!(sent.ends_with(b"over there"));
        }
    });
}

#[test]
fn a_frame_for_a_remote_endpoint_comes_out_of_the_tap() {
    on_stage(async |stage| {
        let [(netns, _)] = stage.attach([CONTAINER]).await;

        let sent = frame(REMOTE, CONTAINER, EXPERIMENT, b"to the other side");
        listen(&netns).send(&sent).unwrap();

        assert_eq!(stage.next_outgoing(EXPERIMENT), Some(sent));
    });
}

#[test]
fn a_container_cannot_send_in_another_s_name() {
    on_stage(async |stage| {
        let [(netns, attached)] = stage.attach([CONTAINER]).await;
        assert!(
            attached.problems.is_empty(),
            "this kernel has no locked ports"
        );
        let socket = listen(&netns);

        for liar in [OTHER, REMOTE, HOST] {
            socket
                .send(&frame(REMOTE, liar, EXPERIMENT, b"a lie"))
                .unwrap();
        }
        let honest = frame(REMOTE, CONTAINER, EXPERIMENT, b"the truth");
        socket.send(&honest).unwrap();

        // Frames of one sender keep their order: what comes first is the only one that came.
        assert_eq!(stage.next_outgoing(EXPERIMENT), Some(honest));
    });
}

#[test]
fn what_comes_in_by_the_tap_reaches_the_container_it_is_for_and_no_other() {
    on_stage(async |stage| {
        let [(one, _), (two, _)] = stage.attach([CONTAINER, OTHER]).await;
        let (one, two) = (listen(&one), listen(&two));

        for (to, text) in [(CONTAINER, b"for one"), (MacAddr::BROADCAST, b"for all")] {
            let sent = frame(to, REMOTE, EXPERIMENT, text);
            let header = [0; 10];
            let pieces = [std::io::IoSlice::new(&header), std::io::IoSlice::new(&sent)];
            stage.tap.write_vectored(&pieces).unwrap();
        }

        let experiment = |frame: &[u8]| frame[12..14] == EXPERIMENT.to_be_bytes();
        let first = receive(&one, experiment).unwrap();
        assert_eq!(&first[14..21], b"for one");
        let second = receive(&two, experiment).unwrap();
        assert_eq!(&second[14..21], b"for all");
    });
}

#[test]
fn containers_of_one_host_talk_over_both_families() {
    on_stage(async |stage| {
        let [(one, _), (two, _)] = stage.attach([CONTAINER, OTHER]).await;

        for (from, to) in [
            ("10.32.0.3:0", "10.32.0.4:0"),
            ("[fd00::3]:0", "[fd00::4]:0"),
        ] {
            let a = one
                .run(|| std::net::UdpSocket::bind(from))
                .unwrap()
                .unwrap();
            let b = two.run(|| std::net::UdpSocket::bind(to)).unwrap().unwrap();
            b.set_read_timeout(Some(PATIENCE)).unwrap();
            a.send_to(b"hello", b.local_addr().unwrap()).unwrap();

            let mut buffer = [0; 16];
            let (len, sender) = b.recv_from(&mut buffer).unwrap();
            assert_eq!(
                (&buffer[..len], sender),
                (&b"hello"[..], a.local_addr().unwrap())
            );
        }
    });
}

#[test]
fn attaching_is_all_or_nothing_and_undone_by_detaching() {
    on_stage(async |stage| {
        let before = stage.netlink.links().await.unwrap();
        let (netns, target) = empty_container();
        let mut wrong = attachment(&target, CONTAINER);
        // The kernel takes no group address.
        wrong.mac = Some(MacAddr::new([1, 0, 0, 0, 0, 3]));

        assert!(attach(&wrong).await.is_err());
        assert_eq!(stage.netlink.links().await.unwrap(), before);

        let attached = attach(&attachment(&target, CONTAINER)).await.unwrap();
        let again = attach(&attachment(&target, OTHER)).await.unwrap_err();
        assert_eq!(again.code, Code::AttachTarget, "{again}");
        let mut ports = stage.host.ports();
        let seen = ports.wait_for(|ports| {
            let ports = ports.as_ref();
            ports.is_some_and(|ports| ports.contains(&attached.port))
        });
        tokio::time::timeout(PATIENCE, seen).await.unwrap().unwrap();

        assert_eq!(detach(&target, CONTAINER_DEVICE).await, Ok(CONTAINER));
        let nothing = detach(&target, CONTAINER_DEVICE).await.unwrap_err();
        assert_eq!(nothing.code, Code::AttachTarget);
        assert_eq!(stage.netlink.links().await.unwrap(), before);
        let left = netns.block_on(|| async { Netlink::connect().unwrap().links().await });
        assert_eq!(left.unwrap().unwrap().len(), 1);
        let gone = ports.wait_for(|ports| ports.as_ref().is_some_and(BTreeSet::is_empty));
        tokio::time::timeout(PATIENCE, gone).await.unwrap().unwrap();
    });
}

#[test]
fn the_devices_stay_for_a_container_that_nobody_has_heard_of_yet() {
    in_namespace(async || {
        let netlink = Netlink::connect().unwrap();
        let before = netlink.links().await.unwrap();
        // Nobody follows here, so all that this host knows of its ports is from before the container.
        let (host, _tap) = Host::open(&DeviceNames::default(), TapOptions::default())
            .await
            .unwrap();
        let (_netns, target) = empty_container();
        let attached = attach(&attachment(&target, CONTAINER)).await.unwrap();

        host.clone().remove_unused().await.unwrap();

        assert!(netlink.link(&attached.port).await.unwrap().is_some());
        assert!(netlink.link("weft").await.unwrap().is_some());
        detach(&target, CONTAINER_DEVICE).await.unwrap();
        host.remove_unused().await.unwrap();
        assert_eq!(netlink.links().await.unwrap(), before);
    });
}

#[test]
fn a_container_that_shares_the_host_s_network_is_refused() {
    on_stage(async |_stage| {
        let target = Target::Path("/proc/thread-self/ns/net".into());

        let refused = attach(&attachment(&target, CONTAINER)).await.unwrap_err();

        assert_eq!(refused.code, Code::AttachTarget);
    });
}

#[test]
fn a_bridge_that_was_left_behind_is_taken_over_and_removed_without_a_trace() {
    in_namespace(async || {
        let netlink = Netlink::connect().unwrap();
        let before = netlink.links().await.unwrap();
        let names = DeviceNames::default();
        let stage = Stage::open().await;
        stage.settle(snapshot([remote()])).await;
        // A process that is killed closes its TAP and no more.
        drop(stage);
        let left = netlink.link("weft").await.unwrap();
        assert!(left.is_some());

        let stage = Stage::open().await;
        stage.settle(snapshot([])).await;
        drop(stage);
        Host::remove_leftovers(&names).await.unwrap();

        assert_eq!(netlink.links().await.unwrap(), before);
        Host::remove_leftovers(&names).await.unwrap();
    });
}

#[test]
fn somebody_else_s_device_is_neither_used_nor_removed() {
    in_namespace(async || {
        let netlink = Netlink::connect().unwrap();
        let options = BridgeOptions {
            name: "weft".into(),
            mac: None,
            mtu: 1500,
            alias: "mine".into(),
        };
        netlink.create_bridge(&options).await.unwrap();
        let names = DeviceNames::default();

        let refused = Host::open(&names, TapOptions::default()).await.unwrap_err();

        assert_eq!(refused.code, Code::DeviceInUse);
        Host::remove_leftovers(&names).await.unwrap();
        assert!(netlink.link("weft").await.unwrap().is_some());
        assert!(netlink.link("weft-tap").await.unwrap().is_none());
    });
}

#[test]
fn a_bridge_that_nobody_uses_yet_is_somebody_else_s_all_the_same() {
    in_namespace(async || {
        let netlink = Netlink::connect().unwrap();
        let options = BridgeOptions {
            name: "weft".into(),
            mac: None,
            mtu: 1500,
            alias: String::new(),
        };
        netlink.create_bridge(&options).await.unwrap();
        let names = DeviceNames::default();
        let before = netlink.links().await.unwrap();

        let refused = Host::open(&names, TapOptions::default()).await.unwrap_err();
        Host::remove_leftovers(&names).await.unwrap();

        assert_eq!(refused.code, Code::DeviceInUse);
        assert!(!refused.to_string().contains("delete"), "{refused}");
        assert_eq!(netlink.links().await.unwrap(), before);
    });
}

#[test]
fn a_bridge_that_was_never_named_goes_with_the_next_start() {
    in_namespace(async || {
        let netlink = Netlink::connect().unwrap();
        let options = BridgeOptions {
            name: "weft-new".into(),
            mac: None,
            mtu: 1500,
            alias: String::new(),
        };
        netlink.create_bridge(&options).await.unwrap();

        let _stage = Stage::open().await;

        assert!(netlink.link("weft-new").await.unwrap().is_none());
        assert!(netlink.link("weft").await.unwrap().is_some());
    });
}

#[test]
fn a_second_router_with_the_same_names_is_refused_and_the_first_goes_on() {
    on_stage(async |stage| {
        let refused = Host::open(&stage.names, TapOptions::default())
            .await
            .unwrap_err();

        assert_eq!(refused.code, Code::DeviceInUse);
        stage.settle(snapshot([remote()])).await;
    });
}

#[test]
fn a_range_that_the_host_reaches_otherwise_is_refused_and_another_suggested() {
    in_namespace(async || {
        let here = NetNs::current().unwrap();
        net::cable((&here, "lan0"), (&here, "lan1"), 1500).unwrap();
        net::address(&here, "lan0", "10.40.0.1/16".parse().unwrap()).unwrap();
        let names = DeviceNames::default();
        let ranges = |range: &str| [range.parse().unwrap()];

        let refused = check::ranges(&names, &ranges("10.32.0.0/12"))
            .await
            .unwrap_err();

        assert_eq!(refused.code, Code::RangeOverlap);
        assert!(
            refused.what.contains("10.40.0.0/16") && refused.what.contains("lan0"),
            "{refused}"
        );
        assert!(refused.fix.contains("10.64.0.0/12"), "{refused}");
        assert_eq!(check::ranges(&names, &ranges("10.64.0.0/12")).await, Ok(()));
        // Its own bridge is no obstacle to a mesh that is resumed.
        let stage = Stage::open().await;
        let mut asked = snapshot([]);
        asked.host_addresses = vec!["10.64.0.1/12".parse().unwrap()];
        stage.settle(asked).await;
        assert_eq!(check::ranges(&names, &ranges("10.64.0.0/12")).await, Ok(()));
    });
}
