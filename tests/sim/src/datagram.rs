//! A datagram of a session, unsealed: what it holds, and what it would weigh.

use std::net::SocketAddr;

use weft_router_proto::overlay::Slot;
use weft_router_proto::sleeve::SessionIndex;
use weft_router_proto::sleeve::lane::OVERHEAD;
use weft_router_proto::sleeve::{bundle, fragment, payload};
use weft_types::NodeId;

/// What every datagram weighs beside its body.
pub(crate) const HEAD: usize = OVERHEAD + payload::LEN;

/// One datagram.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    /// The receiver's index of the session.
    pub(crate) session: SessionIndex,
    pub(crate) lane: u16,
    pub(crate) counter: u64,
    /// Bytes of UDP payload.
    pub(crate) size: usize,
    /// Whether the bytes are those that were sealed.
    pub(crate) intact: bool,
    pub(crate) content: Content,
}

/// What is inside.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// One frame, by its number.
    Frame(u64),
    Message(Vec<u8>),
    PathProbe {
        id: u64,
        slot: Option<Slot>,
    },
    PathReply(PathReply),
    /// One of so many pieces of something.
    Piece {
        whole: u64,
        of: usize,
        content: Box<Self>,
    },
    /// Asks for an answer of the same weight.
    Probe {
        id: u64,
        size: u16,
    },
    ProbeReply {
        id: u64,
    },
    /// Another's datagram.
    Relayed {
        hops: u8,
        last: NodeId,
        datagram: Box<Datagram>,
    },
}

/// What a way's probe is answered with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathReply {
    pub(crate) id: u64,
    pub(crate) highest: u64,
    pub(crate) received: u64,
    pub(crate) seen_at: Option<SocketAddr>,
}

impl Content {
    pub(crate) fn is_frame(&self) -> bool {
        match self {
            Self::Frame(_) => true,
            Self::Piece { content, .. } => content.is_frame(),
            Self::Message(_)
            | Self::PathProbe { .. }
            | Self::PathReply(_)
            | Self::Probe { .. }
            | Self::ProbeReply { .. }
            | Self::Relayed { .. } => false,
        }
    }
}

/// What a worker has to send: something, and how long it is (a frame's own bytes).
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub(crate) content: Content,
    pub(crate) len: usize,
}

impl Parcel {
    pub(crate) fn frame(number: u64, len: usize) -> Self {
        Self {
            content: Content::Frame(number),
            len,
        }
    }

    pub(crate) fn message(bytes: Vec<u8>) -> Self {
        Self {
            len: bytes.len(),
            content: Content::Message(bytes),
        }
    }

    /// The body: a record has a head of its own.
    fn body(&self) -> usize {
        match self.content {
            Content::Message(_) => self.len,
            Content::Frame(_)
            | Content::PathProbe { .. }
            | Content::PathReply(_)
            | Content::Piece { .. }
            | Content::Probe { .. }
            | Content::ProbeReply { .. }
            | Content::Relayed { .. } => self.len + bundle::RECORD,
        }
    }

    /// Takes it apart into datagrams of at most this size: what each holds and weighs.
    pub(crate) fn split(self, datagram: usize, whole: u64) -> Vec<(Content, usize)> {
        let body = self.body();
        if HEAD + body <= datagram {
            return vec![(self.content, HEAD + body)];
        }
        let room = datagram.saturating_sub(HEAD + fragment::HEADER).max(1);
        let of = body.div_ceil(room);
        (0..of)
            .map(|number| {
                let len = room.min(body - number * room);
                let content = Content::Piece {
                    whole,
                    of,
                    content: Box::new(self.content.clone()),
                };
                (content, HEAD + fragment::HEADER + len)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_datagram_holds_is_split_and_all_of_it_travels() {
        let whole = Parcel::frame(1, 1400).split(1452, 7);
        let split = Parcel::frame(1, 1400).split(548, 7);

        assert_eq!(whole.len(), 1);
        assert_eq!(whole[0].1, HEAD + bundle::RECORD + 1400);
        assert_eq!(split.len(), 3);
        let carried: usize = split
            .iter()
            .map(|(_, size)| size - HEAD - fragment::HEADER)
            .sum();
        assert_eq!(carried, bundle::RECORD + 1400);
        assert!(split.iter().all(|(_, size)| *size <= 548));
    }
}
