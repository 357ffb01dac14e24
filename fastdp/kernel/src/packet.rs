//! Raw Ethernet on one interface: sees every frame that passes, and sends frames exactly as they are written.
//!
//! Captures, forged frames in tests and probes of kernel paths go through here (packet(7)). Three things that a packet
//! socket does behind one's back are undone or told:
//!
//! * A VLAN tag that the kernel took off on arrival is put back, so a frame reads as it was on the wire.
//! * Between two virtual devices frames travel unfinished: up to 64 KiB long and without checksum. With
//!   [`Options::offloads`] each comes with the [`Offload`] that says how to finish it, and is sent with one. Without it
//!   such frames still arrive, at their full length.
//! * What did not fit into the receive buffer is lost in silence; [`PacketSocket::statistics`] counts it.
//!
//! **Invariant.** A frame longer than the buffer is cut, and [`Received::truncated`] says so.

#![expect(
    unsafe_code,
    reason = "packet sockets have options and addresses that no safe wrapper covers"
)]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::{Duration, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

/// Long enough for the largest frame between virtual devices, with its tag put back.
pub const FRAME_MAX: usize = 65_536 + 64;

/// Holds the largest bursts of a fast virtual link while the reader writes elsewhere.
pub const CAPTURE_BUFFER: usize = 64 << 20;

/// `virtio_net_hdr` of linux/virtio_net.h, without the field for merged buffers.
const OFFLOAD_LEN: usize = 10;

/// A tag of IEEE 802.1Q §9.3, put back behind the two addresses.
const TAG_LEN: usize = 4;
const ADDRESSES_LEN: usize = 12;
const ETHERTYPE_VLAN: u16 = 0x8100;

/// How a packet socket listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Only frames of this ethertype arrive; every frame if `None`.
    pub ethertype: Option<u16>,
    /// Frames that this host sends are not seen. Whoever forwards between two sockets wants that.
    pub ignore_outgoing: bool,
    /// Frames come and go with the description of what is unfinished about them.
    pub offloads: bool,
    /// Frames for other stations are seen too.
    pub promiscuous: bool,
    /// Bytes the kernel may queue for us; more than the host's limit needs `CAP_NET_ADMIN`.
    pub receive_buffer: usize,
}

impl Options {
    /// Sees everything, loses nothing: for captures.
    pub const fn capture() -> Self {
        Self {
            ethertype: None,
            ignore_outgoing: false,
            offloads: true,
            promiscuous: true,
            receive_buffer: CAPTURE_BUFFER,
        }
    }

    /// Sees what arrives and passes it on as it is: for a link made in userspace.
    pub const fn forward() -> Self {
        Self {
            ignore_outgoing: true,
            ..Self::capture()
        }
    }

    /// Sees frames of one ethertype that arrive for this host: for probes.
    pub const fn only(ethertype: u16) -> Self {
        Self {
            ethertype: Some(ethertype),
            ignore_outgoing: true,
            offloads: false,
            promiscuous: false,
            receive_buffer: 1 << 20,
        }
    }
}

/// Which way a frame went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// It arrived at the interface.
    Incoming,
    /// This host sent it out of the interface.
    Outgoing,
}

/// What is unfinished about a frame between virtual devices: the kernel's `virtio_net_hdr`, handed on unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload([u8; OFFLOAD_LEN]);

impl Offload {
    /// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
    const NEEDS_CHECKSUM: u8 = 1;
    /// `VIRTIO_NET_HDR_GSO_ECN`, a modifier of the kinds beside it.
    const ECN: u8 = 0x80;

    /// Returns where the missing checksum starts counting and where it goes, if one is missing.
    pub fn checksum(&self) -> Option<(usize, usize)> {
        (self.0[0] & Self::NEEDS_CHECKSUM != 0).then(|| {
            let start = usize::from(self.field(6));
            (start, start + usize::from(self.field(8)))
        })
    }

    /// Returns how the frame is to be cut into packets, if it is longer than one.
    pub fn segmentation(&self) -> Option<(Segmentation, usize)> {
        let kind = match self.0[1] & !Self::ECN {
            1 => Segmentation::Tcp4,
            3 => Segmentation::UdpFragments,
            4 => Segmentation::Tcp6,
            5 => Segmentation::Udp,
            _ => return None,
        };
        Some((kind, usize::from(self.field(4))))
    }

    fn field(&self, at: usize) -> u16 {
        u16::from_ne_bytes([self.0[at], self.0[at + 1]])
    }
}

/// How a long frame is to be cut (linux/virtio_net.h, `VIRTIO_NET_HDR_GSO_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segmentation {
    /// Into TCP segments over IPv4.
    Tcp4,
    /// Into TCP segments over IPv6.
    Tcp6,
    /// Into UDP datagrams of equal size.
    Udp,
    /// Into fragments of one UDP datagram.
    UdpFragments,
}

/// A frame that was seen. It borrows the reader's buffer.
#[derive(Debug)]
pub struct Received<'a> {
    /// When the kernel saw it.
    pub at: SystemTime,
    /// Which way it went.
    pub direction: Direction,
    /// The frame from the destination address on, with its VLAN tag.
    pub frame: &'a [u8],
    /// What is unfinished about it; all zero without [`Options::offloads`].
    pub offload: Offload,
    /// The frame was longer than the buffer.
    pub truncated: bool,
}

/// What the socket saw since it was last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Frames that did not fit into the receive buffer.
    pub dropped: u32,
    /// Frames that passed the interface, the dropped ones included.
    pub seen: u32,
}

/// A packet socket bound to one interface. It never sees a frame leave that it sent itself.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    offloads: bool,
}

impl PacketSocket {
    /// Opens a socket on an interface of the calling thread's network namespace.
    pub fn open(interface: &str, options: &Options) -> io::Result<Self> {
        let index = nix::net::if_::if_nametoindex(interface)?;
        let protocol = options.ethertype.unwrap_or(ETH_P_ALL);
        let socket = Self {
            fd: unbound()?,
            offloads: options.offloads,
        };

        if setsockopt(&socket.fd, sockopt::RcvBufForce, &options.receive_buffer).is_err() {
            setsockopt(&socket.fd, sockopt::RcvBuf, &options.receive_buffer)?;
        }
        setsockopt(&socket.fd, sockopt::ReceiveTimestampns, &true)?;
        socket.set(libc::PACKET_AUXDATA, &1i32)?;
        if options.offloads {
            socket.set(libc::PACKET_VNET_HDR, &1i32)?;
        }
        if options.ignore_outgoing {
            socket.set(libc::PACKET_IGNORE_OUTGOING, &1i32)?;
        }
        socket.bind(index, protocol)?;
        if options.promiscuous {
            socket.set(libc::PACKET_ADD_MEMBERSHIP, &promiscuous(index))?;
        }
        Ok(socket)
    }

    /// Makes [`Self::recv`] and [`Self::send`] return `WouldBlock` instead of waiting.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        // SAFETY: takes no pointers; the flags of a packet socket are none but this one.
        checked(unsafe {
            libc::fcntl(
                self.fd.as_raw_fd(),
                libc::F_SETFL,
                if nonblocking { libc::O_NONBLOCK } else { 0 },
            )
        })
        .map(drop)
    }

    /// Waits until a frame can be read, and says whether one can.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        match poll(
            &mut fds,
            PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX),
        ) {
            Ok(ready) => Ok(ready > 0),
            Err(nix::Error::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reads one frame into `buffer`, of which [`FRAME_MAX`] bytes are always enough.
    pub fn recv<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Received<'a>> {
        let mut offload = Offload::default();
        let mut control = Control([0; 128]);
        // Room in front for the tag that may have to go back in.
        let Some(room) = buffer.get_mut(TAG_LEN..) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut parts = [
            libc::iovec {
                iov_base: offload.0.as_mut_ptr().cast(),
                iov_len: OFFLOAD_LEN,
            },
            libc::iovec {
                iov_base: room.as_mut_ptr().cast(),
                iov_len: room.len(),
            },
        ];
        let first = usize::from(!self.offloads);
        // SAFETY: all-zero is a valid value of this plain structure of integers.
        let mut from: libc::sockaddr_ll = unsafe { mem::zeroed() };
        // SAFETY: as above; a null pointer with a zero length is what `recvmsg` takes for "none".
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = socklen::<libc::sockaddr_ll>();
        message.msg_iov = parts[first..].as_mut_ptr();
        message.msg_iovlen = (parts.len() - first) as _;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len() as _;
        // SAFETY: every pointer in `message` refers to a live, writable object of the length beside it.
        let got = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, 0) };
        let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;

        let length = got.saturating_sub(self.header_len());
        let ancillary = ancillary(&message);
        let tag = ancillary.tag.filter(|_| length >= ADDRESSES_LEN);
        let frame = with_tag(&mut buffer[..TAG_LEN + length], tag);
        Ok(Received {
            at: ancillary.at.unwrap_or_else(SystemTime::now),
            direction: direction_of(from.sll_pkttype),
            frame,
            offload,
            truncated: message.msg_flags & libc::MSG_TRUNC != 0,
        })
    }

    /// Sends a frame as it is written.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.send_unfinished(frame, &Offload::default())
    }

    /// Sends a frame that was received with an [`Offload`], to be finished by whoever needs it finished.
    pub fn send_unfinished(&self, frame: &[u8], offload: &Offload) -> io::Result<()> {
        let parts = [io::IoSlice::new(&offload.0), io::IoSlice::new(frame)];
        let first = usize::from(!self.offloads);
        let sent = nix::sys::uio::writev(&self.fd, &parts[first..])?;
        if sent == self.header_len() + frame.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    /// Returns the counts since the last call, and resets them.
    pub fn statistics(&self) -> io::Result<Statistics> {
        let mut counts = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut length = socklen::<libc::tpacket_stats>();
        // SAFETY: the pointers refer to a structure of the length beside it, and to that length.
        checked(unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut counts).cast(),
                &raw mut length,
            )
        })?;
        Ok(Statistics {
            dropped: counts.tp_drops,
            seen: counts.tp_packets,
        })
    }

    /// How many bytes come and go before each frame.
    #[inline]
    fn header_len(&self) -> usize {
        if self.offloads { OFFLOAD_LEN } else { 0 }
    }

    fn bind(&self, index: u32, ethertype: u16) -> io::Result<()> {
        // SAFETY: all-zero is a valid value of this plain structure of integers.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = AF_PACKET;
        address.sll_protocol = ethertype.to_be();
        address.sll_ifindex = signed(index);
        // SAFETY: the pointer refers to an address of the length beside it.
        checked(unsafe {
            libc::bind(
                self.fd.as_raw_fd(),
                (&raw const address).cast(),
                socklen::<libc::sockaddr_ll>(),
            )
        })
        .map(drop)
    }

    fn set<T>(&self, option: libc::c_int, value: &T) -> io::Result<()> {
        // SAFETY: the pointer refers to a value of the length beside it; every caller passes the option's plain C type.
        checked(unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                option,
                (&raw const *value).cast(),
                socklen::<T>(),
            )
        })
        .map(drop)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Constants whose C type is wider than the field they are made for (linux/if_packet.h, linux/if_ether.h).
const AF_PACKET: u16 = 17;
const ETH_P_ALL: u16 = 3;
const PACKET_MR_PROMISC: u16 = 1;

/// A socket that receives nothing until [`PacketSocket::bind`], for its protocol is 0: no frame of another interface slips
/// in before.
fn unbound() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    checked(raw)?;
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn promiscuous(index: u32) -> libc::packet_mreq {
    libc::packet_mreq {
        mr_ifindex: signed(index),
        mr_type: PACKET_MR_PROMISC,
        mr_alen: 0,
        mr_address: [0; 8],
    }
}

#[inline]
fn direction_of(packet_type: u8) -> Direction {
    if packet_type == libc::PACKET_OUTGOING {
        Direction::Outgoing
    } else {
        Direction::Incoming
    }
}

/// Puts a tag back behind the addresses of the frame that lies behind the room for one; returns the frame.
#[inline]
fn with_tag(room_and_frame: &mut [u8], tag: Option<[u8; TAG_LEN]>) -> &[u8] {
    let Some(tag) = tag else {
        return &room_and_frame[TAG_LEN..];
    };
    room_and_frame.copy_within(TAG_LEN..TAG_LEN + ADDRESSES_LEN, 0);
    room_and_frame[ADDRESSES_LEN..ADDRESSES_LEN + TAG_LEN].copy_from_slice(&tag);
    room_and_frame
}

/// Aligned like the control messages it receives.
#[repr(align(8))]
struct Control([u8; 128]);

#[derive(Default)]
struct Ancillary {
    at: Option<SystemTime>,
    tag: Option<[u8; TAG_LEN]>,
}

/// Reads what came beside the frame: its time, and the VLAN tag that was taken off.
fn ancillary(message: &libc::msghdr) -> Ancillary {
    let mut found = Ancillary::default();
    // SAFETY: `message` was filled by `recvmsg`, and its control buffer is still alive.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: the macros return null or a header that lies in the buffer whole.
        let (level, kind, data) = unsafe {
            (
                (*header).cmsg_level,
                (*header).cmsg_type,
                libc::CMSG_DATA(header),
            )
        };
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                // SAFETY: the kernel sends a `timespec` under this type; it may lie unaligned.
                let time = unsafe { data.cast::<libc::timespec>().read_unaligned() };
                found.at = time_of(time);
            }
            (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                // SAFETY: the kernel sends a `tpacket_auxdata` under this type; it may lie unaligned.
                let data = unsafe { data.cast::<libc::tpacket_auxdata>().read_unaligned() };
                found.tag = tag_of(&data);
            }
            _ => {}
        }
        // SAFETY: as for `CMSG_FIRSTHDR`.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    found
}

fn time_of(time: libc::timespec) -> Option<SystemTime> {
    let (seconds, nanos) = (
        u64::try_from(time.tv_sec).ok()?,
        u32::try_from(time.tv_nsec).ok()?,
    );
    Some(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos))
}

fn tag_of(data: &libc::tpacket_auxdata) -> Option<[u8; TAG_LEN]> {
    if data.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let known = data.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    let [a, b] = if known {
        data.tp_vlan_tpid
    } else {
        ETHERTYPE_VLAN
    }
    .to_be_bytes();
    let [c, d] = data.tp_vlan_tci.to_be_bytes();
    Some([a, b, c, d])
}

fn checked(outcome: libc::c_int) -> io::Result<libc::c_int> {
    if outcome < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(outcome)
    }
}

/// Interface numbers are positive in the kernel, which spells them once with a sign and once without.
fn signed(index: u32) -> i32 {
    i32::try_from(index).unwrap_or(0)
}

fn socklen<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(mem::size_of::<T>()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::NetNs;

    /// A namespace of its own with nothing but loopback, which is enough to send and see frames.
    fn inside<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
        let namespace = NetNs::create().ok()?;
        Some(namespace.run(work).unwrap())
    }

    fn loopback_up() {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        // SAFETY: all-zero is a valid value of this plain structure.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_LOOPBACK).unwrap();
        // SAFETY: the request outlives the call.
        checked(unsafe {
            libc::ioctl(
                socket.as_raw_fd(),
                libc::SIOCSIFFLAGS as _,
                &raw const request,
            )
        })
        .unwrap();
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; ADDRESSES_LEN];
        frame.extend([0x88, 0xb5]);
        frame.extend(payload);
        frame
    }

    #[test]
    fn a_frame_is_seen_leaving_and_arriving_byte_for_byte() {
        inside(|| {
            loopback_up();
            let socket = PacketSocket::open("lo", &Options::capture()).unwrap();
            let sender = PacketSocket::open("lo", &Options::forward()).unwrap();

            sender.send(&frame(b"a marker of some length")).unwrap();
            let mut buffer = vec![0; FRAME_MAX];
            let mut seen = Vec::new();
            while seen.len() < 2 && socket.wait(Duration::from_secs(5)).unwrap() {
                let received = socket.recv(&mut buffer).unwrap();
                assert!(!received.truncated);
                seen.push((received.direction, received.frame.to_vec()));
            }

            let expected = frame(b"a marker of some length");
            assert_eq!(
                seen,
                [
                    (Direction::Outgoing, expected.clone()),
                    (Direction::Incoming, expected)
                ]
            );
            assert_eq!(
                socket.statistics().unwrap(),
                Statistics {
                    dropped: 0,
                    seen: 2
                }
            );
        });
    }

    #[test]
    fn a_vlan_tag_survives_the_kernel() {
        inside(|| {
            loopback_up();
            let socket = PacketSocket::open("lo", &Options::forward()).unwrap();
            let mut tagged = vec![0; ADDRESSES_LEN];
            tagged.extend([0x81, 0x00, 0x20, 0x2a, 0x88, 0xb5]);
            tagged.extend([7; 50]);

            socket.send(&tagged).unwrap();
            let mut buffer = vec![0; FRAME_MAX];

            assert!(socket.wait(Duration::from_secs(5)).unwrap());
            assert_eq!(socket.recv(&mut buffer).unwrap().frame, tagged);
        });
    }

    #[test]
    fn only_the_wanted_ethertype_arrives() {
        inside(|| {
            loopback_up();
            let socket = PacketSocket::open("lo", &Options::only(0x88b5)).unwrap();
            let sender = PacketSocket::open("lo", &Options::forward()).unwrap();
            let mut other = frame(b"not this one");
            other[13] = 0xb6;

            sender.send(&other).unwrap();
            sender.send(&frame(b"this one")).unwrap();
            let mut buffer = vec![0; FRAME_MAX];

            assert!(socket.wait(Duration::from_secs(5)).unwrap());
            assert_eq!(socket.recv(&mut buffer).unwrap().frame, frame(b"this one"));
        });
    }

    #[test]
    fn a_frame_longer_than_the_buffer_is_cut_and_says_so() {
        inside(|| {
            loopback_up();
            let socket = PacketSocket::open("lo", &Options::forward()).unwrap();

            socket.send(&frame(&[7; 1000])).unwrap();
            let mut buffer = [0; 104];

            assert!(socket.wait(Duration::from_secs(5)).unwrap());
            let received = socket.recv(&mut buffer).unwrap();
            assert!(received.truncated);
            assert_eq!(received.frame, &frame(&[7; 1000])[..100]);
        });
    }

    #[test]
    fn an_overflowing_buffer_is_counted() {
        inside(|| {
            loopback_up();
            let socket = PacketSocket::open(
                "lo",
                &Options {
                    receive_buffer: 4096,
                    ..Options::forward()
                },
            )
            .unwrap();

            for _ in 0..100 {
                socket.send(&frame(&[7; 1000])).unwrap();
            }

            let statistics = socket.statistics().unwrap();
            assert_eq!(statistics.seen, 100);
            assert!(
                statistics.dropped > 0 && statistics.dropped < 100,
                "{statistics:?}"
            );
        });
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        assert!(PacketSocket::open("weft-none", &Options::capture()).is_err());
    }
}
