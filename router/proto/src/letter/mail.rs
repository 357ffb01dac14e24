//! Seals letters, and opens each once.
//!
//! A sealed body is one Noise X message from the sender's static key to the recipient's: only the recipient reads it,
//! and it knows that the sender wrote it. It has no forward secrecy and no post-quantum part, so it carries nothing
//! that must stay secret for long; connections between neighbours seal it once more.
//!
//! **Invariant.** A letter is opened once: the recipient keeps, per sender, the boot and the last [`WINDOW`] counters.
//! After the recipient's own restart an old letter may open again, so what letters ask for must bear being asked twice.
//! **Failure policy.** What cannot be opened changes nothing; who needs an answer asks again.

use std::collections::BTreeMap;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use weft_types::{Boot, NodeId};

use super::letters::{Letter, OpenError};
use crate::crypto::Crypto;
use crate::crypto::noise::{NoiseError, NoiseHandshake, NoisePublic, Pattern};
use crate::session::handshake::Local;
use crate::unicast::Body;
use crate::wire;

/// Letters that may arrive out of order.
pub const WINDOW: u64 = 64;

const PROLOGUE: &[u8] = b"weft-v1 unicast";

/// Seals letters, and opens each once.
#[derive(Debug)]
pub struct Mail {
    local: Local,
    sent: u64,
    windows: BTreeMap<NodeId, Window>,
}

impl Mail {
    /// Begins with nothing sent and nothing opened.
    pub fn new(local: Local) -> Self {
        Self {
            local,
            sent: 0,
            windows: BTreeMap::new(),
        }
    }

    /// Steps to another run of this node: its counters begin anew.
    pub const fn set_boot(&mut self, boot: Boot) {
        self.local.boot = boot;
        self.sent = 0;
    }

    /// Seals a letter to the owner of `to`: the body of a [`Unicast`](crate::unicast::Unicast).
    pub fn seal(
        &mut self,
        to: &NoisePublic,
        letter: &Letter,
        crypto: &mut dyn Crypto,
    ) -> Result<Vec<u8>, NoiseError> {
        self.sent += 1;
        let (kind, bytes) = letter.encode();
        let envelope = Envelope {
            boot: self.local.boot,
            counter: self.sent,
            kind,
            letter: bytes.into(),
        };
        let mut noise = NoiseHandshake::initiator(
            Pattern::Sealed,
            &self.prologue(),
            &self.local.key,
            Some(to),
            crypto,
        )?;
        let sealed = noise.write(&wire::encode(&envelope))?;
        Ok(Body::Sealed(&sealed).encode())
    }

    /// Opens what [`Body::Sealed`] holds. `key` is that of the member `from`.
    pub fn open(
        &mut self,
        from: NodeId,
        key: &NoisePublic,
        sealed: &[u8],
        crypto: &mut dyn Crypto,
    ) -> Result<Letter, OpenError> {
        let mut noise =
            NoiseHandshake::responder(Pattern::Sealed, &self.prologue(), &self.local.key, crypto)
                .map_err(|_| OpenError::Inauthentic)?;
        let payload = noise.read(sealed).map_err(|_| OpenError::Inauthentic)?;
        if noise.remote() != Some(*key) {
            return Err(OpenError::Inauthentic);
        }
        let envelope: Envelope = wire::decode_whole(&payload).map_err(|_| OpenError::Letter)?;
        let window = self.windows.entry(from).or_default();
        if !window.admit(envelope.boot, envelope.counter) {
            return Err(OpenError::Replayed);
        }
        Letter::decode(envelope.kind, &envelope.letter)
    }

    /// Forgets a node that is no member any more.
    pub fn forget(&mut self, node: NodeId) {
        self.windows.remove(&node);
    }

    fn prologue(&self) -> Vec<u8> {
        [PROLOGUE, self.local.mesh.as_bytes()].concat()
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Envelope {
    #[n(0)]
    boot: Boot,
    #[n(1)]
    counter: u64,
    #[n(2)]
    kind: u8,
    #[n(3)]
    letter: ByteVec,
}

/// What was opened of one sender: the highest counter of its run, and which of those just below.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    boot: u64,
    highest: u64,
    /// Bit n is set when `highest - n` was opened.
    opened: u64,
}

impl Window {
    /// Counters begin at 1 in every run.
    fn admit(&mut self, boot: Boot, counter: u64) -> bool {
        if boot.counter < self.boot || counter == 0 {
            return false;
        }
        if boot.counter > self.boot {
            *self = Self {
                boot: boot.counter,
                highest: 0,
                opened: 0,
            };
        }
        if counter > self.highest {
            let ahead = counter - self.highest;
            self.opened = match u32::try_from(ahead) {
                Ok(shift) => self.opened.checked_shl(shift).unwrap_or(0) | 1,
                Err(_) => 1,
            };
            self.highest = counter;
            return true;
        }
        let behind = self.highest - counter;
        if behind >= WINDOW || self.opened >> behind & 1 == 1 {
            return false;
        }
        self.opened |= 1 << behind;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_types::MeshId;

    use super::*;
    use crate::crypto::Secret32;
    use crate::crypto::noise::NoiseKey;
    use crate::crypto::seeded::SeededCrypto;
    use crate::letter::letters::tests::{boot, id, letters};

    fn key(n: u8) -> NoiseKey {
        NoiseKey::from_secret(&Secret32::new([n; 32]))
    }

    fn mail(n: u8, run: u64) -> Mail {
        Mail::new(Local {
            node: id(n),
            key: key(n),
            mesh: MeshId::new([9; 32]),
            boot: boot(run),
        })
    }

    fn open(to: &mut Mail, from: u8, body: &[u8]) -> Result<Letter, OpenError> {
        let Some(Body::Sealed(sealed)) = Body::decode(body) else {
            panic!("sealed")
        };
        to.open(
            id(from),
            &key(from).public(),
            sealed,
            &mut SeededCrypto::new(2),
        )
    }

    fn seal(from: &mut Mail, letter: &Letter) -> Vec<u8> {
        from.seal(&key(2).public(), letter, &mut SeededCrypto::new(from.sent))
            .expect("seals")
    }

    #[test]
    fn every_letter_is_opened_once() {
        let (mut from, mut to) = (mail(1, 1), mail(2, 1));

        for letter in letters() {
            let body = seal(&mut from, &letter);

            assert_eq!(open(&mut to, 1, &body), Ok(letter));
            assert_eq!(open(&mut to, 1, &body), Err(OpenError::Replayed));
        }
    }

    #[test]
    fn nobody_opens_anothers_letter_or_writes_in_anothers_name() {
        let mut from = mail(1, 1);
        let body = seal(&mut from, &letters()[0]);
        let mut damaged = body.clone();
        damaged[40] ^= 1;

        assert_eq!(open(&mut mail(3, 1), 1, &body), Err(OpenError::Inauthentic));
        assert_eq!(open(&mut mail(2, 1), 3, &body), Err(OpenError::Inauthentic));
        assert_eq!(
            open(&mut mail(2, 1), 1, &damaged),
            Err(OpenError::Inauthentic)
        );
        let mut elsewhere = mail(2, 1);
        elsewhere.local.mesh = MeshId::new([8; 32]);
        assert_eq!(open(&mut elsewhere, 1, &body), Err(OpenError::Inauthentic));
    }

    #[test]
    fn letters_of_an_earlier_run_are_refused() {
        let mut to = mail(2, 1);
        let old = seal(&mut mail(1, 1), &letters()[0]);
        let new = seal(&mut mail(1, 2), &letters()[0]);

        assert!(open(&mut to, 1, &new).is_ok());
        assert_eq!(open(&mut to, 1, &old), Err(OpenError::Replayed));
    }

    proptest! {
        #[test]
        fn a_window_admits_each_counter_once(
            counters in prop::collection::vec(1_u64..200, 0..200),
        ) {
            let mut window = Window::default();
            let mut admitted = std::collections::BTreeSet::new();
            for counter in counters {
                let highest = admitted.last().copied().unwrap_or(0);
                let fresh = !admitted.contains(&counter) && counter + WINDOW > highest;

                prop_assert_eq!(window.admit(boot(1), counter), fresh);
                admitted.extend(fresh.then_some(counter));
            }
        }

        #[test]
        fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = mail(2, 1).open(id(1), &key(1).public(), &bytes, &mut SeededCrypto::new(1));
        }
    }
}
