//! The world as the tunnel sees it: sockets, the TAP, the hub, and the thread that has the other half.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use weft_kernel::udp;
use weft_router_proto::sleeve::SessionIndex;
use weft_router_proto::tunnel::{self, Ports, Refusal, Report, SessionChange, TapRefused};
use weft_types::NodeId;

use super::shared::{Mailbox, Shared};

const _: () = assert!(
    tunnel::MAX_SEGMENTS <= udp::MAX_SEGMENTS && tunnel::MAX_PAYLOAD <= udp::MAX_PAYLOAD,
    "what the tunnel sends by one call is more than a call takes"
);

/// What a half of the tunnel acts on.
pub(super) struct Outside<'a> {
    shared: &'a Shared,
    changes: &'a Mailbox<SessionChange>,
    came: Option<Came>,
}

/// From where what is looked at came, and to which address of this host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Came {
    pub(super) from: SocketAddr,
    pub(super) to: IpAddr,
}

impl<'a> Outside<'a> {
    pub(super) const fn new(shared: &'a Shared, changes: &'a Mailbox<SessionChange>) -> Self {
        Self {
            shared,
            changes,
            came: None,
        }
    }

    /// While something is looked at that came so: answers leave from the address that was asked.
    pub(super) const fn after(self, came: Option<Came>) -> Self {
        Self { came, ..self }
    }

    /// Whoever wrote what came is who it says, or somebody that a link was admitted to.
    fn note(&self, by: SocketAddr) {
        if let Some(came) = self.came.filter(|came| came.from == by) {
            let sources = &self.shared.sources;
            sources.note(came.from, came.to, Instant::now());
        }
    }
}

impl Ports for Outside<'_> {
    fn send(&mut self, to: SocketAddr, datagrams: &[IoSlice<'_>]) -> Result<(), Refusal> {
        let socket = self.shared.sockets.towards(to).ok_or(Refusal::NoSocket)?;
        let many = datagrams.len() > 1;
        let size = datagrams.first().filter(|_| many);
        let size = size.and_then(|first| u16::try_from(first.len()).ok());
        let asked = self.came.filter(|came| came.from == to);
        let from = asked.map(|came| came.to);
        let sent = self
            .shared
            .sources
            .send((socket, from), to, datagrams, size);
        sent.map_err(|error| {
            if many && refuses_many(&error) {
                return Refusal::NotTogether;
            }
            let refusal = refusal(&error);
            if refusal == Refusal::TooLong {
                self.shared.heed(socket, Some(to));
            }
            refusal
        })
    }

    fn deliver(&mut self, _: NodeId, frame: &[IoSlice<'_>]) -> Result<(), TapRefused> {
        let tap = self.shared.tap.as_ref().ok_or(TapRefused)?;
        tap.write_vectored(frame).map(drop).map_err(|_| TapRefused)
    }

    fn report(&mut self, report: Report) -> bool {
        if let Report::Heard { from, .. } = &report {
            self.note(*from);
        }
        self.shared.reporter.report(report)
    }

    fn link(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.note(from);
        self.shared.reporter.unproven(|| Report::LinkDatagram {
            from,
            bytes: datagram.to_vec(),
        });
    }

    fn promote(&mut self, peer: NodeId, index: SessionIndex) {
        self.changes.post(SessionChange::Promote { peer, index });
        self.shared.bell.ring();
    }

    fn since(&self, sent: Instant) -> Duration {
        sent.elapsed()
    }
}

/// Whether datagrams may pass one by one though one call for all was refused: udp(7), `UDP_SEGMENT`.
fn refuses_many(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMSGSIZE | libc::EINVAL | libc::EIO)
    )
}

fn refusal(error: &io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Refusal::Full,
        Some(libc::EMSGSIZE) => Refusal::TooLong,
        _ => Refusal::Refused,
    }
}
