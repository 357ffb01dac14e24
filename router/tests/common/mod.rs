//! Namespaces and cables for the tests of packet workers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use weft_kernel::netns::NetNs;

/// How long a stream may stand still.
const STANDSTILL: Duration = Duration::from_secs(10);

/// Makes a namespace; `None`, and a word about it, where that cannot be.
#[expect(clippy::print_stderr, reason = "a test says why it was skipped")]
pub(crate) fn namespace() -> Option<NetNs> {
    let able = Command::new("ip").arg("-V").output().is_ok();
    let made = NetNs::create().ok().filter(|_| able);
    if made.is_none() {
        eprintln!("skipped: needs root and the program ip");
    }
    made
}

pub(crate) fn ip(netns: &NetNs, line: &str) {
    let mut command = Command::new("ip");
    command.args(line.split(' ')).stdin(Stdio::null());
    let status = netns.spawn(&mut command).unwrap().unwrap().wait().unwrap();
    assert!(status.success(), "ip {line}");
}

/// Joins two namespaces by a pair of devices.
pub(crate) fn cable(left: (&NetNs, &str), right: (&NetNs, &str)) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let parent = std::process::id();
    let far = format!("w{parent}x{number}");
    // The far end is born beside the near one and moves: it is named by the descriptor that this process holds.
    ip(
        left.0,
        &format!("link add {} type veth peer name {far}", left.1),
    );
    let path = format!("/proc/{parent}/fd/{}", right.0.as_fd().as_raw_fd());
    let mut command = Command::new("ip");
    command.args(["link", "set", &far, "netns", &path]);
    let status = left.0.spawn(&mut command).unwrap().unwrap().wait().unwrap();
    assert!(status.success());
    ip(right.0, &format!("link set {far} name {}", right.1));
}

/// Sends so many bytes to an address in the second namespace by TCP through the mesh, and checks them all.
pub(crate) fn stream((from, to): (&NetNs, &NetNs), address: Ipv4Addr, bytes: usize) {
    let listener = to
        .run(|| TcpListener::bind((address, 5201)).unwrap())
        .unwrap();
    let mut sender = from
        .run(|| TcpStream::connect((address, 5201)).unwrap())
        .unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(STANDSTILL)).unwrap();
    let block: Vec<u8> = (0..=250).cycle().take(251 * 1000).collect();
    std::thread::scope(|scope| {
        let sent = block.clone();
        scope.spawn(move || {
            for _ in 0..bytes / sent.len() {
                sender.write_all(&sent).unwrap();
            }
        });
        let mut got = vec![0; block.len()];
        for _ in 0..bytes / block.len() {
            receiver.read_exact(&mut got).unwrap();
            assert!(got == block);
        }
    });
}
