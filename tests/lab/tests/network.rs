//! The lab tests itself: what it builds carries traffic, and what it breaks is broken exactly as asked.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use weft_lab::bar::{Bar, hold};
use weft_lab::traffic::{
    GroupTest, PingTest, UdpTest, group_receipts, ping, tcp_throughput, tcp_transfer, udp_stream,
};
use weft_lab::{
    Capture, Family, Harm, Host, Lab, Link, Match, MtuLimit, Profile, Reorder, Underlay, Way,
    requires_root, wait_until,
};

const MS: Duration = Duration::from_millis(1);

struct Pair {
    a: Host,
    b: Host,
    at_a: Link,
    at_b: Link,
    _underlay: Underlay,
}

fn pair(name: &str) -> Pair {
    let lab = Lab::new(name);
    let underlay = lab.underlay("net").unwrap();
    let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    let (at_a, at_b) = (underlay.join(&a).unwrap(), underlay.join(&b).unwrap());
    Pair {
        a,
        b,
        at_a,
        at_b,
        _underlay: underlay,
    }
}

impl Pair {
    fn ping(&self, family: Family, size: usize) -> bool {
        let test = PingTest {
            size,
            timeout: 500 * MS,
            ..PingTest::default()
        };
        ping(self.a.netns(), self.at_b.address(family), test)
            .unwrap()
            .answered()
            == 1
    }

    /// Says whether a ping is answered within the time that a busy machine may take.
    fn reaches(&self) -> bool {
        wait_until(Duration::from_secs(5), || self.ping(Family::V4, 56)).is_some()
    }

    fn b_on(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.at_b.address(family), 0)
    }

    fn udp(&self, count: u32) -> weft_lab::traffic::UdpReport {
        let test = UdpTest {
            count,
            per_second: Some(20_000),
            size: 200,
            patience: 300 * MS,
        };
        udp_stream(self.a.netns(), self.b.netns(), self.b_on(Family::V4), test).unwrap()
    }
}

#[test]
fn two_hosts_on_one_switch_talk_in_both_families() {
    requires_root!();
    let pair = pair("talk");

    for family in [Family::V4, Family::V6] {
        assert!(wait_until(Duration::from_secs(5), || pair.ping(family, 56)).is_some());
        tcp_transfer(pair.a.netns(), pair.b.netns(), pair.b_on(family), 3_000_001).unwrap();
    }
    let throughput = tcp_throughput(
        pair.a.netns(),
        pair.b.netns(),
        pair.b_on(Family::V4),
        300 * MS,
    )
    .unwrap();

    assert!(throughput.bits_per_second() > 1e8, "{throughput:?}");
    let report = pair.udp(2_000);
    assert_eq!(
        (
            report.sent,
            report.lost,
            report.duplicates,
            report.reordered
        ),
        (2_000, 0, 0, 0)
    );
}

#[test]
fn a_shaped_link_carries_streams_unharmed() {
    requires_root!();
    let pair = pair("shaped");
    pair.at_a.insert_shaper().unwrap();

    for family in [Family::V4, Family::V6] {
        assert!(wait_until(Duration::from_secs(5), || pair.ping(family, 56)).is_some());
        tcp_transfer(pair.a.netns(), pair.b.netns(), pair.b_on(family), 3_000_001).unwrap();
        tcp_transfer(
            pair.b.netns(),
            pair.a.netns(),
            SocketAddr::new(pair.at_a.address(family), 0),
            3_000_001,
        )
        .unwrap();
    }

    assert_eq!(pair.at_a.counters(Way::Out).refused, 0);
    assert_eq!(pair.at_a.counters(Way::In).refused, 0);
    assert!(pair.at_a.counters(Way::Out).passed > 2_000);
}

#[test]
fn a_shaped_link_cuts_bundles_to_wire_size() {
    requires_root!();
    let pair = pair("wire-size");
    pair.at_a.insert_shaper().unwrap();
    let capture = Capture::start(pair.at_a.port_netns(), &pair.at_a.port()).unwrap();

    tcp_transfer(
        pair.a.netns(),
        pair.b.netns(),
        pair.b_on(Family::V4),
        1_000_000,
    )
    .unwrap();
    tcp_transfer(
        pair.b.netns(),
        pair.a.netns(),
        SocketAddr::new(pair.at_a.v4().into(), 0),
        1_000_000,
    )
    .unwrap();
    let recording = capture.stop().unwrap();

    assert_eq!(recording.lost(), 0);
    assert_eq!(
        recording
            .frames()
            .iter()
            .map(|frame| frame.bytes.len())
            .max(),
        Some(1514)
    );
}

#[test]
fn a_capture_at_full_speed_loses_nothing() {
    requires_root!();
    let pair = pair("full-speed");
    let capture = Capture::start_incoming(pair.at_a.port_netns(), &pair.at_a.port()).unwrap();

    let bytes = 100_000_000;
    tcp_transfer(pair.a.netns(), pair.b.netns(), pair.b_on(Family::V4), bytes).unwrap();
    let recording = capture.stop().unwrap();

    assert_eq!(recording.lost(), 0);
    assert!(recording.bytes() as u64 > bytes);
}

#[test]
fn delay_is_added_both_ways() {
    requires_root!();
    let pair = pair("delay");
    pair.at_a
        .shape(Profile {
            delay: 20 * MS,
            ..Profile::default()
        })
        .unwrap();

    let test = PingTest {
        count: 20,
        ..PingTest::default()
    };
    let report = ping(pair.a.netns(), pair.at_b.v4().into(), test).unwrap();

    let times = || report.times.iter().flatten().copied();
    assert!(times().all(|time| time >= 40 * MS), "{report:?}");
    hold(Bar::new("there and back", 60 * MS), times());
}

#[test]
fn loss_duplicates_and_disorder_happen_as_often_as_asked() {
    requires_root!();
    let pair = pair("bad");
    assert!(pair.reaches());

    pair.at_a
        .shape_way(
            Way::Out,
            Profile {
                loss: 0.2,
                ..Profile::default()
            },
        )
        .unwrap();
    let lossy = pair.udp(5_000);
    pair.at_a
        .shape_way(
            Way::Out,
            Profile {
                duplicate: 0.2,
                ..Profile::default()
            },
        )
        .unwrap();
    let doubled = pair.udp(5_000);
    let reorder = Some(Reorder {
        by: 5 * MS,
        chance: 0.2,
    });
    pair.at_a
        .shape_way(
            Way::Out,
            Profile {
                reorder,
                ..Profile::default()
            },
        )
        .unwrap();
    let disordered = pair.udp(5_000);

    assert!((800..1_200).contains(&lossy.lost), "{lossy:?}");
    assert_eq!((lossy.duplicates, lossy.reordered), (0, 0));
    assert!((800..1_200).contains(&doubled.duplicates), "{doubled:?}");
    assert_eq!((doubled.lost, doubled.reordered), (0, 0));
    assert!(disordered.reordered > 500, "{disordered:?}");
    assert_eq!((disordered.lost, disordered.duplicates), (0, 0));
}

#[test]
fn a_cut_link_is_silent_and_a_healed_one_is_as_before() {
    requires_root!();
    let pair = pair("cut");
    assert!(pair.reaches());

    pair.at_a.cut().unwrap();
    assert!(!pair.ping(Family::V4, 56));
    pair.at_a.heal().unwrap();
    assert!(pair.reaches());
    pair.at_a.down().unwrap();
    assert!(!pair.ping(Family::V4, 56));
    pair.at_a.up().unwrap();
    assert!(pair.reaches());
}

#[test]
fn a_block_hits_its_protocol_and_port_and_nothing_else() {
    requires_root!();
    let pair = pair("block");
    assert!(pair.reaches());
    let on = |port| SocketAddr::new(pair.at_b.v4().into(), port);
    let udp = |port| {
        let test = UdpTest {
            count: 10,
            per_second: None,
            size: 100,
            patience: 100 * MS,
        };
        udp_stream(pair.a.netns(), pair.b.netns(), on(port), test)
            .unwrap()
            .received
    };

    pair.at_a.block(Match::UdpPort(6783)).unwrap();

    assert_eq!(udp(6783), 0);
    assert_eq!(udp(6784), 10);
    tcp_transfer(pair.a.netns(), pair.b.netns(), on(6783), 100_000).unwrap();
    pair.at_a.heal().unwrap();
    assert_eq!(udp(6783), 10);
}

/// Three hosts on one switch, and which of them answer each other: ab, ac, bc and back.
struct Triangle {
    hosts: [Host; 3],
    links: [Link; 3],
    _underlay: Underlay,
}

impl Triangle {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let underlay = lab.underlay("net").unwrap();
        let hosts = ["a", "b", "c"].map(|name| lab.host(name).unwrap());
        let links = [0, 1, 2].map(|at| underlay.join(&hosts[at]).unwrap());
        Self {
            hosts,
            links,
            _underlay: underlay,
        }
    }

    fn pings(&self, from: usize, to: usize, family: Family) -> bool {
        let test = PingTest {
            timeout: 200 * MS,
            ..PingTest::default()
        };
        let to = self.links[to].address(family);
        ping(self.hosts[from].netns(), to, test).unwrap().answered() == 1
    }

    fn reaches(&self, from: usize, to: usize, family: Family) -> bool {
        wait_until(Duration::from_secs(5), || self.pings(from, to, family)).is_some()
    }

    /// Sends datagrams one way, which no block of the other way disturbs.
    fn udp(&self, from: usize, to: usize, size: usize) -> u32 {
        let test = UdpTest {
            count: 20,
            per_second: None,
            size,
            patience: 300 * MS,
        };
        let (sender, receiver) = (self.hosts[from].netns(), self.hosts[to].netns());
        let place = SocketAddr::new(self.links[to].v4().into(), 0);
        udp_stream(sender, receiver, place, test).unwrap().received
    }
}

#[test]
fn two_hosts_are_cut_off_from_each_other_and_the_third_sees_both() {
    requires_root!();
    let net = Triangle::new("pair");
    let [a, b, _] = &net.links;
    for family in [Family::V4, Family::V6] {
        for (from, to) in [(0, 1), (0, 2), (1, 2)] {
            assert!(net.reaches(from, to, family));
        }
    }

    a.cut_off(b).unwrap();
    for family in [Family::V4, Family::V6] {
        assert!(!net.pings(0, 1, family) && !net.pings(1, 0, family));
        assert!(net.reaches(0, 2, family) && net.reaches(1, 2, family));
    }
    // Healing one way leaves the other cut.
    a.heal_towards(b).unwrap();
    assert_eq!((net.udp(0, 1, 100), net.udp(1, 0, 100)), (20, 0));
    a.reunite(b).unwrap();
    assert!(net.reaches(0, 1, Family::V4) && net.reaches(0, 1, Family::V6));

    a.block_towards(b, Match::Udp).unwrap();
    assert_eq!((net.udp(0, 1, 100), net.udp(1, 0, 100)), (0, 20));
    assert_eq!(net.udp(0, 2, 100), 20);
    assert!(net.reaches(0, 1, Family::V4));
    a.heal().unwrap();
    assert_eq!(net.udp(0, 1, 100), 20);
}

#[test]
fn a_pair_of_hosts_can_have_a_narrow_path_of_its_own() {
    requires_root!();
    let net = Triangle::new("narrow-pair");
    let [a, b, _] = &net.links;
    let limit = MtuLimit {
        bytes: 1000,
        tell: false,
    };

    a.harm_towards(b, Match::All, Harm::Narrow(limit)).unwrap();

    assert_eq!((net.udp(0, 1, 972), net.udp(0, 1, 973)), (20, 0));
    assert_eq!((net.udp(1, 0, 1400), net.udp(0, 2, 1400)), (20, 20));
    assert_eq!(a.counters(Way::Out).too_big, 20);
}

#[test]
fn a_part_of_the_frames_is_harmed_as_the_rule_says() {
    requires_root!();
    let net = Triangle::new("harm");
    let [a, b, _] = &net.links;
    let send = || {
        let test = UdpTest {
            count: 2_000,
            per_second: Some(20_000),
            size: 8,
            patience: 300 * MS,
        };
        let place = SocketAddr::new(b.v4().into(), 0);
        udp_stream(net.hosts[0].netns(), net.hosts[1].netns(), place, test).unwrap()
    };

    a.harm_towards(b, Match::Udp, Harm::Lose { share: 0.2 })
        .unwrap();
    let lossy = send();
    a.heal_towards(b).unwrap();
    let delay = Harm::Delay {
        by: 5 * MS,
        share: 0.2,
    };
    a.harm_towards(b, Match::Udp, delay).unwrap();
    let late = send();
    a.heal_towards(b).unwrap();
    a.harm_towards(b, Match::Udp, Harm::Alter { share: 1.0 })
        .unwrap();
    let altered = send();

    assert!((300..500).contains(&lossy.lost), "{lossy:?}");
    assert!(late.reordered > 200, "{late:?}");
    assert_eq!((late.lost, late.duplicates), (0, 0));
    // Every datagram passes the receiver's checksum; of one in two the number is no number that was sent.
    assert_eq!(a.counters(Way::Out).altered, 2_000);
    assert!((500..1_900).contains(&altered.received), "{altered:?}");
    assert_eq!(net.udp(0, 2, 100), 20);
}

#[test]
fn a_narrow_link_tells_the_sender_or_keeps_silent() {
    requires_root!();
    for (name, tell) in [("tells", true), ("silent", false)] {
        let pair = pair(name);
        pair.at_b
            .shape(Profile {
                mtu: Some(MtuLimit { bytes: 1300, tell }),
                ..Profile::default()
            })
            .unwrap();

        for (family, headers) in [(Family::V4, 28), (Family::V6, 48)] {
            assert!(
                wait_until(Duration::from_secs(5), || pair.ping(family, 1300 - headers)).is_some()
            );
            assert!(!pair.ping(family, 1301 - headers));
        }
        let transfer = || {
            tcp_transfer(
                pair.a.netns(),
                pair.b.netns(),
                pair.b_on(Family::V4),
                200_000,
            )
        };

        if tell {
            transfer().unwrap();
        }
        assert!(pair.at_b.counters(Way::In).too_big > 0);
    }
}

#[test]
fn a_rate_bounds_a_stream() {
    requires_root!();
    let pair = pair("rate");
    pair.at_a
        .shape_way(
            Way::Out,
            Profile {
                rate: Some(20_000_000),
                queue: 200_000,
                ..Profile::default()
            },
        )
        .unwrap();

    let second = Duration::from_secs(1);
    let throughput = tcp_throughput(
        pair.a.netns(),
        pair.b.netns(),
        pair.b_on(Family::V4),
        second,
    )
    .unwrap();

    let megabits = throughput.bits_per_second() / 1e6;
    assert!((10.0..21.0).contains(&megabits), "{megabits}");
}

#[test]
fn a_broadcast_reaches_every_other_host_once() {
    requires_root!();
    let lab = Lab::new("group");
    let underlay = lab.underlay("net").unwrap();
    let hosts: Vec<Host> = ["a", "b", "c"]
        .iter()
        .map(|name| lab.host(name).unwrap())
        .collect();
    let links: Vec<Link> = hosts
        .iter()
        .map(|host| underlay.join(host).unwrap())
        .collect();
    let station = |at: usize, family| (hosts[at].netns(), links[at].address(family));
    let send = |group: IpAddr, family| {
        let test = GroupTest {
            count: 7,
            group: SocketAddr::new(group, 5000),
            patience: 200 * MS,
            payload: b"to everyone",
        };
        group_receipts(
            station(0, family),
            &[station(1, family), station(2, family)],
            test,
        )
        .unwrap()
    };
    let discovered = || {
        let all_nodes = "2001:db8::2".parse().unwrap();
        ping(hosts[0].netns(), all_nodes, PingTest::default())
            .unwrap()
            .answered()
            == 1
    };

    assert!(wait_until(Duration::from_secs(5), discovered).is_some());
    assert_eq!(
        send(Ipv4Addr::new(192, 0, 2, 255).into(), Family::V4),
        [7, 7]
    );
    assert_eq!(send(Ipv4Addr::new(239, 1, 2, 3).into(), Family::V4), [7, 7]);
    assert_eq!(send("ff02::4242".parse().unwrap(), Family::V6), [7, 7]);
}
