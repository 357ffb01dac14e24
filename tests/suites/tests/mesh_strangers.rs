//! Strangers get no answer, keep nobody out, and cost a bounded amount of memory.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use weft_lab::bar::{Bar, hold, rounds};
use weft_lab::packet::{Packet, protocol};
use weft_lab::{Capture, Captured, Host, Link, Weft, requires_root, requires_weft, wait_until};
use weft_suites::mesh::{Mesh, PATIENCE, alone};
use weft_suites::wire::{Dice, room};

/// The port of control connections and of the sleeve.
const PORT: u16 = 6783;

/// What a router may grow by under a flood: buffers of 256 strangers, and what the allocator keeps.
const GROWTH: u64 = 24 << 20;

/// How long a join may take under attack: a second, or what it takes in peace on a machine as busy as this.
fn bar(calm: Duration) -> Bar<Duration> {
    Bar::new("joined under attack", calm.max(Duration::from_secs(1)))
}

/// How many datagrams a stranger sends, unless `WEFT_FLOOD` says otherwise.
fn flood() -> usize {
    let said = std::env::var("WEFT_FLOOD").ok();
    said.and_then(|text| text.parse().ok()).unwrap_or(100_000)
}

/// Sends datagrams of chance, and such as a router would send but for the key.
fn datagrams(stranger: &Host, to: SocketAddr, seen: &[Vec<u8>], count: usize) -> UdpSocket {
    let socket = stranger
        .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap())
        .unwrap();
    room(&socket, 8 << 20);
    let mut dice = Dice::new(7);
    let mut buffer = vec![0; 1472];
    for number in 0..count {
        let datagram = match number % 4 {
            0 => {
                let length = dice.below(buffer.len() + 1);
                dice.fill(&mut buffer[..length]);
                &buffer[..length]
            }
            1 => {
                // A header of either kind, with an index of chance.
                let length = 32 + dice.below(1440);
                dice.fill(&mut buffer[..length]);
                buffer[..4].copy_from_slice(&[u8::from(number % 8 < 4) + 1, 0, 0, 0]);
                &buffer[..length]
            }
            _ => {
                // One that was on the wire, with another tag, counter or body.
                let genuine = &seen[dice.below(seen.len())];
                let length = genuine.len();
                buffer[..length].copy_from_slice(genuine);
                let from = if number % 4 == 2 { 8 } else { 16 };
                dice.fill(&mut buffer[from..length]);
                &buffer[..length]
            }
        };
        // A full queue of the sender's own host is no answer either.
        let _ = socket.send_to(datagram, to);
    }
    socket
}

/// What strangers try on TCP. Each opens a connection of its own.
fn openings(dice: &mut Dice) -> Vec<Vec<u8>> {
    let mut openings = vec![
        Vec::new(),
        b"GET / HTTP/1.1\r\nHost: weft\r\n\r\n".to_vec(),
        b"SSH-2.0-probe\r\n".to_vec(),
        // The beginning of a ClientHello.
        [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 506]].concat(),
        vec![0xff; 5000],
    ];
    for mode in [0, 1, 2, 3, 4, 255] {
        for rest in [0, 2, 100, 1300, 4000] {
            let mut preface = b"WEFT".to_vec();
            preface.push(mode);
            preface.extend([0; 11]);
            let mut tail = vec![0; 16 + rest];
            dice.fill(&mut tail);
            if let Some(length) = u16::try_from(rest.saturating_sub(2))
                .ok()
                .filter(|_| rest >= 2)
            {
                // A first message of the length it says.
                tail[16..18].copy_from_slice(&length.to_be_bytes());
            }
            preface.extend(tail);
            openings.push(preface);
        }
    }
    openings
}

/// Whether a frame carries a packet to an address.
fn is_for(frame: &[u8], stranger: Ipv4Addr) -> bool {
    Packet::of_frame(frame).is_some_and(|packet| packet.ends[1] == stranger)
}

/// Counts the bytes that were said in a frame to a stranger: of UDP and ICMP the whole packet, of TCP what it carries.
fn answered(frame: &Captured) -> usize {
    let packet = Packet::of_frame(&frame.bytes).unwrap();
    match packet.protocol {
        protocol::TCP => packet.data(&frame.bytes).unwrap().len(),
        _ => packet.said,
    }
}

/// Records what members say to a router.
fn overheard(mesh: &Mesh, victim: Ipv4Addr) -> Vec<Vec<u8>> {
    let link = &mesh.node(0).link;
    let capture = Capture::start(link.port_netns(), &link.port()).unwrap();
    let mut answered = 0;
    let enough = wait_until(PATIENCE, || {
        answered += usize::from(mesh.pings(0, 1));
        answered >= 150
    });
    assert!(enough.is_some(), "{answered} of 150 were answered");
    let recording = capture.stop().unwrap();
    let seen: Vec<Vec<u8>> = recording
        .datagrams(PORT)
        .into_iter()
        .filter(|datagram| datagram.to.ip() == victim)
        .map(|datagram| datagram.payload)
        .collect();
    assert!(seen.len() >= 100);
    seen
}

#[test]
fn a_stranger_gets_not_one_byte_of_answer() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let mut mesh = Mesh::up("mute", &program, 2);
    let (host, at_stranger) = mesh.stranger("x");
    let victim = mesh.node(0).link.v4();
    let seen = overheard(&mesh, victim);
    let memory = mesh.daemon(0).resident_memory().unwrap();
    let before = mesh.node(0).refused();
    // At the victim's own cable, and for as long as it takes: what is not for the stranger is looked at and not kept.
    let capture = {
        let (link, stranger) = (&mesh.node(0).link, at_stranger.v4());
        let for_stranger = move |frame: &[u8]| is_for(frame, stranger);
        Capture::start_incoming_if(link.port_netns(), &link.port(), for_stranger).unwrap()
    };

    let count = flood();
    let start = Instant::now();
    let to = SocketAddr::new(victim.into(), PORT);
    let socket = datagrams(&host, to, &seen, count);
    println!("{count} datagrams in {:?}", start.elapsed());

    let mut dice = Dice::new(8);
    thread::scope(|scope| {
        for opening in openings(&mut dice) {
            let host = &host;
            scope.spawn(move || {
                let connected = host.run(|| TcpStream::connect_timeout(&to, PATIENCE));
                let mut stream = connected.unwrap().unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                // It may be closed while we speak: that is no answer.
                let _ = stream.write_all(&opening);
                let mut buffer = [0; 1000];
                let read = stream.read(&mut buffer);
                assert!(!matches!(read, Ok(1..)), "answered {opening:02x?}");
                assert!(
                    !read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
                    "left open for {PATIENCE:?}: {opening:02x?}"
                );
            });
        }
    });

    // The members do not mind.
    assert!(wait_until(PATIENCE, || mesh.pings(0, 1)).is_some());
    let recording = capture.stop().unwrap();
    assert_eq!(recording.lost(), 0);
    assert!(recording.seen() > 0, "the members were not heard either");
    let said: usize = recording.frames().iter().map(answered).sum();
    assert_eq!(said, 0);
    socket.set_nonblocking(true).unwrap();
    let nothing = socket.recv(&mut [0; 100]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    let after = mesh.node(0).refused();
    assert_eq!(after.0, before.0, "a stranger's datagram is no replay");
    assert!(after.1 > before.1);
    let grown = mesh
        .daemon(0)
        .resident_memory()
        .unwrap()
        .saturating_sub(memory);
    println!(
        "{} refused, {} KiB more memory",
        after.1 - before.1,
        grown >> 10
    );
    assert!(grown < GROWTH, "{grown} bytes more");
}

/// Joins a new host as a person does, and returns how long the command took.
fn join(program: &std::path::Path, mesh: &Mesh, name: &str) -> (Host, Link, Weft, Duration) {
    let (host, link) = mesh.stranger(name);
    let weft = Weft::new(program, &host).unwrap();
    let first = mesh.node(0).link.v4().to_string();
    let start = Instant::now();
    let output = weft
        .run(&["join", &first, "--token", mesh.token(), "--name", name])
        .unwrap();
    let took = start.elapsed();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    (host, link, weft, took)
}

/// Joins new hosts, one after the other. Returns how long each took, and the hosts, which stay.
fn joins(program: &std::path::Path, mesh: &Mesh) -> (Vec<(Host, Link, Weft)>, Vec<Duration>) {
    let join = |round: usize| {
        let (host, link, weft, took) = join(program, mesh, &format!("late{round}"));
        ((host, link, weft), took)
    };
    (0..rounds()).map(join).unzip()
}

/// Keeps connections of several strangers going while the work lasts. Returns how many were made.
fn besiege<T>(
    strangers: &[(Host, Link)],
    to: SocketAddr,
    attack: impl Fn(&Host, SocketAddr, usize) + Sync,
    work: impl FnOnce(&AtomicUsize) -> T,
) -> (T, usize) {
    let (over, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    let outcome = thread::scope(|scope| {
        for (host, _) in strangers {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    attack(host, to, made.fetch_add(1, Ordering::Relaxed));
                }
            });
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&made)));
        over.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    (outcome, made.into_inner())
}

#[test]
fn a_join_takes_a_second_while_strangers_hold_idle_connections() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let mut mesh = Mesh::up("idle", &program, 1);
    let strangers = [mesh.stranger("x")];
    let to = SocketAddr::new(IpAddr::from(mesh.node(0).link.v4()), PORT);
    let calm = join(&program, &mesh, "early").3;
    let memory = mesh.daemon(0).resident_memory().unwrap();
    let held = Mutex::new(Vec::new());
    let start = Instant::now();

    // A hundred a second, and none is closed from this side.
    let attack = |host: &Host, to: SocketAddr, number: usize| {
        let due = Duration::from_millis(10) * u32::try_from(number).unwrap();
        wait_until(PATIENCE, || start.elapsed() >= due);
        if let Ok(stream) = host
            .run(|| TcpStream::connect_timeout(&to, PATIENCE))
            .unwrap()
        {
            held.lock().unwrap().push(stream);
        }
    };
    let ((_hosts, took), made) = besiege(&strangers, to, attack, |made| {
        wait_until(PATIENCE, || made.load(Ordering::Relaxed) >= 300);
        joins(&program, &mesh)
    });
    let grown = mesh
        .daemon(0)
        .resident_memory()
        .unwrap()
        .saturating_sub(memory);

    println!(
        "beside {made} idle connections, {calm:?} in peace, {} KiB more memory",
        grown >> 10
    );
    hold(bar(calm), took);
    assert!(grown < GROWTH, "{grown} bytes more");
}

#[test]
fn a_join_takes_a_second_while_eight_strangers_try_their_luck() {
    requires_root!();
    let program = requires_weft!();
    let _alone = alone();
    let mut mesh = Mesh::up("siege", &program, 1);
    let strangers: Vec<_> = (0..8).map(|at| mesh.stranger(&format!("x{at}"))).collect();
    let to = SocketAddr::new(IpAddr::from(mesh.node(0).link.v4()), PORT);
    let calm = join(&program, &mesh, "early").3;
    let memory = mesh.daemon(0).resident_memory().unwrap();
    let attempts = (flood() / 10).min(100_000);
    let start = Instant::now();
    // 100 000 in 60 s, from all of them together.
    let pace = Duration::from_micros(600);

    let attack = |host: &Host, to: SocketAddr, number: usize| {
        let due = pace * u32::try_from(number).unwrap();
        wait_until(PATIENCE, || start.elapsed() >= due);
        let Ok(mut stream) = host
            .run(|| TcpStream::connect_timeout(&to, PATIENCE))
            .unwrap()
        else {
            return;
        };
        let mut preface = b"WEFT\x02".to_vec();
        preface.extend([0; 11]);
        preface.extend([u8::try_from(number % 256).unwrap(); 16]);
        preface.extend([0, 200]);
        preface.extend([1; 200]);
        let _ = stream.write_all(&preface);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read(&mut [0; 10]);
    };
    let ((joined, grown), made) = besiege(&strangers, to, attack, |made| {
        let reached = |part: usize| {
            wait_until(2 * PATIENCE, || made.load(Ordering::Relaxed) >= part);
        };
        reached(attempts / 3);
        let joined = joins(&program, &mesh);
        reached(attempts);
        let now = mesh.daemon(0).resident_memory().unwrap();
        (joined, now.saturating_sub(memory))
    });
    let elapsed = start.elapsed();
    let (_hosts, took) = joined;

    println!(
        "{calm:?} in peace; {made} attempts in {elapsed:?}, {} KiB more memory",
        grown >> 10
    );
    hold(bar(calm), took);
    assert!(grown < GROWTH, "{grown} bytes more");
}
