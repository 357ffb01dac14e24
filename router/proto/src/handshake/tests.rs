use super::*;
use crate::crypto::noise::multiplications;
use crate::crypto::seeded::SeededCrypto;
use crate::identity::NodeKeys;
use crate::virtual_time::origin;
use crate::wire::preface::DoorKeyId;
use proptest::prelude::*;
use weft_types::{Boot, BootId, Code, MeshId, Nickname, TokenId};

const DOOR: DoorKeyId = DoorKeyId::new([7; 16]);
const TOKEN: TokenId = TokenId::new([9; 16]);

fn secret(byte: u8) -> Secret32 {
    Secret32::new([byte; 32])
}

fn ourself(seed: u64) -> Ourself {
    let mut crypto = SeededCrypto::new(seed);
    Ourself {
        keys: NodeKeys::generate(&mut crypto as &mut dyn Crypto),
        mesh: MeshId::new([5; 32]),
        boot: Boot {
            counter: seed,
            id: BootId::new([1; 8]),
        },
        nickname: Nickname::new("somebody").expect("a name"),
        features: vec!["aes".to_owned()],
        port: 6783,
        wanted: None,
        genesis: Some(b"signed genesis".to_vec()),
    }
}

/// A dialler and a listener on a wire that can be tampered with.
struct Pair {
    dialler: ControlChannel,
    listener: ControlChannel,
    keyring: Keyring,
    crypto: SeededCrypto,
    told: [Vec<ChannelOutput>; 2],
    /// Bytes sent so far, by the dialler and by the listener.
    sent: [Vec<u8>; 2],
}

impl Pair {
    fn new(asked: Repr, key: &Secret32) -> Self {
        let mut crypto = SeededCrypto::new(3);
        let mut keyring = Keyring::default();
        keyring.add_door(DOOR, secret(1));
        keyring.add_token(TOKEN, secret(2));
        Self {
            dialler: ControlChannel::dial(ourself(1), asked, key, &mut crypto, origin()),
            listener: ControlChannel::accept(ourself(2), origin()),
            keyring,
            crypto,
            told: [Vec::new(), Vec::new()],
            sent: [Vec::new(), Vec::new()],
        }
    }

    /// Carries bytes until nobody has any, approving what the dialler is asked; `tamper` sees (who, total so far, bytes).
    fn run(&mut self, mut tamper: impl FnMut(usize, usize, &mut Vec<u8>)) {
        loop {
            let mut moved = false;
            for side in [0, 1] {
                loop {
                    let output = if side == 0 {
                        self.dialler.poll_output()
                    } else {
                        self.listener.poll_output()
                    };
                    match output {
                        None => break,
                        Some(ChannelOutput::Send(mut bytes)) => {
                            let before = self.sent[side].len();
                            self.sent[side].extend_from_slice(&bytes);
                            tamper(side, before, &mut bytes);
                            let to = if side == 0 {
                                &mut self.listener
                            } else {
                                &mut self.dialler
                            };
                            to.handle_bytes(&bytes, &mut self.keyring, &mut self.crypto);
                            moved = true;
                        }
                        Some(output) => {
                            if matches!(output, ChannelOutput::GenesisReceived(_)) {
                                self.dialler.approve();
                                moved = true;
                            }
                            self.told[side].push(output);
                        }
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn authenticated(&self, side: usize) -> bool {
        self.told[side]
            .iter()
            .any(|output| matches!(output, ChannelOutput::Authenticated(_)))
    }

    fn messages(&self, side: usize) -> Vec<&[u8]> {
        let message = |output: &'_ ChannelOutput| matches!(output, ChannelOutput::Message(_));
        self.told[side]
            .iter()
            .filter(|output| message(output))
            .map(|output| {
                if let ChannelOutput::Message(bytes) = output {
                    bytes.as_slice()
                } else {
                    &[]
                }
            })
            .collect()
    }
}

#[test]
fn both_doors_lead_to_a_sealed_channel() {
    for (asked, key) in [
        (Repr::Member(DOOR), secret(1)),
        (Repr::Token(TOKEN), secret(2)),
    ] {
        let mut pair = Pair::new(asked, &key);

        pair.run(|_, _, _| {});
        let long = vec![7; 100_000];
        pair.dialler.send(b"hello");
        pair.dialler.send(&long);
        pair.listener.send(&[]);
        pair.run(|_, _, _| {});

        assert!(pair.authenticated(0) && pair.authenticated(1));
        assert_eq!(pair.messages(1), [&b"hello"[..], &long]);
        assert_eq!(pair.messages(0), [&b""[..]]);
    }
}

#[test]
fn a_joiner_sees_the_genesis_before_its_token_is_spent() {
    let mut pair = Pair::new(Repr::Token(TOKEN), &secret(2));
    let first = pair.dialler.poll_output();
    let Some(ChannelOutput::Send(bytes)) = first else {
        panic!("message 1")
    };
    pair.listener
        .handle_bytes(&bytes, &mut pair.keyring, &mut pair.crypto);
    let Some(ChannelOutput::Send(bytes)) = pair.listener.poll_output() else {
        panic!("message 2")
    };
    pair.dialler
        .handle_bytes(&bytes, &mut pair.keyring, &mut pair.crypto);

    assert!(matches!(
        pair.dialler.poll_output(),
        Some(ChannelOutput::Authenticated(_))
    ));
    assert_eq!(
        pair.dialler.poll_output(),
        Some(ChannelOutput::GenesisReceived(b"signed genesis".to_vec()))
    );
    assert_eq!(
        pair.dialler.poll_output(),
        None,
        "message 3 waits for the approval"
    );
    assert!(!pair.listener.is_open());
}

#[test]
fn a_stranger_gets_not_one_byte() {
    for (asked, key) in [
        (Repr::Member(DOOR), secret(99)),
        (Repr::Token(TOKEN), secret(99)),
        (Repr::Member(DoorKeyId::new([0; 16])), secret(1)),
    ] {
        let mut pair = Pair::new(asked, &key);
        let before = multiplications();

        pair.run(|_, _, _| {});

        assert_eq!(
            multiplications(),
            before,
            "a stranger cost a Diffie-Hellman"
        );
        assert!(pair.sent[1].is_empty(), "the listener answered a stranger");
        assert!(!pair.authenticated(1));
        assert!(matches!(
            pair.told[1].as_slice(),
            [ChannelOutput::Failed(_)]
        ));
    }
}

#[test]
fn a_flipped_bit_anywhere_authenticates_nobody_to_the_listener() {
    let mut honest = Pair::new(Repr::Member(DOOR), &secret(1));
    honest.run(|_, _, _| {});
    let (first, second) = (honest.sent[0].len(), honest.sent[1].len());

    // Reserved bytes of the preface (5 to 15) are bound by the prologue's own copy, which has them zero: skipped here.
    for (side, place) in (0..first)
        .filter(|n| !(5..16).contains(n))
        .map(|n| (0, n))
        .chain((0..second).map(|n| (1, n)))
    {
        let mut pair = Pair::new(Repr::Member(DOOR), &secret(1));

        pair.run(|from, before, bytes| {
            if from == side && (before..before + bytes.len()).contains(&place) {
                bytes[place - before] ^= 0x10;
            }
        });

        assert!(!pair.listener.is_open(), "side {side}, byte {place}");
    }
}

#[test]
fn a_truncated_handshake_ends_by_time_and_in_silence() {
    let mut pair = Pair::new(Repr::Member(DOOR), &secret(1));
    let Some(ChannelOutput::Send(bytes)) = pair.dialler.poll_output() else {
        panic!("message 1")
    };

    for cut in 0..bytes.len() {
        let mut listener = ControlChannel::accept(ourself(2), origin());
        listener.handle_bytes(&bytes[..cut], &mut pair.keyring, &mut pair.crypto);
        assert_eq!(listener.poll_output(), None);
        let (until, _) = listener.poll_timeout().expect("a deadline");
        listener.handle_timeout(until);
        assert_eq!(
            listener.poll_output(),
            Some(ChannelOutput::Failed(HandshakeError::TimedOut))
        );
        assert_eq!(listener.poll_timeout(), None);
    }
}

#[test]
fn a_first_message_that_was_recorded_is_answered_once() {
    let mut pair = Pair::new(Repr::Member(DOOR), &secret(1));
    let Some(ChannelOutput::Send(bytes)) = pair.dialler.poll_output() else {
        panic!("message 1")
    };
    let mut knock = |seconds: u64| {
        let accepted = origin() + Duration::from_secs(seconds);
        let mut listener = ControlChannel::accept(ourself(2), accepted);
        listener.handle_bytes(&bytes, &mut pair.keyring, &mut pair.crypto);
        listener.poll_output()
    };

    assert!(matches!(knock(0), Some(ChannelOutput::Send(_))));
    for seconds in [0, 1, 300] {
        let failed = ChannelOutput::Failed(HandshakeError::Inauthentic);
        assert_eq!(knock(seconds), Some(failed));
    }
}

#[test]
fn another_version_is_refused_by_code() {
    let mut pair = Pair::new(Repr::Member(DOOR), &secret(1));
    let mut crypto = SeededCrypto::new(8);
    let us = ourself(1);
    let asked = Repr::Member(DOOR);
    let kem = crypto.kem_generate();
    let mut noise = NoiseHandshake::initiator(
        Pattern::Control,
        &us.prologue(&asked),
        us.keys.noise(),
        None,
        &mut crypto,
    )
    .expect("begins");
    noise.set_psk(0, &secret(1)).expect("psk0");
    let question = Question {
        version: VERSION + 1,
        kem_key: kem.encapsulation,
    };
    let message = noise.write(&question.encode()).expect("message 1");

    let bytes = [&asked.emit()[..], &prefixed(&message)].concat();
    pair.listener
        .handle_bytes(&bytes, &mut pair.keyring, &mut crypto);

    let Some(ChannelOutput::Send(answer)) = pair.listener.poll_output() else {
        panic!("an answer")
    };
    let answer = Answer::decode(&noise.read(&answer[2..]).expect("opens")).expect("an answer");
    assert_eq!(
        answer.refusal.map(Refusal::code),
        Some(Code::VersionMismatch)
    );
}

#[test]
fn a_flood_of_bytes_before_authentication_is_cut_off() {
    let mut pair = Pair::new(Repr::Member(DOOR), &secret(1));
    let mut bytes = Repr::Member(DOOR).emit().to_vec();
    bytes.extend_from_slice(&u16::MAX.to_be_bytes());
    bytes.resize(MAX_UNPROVED + preface::LEN + 1, 0);

    pair.listener
        .handle_bytes(&bytes, &mut pair.keyring, &mut pair.crypto);

    assert_eq!(
        pair.listener.poll_output(),
        Some(ChannelOutput::Failed(HandshakeError::Malformed))
    );
    assert_eq!(pair.listener.poll_output(), None);
}

#[test]
fn a_frame_changed_on_the_way_ends_the_channel() {
    let mut pair = Pair::new(Repr::Member(DOOR), &secret(1));
    pair.run(|_, _, _| {});

    pair.dialler.send(b"hello");
    pair.run(|_, _, bytes| bytes[5] ^= 1);

    assert!(
        pair.told[1].contains(&ChannelOutput::Failed(HandshakeError::Frame(
            FrameError::Inauthentic
        )))
    );
}

#[test]
fn a_message_too_long_to_seal_is_not_the_other_ends_fault() {
    let mut pair = Pair::new(Repr::Member(DOOR), &secret(1));
    pair.run(|_, _, _| {});

    pair.dialler.send(&vec![0; MAX_MESSAGE + 1]);

    assert_eq!(
        pair.dialler.poll_output(),
        Some(ChannelOutput::Failed(HandshakeError::Internal))
    );
}

#[test]
fn an_answer_that_cannot_be_written_is_not_the_diallers_fault() {
    let mut pair = Pair::new(Repr::Token(TOKEN), &secret(2));
    let mut us = ourself(2);
    us.genesis = Some(vec![0; usize::from(u16::MAX)]);
    pair.listener = ControlChannel::accept(us, origin());

    pair.run(|_, _, _| {});

    assert_eq!(
        pair.told[1],
        [ChannelOutput::Failed(HandshakeError::Internal)]
    );
    assert!(pair.sent[1].is_empty());
}

proptest! {
    #[test]
    fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..6000), known in any::<bool>()) {
        let mut pair = Pair::new(Repr::Member(DOOR), &secret(1));
        let bytes = if known { [&Repr::Member(DOOR).emit()[..], &bytes].concat() } else { bytes };
        pair.listener.handle_bytes(&bytes, &mut pair.keyring, &mut pair.crypto);
        pair.dialler.handle_bytes(&bytes, &mut pair.keyring, &mut pair.crypto);
        prop_assert!(!pair.listener.is_open() && !pair.dialler.is_open());
        let _ = (Introduction::decode(&bytes), Answer::decode(&bytes), Question::decode(&bytes));
    }
}
