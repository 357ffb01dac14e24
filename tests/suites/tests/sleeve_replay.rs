//! What was on the wire once is worth nothing the second time, however often and whenever it comes again; and what is
//! only late is not lost.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_lab::traffic::tcp_transfer;
use weft_lab::{Capture, Datagram, Match, requires_root, requires_weft, wait_until};
use weft_suites::mesh::{Mesh, PATIENCE};
use weft_suites::wire::{Dice, Injector, room};

/// The port of the sleeve.
const PORT: u16 = 6783;

/// How often everything comes again.
const TIMES: usize = 3;

/// How many datagrams are on their way to a router at once: no queue on the way overflows, so every one is counted.
const VOLLEY: usize = 48;

/// How long the counters must stand still before they are compared.
const STILL: Duration = Duration::from_millis(700);

/// A datagram socket in each of two containers.
struct Talk {
    from: UdpSocket,
    to: UdpSocket,
}

impl Talk {
    fn new(mesh: &Mesh, from: usize, to: usize) -> Self {
        let bind = |at: usize| {
            let namespace = mesh.node(at).container.netns();
            let socket = namespace.run(|| UdpSocket::bind(mesh.socket(at)).unwrap());
            let socket = socket.unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let talk = Self {
            from: bind(from),
            to: bind(to),
        };
        let to = talk.to.local_addr().unwrap();
        talk.from.connect(to).unwrap();
        // The receiver must not be what loses.
        room(&talk.to, 8 << 20);
        talk
    }

    fn say(&self, number: u32, marker: &[u8; 32]) {
        let text = [&number.to_be_bytes()[..], marker].concat();
        wait_until(PATIENCE, || match self.from.send(&text) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        })
        .unwrap();
    }

    /// Takes what has arrived.
    fn heard(&self) -> Vec<u32> {
        let mut buffer = [0; 100];
        std::iter::from_fn(|| {
            let length = self.to.recv(&mut buffer).ok()?;
            let number = buffer[..length].first_chunk::<4>()?;
            Some(u32::from_be_bytes(*number))
        })
        .collect()
    }
}

/// Waits until a router's counters stand still, and returns their sum.
fn still(mesh: &Mesh, at: usize) -> u64 {
    let mut last = (sum(mesh, at), Instant::now());
    wait_until(PATIENCE, || {
        let now = sum(mesh, at);
        if now != last.0 {
            last = (now, Instant::now());
        }
        last.1.elapsed() >= STILL
    })
    .expect("the counters never stand still");
    last.0
}

fn sum(mesh: &Mesh, at: usize) -> u64 {
    let (replayed, inauthentic) = mesh.node(at).refused();
    replayed + inauthentic
}

/// Sends everything again, thrice, to whom it was sent; every single one must be counted, and no other.
fn replay(mesh: &Mesh, recorded: &[Datagram], when: &str) -> usize {
    let mut injected = 0;
    for at in 0..2 {
        let node = mesh.node(at);
        let injector = Injector::towards(&node.host, &node.link);
        let mine: Vec<&Datagram> = recorded
            .iter()
            .filter(|datagram| datagram.to == SocketAddr::new(node.link.v4().into(), PORT))
            .collect();
        assert!(mine.len() > 100, "too little was recorded towards n{at}");
        let before = still(mesh, at);
        let mut expected = before;
        for volley in mine.chunks(VOLLEY) {
            for _ in 0..TIMES {
                for datagram in volley {
                    injector.replay(datagram);
                    expected += 1;
                    injected += 1;
                }
            }
            let counted = wait_until(PATIENCE, || sum(mesh, at) >= expected);
            assert!(
                counted.is_some(),
                "{when}: of {} injected into n{at}, {} were counted: {:?}",
                expected - before,
                sum(mesh, at) - before,
                mesh.node(at).status()
            );
        }
        assert_eq!(still(mesh, at) - before, expected - before, "{when}: n{at}");
    }
    injected
}

#[test]
fn everything_replayed_is_refused_and_counted_at_once_and_after_each_router_was_restarted() {
    requires_root!();
    let program = requires_weft!();
    let mut mesh = Mesh::up("replay", &program, 2);
    let marker = Dice::new(1).marker();
    let mut injected = 0;

    let capture = {
        let link = &mesh.node(1).link;
        Capture::start(link.port_netns(), &link.port()).unwrap()
    };
    let (there, back) = (Talk::new(&mesh, 0, 1), Talk::new(&mesh, 1, 0));
    for number in 0..200 {
        there.say(number, &marker);
        back.say(number, &marker);
    }
    for talk in [&there, &back] {
        let mut heard = BTreeSet::new();
        assert!(
            wait_until(PATIENCE, || {
                heard.extend(talk.heard());
                heard.len() == 200
            })
            .is_some()
        );
    }
    let inside = |at: usize| mesh.node(at).container.netns();
    tcp_transfer(inside(0), inside(1), mesh.socket(1), 200_000).unwrap();
    // Heartbeats of the link are recorded too.
    let beats = |recording: &[Datagram]| recording.iter().filter(|d| d.payload[0] == 2).count();
    let start = Instant::now();
    wait_until(PATIENCE, || start.elapsed() > Duration::from_millis(1100));
    let recorded = capture.stop().unwrap();
    assert_eq!(recorded.lost(), 0);
    let recorded = recorded.datagrams(PORT);
    assert!(beats(&recorded) >= 2);

    injected += replay(&mesh, &recorded, "at once");
    for at in [1, 0] {
        mesh.daemon(at).stop().unwrap();
        mesh.daemon(at).restart().unwrap();
        mesh.settle();
        injected += replay(&mesh, &recorded, "after a restart");
    }

    println!("{} recorded, {injected} injected", recorded.len());
    assert_eq!((there.heard(), back.heard()), (vec![], vec![]));
}

#[test]
fn datagrams_that_four_thousand_others_overtook_are_delivered() {
    requires_root!();
    let program = requires_weft!();
    const SENT: u32 = 5000;
    /// Behind the receiver's place, and within its window of 8192.
    const OVERTAKEN: u64 = 4096;
    let mesh = Mesh::up("late", &program, 2);
    let marker = Dice::new(2).marker();
    let talk = Talk::new(&mesh, 0, 1);
    let node = mesh.node(1);
    let link = &node.link;
    link.insert_shaper().unwrap();
    mesh.settle();
    let before = still(&mesh, 1);

    // Every seventeenth of the first frames stays away; that of a heartbeat does not matter here.
    let capture = Capture::start(mesh.node(0).host.netns(), "eth0").unwrap();
    let withheld =
        |payload: &[u8]| payload.len() > 60 && payload[0] == 1 && payload[15].is_multiple_of(17);
    link.block(Match::Custom(Arc::new(move |frame| {
        frame.get(42..).is_some_and(withheld)
    })))
    .unwrap();
    let mut heard = BTreeSet::new();
    for number in 0..500 {
        talk.say(number, &marker);
    }
    assert!(wait_until(PATIENCE, || link.counters(weft_lab::Way::In).blocked >= 25).is_some());
    let recorded = capture.stop().unwrap().datagrams(PORT);
    link.heal().unwrap();
    for number in 500..SENT {
        talk.say(number, &marker);
        if number % 64 == 0 {
            // In step with the receiver, so that no socket overflows.
            let _ = wait_until(Duration::from_secs(1), || {
                heard.extend(talk.heard());
                heard.contains(&number)
            });
        }
    }
    assert!(
        wait_until(PATIENCE, || {
            heard.extend(talk.heard());
            heard.contains(&(SENT - 1)) && (500..SENT).all(|number| heard.contains(&number))
        })
        .is_some(),
        "something else was lost: {:?}",
        mesh.node(1).status()
    );
    let mut late: Vec<&Datagram> = recorded
        .iter()
        .filter(|d| d.to == SocketAddr::new(link.v4().into(), PORT) && withheld(&d.payload))
        .collect();
    let missing = (0..SENT).filter(|number| !heard.contains(number)).count();
    assert!(missing >= 20, "only {missing} stayed away");
    let newest = u64::from(SENT - 500);
    assert!(newest > OVERTAKEN);

    Dice::new(3).shuffle(&mut late);
    let injector = Injector::towards(&node.host, link);
    for datagram in &late {
        injector.replay(datagram);
    }

    let complete = wait_until(PATIENCE, || {
        heard.extend(talk.heard());
        heard.len() == usize::try_from(SENT).unwrap()
    });
    assert!(complete.is_some(), "{} of {SENT}", heard.len());
    println!("{missing} delivered behind {newest} others");
    assert_eq!(still(&mesh, 1), before, "nothing was refused");
    for datagram in &late {
        injector.replay(datagram);
    }
    let refused = late.len() as u64;
    assert!(wait_until(PATIENCE, || sum(&mesh, 1) - before == refused).is_some());
}
