//! Makes the keys of a session in two messages: Noise IK, with ML-KEM-768 in the payloads.
//!
//! ```text
//!   initiator                                     responder
//!      │ e, es, s, ss, {Hello: KEM key, counter}      │
//!      │ ────────────────────────────────────────────▶│  who, and not heard before?
//!      │ e, ee, se, {Welcome: KEM ciphertext}         │
//!      │◀──────────────────────────────────────────── │
//!      keys = HKDF-SHA256(salt = transcript, ikm = initiator's ‖ responder's Noise key ‖ KEM secret)
//! ```
//!
//! Whoever records everything and later breaks X25519 still lacks the KEM secret; whoever breaks ML-KEM still lacks the
//! Noise keys. The transcript covers both payloads, so neither can be exchanged.
//!
//! **Invariant.** Keys come out only where the other side's static key is the one its signed record names: the caller
//! compares [`Received::remote`] before it answers, and an initiator addresses a key.
//! **Failure policy.** A message that does not open changes nothing, at either side.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use weft_types::{Boot, MeshId, NodeId};
use zeroize::Zeroizing;

use crate::crypto::noise::{NoiseError, NoiseHandshake, NoiseKey, NoisePublic, Pattern};
use crate::crypto::{Crypto, KemError, KemSecret, hkdf_sha256};
use crate::keys::{Cipher, SessionIndex, SessionKeys};
use crate::wire;

/// What this module speaks.
pub const VERSION: u32 = 1;
/// Registers that come along: the buckets of one node's endpoints, and room for its facts.
pub const MAX_REGISTERS: usize = 32;
/// Bytes of all registers that come along. The rest of a Noise message is keys.
pub const MAX_REGISTER_BYTES: usize = 56 * 1024;

const PROLOGUE: &[u8] = b"weft-v1 session";
const TO_RESPONDER: &str = "initiator to responder";
const TO_INITIATOR: &str = "responder to initiator";

/// Who makes handshakes here.
#[derive(Clone, Debug)]
pub struct Local {
    /// This node.
    pub node: NodeId,
    /// Its X25519 key.
    pub key: NoiseKey,
    /// Its mesh.
    pub mesh: MeshId,
    /// This run of it.
    pub boot: Boot,
}

/// Payload of the first message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// [`VERSION`].
    #[n(0)]
    pub version: u32,
    /// ML-KEM-768 encapsulation key, for this handshake alone.
    #[n(1)]
    pub kem: ByteVec,
    /// Who initiates.
    #[n(2)]
    pub node: NodeId,
    /// Its run.
    #[n(3)]
    pub boot: Boot,
    /// Counts the handshakes of its run: an old first message is known by it.
    #[n(4)]
    pub counter: u64,
    /// What the responder writes into its datagrams.
    #[n(5)]
    pub index: u32,
    /// Which AEAD the initiator takes from both records: the responder must read them alike. 1 is AES-256-GCM, 2 is
    /// ChaCha20-Poly1305.
    #[n(6)]
    pub cipher: u8,
    /// The initiator's signed endpoint registers, at most [`MAX_REGISTERS`]: who it is on the virtual Ethernet, ahead of
    /// the first frame.
    #[n(7)]
    pub registers: Vec<ByteVec>,
}

/// Payload of the second message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Welcome {
    /// ML-KEM-768 ciphertext.
    #[n(0)]
    pub kem: ByteVec,
    /// What the initiator writes into its datagrams.
    #[n(1)]
    pub index: u32,
    /// The responder's run.
    #[n(2)]
    pub boot: Boot,
    /// The responder's signed endpoint registers.
    #[n(3)]
    pub registers: Vec<ByteVec>,
}

/// What a finished handshake gives.
#[derive(Debug)]
pub struct Agreed {
    /// The session's keys.
    pub keys: SessionKeys,
    /// The other side's run.
    pub boot: Boot,
    /// What came along, not checked.
    pub registers: Vec<Vec<u8>>,
}

/// Why a handshake message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The two sides read each other's records differently.
    #[error("the other side takes another cipher from the two records")]
    Cipher,
    /// Not authentic, or not for us.
    #[error(transparent)]
    Noise(#[from] NoiseError),
    /// Authentic, and no payload of ours.
    #[error("an authentic handshake message has no payload that makes sense")]
    Payload,
    /// Authentic, of another protocol.
    #[error("the other side speaks version {0}")]
    Version(u32),
}

impl From<KemError> for HandshakeError {
    fn from(_: KemError) -> Self {
        Self::Payload
    }
}

impl Hello {
    /// Reads a payload.
    pub fn decode(bytes: &[u8]) -> Result<Self, HandshakeError> {
        let hello: Self = wire::decode_whole(bytes).map_err(|_| HandshakeError::Payload)?;
        if hello.version != VERSION {
            return Err(HandshakeError::Version(hello.version));
        }
        bounded(&hello.registers)?;
        Ok(hello)
    }
}

impl Welcome {
    /// Reads a payload.
    pub fn decode(bytes: &[u8]) -> Result<Self, HandshakeError> {
        let welcome: Self = wire::decode_whole(bytes).map_err(|_| HandshakeError::Payload)?;
        bounded(&welcome.registers)?;
        Ok(welcome)
    }
}

fn bounded(registers: &[ByteVec]) -> Result<(), HandshakeError> {
    if registers.len() > MAX_REGISTERS {
        return Err(HandshakeError::Payload);
    }
    Ok(())
}

/// A handshake whose first message is out.
pub struct Initiation {
    noise: NoiseHandshake,
    kem: Box<dyn KemSecret>,
    index: SessionIndex,
    cipher: Cipher,
}

impl Initiation {
    /// Makes the first message to the owner of `remote`.
    pub fn begin(
        local: &Local,
        remote: &NoisePublic,
        counter: u64,
        index: SessionIndex,
        cipher: Cipher,
        registers: Vec<Vec<u8>>,
        crypto: &mut dyn Crypto,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let mut noise = NoiseHandshake::initiator(
            Pattern::Session,
            &prologue(&local.mesh),
            &local.key,
            Some(remote),
            crypto,
        )?;
        let kem = crypto.kem_generate();
        let hello = Hello {
            version: VERSION,
            kem: kem.encapsulation.to_vec().into(),
            node: local.node,
            boot: local.boot,
            counter,
            index: index.0,
            cipher: cipher_number(cipher),
            registers: that_fit(registers),
        };
        let message = noise.write(&wire::encode(&hello))?;
        let initiation = Self {
            noise,
            kem: kem.secret,
            index,
            cipher,
        };
        Ok((initiation, message))
    }

    /// Our index of the session to come.
    pub const fn index(&self) -> SessionIndex {
        self.index
    }

    /// Takes the answer. One that does not open leaves everything as it was: the true one may still come.
    pub fn finish(&mut self, message: &[u8]) -> Result<Agreed, HandshakeError> {
        let welcome = Welcome::decode(&self.noise.read(message)?)?;
        let secret = self.kem.decapsulate(&welcome.kem)?;
        let [send, receive] = derive(&mut self.noise, secret.as_bytes(), self.cipher)?;
        Ok(Agreed {
            keys: SessionKeys {
                local: self.index,
                remote: SessionIndex(welcome.index),
                cipher: self.cipher,
                send,
                receive,
            },
            boot: welcome.boot,
            registers: plain(welcome.registers),
        })
    }
}

/// A first message that opened: authentic, and its sender not yet compared with anything.
pub struct Received {
    noise: NoiseHandshake,
    remote: NoisePublic,
    hello: Hello,
}

impl Received {
    /// Opens a first message.
    pub fn open(
        local: &Local,
        message: &[u8],
        crypto: &mut dyn Crypto,
    ) -> Result<Self, HandshakeError> {
        let mut noise = NoiseHandshake::responder(
            Pattern::Session,
            &prologue(&local.mesh),
            &local.key,
            crypto,
        )?;
        let hello = Hello::decode(&noise.read(message)?)?;
        let remote = noise.remote().ok_or(HandshakeError::Payload)?;
        Ok(Self {
            noise,
            remote,
            hello,
        })
    }

    /// The key that its sender proved to have.
    pub const fn remote(&self) -> &NoisePublic {
        &self.remote
    }

    /// What its sender says.
    pub const fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Makes the second message, and the keys.
    pub fn answer(
        mut self,
        local: &Local,
        index: SessionIndex,
        cipher: Cipher,
        registers: Vec<Vec<u8>>,
        crypto: &mut dyn Crypto,
    ) -> Result<(Agreed, Vec<u8>), HandshakeError> {
        if self.hello.cipher != cipher_number(cipher) {
            return Err(HandshakeError::Cipher);
        }
        let (ciphertext, secret) = crypto.kem_encapsulate(&self.hello.kem)?;
        let welcome = Welcome {
            kem: ciphertext.to_vec().into(),
            index: index.0,
            boot: local.boot,
            registers: that_fit(registers),
        };
        let message = self.noise.write(&wire::encode(&welcome))?;
        let [receive, send] = derive(&mut self.noise, secret.as_bytes(), cipher)?;
        let agreed = Agreed {
            keys: SessionKeys {
                local: index,
                remote: SessionIndex(self.hello.index),
                cipher,
                send,
                receive,
            },
            boot: self.hello.boot,
            registers: plain(self.hello.registers),
        };
        Ok((agreed, message))
    }
}

/// The keys (initiator to responder, responder to initiator).
fn derive(
    noise: &mut NoiseHandshake,
    kem: &[u8; 32],
    cipher: Cipher,
) -> Result<[[u8; 32]; 2], HandshakeError> {
    let (initiator, responder) = noise.split()?;
    let mut ikm = Zeroizing::new([0; 96]);
    ikm[..32].copy_from_slice(initiator.as_bytes());
    ikm[32..64].copy_from_slice(responder.as_bytes());
    ikm[64..].copy_from_slice(kem);
    let salt = noise.transcript();
    let key = |direction: &str| {
        let info = ["weft-v1 session ", cipher.as_str(), " ", direction].concat();
        *hkdf_sha256(&salt, &ikm[..], info.as_bytes()).as_bytes()
    };
    Ok([key(TO_RESPONDER), key(TO_INITIATOR)])
}

fn prologue(mesh: &MeshId) -> Vec<u8> {
    [PROLOGUE, mesh.as_bytes()].concat()
}

const fn cipher_number(cipher: Cipher) -> u8 {
    match cipher {
        Cipher::Aes256Gcm => 1,
        Cipher::ChaCha20Poly1305 => 2,
    }
}

/// As many registers as a message takes. Those left out arrive by gossip.
fn that_fit(registers: Vec<Vec<u8>>) -> Vec<ByteVec> {
    let mut bytes = 0;
    registers
        .into_iter()
        .take(MAX_REGISTERS)
        .take_while(|register| {
            bytes += register.len() + 4;
            bytes <= MAX_REGISTER_BYTES
        })
        .map(ByteVec::from)
        .collect()
}

fn plain(registers: Vec<ByteVec>) -> Vec<Vec<u8>> {
    registers.into_iter().map(Vec::from).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_types::BootId;

    use super::*;
    use crate::crypto::Secret32;
    use crate::crypto::seeded::SeededCrypto;

    fn local(n: u8) -> Local {
        Local {
            node: NodeId::new([n; 32]),
            key: NoiseKey::from_secret(&Secret32::new([n; 32])),
            mesh: MeshId::new([9; 32]),
            boot: Boot {
                counter: 1,
                id: BootId::new([n; 8]),
            },
        }
    }

    fn begin(crypto: &mut SeededCrypto, registers: Vec<Vec<u8>>) -> (Initiation, Vec<u8>) {
        Initiation::begin(
            &local(1),
            &local(2).key.public(),
            7,
            SessionIndex(11),
            Cipher::Aes256Gcm,
            registers,
            crypto,
        )
        .expect("begins")
    }

    fn answer(
        message: &[u8],
        cipher: Cipher,
        crypto: &mut SeededCrypto,
    ) -> Result<(Agreed, Vec<u8>), HandshakeError> {
        let received = Received::open(&local(2), message, crypto)?;
        received.answer(
            &local(2),
            SessionIndex(22),
            cipher,
            vec![b"theirs".to_vec()],
            crypto,
        )
    }

    #[test]
    fn both_sides_have_the_same_keys_crossed() {
        let mut crypto = SeededCrypto::new(1);
        let (mut initiation, first) = begin(&mut crypto, vec![b"ours".to_vec()]);

        let (responder, second) = answer(&first, Cipher::Aes256Gcm, &mut crypto).expect("answers");
        let initiator = initiation.finish(&second).expect("finishes");

        assert_eq!(initiator.keys.send, responder.keys.receive);
        assert_eq!(initiator.keys.receive, responder.keys.send);
        assert_ne!(initiator.keys.send, initiator.keys.receive);
        assert_eq!(initiator.keys.remote, responder.keys.local);
        assert_eq!(responder.keys.remote, initiator.keys.local);
        assert_eq!(responder.registers, [b"ours".to_vec()]);
        assert_eq!(initiator.registers, [b"theirs".to_vec()]);
        assert_eq!(initiator.boot, local(2).boot);
    }

    #[test]
    fn a_forged_answer_does_not_stop_the_true_one() {
        let mut crypto = SeededCrypto::new(1);
        let (mut initiation, first) = begin(&mut crypto, Vec::new());
        let (responder, second) = answer(&first, Cipher::Aes256Gcm, &mut crypto).expect("answers");

        for at in [0, 33, second.len() - 1] {
            let mut forged = second.clone();
            forged[at] ^= 1;
            assert_eq!(
                initiation.finish(&forged).err(),
                Some(HandshakeError::Noise(NoiseError::Inauthentic))
            );
        }
        let initiator = initiation.finish(&second).expect("finishes");

        assert_eq!(initiator.keys.send, responder.keys.receive);
    }

    #[test]
    fn the_sender_is_who_has_the_key() {
        let mut crypto = SeededCrypto::new(1);
        let (_, first) = begin(&mut crypto, Vec::new());

        let received = Received::open(&local(2), &first, &mut crypto).expect("opens");

        assert_eq!(*received.remote(), local(1).key.public());
        assert_eq!(received.hello().counter, 7);
    }

    #[test]
    fn nobody_else_and_no_other_mesh_opens_the_first_message() {
        let mut crypto = SeededCrypto::new(1);
        let (_, first) = begin(&mut crypto, Vec::new());
        let elsewhere = Local {
            mesh: MeshId::new([8; 32]),
            ..local(2)
        };

        assert!(Received::open(&local(3), &first, &mut crypto).is_err());
        assert!(Received::open(&elsewhere, &first, &mut crypto).is_err());
        for cut in [0, 31, 32, 80, first.len() - 1] {
            assert!(Received::open(&local(2), &first[..cut], &mut crypto).is_err());
        }
    }

    #[test]
    fn two_readings_of_the_records_make_no_session() {
        let mut crypto = SeededCrypto::new(1);
        let (_, first) = begin(&mut crypto, Vec::new());

        assert_eq!(
            answer(&first, Cipher::ChaCha20Poly1305, &mut crypto).err(),
            Some(HandshakeError::Cipher)
        );
    }

    #[test]
    fn registers_that_do_not_fit_stay_behind() {
        let mut crypto = SeededCrypto::new(1);
        let (_, first) = begin(&mut crypto, vec![vec![0; 16 * 1024]; 16]);

        let received = Received::open(&local(2), &first, &mut crypto).expect("opens");

        assert_eq!(received.hello().registers.len(), 3);
    }

    #[test]
    fn payloads_are_read_back_and_their_prefixes_refused() {
        let hello = Hello {
            version: VERSION,
            kem: vec![1; 10].into(),
            node: NodeId::new([1; 32]),
            boot: local(1).boot,
            counter: 300,
            index: 70_000,
            cipher: 2,
            registers: vec![vec![1, 2].into()],
        };
        let welcome = Welcome {
            kem: vec![1; 10].into(),
            index: 70_000,
            boot: local(1).boot,
            registers: Vec::new(),
        };
        let (first, second) = (wire::encode(&hello), wire::encode(&welcome));

        assert_eq!(Hello::decode(&first), Ok(hello.clone()));
        assert_eq!(Welcome::decode(&second), Ok(welcome));
        assert!((0..first.len()).all(|cut| Hello::decode(&first[..cut]).is_err()));
        assert!((0..second.len()).all(|cut| Welcome::decode(&second[..cut]).is_err()));
        let later = wire::encode(&Hello {
            version: 2,
            ..hello
        });
        assert_eq!(Hello::decode(&later), Err(HandshakeError::Version(2)));
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Hello::decode(&bytes);
            let _ = Welcome::decode(&bytes);
            let _ = Received::open(&local(2), &bytes, &mut SeededCrypto::new(1));
        }
    }
}
