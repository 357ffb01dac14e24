//! Sends and receives many equal datagrams with one system call.
//!
//! ```text
//!   send_segments(to, [a, b, c, d, e], Some(n))   one sendmsg: the kernel cuts a‖b‖c‖d‖e every n bytes (UDP_SEGMENT)
//!   recv(buffer) -> { len, segment, from }        one recvmsg: len bytes that came as datagrams of `segment` (UDP_GRO)
//! ```
//!
//! Each tells the address of this host that was asked, so that an answer may leave from there: on a host with several the routing
//! table likes another (`IP_PKTINFO`, ip(7); RFC 3542 §6.2).
//!
//! What is to be sent may lie in as many pieces as it likes: they need not coincide with datagrams. Datagrams are never
//! fragmented by this host (RFC 8899 §3: the sender probes), and a larger one than the device takes is refused with
//! `EMSGSIZE` rather than by what some router once said.
//!
//! What routers and this host say about datagrams that did not get through (RFC 792, RFC 4443) is queued apart:
//! [`UdpSocket::complaint`]. Linux fails the next call on the socket too, whatever that is about, so a call that fails is
//! made once more before it is believed.
//!
//! **Failure policy.** A full socket is `WouldBlock`, and nothing was sent. Nothing here allocates or waits.

use std::ffi::{c_int, c_void};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// The most datagrams in one call: the limit of every kernel that has the feature (`UDP_MAX_SEGMENTS`).
pub const MAX_SEGMENTS: usize = 64;

/// The most bytes in one call: an IPv4 packet less its headers, RFC 768 and RFC 791 §3.1.
pub const MAX_PAYLOAD: usize = 65_507;

/// Of how many pieces one datagram may consist where the kernel cannot cut and each is sent by itself.
const MAX_PIECES: usize = 16;

/// How to open a UDP socket.
#[derive(Clone, Copy, Debug)]
pub struct UdpOptions {
    /// The kernel's buffer for what nobody has read yet, in bytes. Small buffers lose what offload delivers at once.
    pub receive_buffer: usize,
    /// The kernel's buffer for what has not left yet, in bytes.
    pub send_buffer: usize,
    /// Whether other sockets of this user may share the port, each serving some of the flows.
    pub reuse_port: bool,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            // 2 ms at 16 Gbit/s.
            receive_buffer: 4 << 20,
            send_buffer: 4 << 20,
            reuse_port: false,
        }
    }
}

/// What one call received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// How many bytes.
    pub len: usize,
    /// Who sent them.
    pub from: SocketAddr,
    /// To which address of this host; `None` where the kernel does not say.
    pub to: Option<IpAddr>,
    /// The size of each datagram but the last, which may be shorter; `len` where there is one only.
    pub segment: usize,
}

/// What was said about a datagram that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// It was too large.
    TooBig {
        /// Where it was sent to. The port is 0 where the kernel does not tell (IPv4, of its own devices).
        to: SocketAddr,
        /// The largest IP packet that is said to pass.
        mtu: u32,
        /// Whether this host says so, of its own device; else anybody may have written it.
        local: bool,
    },
    /// Anything else: there is no such port, host or way.
    Other,
}

/// A UDP socket. It never blocks.
#[derive(Debug)]
pub struct UdpSocket {
    socket: Socket,
    local: SocketAddr,
    joins: bool,
    /// Whether the kernel cuts; off for good once a device has refused.
    cuts: AtomicBool,
}

impl UdpSocket {
    /// Opens a socket at `address`. An IPv6 socket serves IPv6 only.
    ///
    /// `EADDRINUSE` says that another socket has the port. Buffers are as large as this process may make them.
    pub fn bind(address: SocketAddr, options: UdpOptions) -> io::Result<Self> {
        let socket = unbound(address)?;
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        set_buffers(&socket, options)?;
        // Kernels before 5.0 hand over one datagram per call; everything works, slower.
        let joins = set_int(&socket, libc::IPPROTO_UDP, libc::UDP_GRO, 1).is_ok();
        let cuts = set_int(&socket, libc::IPPROTO_UDP, libc::UDP_SEGMENT, 0).is_ok();
        socket.bind(&address.into())?;
        let local = socket
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Self {
            socket,
            local,
            joins,
            cuts: AtomicBool::new(cuts),
        })
    }

    /// Sends `pieces`, in this order, as datagrams of `segment` bytes, the last of which may be shorter; as one where
    /// `segment` is `None`. At most [`MAX_SEGMENTS`] datagrams and [`MAX_PAYLOAD`] bytes.
    pub fn send_segments(
        &self,
        to: SocketAddr,
        pieces: &[IoSlice<'_>],
        segment: Option<u16>,
    ) -> io::Result<()> {
        self.send_segments_from(None, to, pieces, segment)
    }

    /// The same, from an address of this host, whatever the routing table likes. `ENETUNREACH` or `EINVAL` says that it has no such
    /// address, or none that leads there.
    pub fn send_segments_from(
        &self,
        from: Option<IpAddr>,
        to: SocketAddr,
        pieces: &[IoSlice<'_>],
        segment: Option<u16>,
    ) -> io::Result<()> {
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        let way = Way {
            from,
            to: SockAddr::from(to),
        };
        let Some(segment) = segment.filter(|segment| usize::from(*segment) < total) else {
            return send(&self.socket, &way, pieces, None);
        };
        if segment == 0 || total > MAX_PAYLOAD {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        if self.cuts.load(Ordering::Relaxed) {
            match send(&self.socket, &way, pieces, Some(segment)) {
                // The device cannot fill in checksums, or a transformation follows: udp(7).
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                    self.cuts.store(false, Ordering::Relaxed);
                }
                done => return done,
            }
        }
        send_one_by_one(&self.socket, &way, pieces, usize::from(segment))
    }

    /// Receives what waits, at most one call's worth: 64 KiB of buffer lose nothing. `WouldBlock` when nothing waits.
    ///
    /// `ECONNREFUSED` and its kin say that [`Self::complaint`] has something, and are about no datagram that is received.
    pub fn recv(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<Received> {
        receive(&self.socket, buffers)
    }

    /// Takes what was said longest ago about what was sent; `WouldBlock` when nothing more was. While something waits, a
    /// poll of this socket returns at once.
    pub fn complaint(&self) -> io::Result<Complaint> {
        complaint(&self.socket)
    }

    /// The address it is bound to, with the port that the kernel chose if none was given.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Whether the kernel cuts what is sent into datagrams.
    pub fn cuts(&self) -> bool {
        self.cuts.load(Ordering::Relaxed)
    }

    /// Whether the kernel joins what is received into one call's worth.
    pub fn joins(&self) -> bool {
        self.joins
    }

    /// Makes a second handle of the same socket.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
            local: self.local,
            joins: self.joins,
            cuts: AtomicBool::new(self.cuts()),
        })
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A socket whose datagrams are never fragmented, and that hears what is said about them.
fn unbound(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
    let (level, discover, complaints, asked) = match address {
        SocketAddr::V4(_) => {
            let level = libc::IPPROTO_IP;
            let (discover, complaints) = (libc::IP_MTU_DISCOVER, libc::IP_RECVERR);
            (level, discover, complaints, libc::IP_PKTINFO)
        }
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            let level = libc::IPPROTO_IPV6;
            let (discover, complaints) = (libc::IPV6_MTU_DISCOVER, libc::IPV6_RECVERR);
            (level, discover, complaints, libc::IPV6_RECVPKTINFO)
        }
    };
    // The values of IP_PMTUDISC_PROBE and IPV6_PMTUDISC_PROBE are one.
    set_int(&socket, level, discover, libc::IP_PMTUDISC_PROBE)?;
    set_int(&socket, level, complaints, 1)?;
    set_int(&socket, level, asked, 1)?;
    Ok(socket)
}

fn set_buffers(socket: &Socket, options: UdpOptions) -> io::Result<()> {
    let (receive, send) = (options.receive_buffer, options.send_buffer);
    grow(socket, libc::SO_RCVBUFFORCE, receive)
        .or_else(|_| socket.set_recv_buffer_size(receive))?;
    grow(socket, libc::SO_SNDBUFFORCE, send).or_else(|_| socket.set_send_buffer_size(send))
}

/// Where from and where to.
struct Way {
    from: Option<IpAddr>,
    to: SockAddr,
}

/// Room for control messages: an integer and an address of this host each way, with their headers.
#[repr(C, align(8))]
struct Control {
    room: [u8; 96],
    len: usize,
}

impl Control {
    const fn new() -> Self {
        Self {
            room: [0; 96],
            len: 0,
        }
    }

    /// Writes one behind the others: cmsg(3).
    #[inline]
    #[expect(unsafe_code, reason = "a control message is written by pointers")]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the socket interface's structures are small"
    )]
    fn push<T: Copy>(&mut self, level: c_int, kind: c_int, value: T) {
        let size = size_of::<T>() as u32;
        // SAFETY: CMSG_SPACE and CMSG_LEN compute.
        let (space, len) = unsafe { (libc::CMSG_SPACE(size), libc::CMSG_LEN(size)) };
        let end = self.len + space as usize;
        let Some(room) = self.room.get_mut(self.len..end) else {
            return;
        };
        let header: *mut libc::cmsghdr = room.as_mut_ptr().cast();
        // SAFETY: `room` has space for a header and `T`; it is aligned, as the whole is and every space is a multiple of
        // that; what is written behind the header need not be.
        unsafe {
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            (*header).cmsg_len = len as _;
            ptr::write_unaligned(libc::CMSG_DATA(header).cast::<T>(), value);
        }
        self.len = end;
    }

    /// Names the address that what is sent leaves from: ip(7), RFC 3542 §6.2. By which device, the routes say.
    #[inline]
    fn leave_from(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from_ne_bytes(v4.octets()),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            IpAddr::V6(v6) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: v6.octets(),
                    },
                    ipi6_ifindex: 0,
                };
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
        }
    }
}

/// Sends each datagram by itself. Stops at the first that fails: what follows would fail too, or be reordered.
fn send_one_by_one(
    socket: &Socket,
    way: &Way,
    pieces: &[IoSlice<'_>],
    segment: usize,
) -> io::Result<()> {
    let mut pieces = pieces.iter().map(|piece| &piece[..]);
    let mut rest: &[u8] = &[];
    loop {
        let mut datagram = [IoSlice::new(&[]); MAX_PIECES];
        let (mut used, mut missing) = (0, segment);
        while missing > 0 {
            if rest.is_empty() {
                match pieces.next() {
                    Some(piece) => rest = piece,
                    None => break,
                }
                continue;
            }
            let (head, tail) = rest.split_at(missing.min(rest.len()));
            let slot = datagram
                .get_mut(used)
                .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
            *slot = IoSlice::new(head);
            (used, missing, rest) = (used + 1, missing - head.len(), tail);
        }
        if used == 0 {
            return Ok(());
        }
        send(socket, way, &datagram[..used], None)?;
        if missing > 0 {
            return Ok(());
        }
    }
}

#[expect(unsafe_code, reason = "sendmsg(2) with a control message")]
fn send(
    socket: &Socket,
    way: &Way,
    pieces: &[IoSlice<'_>],
    segment: Option<u16>,
) -> io::Result<()> {
    let mut control = Control::new();
    // SAFETY: `msghdr` is plain old data, for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = way.to.as_ptr().cast_mut().cast();
    message.msg_namelen = way.to.len();
    // `IoSlice` has the layout of `iovec` (its documentation says so), and the kernel does not write to it.
    message.msg_iov = pieces.as_ptr().cast_mut().cast();
    message.msg_iovlen = pieces.len() as _;
    if let Some(segment) = segment {
        // Has the kernel cut what is sent: udp(7).
        control.push(libc::IPPROTO_UDP, libc::UDP_SEGMENT, segment);
    }
    if let Some(from) = way.from {
        control.leave_from(from);
    }
    if control.len > 0 {
        message.msg_control = control.room.as_mut_ptr().cast();
        message.msg_controllen = control.len as _;
    }
    let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    // SAFETY: `message` points to the address, the pieces and the control message, all alive for the call.
    believe(|| unsafe { libc::sendmsg(fd, &raw const message, flags) }).map(drop)
}

#[expect(unsafe_code, reason = "recvmsg(2) with a control message")]
fn receive(socket: &Socket, buffers: &mut [IoSliceMut<'_>]) -> io::Result<Received> {
    let mut control = Control::new();
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    // SAFETY: `msghdr` is plain old data, for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = socklen::<libc::sockaddr_storage>();
    // `IoSliceMut` has the layout of `iovec`: its documentation says so.
    message.msg_iov = buffers.as_mut_ptr().cast();
    message.msg_iovlen = buffers.len() as _;
    message.msg_control = control.room.as_mut_ptr().cast();
    message.msg_controllen = control.room.len() as _;
    let len = receive_message(socket, &mut message, 0)?;
    // SAFETY: `sockaddr_storage` is plain old data, zeroed above and then written by the kernel.
    let name = unsafe { name.assume_init() };
    // SAFETY: `message` describes `control`, which the kernel has filled; its UDP_GRO message is one `int`.
    let size = unsafe { control_message::<c_int>(&message, &[(libc::IPPROTO_UDP, libc::UDP_GRO)]) };
    let size = size.and_then(|size| usize::try_from(size).ok());
    Ok(Received {
        len,
        from: sender(&name)?,
        to: asked(&message),
        segment: size.filter(|size| *size > 0).unwrap_or(len),
    })
}

/// The address of this host that a datagram came to.
#[inline]
#[expect(unsafe_code, reason = "control messages are read by pointers")]
fn asked(message: &libc::msghdr) -> Option<IpAddr> {
    const V4: [(c_int, c_int); 1] = [(libc::IPPROTO_IP, libc::IP_PKTINFO)];
    const V6: [(c_int, c_int); 1] = [(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)];
    // SAFETY: the caller's message has been filled by recvmsg(2), and its buffer is alive; messages of these kinds are
    // these structures, which are plain old data.
    unsafe {
        control_message::<libc::in_pktinfo>(message, &V4)
            .map(|info| Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into())
            .or_else(|| {
                let info = control_message::<libc::in6_pktinfo>(message, &V6)?;
                Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into())
            })
    }
}

/// Reads one entry of the socket's queue of errors: ip(7), `IP_RECVERR`.
#[expect(unsafe_code, reason = "recvmsg(2) with a control message")]
fn complaint(socket: &Socket) -> io::Result<Complaint> {
    // The extended error, and an address behind it, in a header.
    let mut control = [0_u64; 16];
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    // SAFETY: `msghdr` is plain old data, for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = socklen::<libc::sockaddr_storage>();
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    receive_message(socket, &mut message, libc::MSG_ERRQUEUE)?;
    // SAFETY: `sockaddr_storage` is plain old data, zeroed above and then written by the kernel.
    let name = unsafe { name.assume_init() };
    let kinds = [
        (libc::IPPROTO_IP, libc::IP_RECVERR),
        (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    ];
    // SAFETY: `message` describes `control`, which the kernel has filled; either message begins with this structure.
    let error = unsafe { control_message::<libc::sock_extended_err>(&message, &kinds) };
    let too_big = error.filter(|error| i32::try_from(error.ee_errno) == Ok(libc::EMSGSIZE));
    match (too_big, sender(&name)) {
        (Some(error), Ok(to)) => Ok(Complaint::TooBig {
            to,
            mtu: error.ee_info,
            local: error.ee_origin == libc::SO_EE_ORIGIN_LOCAL,
        }),
        _ => Ok(Complaint::Other),
    }
}

#[inline]
#[expect(unsafe_code, reason = "recvmsg(2)")]
fn receive_message(socket: &Socket, message: &mut libc::msghdr, flags: c_int) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC | flags;
    // SAFETY: the callers let `message` point to room that is alive for the call.
    believe(|| unsafe { libc::recvmsg(socket.as_raw_fd(), message, flags) })
}

/// Makes a system call until it is not interrupted, and once more before its error is believed.
#[inline]
fn believe(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    let mut doubted = false;
    loop {
        if let Ok(done) = usize::try_from(call()) {
            return Ok(done);
        }
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::Interrupted {
            continue;
        }
        if doubted || !is_doubtful(&error) {
            return Err(error);
        }
        doubted = true;
    }
}

/// Whether an error may be about another datagram than the call is: one that was sent before.
fn is_doubtful(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EIO | libc::EINVAL)
    )
}

/// Finds what the kernel says in a control message of one of these levels and types.
///
/// # Safety
/// `message` must have been filled by recvmsg(2), its control buffer must be alive, and those messages must begin with a
/// `T`, for which any bytes are a value.
#[expect(unsafe_code, reason = "control messages are walked by pointers")]
unsafe fn control_message<T: Copy>(message: &libc::msghdr, kinds: &[(c_int, c_int)]) -> Option<T> {
    // SAFETY: the caller vouches for the buffer; the macros stay within `msg_controllen`.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: not null, so a whole header within the buffer.
        let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        if kinds.contains(&(level, kind)) {
            // SAFETY: the caller vouches for what such a message begins with.
            return Some(unsafe { ptr::read_unaligned(libc::CMSG_DATA(header).cast::<T>()) });
        }
        // SAFETY: `header` lies within the buffer of `message`.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}

/// Reads the sender's address.
#[expect(unsafe_code, reason = "an address is told by its family")]
fn sender(name: &libc::sockaddr_storage) -> io::Result<SocketAddr> {
    let name: *const libc::sockaddr_storage = name;
    // SAFETY: `sockaddr_storage` is larger than, and aligned for, each address of a family; all are plain old data.
    unsafe {
        match c_int::from((*name).ss_family) {
            libc::AF_INET => {
                let v4 = &*name.cast::<libc::sockaddr_in>();
                let ip = v4.sin_addr.s_addr.to_ne_bytes();
                Ok(SocketAddr::from((ip, u16::from_be(v4.sin_port))))
            }
            libc::AF_INET6 => {
                let v6 = &*name.cast::<libc::sockaddr_in6>();
                Ok(SocketAddr::V6(std::net::SocketAddrV6::new(
                    v6.sin6_addr.s6_addr.into(),
                    u16::from_be(v6.sin6_port),
                    v6.sin6_flowinfo,
                    v6.sin6_scope_id,
                )))
            }
            _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    }
}

/// Asks for a larger buffer than the system allows everyone: CAP_NET_ADMIN may.
fn grow(socket: &Socket, name: c_int, bytes: usize) -> io::Result<()> {
    let bytes = c_int::try_from(bytes).map_err(io::Error::other)?;
    set_int(socket, libc::SOL_SOCKET, name, bytes)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the socket interface's structures are small"
)]
const fn socklen<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

#[expect(unsafe_code, reason = "setsockopt(2) with an int")]
fn set_int(socket: &Socket, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let value: *const c_int = &raw const value;
    // SAFETY: the kernel reads one `int`, which outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.cast::<c_void>(),
            socklen::<c_int>(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::{PollFd, PollFlags, wait};

    fn pair(address: &str) -> (UdpSocket, UdpSocket) {
        let address: SocketAddr = address.parse().unwrap();
        let open = || UdpSocket::bind(address, UdpOptions::default()).unwrap();
        (open(), open())
    }

    /// Receives until `total` bytes are there; returns them and the sizes of the datagrams they came in.
    fn collect(socket: &UdpSocket, total: usize) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut sizes) = (Vec::new(), Vec::new());
        let mut buffer = vec![0; 1 << 16];
        while bytes.len() < total {
            let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            assert_eq!(wait(&mut fds, Some(Duration::from_secs(5))).unwrap(), 1);
            let received = socket.recv(&mut [IoSliceMut::new(&mut buffer)]).unwrap();
            for datagram in buffer[..received.len].chunks(received.segment) {
                bytes.extend_from_slice(datagram);
                sizes.push(datagram.len());
            }
        }
        (bytes, sizes)
    }

    #[test]
    fn pieces_leave_as_equal_datagrams_wherever_they_are_cut() {
        for loopback in ["127.0.0.1:0", "[::1]:0"] {
            let (a, b) = pair(loopback);
            let payload: Vec<u8> = (0..10_000_u32).map(|i| i.to_le_bytes()[0]).collect();
            let pieces: Vec<_> = payload.chunks(777).map(IoSlice::new).collect();

            a.send_segments(b.local_addr(), &pieces, Some(1200))
                .unwrap();

            let (bytes, sizes) = collect(&b, payload.len());
            assert_eq!(bytes, payload);
            assert_eq!(sizes, [vec![1200; 8], vec![400]].concat());
        }
    }

    #[test]
    fn without_the_kernel_s_help_the_same_datagrams_leave() {
        let (a, b) = pair("127.0.0.1:0");
        a.cuts.store(false, Ordering::Relaxed);
        let payload: Vec<u8> = (0..5000_u32).map(|i| i.to_le_bytes()[0]).collect();
        let pieces: Vec<_> = payload.chunks(777).map(IoSlice::new).collect();

        a.send_segments(b.local_addr(), &pieces, Some(1000))
            .unwrap();

        let (bytes, sizes) = collect(&b, payload.len());
        assert_eq!(bytes, payload);
        assert_eq!(sizes, vec![1000; 5]);
    }

    #[test]
    fn one_datagram_is_one_segment_and_names_its_sender() {
        let (a, b) = pair("[::1]:0");

        a.send_segments(b.local_addr(), &[IoSlice::new(b"hello")], Some(1200))
            .unwrap();

        let mut fds = [PollFd::new(b.as_fd(), PollFlags::POLLIN)];
        wait(&mut fds, Some(Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 100];
        let received = b.recv(&mut [IoSliceMut::new(&mut buffer)]).unwrap();
        let from = a.local_addr();
        assert_eq!(
            received,
            Received {
                len: 5,
                from,
                to: Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
                segment: 5
            }
        );
        let again = b.recv(&mut [IoSliceMut::new(&mut buffer)]).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn an_answer_leaves_from_the_address_that_was_asked() {
        let bind = |address: &str| {
            let address: SocketAddr = address.parse().unwrap();
            UdpSocket::bind(address, UdpOptions::default()).unwrap()
        };
        let (asking, everywhere) = (bind("127.0.0.1:0"), bind("0.0.0.0:0"));
        let asked: IpAddr = "127.0.0.77".parse().unwrap();
        let port = everywhere.local_addr().port();
        let receive = |socket: &UdpSocket| {
            let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            wait(&mut fds, Some(Duration::from_secs(5))).unwrap();
            socket.recv(&mut [IoSliceMut::new(&mut [0; 4096])]).unwrap()
        };

        let pieces = [IoSlice::new(&[7; 3000])];
        asking
            .send_segments(SocketAddr::new(asked, port), &pieces, Some(1000))
            .unwrap();
        let question = receive(&everywhere);
        assert_eq!(question.to, Some(asked));

        everywhere
            .send_segments_from(question.to, question.from, &pieces, Some(1000))
            .unwrap();
        assert_eq!(receive(&asking).from, SocketAddr::new(asked, port));

        // An address that this host has not got.
        let elsewhere = Some("192.0.2.1".parse().unwrap());
        let refused = everywhere.send_segments_from(elsewhere, question.from, &pieces, None);
        let refused = refused.unwrap_err().raw_os_error();
        assert_eq!(refused, Some(libc::ENETUNREACH));
    }

    #[test]
    fn what_is_larger_than_the_device_is_complained_of_with_its_size() {
        for (loopback, headers) in [("127.0.0.1:0", 28), ("[::1]:0", 48)] {
            let (a, b) = pair(loopback);
            let mtu = std::fs::read_to_string("/sys/class/net/lo/mtu").unwrap();
            let mtu: u32 = mtu.trim().parse().unwrap();
            if mtu as usize - headers >= MAX_PAYLOAD {
                continue; // No datagram is larger.
            }

            let payload = vec![0; mtu as usize - headers + 1];
            let refused = a.send_segments(b.local_addr(), &[IoSlice::new(&payload)], None);

            assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
            let Complaint::TooBig {
                to,
                mtu: said,
                local,
            } = a.complaint().unwrap()
            else {
                panic!("it is about the size");
            };
            assert_eq!((to.ip(), said, local), (b.local_addr().ip(), mtu, true));
            a.send_segments(b.local_addr(), &[IoSlice::new(b"less")], None)
                .unwrap();
            assert_eq!(collect(&b, 4).0, b"less");
        }
    }

    #[test]
    fn what_nobody_receives_fails_no_call_about_something_else() {
        for loopback in ["127.0.0.1:0", "[::1]:0"] {
            let (a, b) = pair(loopback);
            let nobody = pair(loopback).1.local_addr();
            for _ in 0..20 {
                a.send_segments(nobody, &[IoSlice::new(b"?")], None)
                    .unwrap();
                a.send_segments(b.local_addr(), &[IoSlice::new(b"!")], None)
                    .unwrap();
                let nothing = a.recv(&mut [IoSliceMut::new(&mut [0; 10])]).unwrap_err();
                assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            }

            assert_eq!(collect(&b, 20).0, [b'!'; 20]);
            assert_eq!(a.complaint().unwrap(), Complaint::Other);
            let rest = std::iter::from_fn(|| a.complaint().ok()).count();
            assert!(rest < 20);
            assert_eq!(a.complaint().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn a_port_that_is_taken_is_refused() {
        let (a, _) = pair("127.0.0.1:0");

        let refused = UdpSocket::bind(a.local_addr(), UdpOptions::default()).unwrap_err();

        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_segment_size_of_zero_is_refused() {
        let (a, b) = pair("127.0.0.1:0");

        let refused = a.send_segments(b.local_addr(), &[IoSlice::new(b"x")], Some(0));

        assert!(refused.is_err());
    }
}
