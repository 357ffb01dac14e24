//! Nothing that containers say is on the wire in clear: not while routers join, restart, die, or say it to all.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weft_lab::traffic::{GroupTest, group_receipts};
use weft_lab::{Capture, Recording, requires_root, requires_weft, wait_until};
use weft_suites::mesh::{Mesh, PATIENCE};
use weft_suites::wire::Dice;

/// How often each says it to every other: often, and not as fast as it can.
const PACE: Duration = Duration::from_millis(3);

/// Containers with sockets for everything that is said.
struct Talk {
    sockets: Vec<UdpSocket>,
    marker: [u8; 32],
    heard: AtomicUsize,
    over: AtomicBool,
}

impl Talk {
    fn new(mesh: &Mesh, hosts: usize, marker: [u8; 32]) -> Self {
        let sockets = (0..hosts).map(|at| {
            let namespace = mesh.node(at).container.netns();
            // Bound before anything is said: a refusal would quote it.
            let place = SocketAddr::new(mesh.address(at), 4000);
            namespace.run(|| UdpSocket::bind(place).unwrap()).unwrap()
        });
        Self {
            sockets: sockets.collect(),
            marker,
            heard: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// Everybody says it to everybody else, over and over, and counts what is heard.
    fn babble<T>(&self, work: impl FnOnce() -> T) -> T {
        let text = self.marker.repeat(8);
        thread::scope(|scope| {
            for socket in &self.sockets {
                scope.spawn(|| {
                    let mut buffer = [0; 2000];
                    let own = socket.local_addr().unwrap();
                    let others = self
                        .sockets
                        .iter()
                        .filter_map(|other| other.local_addr().ok());
                    let others: Vec<SocketAddr> = others.filter(|&other| other != own).collect();
                    while !self.over.load(Ordering::Relaxed) {
                        for &other in &others {
                            // Whoever is away cannot be reached: that is part of the test.
                            let _ = socket.send_to(&text, other);
                        }
                        let next = Instant::now() + PACE;
                        while let Some(left) = next.checked_duration_since(Instant::now()) {
                            let left = Some(left.max(Duration::from_micros(100)));
                            socket.set_read_timeout(left).unwrap();
                            if let Ok(length) = socket.recv(&mut buffer) {
                                assert_eq!(buffer[..length], text);
                                self.heard.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            self.over.store(true, Ordering::Relaxed);
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Waits until so much more was heard.
    fn more(&self, count: usize) {
        let target = self.heard.load(Ordering::Relaxed) + count;
        let reached = || self.heard.load(Ordering::Relaxed) >= target;
        assert!(wait_until(PATIENCE, reached).is_some(), "it fell silent");
    }
}

/// Says it by TCP and to all.
fn stream_and_shout(mesh: &Mesh, from: usize, to: usize, marker: &[u8; 32]) {
    let inside = |at: usize| mesh.node(at).container.netns();
    let listener = inside(to).run(|| TcpListener::bind(mesh.socket(to)).unwrap());
    let listener = listener.unwrap();
    let place = listener.local_addr().unwrap();
    let mut output = inside(from)
        .run(|| TcpStream::connect_timeout(&place, PATIENCE).unwrap())
        .unwrap();
    let (mut input, _) = listener.accept().unwrap();
    input.set_read_timeout(Some(PATIENCE)).unwrap();
    let text = marker.repeat(16_384);
    thread::scope(|scope| {
        let said = scope.spawn(move || -> io::Result<()> {
            output.write_all(&text)?;
            output.shutdown(std::net::Shutdown::Write)
        });
        let mut heard = Vec::new();
        input.read_to_end(&mut heard).unwrap();
        said.join().unwrap().unwrap();
        assert_eq!(heard.len(), 16_384 * marker.len());
    });

    let IpNet::V4(range) = mesh.network(from) else {
        panic!("containers have IPv4 addresses");
    };
    let station = |at: usize| (inside(at), mesh.address(at));
    let test = GroupTest {
        count: 20,
        group: SocketAddr::new(range.broadcast().into(), 4001),
        patience: PATIENCE,
        payload: marker,
    };
    let receipts = group_receipts(station(from), &[station(to)], test).unwrap();
    assert_eq!(receipts, [20]);
}

fn captures(mesh: &Mesh, hosts: usize) -> Vec<Capture> {
    (0..hosts)
        .map(|at| {
            let link = &mesh.node(at).link;
            Capture::start(link.port_netns(), &link.port()).unwrap()
        })
        .collect()
}

/// Whoever looks at the wire must find neither what was said nor who said it to whom.
fn nothing_in_clear(mesh: &Mesh, hosts: usize, marker: &[u8; 32], recordings: &[Recording]) {
    let inner: Vec<IpAddr> = (0..hosts)
        .flat_map(|at| {
            let status = mesh.node(at).status().unwrap();
            let host: Vec<IpAddr> = status["node"]["addresses"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|net| Some(net.as_str()?.parse::<IpNet>().ok()?.addr()))
                .collect();
            [vec![mesh.address(at)], host].concat()
        })
        .collect();
    let mut bytes = 0;
    for (at, recording) in recordings.iter().enumerate() {
        assert_eq!(recording.lost(), 0, "the record of n{at} has gaps");
        bytes += recording.bytes();
        assert_eq!(recording.search(marker), 0, "the marker at n{at}");
        // A part of it would be as bad.
        assert_eq!(recording.search(&marker[..8]), 0, "its beginning at n{at}");
        for (number, &a) in inner.iter().enumerate() {
            for &b in inner[number + 1..]
                .iter()
                .filter(|b| b.is_ipv4() == a.is_ipv4())
            {
                assert_eq!(recording.ip_pairs(a, b), 0, "{a} and {b} at n{at}");
            }
        }
        for a in 0..hosts {
            let broadcast = weft_types::MacAddr::new([0xff; 6]);
            assert_eq!(recording.mac_pairs(mesh.mac(a), broadcast), 0);
            for b in a + 1..hosts {
                assert_eq!(recording.mac_pairs(mesh.mac(a), mesh.mac(b)), 0);
            }
        }
    }
    println!("0 hits in {bytes} bytes at {hosts} hosts");
}

#[test]
fn nothing_is_in_clear_over_join_restart_and_loss_of_routers() {
    requires_root!();
    let program = requires_weft!();
    const HOSTS: usize = 3;
    let marker = Dice::new(11).marker();
    let mut mesh = Mesh::build("secret", &program, HOSTS);
    let captures = captures(&mesh, HOSTS);
    for at in 0..HOSTS {
        mesh.start(at);
    }
    for at in 0..HOSTS {
        mesh.attach(at);
    }
    let talk = Talk::new(&mesh, HOSTS, marker);
    let namespace = mesh.node(1).container.netns();
    let inside = Capture::start(namespace, "weft0").unwrap();

    talk.babble(|| {
        // From the first frame on, for which sessions have yet to be made.
        talk.more(50);
        stream_and_shout(&mesh, 0, 1, &marker);
        // A router dies and comes back, with containers talking on.
        mesh.daemon(2).kill9().unwrap();
        wait_until(PATIENCE, || {
            mesh.node(0)
                .peer_state("n2")
                .is_some_and(|state| state != "connected")
        });
        talk.more(50);
        mesh.daemon(2).restart().unwrap();
        mesh.settle();
        // Another is restarted as an administrator would.
        mesh.daemon(1).stop().unwrap();
        mesh.daemon(1).restart().unwrap();
        mesh.settle();
        stream_and_shout(&mesh, 2, 1, &marker);
        talk.more(50);
    });
    let recordings: Vec<Recording> = captures.into_iter().map(|c| c.stop().unwrap()).collect();
    let inside = inside.stop().unwrap();

    assert!(inside.search(&marker) > 1000, "nothing was said");
    let (a, b) = (&mesh.node(0).link, &mesh.node(1).link);
    assert!(recordings[0].ip_pairs(a.v4().into(), b.v4().into()) > 100);
    nothing_in_clear(&mesh, HOSTS, &marker, &recordings);
}

#[test]
#[ignore = "takes more than two minutes: keys are renewed by the clock"]
fn nothing_is_in_clear_and_nothing_is_lost_while_keys_are_renewed() {
    requires_root!();
    let program = requires_weft!();
    let marker = Dice::new(12).marker();
    let mesh = Mesh::up("renew", &program, 2);
    let captures = captures(&mesh, 2);
    let talk = Talk::new(&mesh, 2, marker);
    let start = Instant::now();

    talk.babble(|| {
        let mut silent = Duration::ZERO;
        while start.elapsed() < Duration::from_secs(150) {
            let before = Instant::now();
            talk.more(5);
            silent = silent.max(before.elapsed());
        }
        println!("never silent for more than {silent:?}");
        assert!(silent < Duration::from_secs(1));
    });
    let recordings: Vec<Recording> = captures.into_iter().map(|c| c.stop().unwrap()).collect();

    nothing_in_clear(&mesh, 2, &marker, &recordings);
    for at in 0..2 {
        let status = mesh.node(at).status().unwrap();
        assert!(status["wire"]["rekeys"].as_u64().unwrap() > 0, "{status}");
        assert_eq!(mesh.node(at).refused(), (0, 0));
    }
}
