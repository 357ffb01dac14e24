//! What travels between two members who know each other: heartbeats, letters, and the making of sessions.

use std::net::SocketAddr;

use weft_router_proto::connection::{Beat, Heartbeat, Link, LinkKeys, LinkOutput};
use weft_router_proto::crypto::noise::{NoiseHandshake, Pattern};
use weft_router_proto::crypto::seal::{AeadKey, Backend, TAG};
use weft_router_proto::crypto::seeded::SeededCrypto;
use weft_router_proto::letter::{Letter, Mail};
use weft_router_proto::session::Cipher;
use weft_router_proto::session::handshake::{Hello, Initiation, MAX_REGISTERS, Received, Welcome};
use weft_router_proto::session::message::{self, Assembly, MAX_IN_SESSION, MAX_PARTS, Message};
use weft_router_proto::sleeve::SessionIndex;
use weft_router_proto::sleeve::header::{Header, Type};
use weft_router_proto::unicast::{Body, Unicast};
use weft_router_proto::wire::encode;

use super::{pieces, stable, world};

/// Heartbeats and keys, and datagrams of a link: by a stranger if the first byte is even, else under the link's key.
pub fn link(data: &[u8]) {
    if let Some(beat) = Beat::decode(data) {
        assert_eq!(Beat::decode(&beat.encode()), Some(beat));
    }
    let heartbeat = stable(data, Heartbeat::decode, Heartbeat::encode);
    stable(data, LinkKeys::decode, LinkKeys::encode);

    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    let now = world::origin();
    let mut crypto = SeededCrypto::new(1);
    let from = SocketAddr::from(([192, 0, 2, 1], 6783));
    let mut link = Link::new(from, &mut crypto, now);
    let mut told = None;
    while let Some(output) = link.poll_output() {
        if let LinkOutput::SendKeys(keys) = output {
            told = Some(keys);
        }
    }
    let keys = told.expect("a link tells its keys");
    if let Some(heartbeat) = heartbeat {
        link.handle_heartbeat(&heartbeat, now);
    }
    link.handle_keys(&keys, now);
    for (counter, piece) in (0..).zip(pieces(rest)) {
        let mut datagram = if mode & 1 == 0 {
            piece.to_vec()
        } else {
            sealed(&keys, counter, piece)
        };
        let taken = link.handle_datagram(from, &mut datagram, now);
        assert_eq!(taken.is_ok(), mode & 1 == 1);
        // One answer, and one word about whether datagrams pass, is what a datagram may cost.
        let cost = std::iter::from_fn(|| link.poll_output()).count();
        assert!(cost <= 8, "{cost} outputs for one datagram");
    }
    for _ in 0..4 {
        let Some((at, _)) = link.poll_timeout() else {
            return;
        };
        link.handle_timeout(&mut crypto, at.max(now));
        assert!(link.poll_timeout().is_none_or(|(next, _)| next > at));
    }
}

fn sealed(keys: &LinkKeys, counter: u64, body: &[u8]) -> Vec<u8> {
    let head = Header {
        kind: Type::Link,
        lane: 0,
        index: SessionIndex(keys.index),
        counter,
    }
    .encode();
    let key = AeadKey::new(Backend::Ring, Cipher::ChaCha20Poly1305, keys.key.as_bytes());
    let mut body = body.to_vec();
    let tag: [u8; TAG] = key.seal(counter, &head, &mut body);
    [&head[..], &body, &tag].concat()
}

/// What others forward, and what its recipient opens: the bytes are also what a member seals.
pub fn unicast(data: &[u8]) {
    if let Some(unicast) = stable(data, Unicast::decode, Unicast::encode) {
        let hops = unicast.hop_limit;
        let forwarded = unicast.forwarded();
        assert_eq!(forwarded.is_some(), hops > 1);
        assert!(forwarded.is_none_or(|forwarded| forwarded.hop_limit + 1 == hops));
    }
    if let Some(body) = Body::decode(data) {
        assert_eq!(body.encode(), data);
    }
    if let Some((kind, rest)) = data.split_first() {
        let _ = Letter::decode(*kind, rest);
    }

    let mut crypto = SeededCrypto::new(1);
    let (sender, recipient) = (world::local(0), world::local(1));
    let prologue = [&b"weft-v1 unicast"[..], world::MESH.as_bytes()].concat();
    let [from, to] = [0, 1].map(world::public);
    let noise = NoiseHandshake::initiator(
        Pattern::Sealed,
        &prologue,
        &sender.key,
        Some(&to),
        &mut crypto,
    );
    let mut noise = noise.expect("a pattern of ours");
    let Ok(message) = noise.write(data) else {
        return; // longer than any Noise message
    };
    let mut mail = Mail::new(recipient);
    let opened = mail.open(sender.node, &from, &message, &mut crypto);
    let again = mail.open(sender.node, &from, &message, &mut crypto);
    assert!(
        opened.is_err() || again.is_err(),
        "a letter was opened twice"
    );
    assert!(mail.open(sender.node, &to, &message, &mut crypto).is_err());
    let _ = mail.open(sender.node, &from, data, &mut crypto);
}

/// What two nodes say about their sessions, and messages in parts.
pub fn session_message(data: &[u8]) {
    if let Ok(message) = message::decode(data) {
        assert_eq!(message.encode(), data);
    }
    let mut assembly = Assembly::default();
    for piece in pieces(data) {
        if let Ok(Message::Part {
            message,
            part,
            parts,
            bytes,
        }) = message::decode(piece)
        {
            let whole = assembly.take(message, part, parts, bytes);
            let longest = usize::from(MAX_PARTS) * MAX_IN_SESSION;
            assert!(whole.is_none_or(|whole| whole.len() <= longest));
        }
    }
    if let Some(parts) = message::parts(7, data) {
        let mut assembly = Assembly::default();
        let mut whole = None;
        for part in parts.iter().filter(|_| parts.len() > 1) {
            let Ok(Message::Part {
                message,
                part,
                parts,
                bytes,
            }) = message::decode(part)
            else {
                panic!("a part is a message");
            };
            whole = assembly.take(message, part, parts, bytes);
        }
        assert!(whole.is_none_or(|whole| whole == data));
    }
}

/// The two payloads of a session's handshake: bare, and sealed by a member (the first byte says which).
pub fn session_handshake(data: &[u8]) {
    let Some((mode, payload)) = data.split_first() else {
        return;
    };
    stable(payload, Hello::decode, encode);
    stable(payload, Welcome::decode, encode);

    let mut crypto = SeededCrypto::new(1);
    let (initiator, responder) = (world::local(0), world::local(1));
    let prologue = [&b"weft-v1 session"[..], world::MESH.as_bytes()].concat();
    let cipher = Cipher::ChaCha20Poly1305;
    match mode % 3 {
        0 => {
            let to = world::public(1);
            let noise = NoiseHandshake::initiator(
                Pattern::Session,
                &prologue,
                &initiator.key,
                Some(&to),
                &mut crypto,
            );
            let Ok(message) = noise.expect("a pattern of ours").write(payload) else {
                return;
            };
            let Ok(received) = Received::open(&responder, &message, &mut crypto) else {
                return;
            };
            assert_eq!(*received.remote(), world::public(0));
            let index = SessionIndex(2);
            if let Ok((agreed, _)) =
                received.answer(&responder, index, cipher, Vec::new(), &mut crypto)
            {
                assert!(agreed.registers.len() <= MAX_REGISTERS);
            }
        }
        1 => {
            let to = world::public(1);
            let index = SessionIndex(1);
            let begun =
                Initiation::begin(&initiator, &to, 1, index, cipher, Vec::new(), &mut crypto);
            let (mut initiation, message) = begun.expect("a pattern of ours");
            let noise =
                NoiseHandshake::responder(Pattern::Session, &prologue, &responder.key, &mut crypto);
            let mut noise = noise.expect("a pattern of ours");
            noise.read(&message).expect("our own first message");
            let Ok(message) = noise.write(payload) else {
                return;
            };
            if let Ok(agreed) = initiation.finish(&message) {
                assert!(agreed.registers.len() <= MAX_REGISTERS);
            }
        }
        _ => {
            // Nobody forges the seal.
            assert!(Received::open(&responder, payload, &mut crypto).is_err());
        }
    }
}
