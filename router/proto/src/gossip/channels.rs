//! The channels that registers travel on: what one owner may put there, and who here cares.
//!
//! ```text
//!   number  what                   slots  bytes   read by     forwards  comes along
//!   1       topology                   8  16 000  topology    yes       no
//!   2       endpoints                256  20 000  endpoints   yes       yes
//!   3…8     of later releases         32   4 096  nobody      no        no
//! ```
//!
//! A new channel is a row here and the part that reads it; how it is signed, kept, compared and passed on is the same for
//! all, and was so before the row was there: nodes of this release keep and relay what they cannot read.
//!
//! **Invariant.** The bounds are fixed, so that every node keeps the same whatever came first; all of one owner together is
//! below 6 MiB, of an honest one with 1 000 endpoints below 1 MiB.

/// The channel of node records and lists of links.
pub const TOPOLOGY: u8 = 1;
/// The channel of endpoints.
pub const ENDPOINTS: u8 = 2;

/// A channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Slots of one owner are below this.
    pub slots: u16,
    /// A body has at most so many bytes.
    pub bytes: usize,
    /// Who here reads it.
    pub reader: Reader,
    /// What it says bears on forwarding: news on it may change the snapshot.
    pub forwards: bool,
    /// It comes along with a session's handshake, ahead of the first frame.
    pub comes_along: bool,
}

/// Who reads a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The view of all endpoints.
    Endpoints,
    /// Nobody in this release.
    Nobody,
    /// Who is there, and linked to whom.
    Topology,
}

/// A channel's row; `None` for numbers that nobody may use.
pub const fn row(number: u8) -> Option<Channel> {
    match number {
        TOPOLOGY => Some(Channel {
            slots: 8,
            bytes: 16_000,
            reader: Reader::Topology,
            forwards: true,
            comes_along: false,
        }),
        ENDPOINTS => Some(Channel {
            slots: crate::endpoints::BUCKETS,
            bytes: crate::endpoints::BUCKET_BYTES,
            reader: Reader::Endpoints,
            forwards: true,
            comes_along: true,
        }),
        3..=8 => Some(Channel {
            slots: 32,
            bytes: 4096,
            reader: Reader::Nobody,
            forwards: false,
            comes_along: false,
        }),
        0 | 9.. => None,
    }
}

/// Whether a peer may send a channel's registers with a session's handshake.
pub fn comes_along(number: u8) -> bool {
    row(number).is_some_and(|channel| channel.comes_along)
}
