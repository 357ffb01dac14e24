//! Each kind of address translator does to real sockets what its name says.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use weft_kernel::netns::NetNs;
use weft_lab::traffic::{PingTest, ping, tcp_transfer};
use weft_lab::{
    Host, Lab, Lan, Link, MtuLimit, NatKind, NatProfile, Profile, Underlay, requires_root,
    wait_until,
};

const MS: Duration = Duration::from_millis(1);

/// How long a datagram may take that comes; a busy machine has time for it.
const COMES: Duration = Duration::from_secs(3);

/// How long is waited for a datagram that must not come.
const STAYS_AWAY: Duration = Duration::from_millis(150);

/// Two hosts in a private network, and two outside.
struct Town {
    inside: [(Host, Link); 2],
    lan: Lan,
    outside: [(Host, Link); 2],
    underlay: Underlay,
    lab: Lab,
}

impl Town {
    fn new(name: &str, profile: NatProfile) -> Self {
        let lab = Lab::new(name);
        let underlay = lab.underlay("net").unwrap();
        let lan = lab.lan("home", &underlay, profile).unwrap();
        let inside = ["a", "b"].map(|name| {
            let host = lab.host(name).unwrap();
            let link = lan.join(&host).unwrap();
            (host, link)
        });
        let outside = ["p", "q"].map(|name| {
            let host = lab.host(name).unwrap();
            let link = underlay.join(&host).unwrap();
            (host, link)
        });
        Self {
            inside,
            lan,
            outside,
            underlay,
            lab,
        }
    }

    fn inside(&self, at: usize, port: u16) -> UdpSocket {
        bind(&self.inside[at], port)
    }

    fn outside(&self, at: usize, port: u16) -> UdpSocket {
        bind(&self.outside[at], port)
    }
}

fn bind((host, link): &(Host, Link), port: u16) -> UdpSocket {
    let place = (link.v4(), port);
    host.run(|| UdpSocket::bind(place).unwrap()).unwrap()
}

fn place(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().unwrap()
}

/// Sends one datagram and says from where it came, if it came.
fn says(
    from: &UdpSocket,
    to: SocketAddr,
    at: &UdpSocket,
    patience: Duration,
) -> Option<SocketAddr> {
    at.set_read_timeout(Some(patience)).unwrap();
    let word: [u8; 8] = unique_word();
    from.send_to(&word, to).unwrap();
    let end = Instant::now() + patience;
    let mut buffer = [0; 100];
    while Instant::now() < end {
        match at.recv_from(&mut buffer) {
            Ok((length, source)) if buffer[..length] == word => return Some(source),
            Ok(_) => {}
            Err(error) => {
                let nothing = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
                assert!(nothing.contains(&error.kind()), "{error}");
                return None;
            }
        }
    }
    None
}

/// Returns what no other datagram of this process carries.
fn unique_word() -> [u8; 8] {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    number.to_be_bytes()
}

#[test]
fn each_kind_lets_those_answer_whom_it_names_and_shows_what_it_shows() {
    requires_root!();
    // Who may answer: the same port, another port of the same host, another host.
    let expected = [
        (NatKind::FullCone, [true, true, true]),
        (NatKind::AddressRestricted, [true, true, false]),
        (NatKind::PortRestricted, [true, false, false]),
        (NatKind::Symmetric, [true, false, false]),
    ];
    for (kind, expected) in expected {
        let town = Town::new("kinds", NatProfile::new(kind));
        let host = town.inside(0, 4000);
        let [same, port, other] =
            [(0, 5000), (0, 5001), (1, 5000)].map(|(at, port)| town.outside(at, port));

        let seen = says(&host, place(&same), &same, COMES).unwrap();
        assert_eq!(seen.ip(), town.lan.public());
        assert_ne!(seen.port(), 4000);

        for (from, may) in [&same, &port, &other].into_iter().zip(expected) {
            let patience = if may { COMES } else { STAYS_AWAY };
            let source = may.then(|| place(from));
            assert_eq!(says(from, seen, &host, patience), source, "{kind:?}");
        }
        let elsewhere = says(&host, place(&other), &other, COMES).unwrap();
        assert_eq!(elsewhere == seen, kind != NatKind::Symmetric, "{kind:?}");
        assert!(says(&other, elsewhere, &host, COMES).is_some());
        assert_eq!(
            town.lan.mappings(),
            if kind == NatKind::Symmetric { 2 } else { 1 }
        );
    }
}

#[test]
fn a_mapping_ends_when_nothing_has_gone_out_for_its_time() {
    requires_root!();
    let idle = 400 * MS;
    let town = Town::new(
        "idle",
        NatProfile {
            udp_idle: idle,
            ..NatProfile::default()
        },
    );
    let (host, other) = (town.inside(0, 4000), town.outside(0, 5000));
    let start = Instant::now();
    let seen = says(&host, place(&other), &other, COMES).unwrap();
    let sent = Instant::now();

    // Answers come for a while, and do not make it longer.
    let mut answered = 0;
    let ended = wait_until(COMES, || {
        let came = says(&other, seen, &host, 20 * MS).is_some();
        answered += u32::from(came);
        !came && town.lan.mappings() == 0
    });
    assert!(ended.is_some() && answered > 0);
    assert!(start.elapsed() >= idle, "{:?}", sent.elapsed());
    let again = says(&host, place(&other), &other, COMES).unwrap();
    assert_ne!(again, seen);
    assert_eq!(says(&other, seen, &host, STAYS_AWAY), None);
    assert!(says(&other, again, &host, COMES).is_some());

    town.lan.forget();
    assert_eq!(says(&other, again, &host, STAYS_AWAY), None);
}

#[test]
fn a_kept_port_is_the_hosts_own_and_the_second_who_wants_it_gets_another() {
    requires_root!();
    let town = Town::new(
        "kept",
        NatProfile {
            preserves_ports: true,
            ..NatProfile::default()
        },
    );
    let (first, second) = (town.inside(0, 4000), town.inside(1, 4000));
    let other = town.outside(0, 5000);

    let seen = [&first, &second].map(|host| says(host, place(&other), &other, COMES).unwrap());

    assert_eq!(seen[0].port(), 4000);
    assert_ne!(seen[1].port(), 4000);
    assert!(says(&other, seen[0], &first, COMES).is_some());
    assert!(says(&other, seen[1], &second, COMES).is_some());
}

#[test]
fn neighbours_meet_directly_always_and_by_the_outer_address_with_a_hairpin_only() {
    requires_root!();
    for hairpin in [false, true] {
        let town = Town::new(
            "hairpin",
            NatProfile {
                hairpin,
                kind: NatKind::FullCone,
                ..NatProfile::default()
            },
        );
        let (a, b) = (town.inside(0, 4000), town.inside(1, 4000));
        let other = town.outside(0, 5000);
        let outer = says(&b, place(&other), &other, COMES).unwrap();

        assert_eq!(says(&a, place(&b), &b, COMES), Some(place(&a)));
        let turned = says(&a, outer, &b, if hairpin { COMES } else { STAYS_AWAY });

        match turned {
            Some(source) => {
                assert!(hairpin);
                assert_eq!(source.ip(), town.lan.public());
                assert_eq!(says(&b, source, &a, COMES), Some(outer));
            }
            None => assert!(!hairpin),
        }
    }
}

#[test]
fn streams_and_echoes_go_out_and_a_listener_inside_is_not_reached() {
    requires_root!();
    for kind in NatKind::ALL {
        let town = Town::new("streams", NatProfile::new(kind));
        let [(host, at_host), _] = &town.inside;
        let [(other, at_other), _] = &town.outside;
        let to_other = SocketAddr::new(at_other.v4().into(), 0);

        tcp_transfer(host.netns(), other.netns(), to_other, 1_000_001).unwrap();
        let echo = PingTest {
            count: 3,
            ..PingTest::default()
        };
        let echoes = ping(host.netns(), at_other.v4().into(), echo).unwrap();
        assert_eq!(echoes.answered(), 3);

        // A mapping of the listener's own port: who was not dialled still gets nowhere.
        let listener = listen(host.netns(), (at_host.v4(), 4000).into());
        let before = town.lan.counters().filtered;
        let outcome = other
            .run(|| TcpStream::connect_timeout(&(town.lan.public(), 4000).into(), 100 * MS))
            .unwrap();
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(town.lan.counters().filtered > before);
        listener.set_nonblocking(true).unwrap();
        assert_eq!(
            listener.accept().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        assert_eq!(
            ping(
                other.netns(),
                town.lan.public().into(),
                PingTest {
                    timeout: 50 * MS,
                    ..echo
                }
            )
            .unwrap()
            .answered(),
            0
        );
    }
}

fn listen(namespace: &NetNs, place: SocketAddr) -> TcpListener {
    namespace.run(|| TcpListener::bind(place).unwrap()).unwrap()
}

#[test]
fn a_translator_behind_a_translator_carries_everything_outwards() {
    requires_root!();
    let town = Town::new(
        "carrier",
        NatProfile {
            kind: NatKind::Symmetric,
            subnet: Ipv4Addr::new(10, 64, 0, 0),
            ..NatProfile::default()
        },
    );
    let home = town
        .lab
        .lan("flat", town.lan.inside(), NatProfile::default())
        .unwrap();
    let host = town.lab.host("c").unwrap();
    let at_host = home.join(&host).unwrap();
    let deep = (host, at_host);
    let socket = bind(&deep, 4000);
    let (other, carriers) = (town.outside(0, 5000), town.inside(0, 5000));

    let seen = says(&socket, place(&other), &other, COMES).unwrap();
    assert_eq!(seen.ip(), town.lan.public());
    assert!(says(&other, seen, &socket, COMES).is_some());
    // Within the carrier's network only the inner one translates.
    let seen = says(&socket, place(&carriers), &carriers, COMES).unwrap();
    assert_eq!(seen.ip(), home.public());
    assert!(says(&carriers, seen, &socket, COMES).is_some());
    let to_other = SocketAddr::new(town.outside[0].1.v4().into(), 0);
    tcp_transfer(deep.0.netns(), town.outside[0].0.netns(), to_other, 500_000).unwrap();
    assert_eq!(
        ping(deep.0.netns(), to_other.ip(), PingTest::default())
            .unwrap()
            .answered(),
        1
    );
    // A private address of somebody else's network leads nowhere.
    socket
        .send_to(b"lost", (Ipv4Addr::new(192, 168, 7, 1), 9))
        .unwrap();
    assert!(
        wait_until(COMES, || home.counters().unroutable
            + town.lan.counters().unroutable
            == 1)
        .is_some()
    );
}

#[test]
fn an_error_about_a_translated_packet_finds_its_sender() {
    requires_root!();
    let town = Town::new("error", NatProfile::new(NatKind::Symmetric));
    let [(host, _), _] = &town.inside;
    let [(other, at_other), (_, at_closed)] = &town.outside;
    at_other
        .shape(Profile {
            mtu: Some(MtuLimit {
                bytes: 1200,
                tell: true,
            }),
            ..Profile::default()
        })
        .unwrap();

    // Full-size segments reach the narrow place, and only the notice tells the sender.
    let to_other = SocketAddr::new(at_other.v4().into(), 0);
    tcp_transfer(host.netns(), other.netns(), to_other, 300_000).unwrap();
    let socket = town.inside(0, 4000);
    socket.connect((at_closed.v4(), 9)).unwrap();
    socket.set_read_timeout(Some(COMES)).unwrap();
    socket.send(b"is anybody there?").unwrap();
    let refusal = socket.recv(&mut [0; 10]).unwrap_err();

    assert!(at_other.counters(weft_lab::Way::In).too_big > 0);
    assert_eq!(refusal.kind(), io::ErrorKind::ConnectionRefused);
    drop(town.underlay);
}
