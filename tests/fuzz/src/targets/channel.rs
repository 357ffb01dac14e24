//! Control connections: the preface, the handshake from both ends, the sealed frames, and the messages in them.

use std::sync::OnceLock;

use weft_router_proto::control::ControlMessage;
use weft_router_proto::crypto::noise::{NoiseHandshake, NoiseTransport, Pattern};
use weft_router_proto::crypto::seeded::SeededCrypto;
use weft_router_proto::crypto::{Crypto, KemSecret};
use weft_router_proto::handshake::{
    Answer, ChannelOutput, ControlChannel, HandshakeError, Introduction, Keyring, MAX_MESSAGE,
    Question, VERSION,
};
use weft_router_proto::wire::preface::{self, DoorKeyId, Repr};
use weft_types::TokenId;

use super::{pieces, stable, world};

/// The first bytes of a connection.
pub fn preface(data: &[u8]) {
    let Some(Ok(repr)) = Repr::decode(data) else {
        return;
    };
    let written = repr.emit();
    assert_eq!(Repr::decode(&written), Some(Ok(repr)));
    assert_eq!(
        (&written[..5], &written[16..]),
        (&data[..5], &data[16..preface::LEN])
    );
}

/// What the three handshake messages hold.
pub fn handshake_payloads(data: &[u8]) {
    if let Some(question) = Question::decode(data) {
        assert!(data.starts_with(&question.encode()));
        assert_eq!(Question::version_of(data), Some(question.version));
    }
    stable(data, Answer::decode, Answer::encode);
    stable(data, Introduction::decode, Introduction::encode);
}

/// A message of an open channel.
pub fn control_message(data: &[u8]) {
    let Ok(message) = ControlMessage::decode(data) else {
        return;
    };
    let written = message.encode();
    let again = ControlMessage::decode(&written).expect("what is written can be read");
    assert_eq!(again.encode(), written);
    assert_eq!(again.is_membership(), message.is_membership());
    assert!(written.len() <= data.len() + 16, "grown by reading");
}

/// Whoever dials: a stranger (the bytes are what it sends), or the holder of a secret (they are a payload).
pub fn listener(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    let mut scene = Listening::new();
    match mode % 4 {
        0 => {
            pieces(rest).for_each(|piece| scene.hear(piece));
            // Nobody forges the tag, so there is no answer, and no word of who we are.
            let silent = |told: &ChannelOutput| matches!(told, ChannelOutput::Failed(_));
            assert!(scene.told.iter().all(silent), "a stranger was answered");
        }
        1 => {
            let mut dialler = Dialling::new();
            scene.hear(&dialler.question(rest));
        }
        2 => {
            if let Some(message) = scene.introduced(rest) {
                scene.hear(&message);
            }
        }
        _ => {
            if let Some(message) = scene.introduced(honest()) {
                scene.hear(&message);
            }
            assert!(scene.channel.is_open());
            pieces(rest).for_each(|piece| scene.hear(piece));
        }
    }
    assert_orderly(&scene.told);
}

/// What the holder of a secret seals after the handshake: each piece is a frame's plaintext.
pub fn frames(data: &[u8]) {
    let mut scene = Listening::new();
    let mut dialler = Dialling::new();
    let Some(message) = scene.introduced_by(&mut dialler, honest()) else {
        return;
    };
    scene.hear(&message);
    let Some(mut transport) = dialler.transport() else {
        return;
    };
    let mut sent = 0;
    for plaintext in pieces(data) {
        let mut sealed = Vec::new();
        if transport.seal(plaintext, &mut sealed).is_err() {
            break;
        }
        sent += plaintext.len();
        scene.hear(&prefixed(&sealed));
    }
    let received: usize = scene.told.iter().map(message_len).sum();
    assert!(received <= sent);
    assert_orderly(&scene.told);
}

/// Whoever is dialled: a stranger, or the holder of the secret that we dialled with.
pub fn dialler(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    let asked = if mode & 1 == 0 {
        world::MEMBER
    } else {
        world::JOINER
    };
    let mut crypto = SeededCrypto::new(1);
    let mut channel = ControlChannel::dial(
        world::ourself(0),
        asked,
        &world::secret(),
        &mut crypto,
        world::origin(),
    );
    let mut told = Vec::new();
    let Some(ChannelOutput::Send(first)) = channel.poll_output() else {
        panic!("a dialler speaks first");
    };
    let mut keyring = keyring();
    if mode & 2 == 0 {
        for piece in pieces(rest) {
            channel.handle_bytes(piece, &mut keyring, &mut crypto);
        }
    } else {
        let mut noise = responder(asked, 1);
        noise
            .read(&first[preface::LEN + 2..])
            .expect("the dialler's own first message");
        if let Ok(answer) = noise.write(rest) {
            channel.handle_bytes(&prefixed(&answer), &mut keyring, &mut crypto);
        }
        channel.approve();
    }
    while let Some(output) = channel.poll_output() {
        told.push(output);
    }
    assert_orderly(&told);
}

/// Claims of any end that a failure is the last word, and that no message is longer than one may be.
fn assert_orderly(told: &[ChannelOutput]) {
    let failed = |output: &ChannelOutput| matches!(output, ChannelOutput::Failed(_));
    let first = told.iter().position(failed);
    assert!(first.is_none_or(|first| first + 1 == told.len()));
    assert!(told.iter().all(|output| message_len(output) <= MAX_MESSAGE));
    let late = ChannelOutput::Failed(HandshakeError::TimedOut);
    assert!(!told.contains(&late), "no time has passed");
}

fn message_len(output: &ChannelOutput) -> usize {
    if let ChannelOutput::Message(message) = output {
        message.len()
    } else {
        0
    }
}

/// A listener, and what it said.
struct Listening {
    channel: ControlChannel,
    keyring: Keyring,
    crypto: SeededCrypto,
    told: Vec<ChannelOutput>,
}

impl Listening {
    fn new() -> Self {
        Self {
            channel: ControlChannel::accept(world::ourself(1), world::origin()),
            keyring: keyring(),
            crypto: SeededCrypto::new(2),
            told: Vec::new(),
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.channel
            .handle_bytes(bytes, &mut self.keyring, &mut self.crypto);
        while let Some(output) = self.channel.poll_output() {
            self.told.push(output);
        }
    }

    /// Goes through the first two messages; gives the third, with any payload.
    fn introduced(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        self.introduced_by(&mut Dialling::new(), payload)
    }

    fn introduced_by(&mut self, dialler: &mut Dialling, payload: &[u8]) -> Option<Vec<u8>> {
        let question = dialler.asked();
        self.hear(&dialler.question(&question));
        let Some(ChannelOutput::Send(answer)) = self.told.pop() else {
            panic!("a question is answered");
        };
        dialler.introduction(&answer[2..], payload)
    }
}

/// A dialler that holds the secret and keeps to nothing else.
struct Dialling {
    noise: Option<NoiseHandshake>,
    kem: Box<dyn KemSecret>,
    kem_key: Box<[u8; weft_router_proto::crypto::KEM_KEY_LEN]>,
}

impl Dialling {
    fn new() -> Self {
        let mut crypto = SeededCrypto::new(3);
        let kem = crypto.kem_generate();
        let mut noise = NoiseHandshake::initiator(
            Pattern::Control,
            &prologue(world::MEMBER),
            world::keys(0).noise(),
            None,
            &mut crypto,
        )
        .expect("a pattern of ours");
        noise
            .set_psk(0, &world::secret())
            .expect("psk0 has a place");
        Self {
            noise: Some(noise),
            kem: kem.secret,
            kem_key: kem.encapsulation,
        }
    }

    /// The question that an honest dialler asks.
    fn asked(&self) -> Vec<u8> {
        Question {
            version: VERSION,
            kem_key: self.kem_key.clone(),
        }
        .encode()
    }

    /// Preface and message 1, with any payload; an input that no message holds is cut.
    fn question(&mut self, payload: &[u8]) -> Vec<u8> {
        let noise = self.noise.as_mut().expect("not finished");
        let payload = &payload[..payload.len().min(60_000)];
        let message = noise.write(payload).expect("the first turn is ours");
        [&world::MEMBER.emit()[..], &prefixed(&message)].concat()
    }

    /// Message 3, with any payload.
    fn introduction(&mut self, answer: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
        let noise = self.noise.as_mut()?;
        let answer = noise.read(answer).expect("the listener's own answer");
        let answer = Answer::decode(&answer).expect("an answer");
        let ciphertext = answer.ciphertext.expect("no refusal");
        let secret = self.kem.decapsulate(&ciphertext).expect("our own key");
        noise.set_psk(3, &secret).expect("psk3 has a place");
        noise.write(payload).ok().map(|message| prefixed(&message))
    }

    fn transport(&mut self) -> Option<NoiseTransport> {
        self.noise.take()?.into_transport().ok()
    }
}

/// What the first node writes, made once: it is signed.
fn honest() -> &'static [u8] {
    static HONEST: OnceLock<Vec<u8>> = OnceLock::new();
    HONEST.get_or_init(|| introduction(0))
}

/// The payload of message 3 as an honest node writes it.
pub fn introduction(number: u64) -> Vec<u8> {
    let ourself = world::ourself(number);
    Introduction {
        cert: ourself.keys.certify(&world::MESH),
        boot: ourself.boot,
        nickname: ourself.nickname,
        features: ourself.features,
        port: ourself.port,
        wanted: Some("10.32.0.7".to_owned()),
    }
    .encode()
}

fn keyring() -> Keyring {
    let mut keyring = Keyring::default();
    keyring.add_door(DoorKeyId::new([7; 16]), world::secret());
    keyring.add_token(TokenId::new([9; 16]), world::secret());
    keyring
}

fn prologue(asked: Repr) -> Vec<u8> {
    [&b"weft-control"[..], &asked.emit(), world::MESH.as_bytes()].concat()
}

/// The listener's side of Noise, for one that holds the secret and keeps to nothing else.
fn responder(asked: Repr, number: u64) -> NoiseHandshake {
    let mut crypto = SeededCrypto::new(4);
    let keys = world::keys(number);
    let mut noise = NoiseHandshake::responder(
        Pattern::Control,
        &prologue(asked),
        keys.noise(),
        &mut crypto,
    )
    .expect("a pattern of ours");
    noise
        .set_psk(0, &world::secret())
        .expect("psk0 has a place");
    noise
}

fn prefixed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], message].concat()
}
