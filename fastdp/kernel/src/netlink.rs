//! Speaks rtnetlink (RFC 3549): one connection, requests that answer, dumps that are consistent.
//!
//! What can be read of links, FDB entries, neighbours, addresses and routes are methods of [`Netlink`], what can be changed
//! are constructors of [`Request`], each group in the module of its noun. A connection belongs to the network namespace of
//! the thread that opened it, for life.
//!
//! **Failure policy.** Every request ends: with an answer, with the kernel's refusal, or with
//! [`NetlinkError::TimedOut`]. A dump during which the table changed is repeated. Nothing else is.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's vocabulary is open: what is not named here is not ours"
)]

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fmt, io};

use futures_util::{Stream, StreamExt as _};
use nix::errno::Errno;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkMessage;
use tokio::sync::Mutex;

use crate::wire::{self, Wire};

/// The kernel answers in microseconds, but under the lock of everybody else's network changes.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a dump is begun anew because the table changed meanwhile.
const DUMP_ATTEMPTS: usize = 8;

/// Why the kernel did not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetlinkError {
    /// The device is in use by something else (EBUSY).
    #[error("the device is in use")]
    Busy,
    /// The connection is over.
    #[error("the netlink connection is closed")]
    Closed,
    /// CAP_NET_ADMIN is missing (EPERM, EACCES).
    #[error("the kernel does not permit it: CAP_NET_ADMIN is missing")]
    Denied,
    /// What was to be made exists (EEXIST).
    #[error("it exists already")]
    Exists,
    /// The kernel finds no sense in the request (EINVAL, ERANGE): also how older kernels refuse what they do not know.
    #[error("the kernel refuses the value")]
    Invalid,
    /// There is no such device (ENODEV, ENXIO).
    #[error("there is no such network device")]
    NoDevice,
    /// What was to be removed or changed is not there (ENOENT, ESRCH, EADDRNOTAVAIL).
    #[error("there is no such entry")]
    NotFound,
    /// Any other refusal.
    #[error("the kernel refuses: {0}")]
    Refused(Errno),
    /// No answer came.
    #[error("the kernel did not answer")]
    TimedOut,
    /// The table changed during every attempt to read it.
    #[error("the table changes faster than it can be read")]
    Unsettled,
    /// The kernel lacks the feature (EOPNOTSUPP, EAFNOSUPPORT, EPROTONOSUPPORT).
    #[error("the kernel lacks this feature")]
    Unsupported,
}

impl NetlinkError {
    fn of_errno(errno: Errno) -> Self {
        match errno {
            Errno::EACCES | Errno::EPERM => Self::Denied,
            Errno::EADDRNOTAVAIL | Errno::ENOENT | Errno::ESRCH => Self::NotFound,
            Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT => Self::Unsupported,
            Errno::EBUSY => Self::Busy,
            Errno::EEXIST => Self::Exists,
            Errno::EINVAL | Errno::ERANGE => Self::Invalid,
            Errno::ENODEV | Errno::ENXIO => Self::NoDevice,
            other => Self::Refused(other),
        }
    }

    fn of_io(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(raw) => Self::of_errno(Errno::from_raw(raw)),
            None => Self::Closed,
        }
    }

    /// Whether the thing is gone: what was to be removed need not be removed.
    pub fn is_absent(self) -> bool {
        matches!(self, Self::NoDevice | Self::NotFound)
    }
}

/// What the kernel calls a network device, within one namespace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(u32);

impl LinkIndex {
    /// Takes the kernel's number.
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The kernel's number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for LinkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for LinkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A change to ask the kernel for, made by the constructors in the modules of the nouns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
}

impl Request {
    pub(crate) const fn new(message: RouteNetlinkMessage, flags: u16) -> Self {
        Self { message, flags }
    }
}

/// A connection to the kernel's routing tables. Clones share it; it ends with the last of them.
#[derive(Clone)]
pub struct Netlink {
    handle: rtnetlink::Handle,
    /// Carries what is sent in batches.
    wire: Arc<Mutex<Wire>>,
    /// How often the kernel was asked.
    asked: Arc<AtomicU64>,
}

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netlink").finish_non_exhaustive()
    }
}

impl Netlink {
    /// Connects, in the calling thread's network namespace. Must be called within a tokio runtime, which carries it.
    pub fn connect() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        let wire = Arc::new(Mutex::new(Wire::open()?));
        let asked = Arc::default();
        Ok(Self {
            handle,
            wire,
            asked,
        })
    }

    /// How often the kernel was asked: each batch, each request alone and each dump counts once.
    pub fn round_trips(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Asks for a change and waits until it is made.
    pub async fn change(&self, request: Request) -> Result<(), NetlinkError> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | request.flags;
        let (_, _) = self.exchange(request.message, flags).await?;
        Ok(())
    }

    /// Asks for many changes, in order, in as few system calls as there are times 256 of them. Each ends as it would
    /// alone: one that is refused keeps none of the others from being made. Returns how each ended, in their order.
    pub async fn change_all(&self, requests: Vec<Request>) -> Vec<Result<(), NetlinkError>> {
        let mut ends = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter();
        while requests.len() > 0 {
            let batch: Vec<Request> = requests.by_ref().take(wire::MOST).collect();
            ends.extend(self.change_batch(batch).await);
        }
        ends
    }

    async fn change_batch(&self, batch: Vec<Request>) -> Vec<Result<(), NetlinkError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut ends = vec![Ok(()); batch.len()];
        let changes = batch.into_iter().map(|it| (it.message, it.flags));
        let exchange = async { self.wire.lock().await.send(changes).await };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(Ok(refusals)) => {
                for (position, errno) in refusals {
                    ends[position] = Err(NetlinkError::of_errno(errno));
                }
            }
            // How far the kernel came is not known.
            Ok(Err(error)) => ends.fill(Err(NetlinkError::of_io(&error))),
            Err(_) => ends.fill(Err(NetlinkError::TimedOut)),
        }
        ends
    }

    /// Asks for one object.
    pub(crate) async fn get(
        &self,
        message: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        let (answers, _) = self.exchange(message, NLM_F_REQUEST | NLM_F_ACK).await?;
        Ok(answers.into_iter().next())
    }

    /// Reads a whole table.
    pub(crate) async fn dump(
        &self,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let (answers, consistent) = self
                .exchange(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)
                .await?;
            if consistent {
                return Ok(answers);
            }
        }
        Err(NetlinkError::Unsettled)
    }

    /// Sends a request and collects what comes back; tells whether no change fell in between.
    async fn exchange(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Answers, NetlinkError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let answers = self
            .handle
            .clone()
            .request(request)
            .map_err(|_| NetlinkError::Closed)?;
        tokio::time::timeout(PATIENCE, collect(answers))
            .await
            .map_err(|_| NetlinkError::TimedOut)?
    }
}

/// What came back, and whether no change fell in between.
type Answers = (Vec<RouteNetlinkMessage>, bool);

async fn collect(
    answers: impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>>,
) -> Result<Answers, NetlinkError> {
    let mut answers = pin!(answers);
    let (mut messages, mut consistent) = (Vec::new(), true);
    while let Some(answer) = answers.next().await {
        consistent &= answer.header.flags & NLM_F_DUMP_INTR == 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => messages.push(message),
            NetlinkPayload::Error(error) if error.code.is_some() => {
                let errno = Errno::from_raw(error.raw_code().abs());
                return Err(NetlinkError::of_errno(errno));
            }
            _ => {}
        }
    }
    Ok((messages, consistent))
}

pub(crate) fn at(index: LinkIndex) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index.get();
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_that_callers_treat_differently_are_told_apart() {
        let of = |raw| NetlinkError::of_errno(Errno::from_raw(raw));

        assert_eq!(of(libc::EPERM), NetlinkError::Denied);
        assert_eq!(of(libc::EEXIST), NetlinkError::Exists);
        assert_eq!(of(libc::ENODEV), NetlinkError::NoDevice);
        assert_eq!(of(libc::EOPNOTSUPP), NetlinkError::Unsupported);
        assert_eq!(
            of(libc::ENOBUFS),
            NetlinkError::Refused(Errno::from_raw(libc::ENOBUFS))
        );
    }
}
