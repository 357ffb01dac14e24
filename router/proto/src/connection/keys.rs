//! Seals and opens a link's datagrams.
//!
//! ```text
//!   ours, for receiving:   current ──120 s──▶ previous ──10 s──▶ wiped         make before break
//!   theirs, for sending:   the last that they told
//! ```
//!
//! Whoever receives makes the key, so a receiver can never be sent anything under a key that it did not choose; and each
//! direction, each 120 s, has a key and a count of its own.

use std::time::{Duration, Instant};

use super::heartbeat::LinkKeys;
use crate::crypto::seal::{AeadKey, Backend, TAG};
use crate::crypto::{Crypto, Secret32};
use crate::keys::{Cipher, SessionIndex};
use crate::sleeve::header::{self, Header, Type};
use crate::sleeve::window::Window;

/// How often the keys of a link are renewed.
pub const RENEW: Duration = Duration::from_secs(120);
/// How long datagrams under the older key are taken: the message with the newer one may be slow.
pub const OVERLAP: Duration = Duration::from_secs(10);

/// Why a link's datagram was dropped. No variant changes state: count it and move on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Forged, corrupted, under a key that we no longer hold, or no datagram of a link.
    #[error("not authentic")]
    Inauthentic,
    /// Seen before, or too old to tell.
    #[error("replayed")]
    Replayed,
}

/// A direction in which datagrams come.
struct Receiving {
    index: SessionIndex,
    key: AeadKey,
    window: Box<Window>,
}

impl Receiving {
    fn new(index: SessionIndex, secret: &Secret32) -> Self {
        Self {
            index,
            key: aead(secret),
            window: Box::default(),
        }
    }

    fn open<'a>(
        &mut self,
        header: Header,
        datagram: &'a mut [u8],
    ) -> Result<Opened<'a>, LinkError> {
        let (head, sealed) = datagram
            .split_at_mut_checked(header::LEN)
            .ok_or(LinkError::Inauthentic)?;
        let body = self
            .key
            .open(header.counter, head, sealed)
            .map_err(|_| LinkError::Inauthentic)?;
        if !self.window.accept(header.counter) {
            return Err(LinkError::Replayed);
        }
        Ok(Opened {
            counter: header.counter,
            body,
        })
    }
}

/// What an authentic datagram holds.
pub(super) struct Opened<'a> {
    /// Which of the link's datagrams it is.
    pub(super) counter: u64,
    pub(super) body: &'a [u8],
}

struct Sending {
    index: SessionIndex,
    key: AeadKey,
    counter: u64,
}

/// Both directions of one link.
pub(super) struct Keys {
    current: Receiving,
    previous: Option<(Receiving, Instant)>,
    sending: Option<Sending>,
    renew_at: Instant,
}

impl Keys {
    /// Draws the first keys, to be told to the other end.
    pub(super) fn new(crypto: &mut dyn Crypto, now: Instant) -> (Self, LinkKeys) {
        let (current, told) = draw(crypto);
        let keys = Self {
            current,
            previous: None,
            sending: None,
            renew_at: now + RENEW,
        };
        (keys, told)
    }

    /// The index by which the other end addresses us from here on.
    pub(super) const fn index(&self) -> SessionIndex {
        self.current.index
    }

    /// Every index that is ours.
    pub(super) fn indexes(&self) -> impl Iterator<Item = SessionIndex> {
        let previous = self.previous.as_ref().map(|(previous, _)| previous.index);
        [self.current.index].into_iter().chain(previous)
    }

    pub(super) fn deadline(&self) -> Instant {
        let retire = self.previous.as_ref().map(|&(_, at)| at);
        retire.map_or(self.renew_at, |at| at.min(self.renew_at))
    }

    /// Draws the next keys if it is time, to be told to the other end.
    pub(super) fn renew(&mut self, crypto: &mut dyn Crypto, now: Instant) -> Option<LinkKeys> {
        if now < self.renew_at {
            return None;
        }
        let (current, told) = draw(crypto);
        let previous = std::mem::replace(&mut self.current, current);
        self.previous = Some((previous, now + OVERLAP));
        self.renew_at = now + RENEW;
        Some(told)
    }

    /// Wipes the older keys if it is time.
    pub(super) fn retire(&mut self, now: Instant) -> Option<SessionIndex> {
        let (previous, _) = self.previous.take_if(|(_, at)| *at <= now)?;
        Some(previous.index)
    }

    /// Sends by these from here on. The count goes on, so the other end sees by it what was lost.
    pub(super) fn set_sending(&mut self, told: &LinkKeys) {
        let counter = self.sending.as_ref().map_or(0, |older| older.counter);
        self.sending = Some(Sending {
            index: SessionIndex(told.index),
            key: aead(&told.key),
            counter,
        });
    }

    /// Makes a datagram; `None` before the other end has told its keys.
    pub(super) fn seal(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        let sending = self.sending.as_mut()?;
        let header = Header {
            kind: Type::Link,
            lane: 0,
            index: sending.index,
            counter: sending.counter,
        };
        sending.counter += 1;
        let mut datagram = Vec::with_capacity(header::LEN + body.len() + TAG);
        datagram.extend_from_slice(&header.encode());
        datagram.extend_from_slice(body);
        let (head, body) = datagram.split_at_mut(header::LEN);
        let tag = sending.key.seal(header.counter, head, body);
        datagram.extend_from_slice(&tag);
        Some(datagram)
    }

    /// Opens a datagram in place.
    pub(super) fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<Opened<'a>, LinkError> {
        let header = Header::decode(datagram)
            .filter(|header| header.kind == Type::Link)
            .ok_or(LinkError::Inauthentic)?;
        if header.index == self.current.index {
            return self.current.open(header, datagram);
        }
        match &mut self.previous {
            Some((previous, _)) if previous.index == header.index => {
                previous.open(header, datagram)
            }
            Some(_) | None => Err(LinkError::Inauthentic),
        }
    }
}

fn draw(crypto: &mut dyn Crypto) -> (Receiving, LinkKeys) {
    let key = crypto.secret();
    // Two links that draw one index are a matter of years; the slower one then goes by TCP until it draws again.
    let index = u32::from_be_bytes(crypto.array());
    let receiving = Receiving::new(SessionIndex(index), &key);
    (receiving, LinkKeys { index, key })
}

fn aead(secret: &Secret32) -> AeadKey {
    AeadKey::new(Backend::Ring, Cipher::ChaCha20Poly1305, secret.as_bytes())
}
