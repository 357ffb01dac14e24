//! Records every frame that passes a device, and searches the record for what must not be there.
//!
//! **Invariant.** [`Recording::lost`] is zero or the record proves nothing: the kernel counts what it could not hand
//! over, and the recorder counts what it had no room for.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use weft_kernel::netns::NetNs;
use weft_kernel::packet::{Direction, FRAME_MAX, Options, PacketSocket, Segmentation};
use weft_types::MacAddr;

use crate::LabError;
use crate::packet::{Packet, protocol};

/// Room for a few seconds of a gigabit link; a capture of full speed is bounded by it, and says so.
const ROOM: usize = 1 << 30;

/// How long a device must be silent before the record ends: the kernel hands frames over in microseconds.
const QUIET: Duration = Duration::from_millis(20);

/// A capture that runs. Stops when dropped; [`Self::stop`] returns what it saw.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<Recording>>>,
}

/// What passed a device.
#[derive(Debug, Default)]
pub struct Recording {
    frames: Vec<Captured>,
    lost: u64,
    seen: u64,
}

/// Says of a frame whether it is kept.
type Wanted = Box<dyn Fn(&[u8]) -> bool + Send>;

/// One frame of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// When the kernel saw it.
    pub at: SystemTime,
    /// Which way it went at the device.
    pub direction: Direction,
    /// The whole frame, with its VLAN tag.
    pub bytes: Vec<u8>,
    /// The size of the datagrams that a bundle of UDP is to be cut into.
    pub datagram: Option<usize>,
}

/// One UDP datagram of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Which way it went at the device.
    pub direction: Direction,
    /// Who sent it.
    pub from: SocketAddr,
    /// Where it went.
    pub to: SocketAddr,
    /// What it carried.
    pub payload: Vec<u8>,
}

impl Capture {
    /// Starts recording a device of a namespace; frames sent from here on are in the record.
    pub fn start(namespace: &NetNs, device: &str) -> Result<Self, LabError> {
        Self::open(namespace, device, &Options::capture(), Box::new(|_| true))
    }

    /// Starts recording what arrives at a device, and not what leaves it. At every port of a switch this sees each frame
    /// that a host sends once.
    pub fn start_incoming(namespace: &NetNs, device: &str) -> Result<Self, LabError> {
        Self::open(namespace, device, &Options::forward(), Box::new(|_| true))
    }

    /// Looks at what arrives at a device, and keeps what is wanted only: for a record that may last as long as it likes.
    pub fn start_incoming_if(
        namespace: &NetNs,
        device: &str,
        wanted: impl Fn(&[u8]) -> bool + Send + 'static,
    ) -> Result<Self, LabError> {
        Self::open(namespace, device, &Options::forward(), Box::new(wanted))
    }

    fn open(
        namespace: &NetNs,
        device: &str,
        options: &Options,
        wanted: Wanted,
    ) -> Result<Self, LabError> {
        let socket = namespace
            .run(|| PacketSocket::open(device, options))?
            .map_err(LabError::io(format!("capture on {device}")))?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || record(&socket, &wanted, &told))
            .map_err(LabError::io("start a capture"))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Waits until the device is silent for a moment or has been told to stop long enough, and returns the record.
    pub fn stop(mut self) -> Result<Recording, LabError> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else {
            return Ok(Recording::default());
        };
        match thread.join() {
            Ok(outcome) => outcome.map_err(LabError::io("capture")),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn record(socket: &PacketSocket, wanted: &Wanted, stop: &AtomicBool) -> io::Result<Recording> {
    let mut recording = Recording::default();
    let mut buffer = vec![0; FRAME_MAX];
    let mut held = 0;
    // A device that never falls silent is cut off after this many looks.
    let mut grace = 50;
    loop {
        if !socket.wait(QUIET)? {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            continue;
        }
        let received = socket.recv(&mut buffer)?;
        recording.seen += 1;
        if !wanted(received.frame) {
            // Looked at, and that is all.
        } else if held + received.frame.len() > ROOM {
            recording.lost += 1;
        } else {
            held += received.frame.len();
            let datagram = match received.offload.segmentation() {
                Some((Segmentation::Udp, size)) => Some(size),
                _ => None,
            };
            recording.frames.push(Captured {
                at: received.at,
                direction: received.direction,
                bytes: received.frame.to_vec(),
                datagram,
            });
        }
        if stop.load(Ordering::Relaxed) && received.at.elapsed().is_ok_and(|age| age < QUIET) {
            grace -= 1;
            if grace == 0 {
                break;
            }
        }
    }
    recording.lost += u64::from(socket.statistics()?.dropped);
    Ok(recording)
}

impl Recording {
    /// Returns the frames in the order they passed.
    pub fn frames(&self) -> &[Captured] {
        &self.frames
    }

    /// Returns how many frames were looked at, wanted or not.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Returns how many frames passed without being looked at, or without room for them.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Returns how many bytes passed.
    pub fn bytes(&self) -> usize {
        self.frames.iter().map(|frame| frame.bytes.len()).sum()
    }

    /// Counts how often `marker` is in the frames, as raw bytes. One that straddles two frames is not seen: send many.
    pub fn search(&self, marker: &[u8]) -> usize {
        let finder = Finder::new(marker);
        self.frames
            .iter()
            .map(|frame| finder.count(&frame.bytes))
            .sum()
    }

    /// Counts how often two addresses of hosts beneath stand side by side in clear, either way round.
    pub fn mac_pairs(&self, a: MacAddr, b: MacAddr) -> usize {
        self.pairs(a.as_bytes(), b.as_bytes())
    }

    /// Counts how often two IP addresses stand side by side in clear, either way round, as in an IP header.
    pub fn ip_pairs(&self, a: IpAddr, b: IpAddr) -> usize {
        let octets = |address| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        self.pairs(&octets(a), &octets(b))
    }

    /// Returns the UDP datagrams that went from or to a port, each for itself even where they passed as a bundle.
    pub fn datagrams(&self, port: u16) -> Vec<Datagram> {
        self.frames
            .iter()
            .flat_map(datagrams)
            .filter(|datagram| datagram.from.port() == port || datagram.to.port() == port)
            .collect()
    }

    /// Writes the record as a file that tcpdump and Wireshark read.
    pub fn write_pcap(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        // pcap with nanoseconds, version 2.4, in this machine's byte order; link type 1 is Ethernet.
        file.write_all(&0xa1b2_3c4d_u32.to_ne_bytes())?;
        file.write_all(&2u16.to_ne_bytes())?;
        file.write_all(&4u16.to_ne_bytes())?;
        for word in [0, 0, 262_144, 1u32] {
            file.write_all(&word.to_ne_bytes())?;
        }
        for frame in &self.frames {
            let at = frame
                .at
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            // The format ends in the year 2106; frames are shorter than 2^17 bytes.
            let seconds = u32::try_from(at.as_secs()).unwrap_or(u32::MAX);
            let length = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
            for word in [seconds, at.subsec_nanos(), length, length] {
                file.write_all(&word.to_ne_bytes())?;
            }
            file.write_all(&frame.bytes)?;
        }
        file.flush()
    }

    fn pairs(&self, a: &[u8], b: &[u8]) -> usize {
        self.search(&[a, b].concat()) + self.search(&[b, a].concat())
    }
}

/// Takes the datagrams out of a frame. A fragment has none that could be told.
fn datagrams(frame: &Captured) -> Vec<Datagram> {
    let parts = Packet::of_frame(&frame.bytes)
        .filter(|packet| packet.whole && packet.protocol == protocol::UDP)
        .and_then(|packet| Some((packet.ends, packet.ports?, packet.data(&frame.bytes)?)));
    let Some(([source, target], [from, to], payload)) = parts else {
        return Vec::new();
    };
    let datagram = |payload: &[u8]| Datagram {
        direction: frame.direction,
        from: SocketAddr::new(source, from),
        to: SocketAddr::new(target, to),
        payload: payload.to_vec(),
    };
    match frame.datagram {
        Some(size) if size > 0 => payload.chunks(size).map(datagram).collect(),
        _ => vec![datagram(payload)],
    }
}

/// Finds a marker in steps of its own length (Horspool 1980): captures are large and tests are built without optimising.
struct Finder<'a> {
    marker: &'a [u8],
    step: [usize; 256],
}

impl<'a> Finder<'a> {
    fn new(marker: &'a [u8]) -> Self {
        let mut step = [marker.len(); 256];
        for (at, &byte) in marker
            .iter()
            .enumerate()
            .take(marker.len().saturating_sub(1))
        {
            step[usize::from(byte)] = marker.len() - 1 - at;
        }
        Self { marker, step }
    }

    fn count(&self, bytes: &[u8]) -> usize {
        let length = self.marker.len();
        if length == 0 {
            return 0;
        }
        let mut found = 0;
        let mut at = 0;
        while let Some(window) = bytes.get(at..at + length) {
            found += usize::from(window == self.marker);
            at += self.step[usize::from(window[length - 1])];
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lab, packet, requires_root};
    use std::net::{Ipv4Addr, UdpSocket};

    fn recording(frames: &[&[u8]]) -> Recording {
        let frames = frames
            .iter()
            .map(|bytes| Captured {
                at: SystemTime::UNIX_EPOCH + Duration::new(1, 2),
                direction: Direction::Incoming,
                bytes: bytes.to_vec(),
                datagram: None,
            })
            .collect();
        Recording {
            frames,
            lost: 0,
            seen: 0,
        }
    }

    #[test]
    fn a_marker_is_counted_wherever_it_lies() {
        let marker = b"0123456789abcdef0123456789abcdef";
        let twice = [b"xx".as_slice(), marker, b"y", marker].concat();

        let found = recording(&[marker, &twice, &marker[1..], b""]);

        assert_eq!(found.search(marker), 3);
        assert_eq!(found.search(b"another"), 0);
    }

    /// A datagram of four bytes from port 1 to port 2, in a packet or in a piece of one.
    fn udp4(place: u16) -> Vec<u8> {
        let ends = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        let packet = packet::ipv4(ends, protocol::UDP, place, &packet::udp([1, 2], b"data"));
        let station = MacAddr::new([2; 6]);
        packet::ethernet(station, station, packet::ethertype::IPV4, &packet)
    }

    #[test]
    fn a_datagram_is_taken_whole_and_neither_of_a_fragment_nor_of_what_is_cut() {
        let whole = udp4(0);

        let found = recording(&[&whole, &udp4(packet::fragment::MORE)]).datagrams(1);
        let payloads: Vec<&[u8]> = found.iter().map(|it| &it.payload[..]).collect();

        assert_eq!(payloads, [b"data"]);
        for end in 0..whole.len() {
            assert!(recording(&[&whole[..end]]).datagrams(1).is_empty());
        }
    }

    #[test]
    fn a_marker_that_overlaps_itself_is_found_each_time() {
        assert_eq!(recording(&[b"aaaa"]).search(b"aa"), 3);
    }

    #[test]
    fn a_pair_is_found_either_way_round() {
        let (a, b) = (
            MacAddr::new([2, 0, 0, 0, 0, 1]),
            MacAddr::new([2, 0, 0, 0, 0, 2]),
        );
        let there = [a.as_bytes().as_slice(), b.as_bytes()].concat();
        let back = [b"xyz".as_slice(), b.as_bytes(), a.as_bytes()].concat();

        assert_eq!(recording(&[&there, &back, a.as_bytes()]).mac_pairs(a, b), 2);
        assert_eq!(
            recording(&[&[192, 0, 2, 1, 192, 0, 2, 2]])
                .ip_pairs([192, 0, 2, 1].into(), [192, 0, 2, 2].into()),
            1
        );
    }

    #[test]
    fn a_file_begins_as_the_format_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pcap");

        recording(&[b"frame"]).write_pcap(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();

        assert_eq!(bytes.len(), 24 + 16 + 5);
        assert_eq!(bytes[..4], 0xa1b2_3c4d_u32.to_ne_bytes());
        assert_eq!(bytes[24..28], 1u32.to_ne_bytes());
        assert_eq!(bytes[28..32], 2u32.to_ne_bytes());
        assert_eq!(&bytes[40..], b"frame");
    }

    #[test]
    fn what_is_sent_on_the_wire_is_in_the_record() {
        requires_root!();
        let lab = Lab::new("capture");
        let underlay = lab.underlay("net").unwrap();
        let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
        let (at_a, at_b) = (underlay.join(&a).unwrap(), underlay.join(&b).unwrap());
        let marker = [0xa7; 32];
        let capture = Capture::start(at_a.port_netns(), &at_a.port()).unwrap();

        // A listener, for a refusal would quote the marker.
        let _listener = b
            .run(|| UdpSocket::bind((at_b.v4(), 4001)).unwrap())
            .unwrap();
        let socket = a
            .run(|| UdpSocket::bind((at_a.v4(), 4000)).unwrap())
            .unwrap();
        for _ in 0..10 {
            socket.send_to(&marker, (at_b.v4(), 4001)).unwrap();
        }
        let recording = capture.stop().unwrap();

        assert_eq!(recording.lost(), 0);
        assert_eq!(recording.search(&marker), 10);
        assert!(recording.ip_pairs(at_a.v4().into(), at_b.v4().into()) >= 10);
        let datagrams = recording.datagrams(4001);
        assert_eq!(datagrams.len(), 10);
        assert!(
            datagrams
                .iter()
                .all(|datagram| datagram.payload == marker && datagram.from.port() == 4000)
        );
    }
}
