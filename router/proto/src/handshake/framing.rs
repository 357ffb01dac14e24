//! Carries messages of any size over a sealed byte stream.
//!
//! ```text
//!   0        2
//!   ┌────────┬──────────────────────────────┐
//!   │ length │ Noise ciphertext             │   length: of the ciphertext, 17 to 65535
//!   └────────┴──────────────────────────────┘
//!              plaintext: flags (bit 0: more follows) ‖ part of the message
//! ```
//!
//! **Invariant.** At most one unfinished message and one unfinished frame are held: [`MAX_MESSAGE`] + 64 KiB.
//! **Failure policy.** A frame that does not open, or a message too long, ends the connection: there is no way to tell
//! where the next one would begin.

use crate::crypto::noise::{NoiseTransport, TAG_LEN};

/// The longest control message.
pub const MAX_MESSAGE: usize = 1 << 20;
/// The most of a message that one frame carries.
const MAX_PART: usize = 16 * 1024;
const MORE: u8 = 1;

/// Why a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame does not open: it was changed on the way, or the other side is out of step.
    #[error("a control frame is not authentic")]
    Inauthentic,
    /// A message longer than [`MAX_MESSAGE`], or a frame too short to hold anything.
    #[error("a control frame has a length that nobody sends")]
    Length,
}

/// Both directions of one sealed connection.
pub(super) struct Frames {
    transport: NoiseTransport,
    partial: Vec<u8>,
}

impl Frames {
    pub(super) const fn new(transport: NoiseTransport) -> Self {
        Self {
            transport,
            partial: Vec::new(),
        }
    }

    /// Seals one message, in as many frames as it takes.
    ///
    /// # Errors
    ///
    /// [`FrameError::Length`] for a message above [`MAX_MESSAGE`]; [`FrameError::Inauthentic`] when the keys are spent,
    /// after 2^64 frames.
    pub(super) fn seal(&mut self, message: &[u8]) -> Result<Vec<u8>, FrameError> {
        if message.len() > MAX_MESSAGE {
            return Err(FrameError::Length);
        }
        let mut out = Vec::with_capacity(message.len() + 64);
        let mut parts = message.chunks(MAX_PART).peekable();
        let mut part = parts.next().unwrap_or_default();
        loop {
            let more = parts.peek().is_some();
            let plaintext = [&[u8::from(more)], part].concat();
            let length =
                u16::try_from(plaintext.len() + TAG_LEN).map_err(|_| FrameError::Length)?;
            out.extend_from_slice(&length.to_be_bytes());
            self.transport
                .seal(&plaintext, &mut out)
                .map_err(|_| FrameError::Inauthentic)?;
            match parts.next() {
                Some(next) => part = next,
                None => return Ok(out),
            }
        }
    }

    /// Takes the next whole frame out of `input` and gives a message when that completes one. `Ok(None)` with bytes
    /// taken means a part; with none taken, that the frame is not whole yet.
    pub(super) fn open(&mut self, input: &mut Vec<u8>) -> Result<Opened, FrameError> {
        let Some((frame, taken)) = whole(input) else {
            return Ok(Opened::Nothing);
        };
        if frame.len() <= TAG_LEN {
            return Err(FrameError::Length);
        }
        let plaintext = self
            .transport
            .open(frame)
            .map_err(|_| FrameError::Inauthentic)?;
        input.drain(..taken);
        let Some((flags, part)) = plaintext.split_first() else {
            return Err(FrameError::Length);
        };
        if self.partial.len() + part.len() > MAX_MESSAGE {
            return Err(FrameError::Length);
        }
        self.partial.extend_from_slice(part);
        if flags & MORE != 0 {
            return Ok(Opened::Part);
        }
        Ok(Opened::Message(std::mem::take(&mut self.partial)))
    }
}

/// What came of looking for a frame.
pub(super) enum Opened {
    Message(Vec<u8>),
    Nothing,
    Part,
}

/// The first length-prefixed piece of `input`, and how many bytes it takes with its prefix.
pub(super) fn whole(input: &[u8]) -> Option<(&[u8], usize)> {
    let (length, rest) = input.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes(*length));
    rest.get(..length).map(|piece| (piece, 2 + length))
}

/// Puts a handshake message's length in front of it.
pub(super) fn prefixed(message: &[u8]) -> Vec<u8> {
    // Handshake messages are below 4 KiB: Noise itself ends at 65535.
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], message].concat()
}
