//! Ties snow to our source of chance, and to X25519 keys that cost nothing until they are used.
//!
//! A [`NoiseHandshake`] is one run of a Noise pattern (Noise Protocol Framework, revision 34). snow asks for chance
//! through a trait of its own; it gets a generator that is seeded once from [`Crypto`]. Everything else is snow's own.
//!
//! **Cost.** Making a responder multiplies nothing: the public half of its key is computed when a message first needs
//! it. So a responder whose first message carries a pre-shared key rejects strangers without any Diffie-Hellman.

use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, OnceLock};

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Decoder, Encode, Encoder};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::{Crypto, Secret32, hkdf_sha256};

/// The patterns of this protocol, as Noise writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pattern {
    /// Control connections: both sides learn the other's key under a pre-shared one, and a second one seals the end.
    Control,
    /// Sealed unicast: one message to a node whose key is known.
    Sealed,
    /// Data sessions: both sides' keys are known, from membership.
    Session,
}

impl Pattern {
    /// The protocol's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Control => "Noise_XXpsk0+psk3_25519_ChaChaPoly_BLAKE2s",
            Self::Sealed => "Noise_X_25519_ChaChaPoly_BLAKE2s",
            Self::Session => "Noise_IK_25519_ChaChaPoly_BLAKE2s",
        }
    }
}

/// Why a Noise message was not taken or not made. No variant says more, since a stranger must not learn it either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoiseError {
    /// Forged, corrupted, or made with another key.
    #[error("a message is not authentic")]
    Inauthentic,
    /// A bug of ours: out of turn, or without a key that the pattern needs.
    #[error("the handshake is used out of turn")]
    Misused,
}

impl From<snow::Error> for NoiseError {
    fn from(error: snow::Error) -> Self {
        // snow's enum is non-exhaustive, and every kind it may grow is a misuse until we know better.
        if matches!(
            error,
            snow::Error::Decrypt | snow::Error::Dh | snow::Error::Input
        ) {
            Self::Inauthentic
        } else {
            Self::Misused
        }
    }
}

/// A node's X25519 key (RFC 7748). Clones share it: there is one copy in memory.
#[derive(Clone)]
pub struct NoiseKey(Arc<StaticSecret>);

impl NoiseKey {
    /// Takes the scalar.
    pub fn from_secret(secret: &Secret32) -> Self {
        Self(Arc::new(StaticSecret::from(*secret.as_bytes())))
    }

    /// What [`Self::from_secret`] took, for the key file.
    pub fn secret(&self) -> Secret32 {
        Secret32::new(*self.0.as_bytes())
    }

    /// Computes the public half.
    pub fn public(&self) -> NoisePublic {
        NoisePublic(PublicKey::from(&*self.0).to_bytes())
    }
}

impl fmt::Debug for NoiseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// The public half of a [`NoiseKey`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoisePublic([u8; 32]);

impl NoisePublic {
    /// Takes the bytes as they are: RFC 7748 §5 accepts every value, a useless one fails in the handshake.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, as they travel.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for NoisePublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<C> Encode<C> for NoisePublic {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for NoisePublic {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        ByteArray::<32>::decode(d, ctx).map(|bytes| Self(*bytes))
    }
}

/// One run of a pattern.
pub struct NoiseHandshake(Box<snow::HandshakeState>);

impl NoiseHandshake {
    /// Begins as the one who speaks first. `remote` is needed by [`Pattern::Session`] and [`Pattern::Sealed`].
    pub fn initiator(
        pattern: Pattern,
        prologue: &[u8],
        local: &NoiseKey,
        remote: Option<&NoisePublic>,
        crypto: &mut dyn Crypto,
    ) -> Result<Self, NoiseError> {
        let mut builder = builder(pattern, crypto)?
            .prologue(prologue)?
            .local_private_key(local.0.as_bytes())?;
        if let Some(remote) = remote {
            builder = builder.remote_public_key(remote.as_bytes())?;
        }
        Ok(Self(Box::new(builder.build_initiator()?)))
    }

    /// Begins as the one who is spoken to.
    pub fn responder(
        pattern: Pattern,
        prologue: &[u8],
        local: &NoiseKey,
        crypto: &mut dyn Crypto,
    ) -> Result<Self, NoiseError> {
        let builder = builder(pattern, crypto)?
            .prologue(prologue)?
            .local_private_key(local.0.as_bytes())?;
        Ok(Self(Box::new(builder.build_responder()?)))
    }

    /// Tells the pre-shared key of one place in the pattern, at the latest before the message that uses it.
    pub fn set_psk(&mut self, place: usize, key: &Secret32) -> Result<(), NoiseError> {
        Ok(self.0.set_psk(place, key.as_bytes())?)
    }

    /// Makes the next message.
    pub fn write(&mut self, payload: &[u8]) -> Result<Vec<u8>, NoiseError> {
        // Two keys and two tags are the most that a message of these patterns adds.
        let mut message = vec![0; payload.len() + 2 * (32 + TAG_LEN)];
        let len = self.0.write_message(payload, &mut message)?;
        message.truncate(len);
        Ok(message)
    }

    /// Takes the next message and gives its payload. After an error the run is over.
    pub fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let mut payload = vec![0; message.len()];
        let len = self.0.read_message(message, &mut payload)?;
        payload.truncate(len);
        Ok(payload)
    }

    /// The other side's key, once it is known.
    pub fn remote(&self) -> Option<NoisePublic> {
        let bytes = self.0.get_remote_static()?.try_into().ok()?;
        Some(NoisePublic(bytes))
    }

    /// Names everything that was said so far: equal at both ends, different in every run.
    pub fn transcript(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(&self.0.get_handshake_hash()[..32]);
        hash
    }

    /// Both keys of a finished run, (initiator's, responder's), for a protocol that derives its own from them.
    pub fn split(&mut self) -> Result<(Secret32, Secret32), NoiseError> {
        if !self.0.is_handshake_finished() {
            return Err(NoiseError::Misused);
        }
        let (initiator, responder) = self.0.dangerously_get_raw_split();
        Ok((Secret32::new(initiator), Secret32::new(responder)))
    }

    /// Goes on to seal and open, after the last message.
    pub fn into_transport(self) -> Result<NoiseTransport, NoiseError> {
        Ok(NoiseTransport(Box::new(self.0.into_transport_mode()?)))
    }
}

/// Bytes that sealing adds: RFC 8439 §2.8.
pub const TAG_LEN: usize = 16;

/// What follows a handshake: messages in order, none lost.
pub struct NoiseTransport(Box<snow::TransportState>);

impl NoiseTransport {
    /// Appends the sealed `plaintext` to `out`.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), NoiseError> {
        let start = out.len();
        out.resize(start + plaintext.len() + TAG_LEN, 0);
        self.0.write_message(plaintext, &mut out[start..])?;
        Ok(())
    }

    /// Opens the next message.
    pub fn open(&mut self, ciphertext: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let mut plaintext = vec![0; ciphertext.len()];
        let len = self.0.read_message(ciphertext, &mut plaintext)?;
        plaintext.truncate(len);
        Ok(plaintext)
    }
}

fn builder(
    pattern: Pattern,
    crypto: &mut dyn Crypto,
) -> Result<snow::Builder<'static>, NoiseError> {
    let params: NoiseParams = pattern.as_str().parse()?;
    let resolver = Resolver {
        seed: Cell::new(Some(crypto.secret())),
    };
    Ok(snow::Builder::with_resolver(params, Box::new(resolver)))
}

struct Resolver {
    /// Taken by the one generator that a run needs: two of them would draw the same.
    seed: Cell<Option<Secret32>>,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        let seed = self.seed.take()?;
        Some(Box::new(SeedExpander { seed, counter: 0 }))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        (*choice == DHChoice::Curve25519).then(|| Box::new(X25519::default()) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

struct SeedExpander {
    seed: Secret32,
    counter: u64,
}

impl Random for SeedExpander {
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), snow::Error> {
        for chunk in bytes.chunks_mut(32) {
            let block = hkdf_sha256(&[], self.seed.as_bytes(), &self.counter.to_be_bytes());
            chunk.copy_from_slice(&block.as_bytes()[..chunk.len()]);
            self.counter += 1;
        }
        Ok(())
    }
}

/// X25519 with its public half computed on first use.
struct X25519 {
    secret: StaticSecret,
    public: OnceLock<[u8; 32]>,
}

impl Default for X25519 {
    fn default() -> Self {
        Self {
            secret: StaticSecret::from([0; 32]),
            public: OnceLock::new(),
        }
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        let mut bytes = Zeroizing::new([0; 32]);
        bytes.copy_from_slice(secret);
        self.secret = StaticSecret::from(*bytes);
        self.public = OnceLock::new();
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), snow::Error> {
        let mut secret = Secret32::new([0; 32]);
        random.try_fill_bytes(secret.as_mut_bytes())?;
        self.set(secret.as_bytes());
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.public.get_or_init(|| {
            count_multiplication();
            PublicKey::from(&self.secret).to_bytes()
        })
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_bytes()
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        count_multiplication();
        let public: [u8; 32] = public
            .get(..32)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(snow::Error::Dh)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(public));
        if !shared.was_contributory() {
            return Err(snow::Error::Dh); // RFC 7748 §6.1
        }
        out[..32].copy_from_slice(shared.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
thread_local! {
    static MULTIPLICATIONS: Cell<u32> = const { Cell::new(0) };
}

#[cfg(test)]
fn count_multiplication() {
    MULTIPLICATIONS.set(MULTIPLICATIONS.get() + 1);
}

#[cfg(not(test))]
const fn count_multiplication() {}

/// How many scalar multiplications handshakes of this thread have cost.
#[cfg(test)]
pub(crate) fn multiplications() -> u32 {
    MULTIPLICATIONS.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::seeded::SeededCrypto;

    fn key(byte: u8) -> NoiseKey {
        NoiseKey::from_secret(&Secret32::new([byte; 32]))
    }

    #[test]
    fn a_session_handshake_splits_alike_at_both_ends() {
        let mut crypto = SeededCrypto::new(1);
        let (a, b) = (key(1), key(2));
        let mut initiator =
            NoiseHandshake::initiator(Pattern::Session, b"p", &a, Some(&b.public()), &mut crypto)
                .expect("begins");
        let mut responder =
            NoiseHandshake::responder(Pattern::Session, b"p", &b, &mut crypto).expect("begins");

        let first = initiator.write(b"hello").expect("writes");
        assert_eq!(responder.read(&first).expect("reads"), b"hello");
        let second = responder.write(b"").expect("writes");
        initiator.read(&second).expect("reads");

        assert_eq!(responder.remote(), Some(a.public()));
        assert_eq!(initiator.transcript(), responder.transcript());
        assert_eq!(initiator.split(), responder.split());
    }

    #[test]
    fn a_sealed_message_opens_for_its_receiver_only() {
        let mut crypto = SeededCrypto::new(1);
        let (a, b, c) = (key(1), key(2), key(3));
        let message =
            NoiseHandshake::initiator(Pattern::Sealed, b"p", &a, Some(&b.public()), &mut crypto)
                .and_then(|mut handshake| handshake.write(b"for b"))
                .expect("seals");
        let mut open = |key, prologue: &[u8]| {
            NoiseHandshake::responder(Pattern::Sealed, prologue, key, &mut crypto)
                .and_then(|mut handshake| handshake.read(&message))
        };

        assert_eq!(open(&b, b"p"), Ok(b"for b".to_vec()));
        assert_eq!(open(&b, b"q"), Err(NoiseError::Inauthentic));
        assert_eq!(open(&c, b"p"), Err(NoiseError::Inauthentic));
    }

    #[test]
    fn a_responder_multiplies_nothing_for_who_lacks_the_pre_shared_key() {
        let mut crypto = SeededCrypto::new(1);
        let (a, b) = (key(1), key(2));
        let mut question = |psk| {
            let mut initiator =
                NoiseHandshake::initiator(Pattern::Control, b"p", &a, None, &mut crypto)?;
            initiator.set_psk(0, &Secret32::new([psk; 32]))?;
            initiator.write(b"let me in")
        };
        let (stranger, member) = (question(8).expect("asks"), question(9).expect("asks"));
        let mut answer = |message: &[u8]| {
            let before = multiplications();
            let mut responder = NoiseHandshake::responder(Pattern::Control, b"p", &b, &mut crypto)?;
            responder.set_psk(0, &Secret32::new([9; 32]))?;
            responder.read(message)?;
            responder.write(b"come in")?;
            Ok(multiplications() - before)
        };

        let before = multiplications();
        assert_eq!(answer(&stranger), Err(NoiseError::Inauthentic));
        assert_eq!(multiplications(), before);
        assert_eq!(answer(&member), Ok(4)); // two public keys, ee, es
    }

    #[test]
    fn a_point_of_small_order_is_refused() {
        let shared = X25519::default().dh(&[0; 32], &mut [0; 32]);

        assert_eq!(shared, Err(snow::Error::Dh));
    }
}
