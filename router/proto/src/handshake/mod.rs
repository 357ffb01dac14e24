//! One control connection, from the first byte to the last: who is there, and a sealed channel.
//!
//! `Noise_XXpsk0+psk3_25519_ChaChaPoly_BLAKE2s` (Noise Protocol Framework, revision 34) with an ML-KEM-768 exchange inside:
//! psk0 is the secret that opens the door, psk3 what the KEM yields.
//!
//! ```text
//!   dialler                                              listener
//!   Preface {mode, key id} ─────────────────────────▶    knows the id? else closes without a byte
//!   1: psk0, e, {version, KEM key} ─────────────────▶    tag opens under psk0? else closes without a byte
//!                              ◀───────────────────── 2: e, ee, s, es, {version, KEM ciphertext, who, genesis}
//!   checks the genesis, and its own machine
//!   3: s, se, psk3, {who} ──────────────────────────▶    is it a member, is the token good? else refuses, sealed
//!   ═══════════════════════ frames ═══════════════════════
//! ```
//!
//! A stranger learns nothing: before psk0 is proved there is no answer and no Diffie-Hellman, and a first message that was
//! recorded and is sent again is no proof. A token is spent only
//! after message 3, which the dialler sends when its own machine was found fit ([`ControlChannel::approve`]).
//!
//! **Invariant.** Before authentication at most [`MAX_UNPROVED`] bytes are held and [`PATIENCE`] passes.
//! **Failure policy.** Everything that goes wrong ends this connection and nothing else.

mod framing;
mod parties;
mod payload;
mod refusal;
mod visits;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::crypto::noise::{NoiseHandshake, NoisePublic, Pattern};
use crate::crypto::{Crypto, KemSecret, Secret32};
use crate::wire::preface::{self, Repr};
use framing::{Frames, Opened, prefixed, whole};

pub use framing::{FrameError, MAX_MESSAGE};
pub use parties::{Keyring, Other, Ourself};
pub use payload::{Answer, Introduction, Question, VERSION};
pub use refusal::Refusal;

/// How long a handshake may take. Long enough for a satellite and three lost segments.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// The most that an unproved connection may have sent.
pub const MAX_UNPROVED: usize = 4096;

/// Why a connection ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// A sealed frame after the handshake was wrong.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A tag does not open: another secret, another mesh, or bytes changed on the way.
    #[error("the other side does not hold the same secret")]
    Inauthentic,
    /// This node could not do its own part, whatever the other side did: the fault is ours.
    #[error("this node could not do its own part of the handshake")]
    Internal,
    /// What the other side sent makes no sense.
    #[error("the other side sent a handshake that makes no sense")]
    Malformed,
    /// The other side said no, and why.
    #[error("refused: {}", .0.code().title())]
    Refused(Refusal),
    /// It took longer than [`PATIENCE`].
    #[error("the other side did not finish the handshake in time")]
    TimedOut,
    /// The id in the preface is none of ours.
    #[error("the other side asks for a door that is not here")]
    UnknownDoor,
}

/// What a channel wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum ChannelOutput {
    /// The other end is who it says.
    Authenticated(Box<Other>),
    /// The connection is to be closed; on the listener's side before authentication nothing was sent.
    Failed(HandshakeError),
    /// The mesh that a token leads to, as it was signed: check it, then [`ControlChannel::approve`].
    GenesisReceived(Vec<u8>),
    /// A whole control message.
    Message(Vec<u8>),
    /// Bytes for the connection.
    Send(Vec<u8>),
}

/// One control connection.
pub struct ControlChannel {
    state: State,
    ourself: Ourself,
    input: Vec<u8>,
    outputs: VecDeque<ChannelOutput>,
}

enum State {
    /// Dialler: message 1 is sent.
    AwaitAnswer {
        noise: NoiseHandshake,
        kem: Box<dyn KemSecret>,
        asked: Repr,
        until: Instant,
    },
    /// Dialler: message 3 waits for [`ControlChannel::approve`].
    AwaitApproval {
        noise: NoiseHandshake,
        until: Instant,
    },
    /// Listener: not a byte yet, or too few.
    AwaitPreface { until: Instant },
    /// Listener: the door is known.
    AwaitQuestion { asked: Repr, until: Instant },
    /// Listener: message 2 is sent.
    AwaitIntroduction {
        noise: NoiseHandshake,
        asked: Repr,
        until: Instant,
    },
    /// Authenticated both ways.
    Open(Box<Frames>),
    /// Final.
    Over,
}

impl ControlChannel {
    /// Begins as the dialler, with the door key or the token's secret.
    pub fn dial(
        ourself: Ourself,
        asked: Repr,
        secret: &Secret32,
        crypto: &mut dyn Crypto,
        now: Instant,
    ) -> Self {
        let mut channel = Self {
            state: State::Over,
            ourself,
            input: Vec::new(),
            outputs: VecDeque::new(),
        };
        let kem = crypto.kem_generate();
        let question = Question {
            version: VERSION,
            kem_key: kem.encapsulation,
        };
        let prologue = channel.ourself.prologue(&asked);
        let mut begin = || {
            let local = channel.ourself.keys.noise();
            let mut noise =
                NoiseHandshake::initiator(Pattern::Control, &prologue, local, None, crypto)?;
            noise.set_psk(0, secret)?;
            let message = noise.write(&question.encode())?;
            Ok::<_, crate::crypto::noise::NoiseError>((noise, message))
        };
        match begin() {
            Ok((noise, message)) => {
                let bytes = [&asked.emit()[..], &prefixed(&message)].concat();
                channel.outputs.push_back(ChannelOutput::Send(bytes));
                channel.state = State::AwaitAnswer {
                    noise,
                    kem: kem.secret,
                    asked,
                    until: now + PATIENCE,
                };
            }
            Err(_) => channel.fail(HandshakeError::Internal),
        }
        channel
    }

    /// Begins as the listener.
    pub fn accept(ourself: Ourself, now: Instant) -> Self {
        Self {
            state: State::AwaitPreface {
                until: now + PATIENCE,
            },
            ourself,
            input: Vec::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes bytes of the connection, cut anywhere.
    pub fn handle_bytes(&mut self, bytes: &[u8], keyring: &mut Keyring, crypto: &mut dyn Crypto) {
        if matches!(self.state, State::Over) {
            return;
        }
        self.input.extend_from_slice(bytes);
        // The first handshake message is looked at only if it could be one; what follows message 3 may be longer.
        if self.is_unproved() && self.input.len() > MAX_UNPROVED {
            return self.fail(HandshakeError::Malformed);
        }
        while self.advance(keyring, crypto) {}
        if !matches!(self.state, State::Open(_) | State::Over) && self.input.len() > MAX_UNPROVED {
            self.fail(HandshakeError::Malformed);
        }
    }

    /// Goes on after [`ChannelOutput::GenesisReceived`]: this machine can be in that mesh.
    pub fn approve(&mut self) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::AwaitApproval { noise, .. } => self.introduce(noise),
            state @ (State::AwaitAnswer { .. }
            | State::AwaitIntroduction { .. }
            | State::AwaitPreface { .. }
            | State::AwaitQuestion { .. }
            | State::Open(_)
            | State::Over) => self.state = state,
        }
    }

    /// Seals a message. Before authentication, and after the end, it goes nowhere.
    pub fn send(&mut self, message: &[u8]) {
        let State::Open(frames) = &mut self.state else {
            return;
        };
        match frames.seal(message) {
            Ok(bytes) => self.outputs.push_back(ChannelOutput::Send(bytes)),
            // Too long a message, or keys that are spent: nothing that the other end could help.
            Err(_) => self.fail(HandshakeError::Internal),
        }
    }

    /// Whether both ends are authenticated and the channel carries messages.
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether the other end has proved that it holds a secret of ours, and nothing more.
    pub const fn has_answered(&self) -> bool {
        matches!(self.state, State::AwaitIntroduction { .. })
    }

    /// Gives out what shall happen, in order.
    pub fn poll_output(&mut self) -> Option<ChannelOutput> {
        self.outputs.pop_front()
    }

    /// Says when a handshake has taken too long.
    pub const fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        match &self.state {
            State::AwaitAnswer { until, .. }
            | State::AwaitApproval { until, .. }
            | State::AwaitIntroduction { until, .. }
            | State::AwaitPreface { until }
            | State::AwaitQuestion { until, .. } => Some((*until, "a handshake takes too long")),
            State::Open(_) | State::Over => None,
        }
    }

    /// Gives up on a handshake that took too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|(until, _)| until <= now) {
            self.fail(HandshakeError::TimedOut);
        }
    }

    /// Whether the other end has proved nothing at all.
    const fn is_unproved(&self) -> bool {
        matches!(
            self.state,
            State::AwaitPreface { .. } | State::AwaitQuestion { .. }
        )
    }

    /// One step; whether there may be another.
    fn advance(&mut self, keyring: &mut Keyring, crypto: &mut dyn Crypto) -> bool {
        let state = std::mem::replace(&mut self.state, State::Over);
        let result = match state {
            State::AwaitPreface { until } => self.read_preface(keyring, until),
            State::AwaitQuestion { asked, until } => {
                self.read_question(asked, keyring, crypto, until)
            }
            State::AwaitAnswer {
                noise,
                kem,
                asked,
                until,
            } => self.read_answer(noise, kem, asked, until),
            State::AwaitIntroduction {
                noise,
                asked,
                until,
            } => self.read_introduction(noise, asked, until),
            State::Open(frames) => self.read_frame(frames),
            state @ (State::AwaitApproval { .. } | State::Over) => {
                self.state = state;
                return false;
            }
        };
        match result {
            Ok(again) => again,
            Err(error) => {
                self.fail(error);
                false
            }
        }
    }

    fn read_preface(&mut self, keyring: &Keyring, until: Instant) -> Result<bool, HandshakeError> {
        let Some(asked) = Repr::decode(&self.input) else {
            self.state = State::AwaitPreface { until };
            return Ok(false);
        };
        let asked = asked.map_err(|_| HandshakeError::Malformed)?;
        keyring.secret(&asked).ok_or(HandshakeError::UnknownDoor)?;
        self.input.drain(..preface::LEN);
        self.state = State::AwaitQuestion { asked, until };
        Ok(true)
    }

    fn read_question(
        &mut self,
        asked: Repr,
        keyring: &mut Keyring,
        crypto: &mut dyn Crypto,
        until: Instant,
    ) -> Result<bool, HandshakeError> {
        let Some(message) = self.take_message() else {
            self.state = State::AwaitQuestion { asked, until };
            return Ok(false);
        };
        let secret = keyring.secret(&asked).ok_or(HandshakeError::UnknownDoor)?;
        let prologue = self.ourself.prologue(&asked);
        let local = self.ourself.keys.noise();
        let mut noise = NoiseHandshake::responder(Pattern::Control, &prologue, local, crypto)
            .map_err(|_| HandshakeError::Internal)?;
        noise
            .set_psk(0, secret)
            .map_err(|_| HandshakeError::Internal)?;
        // The tag is checked under psk0 and the ephemeral key as such: no Diffie-Hellman for a stranger.
        let question = noise
            .read(&message)
            .map_err(|_| HandshakeError::Inauthentic)?;
        // When it was accepted is near enough: it has not lasted longer than that.
        if !keyring.is_first(&asked, &message, until - PATIENCE) {
            return Err(HandshakeError::Inauthentic);
        }
        let version = Question::version_of(&question).ok_or(HandshakeError::Malformed)?;
        if version != VERSION {
            return self.refuse_version(&mut noise);
        }
        let question = Question::decode(&question).ok_or(HandshakeError::Malformed)?;
        let (ciphertext, secret) = crypto
            .kem_encapsulate(&question.kem_key[..])
            .map_err(|_| HandshakeError::Malformed)?;
        let genesis = match asked {
            Repr::Member(_) => None,
            Repr::Token(_) => self.ourself.genesis.clone(),
        };
        let answer = Answer {
            version: VERSION,
            refusal: None,
            ciphertext: Some(ciphertext.to_vec()),
            genesis,
            introduction: Some(self.ourself.introduction()),
        };
        let message = write(&mut noise, &answer)?;
        noise
            .set_psk(3, &secret)
            .map_err(|_| HandshakeError::Internal)?;
        self.outputs.push_back(message);
        self.state = State::AwaitIntroduction {
            noise,
            asked,
            until,
        };
        Ok(true)
    }

    /// Says no to a dialler of another version, under the seal that it can open.
    fn refuse_version(&mut self, noise: &mut NoiseHandshake) -> Result<bool, HandshakeError> {
        let refusal = Refusal::new(weft_types::Code::VersionMismatch);
        let answer = Answer {
            version: VERSION,
            refusal: Some(refusal),
            ciphertext: None,
            genesis: None,
            introduction: None,
        };
        let message = write(noise, &answer)?;
        self.outputs.push_back(message);
        Err(HandshakeError::Refused(refusal))
    }

    fn read_answer(
        &mut self,
        mut noise: NoiseHandshake,
        kem: Box<dyn KemSecret>,
        asked: Repr,
        until: Instant,
    ) -> Result<bool, HandshakeError> {
        let Some(message) = self.take_message() else {
            self.state = State::AwaitAnswer {
                noise,
                kem,
                asked,
                until,
            };
            return Ok(false);
        };
        let answer = noise
            .read(&message)
            .map_err(|_| HandshakeError::Inauthentic)?;
        let answer = Answer::decode(&answer).map_err(|_| HandshakeError::Malformed)?;
        if let Some(refusal) = answer.refusal {
            return Err(HandshakeError::Refused(refusal));
        }
        let (Some(ciphertext), Some(introduction)) = (answer.ciphertext, answer.introduction)
        else {
            return Err(HandshakeError::Malformed);
        };
        let secret = kem
            .decapsulate(&ciphertext)
            .map_err(|_| HandshakeError::Malformed)?;
        noise
            .set_psk(3, &secret)
            .map_err(|_| HandshakeError::Internal)?;
        let other = self.check(introduction, noise.remote(), asked)?;
        self.outputs
            .push_back(ChannelOutput::Authenticated(Box::new(other)));
        match asked {
            Repr::Member(_) => self.introduce(noise),
            Repr::Token(_) => {
                let genesis = answer.genesis.ok_or(HandshakeError::Malformed)?;
                self.outputs
                    .push_back(ChannelOutput::GenesisReceived(genesis));
                self.state = State::AwaitApproval { noise, until };
            }
        }
        Ok(true)
    }

    /// Sends message 3 and opens the channel.
    fn introduce(&mut self, mut noise: NoiseHandshake) {
        let introduction = self.ourself.introduction().encode();
        let sealed = noise
            .write(&introduction)
            .and_then(|message| Ok((message, noise.into_transport()?)));
        match sealed {
            Ok((message, transport)) => {
                self.outputs
                    .push_back(ChannelOutput::Send(prefixed(&message)));
                self.state = State::Open(Box::new(Frames::new(transport)));
            }
            Err(_) => self.fail(HandshakeError::Internal),
        }
    }

    fn read_introduction(
        &mut self,
        mut noise: NoiseHandshake,
        asked: Repr,
        until: Instant,
    ) -> Result<bool, HandshakeError> {
        let Some(message) = self.take_message() else {
            self.state = State::AwaitIntroduction {
                noise,
                asked,
                until,
            };
            return Ok(false);
        };
        let introduction = noise
            .read(&message)
            .map_err(|_| HandshakeError::Inauthentic)?;
        let introduction =
            Introduction::decode(&introduction).map_err(|_| HandshakeError::Malformed)?;
        let other = self.check(introduction, noise.remote(), asked)?;
        let transport = noise
            .into_transport()
            .map_err(|_| HandshakeError::Internal)?;
        self.outputs
            .push_back(ChannelOutput::Authenticated(Box::new(other)));
        self.state = State::Open(Box::new(Frames::new(transport)));
        Ok(true)
    }

    /// Ties the Noise key that was used to the node that is claimed.
    fn check(
        &self,
        introduction: Introduction,
        used: Option<NoisePublic>,
        asked: Repr,
    ) -> Result<Other, HandshakeError> {
        let Introduction {
            cert,
            boot,
            nickname,
            features,
            port,
            wanted,
        } = introduction;
        cert.verify(&self.ourself.mesh)
            .map_err(|_| HandshakeError::Inauthentic)?;
        if used != Some(cert.key) {
            return Err(HandshakeError::Inauthentic);
        }
        Ok(Other {
            node: cert.node,
            cert,
            boot,
            nickname,
            features,
            port,
            wanted,
            asked,
        })
    }

    fn read_frame(&mut self, mut frames: Box<Frames>) -> Result<bool, HandshakeError> {
        let opened = frames.open(&mut self.input)?;
        self.state = State::Open(frames);
        match opened {
            Opened::Message(message) => {
                self.outputs.push_back(ChannelOutput::Message(message));
                Ok(true)
            }
            Opened::Nothing => Ok(false),
            Opened::Part => Ok(true),
        }
    }

    fn take_message(&mut self) -> Option<Vec<u8>> {
        let (message, taken) = whole(&self.input)?;
        let message = message.to_vec();
        self.input.drain(..taken);
        Some(message)
    }

    fn fail(&mut self, error: HandshakeError) {
        self.state = State::Over;
        self.input = Vec::new();
        self.outputs.push_back(ChannelOutput::Failed(error));
    }
}

/// Message 2.
fn write(noise: &mut NoiseHandshake, answer: &Answer) -> Result<ChannelOutput, HandshakeError> {
    let message = noise
        .write(&answer.encode())
        .map_err(|_| HandshakeError::Internal)?;
    Ok(ChannelOutput::Send(prefixed(&message)))
}

#[cfg(test)]
mod tests;
