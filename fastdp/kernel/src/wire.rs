//! Puts many netlink requests into one system call.
//!
//! ```text
//!   one send:  ┌ request n ┬ request n+1 ┬ … ┬ request n+k, NLM_F_ACK ┐
//!   answers:   one error for each request that is refused, in order; last an answer to n+k, whatever it is
//! ```
//!
//! The kernel works through a datagram of requests in order, within the call that sends it, and goes on after one that it
//! refuses. Only the last asks to be acknowledged: whatever precedes its answer and was not refused is done. So a batch
//! costs two system calls and one more per refusal, and its answers fit the socket's buffer.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's vocabulary is open: what is not named here is not ours"
)]

use std::io;

use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};

/// How many requests go into one call. A refusal takes 768 bytes of the receive buffer, whose default is 212992: should
/// every request be refused, all answers fit.
pub(crate) const MOST: usize = 256;

/// A request that the kernel refused: which of the batch, and why.
pub(crate) type Refusal = (usize, Errno);

/// A socket for batches. Belongs to the network namespace of the thread that opened it.
pub(crate) struct Wire {
    socket: TokioSocket,
    /// The number of the request sent last. Answers to a batch that nobody waits for any more have older ones.
    sequence: u32,
}

impl Wire {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_ref().connect(&SocketAddr::new(0, 0))?;
        // Refusals come without the request they refuse. Older kernels than 4.3 send it along, which is as good but larger.
        let _ = socket.socket_ref().set_cap_ack(true);
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Sends up to [`MOST`] changes and waits for the last answer.
    pub(crate) async fn send(
        &mut self,
        changes: impl ExactSizeIterator<Item = (RouteNetlinkMessage, u16)>,
    ) -> io::Result<Vec<Refusal>> {
        let (first, count) = (self.sequence.wrapping_add(1), changes.len());
        let mut datagram = Vec::new();
        for (position, (message, flags)) in changes.enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let ack = if position + 1 == count { NLM_F_ACK } else { 0 };
            let mut request = NetlinkMessage::from(message);
            request.header.flags = NLM_F_REQUEST | ack | flags;
            request.header.sequence_number = self.sequence;
            append(&mut datagram, request);
        }
        self.socket.send(&datagram).await?;
        self.refusals(first, count).await
    }

    /// Collects the answers to `count` requests that are numbered from `first`.
    async fn refusals(&self, first: u32, count: usize) -> io::Result<Vec<Refusal>> {
        let mut refusals = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full().await?;
            let Some((sequence, errno)) = answer(&datagram) else {
                continue;
            };
            let position = sequence.wrapping_sub(first) as usize;
            if position >= count {
                continue; // To a batch whose sender went away.
            }
            refusals.extend(errno.map(|errno| (position, errno)));
            if position + 1 == count {
                return Ok(refusals);
            }
        }
    }
}

/// Messages begin at multiples of four bytes (`NLMSG_ALIGN`).
fn append(datagram: &mut Vec<u8>, mut request: NetlinkMessage<RouteNetlinkMessage>) {
    request.finalize();
    let begin = datagram.len();
    let end = begin + request.buffer_len();
    datagram.resize(end.next_multiple_of(4), 0);
    request.serialize(&mut datagram[begin..end]);
}

/// Reads which request an answer is for, and why it was refused if it was.
fn answer(datagram: &[u8]) -> Option<(u32, Option<Errno>)> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram).ok()?;
    match message.payload {
        NetlinkPayload::Error(error) => {
            let errno = error.code.map(|code| Errno::from_raw(code.get().abs()));
            Some((message.header.sequence_number, errno))
        }
        _ => None,
    }
}
