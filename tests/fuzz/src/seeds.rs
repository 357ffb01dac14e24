//! Real values as they travel: what a fuzzer starts from, so that it need not find a format out by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use weft_router_proto::connection::{Beat, Echo, Heartbeat, LinkKeys};
use weft_router_proto::control::{ControlMessage, Refused};
use weft_router_proto::crypto::seeded::SeededCrypto;
use weft_router_proto::crypto::{Crypto, Label, Secret32};
use weft_router_proto::endpoints::LocalEndpoints;
use weft_router_proto::genesis::Genesis;
use weft_router_proto::gossip::exchange::{DeltaMessage, DigestMessage, SummaryMessage, Topic};
use weft_router_proto::gossip::registers::{ENDPOINTS, Register, Registers, TOPOLOGY};
use weft_router_proto::gossip::{Gossiped, Piece as _};
use weft_router_proto::handshake::{Answer, Question, Refusal, VERSION};
use weft_router_proto::membership::{
    Admit, Membership, MembershipDelta, Record, Revoke, Role, RoleChange, SignedDoorKey,
    TokenGrant, TokenSecret, Welcome,
};
use weft_router_proto::overlay::Slot;
use weft_router_proto::session::handshake as session;
use weft_router_proto::session::message::{self, Message};
use weft_router_proto::sleeve::fragment::Piece;
use weft_router_proto::sleeve::path_probe::{PathProbe, PathReply};
use weft_router_proto::sleeve::payload::{self, Kind};
use weft_router_proto::sleeve::relayed::Relayed;
use weft_router_proto::sleeve::train::Train;
use weft_router_proto::sleeve::vnet::{Checksum, Gso, Vnet};
use weft_router_proto::sleeve::{SessionIndex, bundle, message as probe};
use weft_router_proto::token::{Issuer, Token};
use weft_router_proto::topology::{Links, NodeRecord};
use weft_router_proto::unicast::{Body, Unicast};
use weft_router_proto::wire::encode;
use weft_router_proto::wire::envelope::Signed;
use weft_types::{
    Code, Delta as _, MacAddr, MeshId, Mtu, Nickname, NodeId, Replica, Segment, TokenId, Version,
};

use crate::targets::{channel, world};

/// Gives the seeds of every target, by its name.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "admission" => vec![
            encode(&welcome()),
            encode(&door_key()),
            encode(&token_secret()),
        ],
        "control_message" => control_messages(),
        "dialler" => answers()
            .iter()
            .flat_map(|a| [behind(2, a), behind(3, a)])
            .collect(),
        "endpoints" => buckets(),
        "frames" => vec![
            joined(&[&b"\0hello"[..], b"\0"]),
            joined(&[&b"\x01first "[..], b"\x01second ", b"\0third", b""]),
            joined(&[&[&[0][..], &control_messages()[0]].concat()]),
        ],
        "genesis" => vec![genesis().0, genesis().1],
        "gossip" => gossip(),
        "handshake_payloads" => [vec![question(), channel::introduction(1)], answers()].concat(),
        "key_file" => vec![world::keys(0).to_bytes().to_vec()],
        "layers" => frames()
            .iter()
            .map(|f| [&[0, 3, 0, 20, 0, 1, 1, 2], &f[..]].concat())
            .collect(),
        "link" => links(),
        "listener" => vec![
            behind(0, &joined(&[&world::MEMBER.emit()[..], &[0, 48], &[9; 48]])),
            behind(0, &joined(&[&world::JOINER.emit()[..20], &[7; 20][..]])),
            behind(1, &question()),
            behind(1, &[&[0, 2], &question()[2..]].concat()),
            behind(2, &channel::introduction(0)),
            behind(2, &channel::introduction(1)),
            behind(3, &joined(&[&[0, 17][..], &[5; 17]])),
        ],
        "membership" => membership(),
        "preface" => vec![
            world::MEMBER.emit().to_vec(),
            world::JOINER.emit().to_vec(),
            b"GET / HTTP/1.1\r\nHost: weft.invalid\r\n\r\n".to_vec(),
        ],
        "register" => registers(),
        "session_handshake" => {
            let (hello, welcome) = (encode(&hello()), encode(&session_welcome()));
            vec![behind(0, &hello), behind(1, &welcome), behind(2, &hello)]
        }
        "session_message" => session_messages(),
        "sleeve_datagram" => datagrams(),
        "sleeve_fragment" => vec![joined(&pieces(3000, 1200)), joined(&pieces(9000, 600))],
        "sleeve_train" => frames()
            .iter()
            .filter_map(|f| cars(f))
            .map(|c| joined(&c))
            .collect(),
        "switch" => frames()
            .iter()
            .flat_map(|f| [behind(0, f), behind(0x81, f)])
            .collect(),
        "token" => tokens(),
        "topology" => vec![node_record(0).encode(), Links::new(&nodes()).encode()],
        "train_plan" => frames()
            .iter()
            .filter_map(|f| Some([&[2, 88], &vnet(f)?.encode()[..], f].concat()))
            .collect(),
        "unicast" => unicasts(),
        other => panic!("{other} has no seeds"),
    }
}

/// The seeds of a target, and what goes wrong with them on the way: cut short, a bit flipped, something behind them.
pub fn with_damage(target: &str) -> Vec<Vec<u8>> {
    let seeds = of(target);
    let damaged = |seed: &Vec<u8>| {
        let half = seed.len() / 2;
        let mut flipped = seed.clone();
        flipped[half] ^= 0x10;
        [seed[..half].to_vec(), flipped, [&seed[..], &[0]].concat()]
    };
    let damaged: Vec<_> = seeds.iter().take(4).flat_map(damaged).collect();
    [seeds, damaged].concat()
}

fn behind(mode: u8, bytes: &[u8]) -> Vec<u8> {
    [&[mode], bytes].concat()
}

/// Messages as `targets::pieces` cuts them.
fn joined<T: AsRef<[u8]>>(messages: &[T]) -> Vec<u8> {
    let framed = |message: &T| {
        let message = message.as_ref();
        let length = u16::try_from(message.len()).expect("a short message");
        [&length.to_be_bytes()[..], message].concat()
    };
    messages.iter().flat_map(framed).collect()
}

fn node(number: u64) -> NodeId {
    world::keys(number).node()
}

fn nodes() -> BTreeSet<NodeId> {
    (0..3).map(node).collect()
}

fn name(text: &str) -> Nickname {
    Nickname::new(text).expect("letters are a nickname")
}

fn door_key() -> SignedDoorKey {
    let keys = world::keys(0);
    SignedDoorKey::generate(3, keys.signing(), &world::MESH, &mut SeededCrypto::new(1))
}

fn token_secret() -> TokenSecret {
    TokenSecret {
        id: TokenId::new([9; 16]),
        secret: world::secret(),
        remaining: Duration::from_secs(600),
    }
}

fn welcome() -> Welcome {
    Welcome {
        logs: log().1,
        door_keys: vec![door_key()],
        tokens: vec![token_secret()],
        records: vec![signed_record()],
    }
}

/// What a node says of itself, signed.
fn signed_record() -> Signed {
    let keys = world::keys(1);
    let register = Register {
        channel: TOPOLOGY,
        owner: keys.node(),
        slot: 0,
        version: Version {
            boot: world::boot(1),
            sequence: 4,
        },
        body: node_record(1).encode(),
    };
    Signed::seal(
        keys.signing(),
        Label::Register,
        &world::MESH,
        encode(&register),
    )
}

fn admit(number: u64, role: Role) -> Record {
    Record::Admit(Admit {
        node: node(number),
        noise_key: world::keys(number).noise().public(),
        nickname: name("guest"),
        addresses: ["10.32.0.7/12", "fd00::7/64"]
            .map(|address| address.parse().expect("an address"))
            .to_vec(),
        role,
        token: Some(TokenId::new([9; 16])),
    })
}

/// A mesh's log with a record of every kind.
fn log() -> (Membership, MembershipDelta) {
    let keys = world::keys(0);
    let mut membership = Membership::new(world::MESH, keys.node());
    let records = [
        admit(0, Role::Admin),
        Record::Token(TokenGrant {
            id: TokenId::new([9; 16]),
            reusable: true,
            ttl: Duration::from_secs(900),
        }),
        admit(1, Role::Introducer),
        Record::Role(RoleChange {
            node: node(1),
            role: Role::Member,
        }),
        Record::Void(TokenId::new([9; 16])),
        Record::Revoke(Revoke {
            victim: node(1),
            last_valid: 0,
        }),
        Record::Leave,
    ];
    let signed = records.map(|record| membership.append(record, &keys).expect("appends"));
    (membership, MembershipDelta::new(signed.to_vec()))
}

fn membership() -> Vec<Vec<u8>> {
    let (membership, delta) = log();
    let entries = delta
        .records()
        .iter()
        .map(|signed| signed.unverified().to_vec());
    let summary = encode(&membership.summary());
    entries.chain([encode(&delta), summary]).collect()
}

fn genesis() -> (Vec<u8>, Vec<u8>) {
    let mut crypto = SeededCrypto::new(1);
    let (mtu, range) = (Mtu::MESH, Genesis::DEFAULT_RANGE);
    let signed = Genesis::create(Some(name("home")), range, mtu, &world::keys(0), &mut crypto);
    let travelling = signed.expect("a mesh").encode();
    let payload = Signed::decode(&travelling)
        .expect("signed")
        .unverified()
        .to_vec();
    (travelling, payload)
}

fn question() -> Vec<u8> {
    Question {
        version: VERSION,
        kem_key: SeededCrypto::new(3).kem_generate().encapsulation,
    }
    .encode()
}

fn answers() -> Vec<Vec<u8>> {
    let introduction =
        weft_router_proto::handshake::Introduction::decode(&channel::introduction(1));
    let answer = Answer {
        version: VERSION,
        refusal: None,
        ciphertext: Some(vec![1; 1088]),
        genesis: Some(genesis().0),
        introduction: introduction.ok(),
    };
    let refusal = Answer {
        version: VERSION,
        refusal: Some(Refusal::new(Code::VersionMismatch)),
        ciphertext: None,
        genesis: None,
        introduction: None,
    };
    vec![answer.encode(), refusal.encode()]
}

fn heartbeat() -> Heartbeat {
    Heartbeat {
        wants_answer: true,
        stamp: 1_000_000,
        echo: 999_000,
        hold: 500,
        needed: true,
    }
}

fn link_keys() -> LinkKeys {
    LinkKeys {
        index: 0x0102_0304,
        key: Secret32::new([8; 32]),
    }
}

fn links() -> Vec<Vec<u8>> {
    let beat = Beat {
        wants_answer: true,
        stamp: 1_000_000,
        echo: Echo::new(999_000, 500),
    };
    let beat = beat.encode();
    vec![
        beat.to_vec(),
        heartbeat().encode(),
        link_keys().encode(),
        behind(1, &joined(&[&beat[..], &beat[..], &[2, 3, 4]])),
        behind(0, &joined(&[&[2; 60][..], &beat[..]])),
    ]
}

fn control_messages() -> Vec<Vec<u8>> {
    let gossip = |topic, body: Vec<u8>| {
        [
            ControlMessage::Digest(DigestMessage {
                topic,
                digest: [7; 32],
            }),
            ControlMessage::Summary(SummaryMessage {
                topic,
                summary: body.clone(),
                answer: true,
            }),
            ControlMessage::Delta(DeltaMessage {
                topic,
                root: Some(node(0)),
                delta: body,
            }),
        ]
    };
    let single = [
        ControlMessage::DoorKey(door_key()),
        ControlMessage::Heartbeat(heartbeat()),
        ControlMessage::LinkKeys(link_keys()),
        ControlMessage::Refused(Refused {
            code: Refusal::new(Code::NotAuthorised),
        }),
        ControlMessage::TokenSecret(token_secret()),
        ControlMessage::Unicast(Unicast::new(node(0), node(1), vec![1, 1, 2, 3])),
        ControlMessage::Unknown(999),
        ControlMessage::Welcome(Box::new(welcome())),
    ];
    single
        .into_iter()
        .chain(gossip(Topic::Membership, encode(&log().1)))
        .chain(gossip(Topic::Registers, vec![0xa1, 0, 0x80]))
        .map(|message| message.encode())
        .collect()
}

fn gossip() -> Vec<Vec<u8>> {
    let (membership, delta) = log();
    let (registers, news) = written();
    let digest = |topic, digest| DigestMessage { topic, digest }.encode();
    let summary = |topic, summary| {
        SummaryMessage {
            topic,
            summary,
            answer: false,
        }
        .encode()
    };
    let delta_of = |topic, delta| {
        DeltaMessage {
            topic,
            root: None,
            delta,
        }
        .encode()
    };
    vec![
        digest(Topic::Membership, Gossiped::digest(&membership)),
        summary(Topic::Membership, Gossiped::summary(&membership)),
        summary(Topic::Registers, Gossiped::summary(&registers)),
        delta_of(Topic::Membership, encode(&delta)),
        delta_of(Topic::Registers, news),
    ]
}

fn node_record(number: u64) -> NodeRecord {
    NodeRecord {
        nickname: name("host"),
        cert: world::keys(number).certify(&world::MESH),
        addresses: ["192.0.2.1:6783", "[2001:db8::1]:6783"]
            .map(|address| address.parse().expect("an address"))
            .to_vec(),
        features: vec!["aes".to_owned(), "sleeve".to_owned()],
        release: "weft 0.1.0".to_owned(),
        mtu: Some(Mtu::MESH),
        observed: Vec::new(),
    }
}

/// What node 1 has written, and how it travels.
fn written() -> (Registers, Vec<u8>) {
    let keys = world::keys(1);
    let mut registers = Registers::new(world::MESH, keys.node(), world::boot(1));
    registers.set_members([node(0), node(1)]);
    let mut all: Option<weft_router_proto::gossip::registers::RegisterDelta> = None;
    for (slot, body) in [
        (0, node_record(1).encode()),
        (1, Links::new(&nodes()).encode()),
    ] {
        let news = registers.write(TOPOLOGY, slot, body, keys.signing());
        let news = news.expect("nothing of the kind was there");
        match &mut all {
            Some(all) => all.absorb(news),
            None => all = Some(news),
        }
    }
    let delta = all.expect("two registers").encode();
    let _ = registers.snapshot();
    (registers, delta)
}

fn registers() -> Vec<Vec<u8>> {
    let (registers, delta) = written();
    let register = |channel, slot, body| {
        encode(&Register {
            channel,
            owner: node(1),
            slot,
            version: Version {
                boot: world::boot(1),
                sequence: 4,
            },
            body,
        })
    };
    let payload = register(TOPOLOGY, 0, node_record(1).encode());
    let keys = world::keys(1);
    let signed = Signed::seal(
        keys.signing(),
        Label::Register,
        &world::MESH,
        payload.clone(),
    );
    vec![
        payload,
        register(ENDPOINTS, 3, buckets()[0][1..].to_vec()),
        register(8, 31, vec![1, 2, 3]),
        signed.encode(),
        delta,
        Gossiped::summary(&registers),
    ]
}

fn buckets() -> Vec<Vec<u8>> {
    let mut local = LocalEndpoints::new(node(0));
    let addresses = ["10.32.0.7/12", "fd00::7/64"].map(|text| text.parse().expect("an address"));
    let mut slots = BTreeSet::new();
    for last in 1..6 {
        let mac = MacAddr::new([2, 0, 0, 0, 0, last]);
        let slot = local.attach(
            mac,
            &addresses[..usize::from(last % 3)],
            "veth0".to_owned(),
            None,
        );
        slots.insert(slot.expect("there is room"));
    }
    let bucket = |slot: u16| {
        let number = u8::try_from(slot).expect("256 buckets");
        behind(number, &local.body(slot))
    };
    slots.into_iter().map(bucket).collect()
}

fn tokens() -> Vec<Vec<u8>> {
    let token = |issuer| Token {
        mesh: MeshId::new([1; 32]),
        id: TokenId::new([2; 16]),
        secret: Secret32::new([3; 32]),
        issuer,
    };
    let addresses = ["192.0.2.1:6783", "[2001:db8::1]:6783"];
    let issuer = Issuer {
        node: node(0),
        addresses: addresses
            .map(|text| text.parse().expect("an address"))
            .to_vec(),
    };
    let [single, reusable] = [token(Some(issuer)), token(None)];
    let bytes = [&[1][..], &[1; 32], &[2; 16], &[3; 32]].concat();
    vec![
        single.reveal().reveal().as_bytes().to_vec(),
        reusable.reveal().reveal().as_bytes().to_vec(),
        reusable.reveal().reveal().to_uppercase().into_bytes(),
        bytes,
    ]
}

fn unicasts() -> Vec<Vec<u8>> {
    let inside = Message::Confirm(SessionIndex(7)).encode();
    vec![
        Unicast::new(node(0), node(1), Body::Session(&inside).encode()).encode(),
        Unicast::new(node(0), node(1), Body::Sealed(&[4; 96]).encode()).encode(),
        LETTER_REQUEST.to_vec(),
        LETTER_REPLY.to_vec(),
        ENVELOPE.to_vec(),
    ]
}

/// Kind 2, then `{0: 7, 1: 32 bytes, 2: "guest", 3: 10.32.0.9/12}`.
const LETTER_REQUEST: &[u8] =
    b"\x02\xa4\x00\x07\x01\x58\x20AAAAAAAABBBBBBBBCCCCCCCCDDDDDDDD\x02\x65guest\x03\x45\x0a\x20\x00\x09\x0c";
/// Kind 3, then `{0: 7, 1: [10.32.0.9/12]}`.
const LETTER_REPLY: &[u8] = b"\x03\xa2\x00\x07\x01\x81\x45\x0a\x20\x00\x09\x0c";
/// `{0: boot, 1: 1, 2: 3, 3: the reply}`.
const ENVELOPE: &[u8] =
    b"\xa4\x00\x82\x01\x48AAAAAAAA\x01\x01\x02\x03\x03\x4b\xa2\x00\x07\x01\x81\x45\x0a\x20\x00\x09\x0c";

fn hello() -> session::Hello {
    let kem = SeededCrypto::new(5).kem_generate().encapsulation;
    session::Hello {
        version: session::VERSION,
        kem: kem.to_vec().into(),
        node: node(0),
        boot: world::boot(1),
        counter: 1,
        index: 7,
        cipher: 2,
        registers: vec![vec![1, 2, 3].into()],
    }
}

fn session_welcome() -> session::Welcome {
    session::Welcome {
        kem: vec![1; 1088].into(),
        index: 9,
        boot: world::boot(2),
        registers: vec![vec![1, 2, 3].into(), Vec::new().into()],
    }
}

fn session_messages() -> Vec<Vec<u8>> {
    let index = SessionIndex(7);
    let parts = message::parts(5, &[3; 2600]).expect("three parts");
    vec![
        Message::Confirm(index).encode(),
        Message::Confirmed(index).encode(),
        Message::Initiate(&[1; 80]).encode(),
        Message::Respond {
            to: index,
            noise: &[2; 80],
        }
        .encode(),
        parts[0].clone(),
        joined(&parts),
    ]
}

/// Ethernet frames: IPv4 TCP and UDP, IPv6 UDP, ARP, a neighbour advertisement, a tag, and spanning tree.
fn frames() -> Vec<Vec<u8>> {
    let ethernet = |kind: u16, packet: &[u8]| {
        let addresses = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        [&addresses[..], &kind.to_be_bytes(), packet].concat()
    };
    let v4 = |protocol: u8, transport: &[u8]| {
        let total = u16::try_from(20 + transport.len()).expect("a packet");
        let [t0, t1] = total.to_be_bytes();
        let head = [
            0x45, 0, t0, t1, 0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 32, 0, 1, 10, 32, 0, 2,
        ];
        ethernet(0x0800, &[&head[..], transport].concat())
    };
    let v6 = |protocol: u8, transport: &[u8]| {
        let length = u16::try_from(transport.len()).expect("a packet");
        let [l0, l1] = length.to_be_bytes();
        let mut head = [0; 40];
        head[0] = 0x60;
        head[4..8].copy_from_slice(&[l0, l1, protocol, 255]);
        head[8..24].copy_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        head[24..40].copy_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        ethernet(0x86dd, &[&head[..], transport].concat())
    };
    let tcp = [
        &[
            0x10, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x99, 1, 0, 0, 0, 0, 0,
        ][..],
        &[7; 1500],
    ];
    let udp = [&[0x10, 0, 0, 53, 0x03, 0x28, 0, 0][..], &[6; 800]];
    let arp = [
        0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1, 10, 32, 0, 1, 2, 0, 0, 0, 0, 2, 10, 32, 0, 2,
    ];
    let mut advertisement = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    advertisement.extend([
        0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 1, 2, 0, 0, 0, 0, 1,
    ]);
    let dhcp = [&[0, 67, 0, 68, 0, 30, 0, 0][..], &[2; 22]].concat();
    let tagged = [&[0, 7, 0x08, 0x06][..], &arp].concat();
    vec![
        v4(6, &tcp.concat()),
        v4(17, &udp.concat()),
        v6(6, &tcp.concat()),
        v6(17, &udp.concat()),
        v6(58, &advertisement),
        v4(17, &dhcp),
        ethernet(0x0806, &arp),
        ethernet(0x8100, &tagged),
        ethernet(0x88cc, &[2, 7, 4]),
        ethernet(0x9999, &[]),
    ]
}

/// What the kernel says of a super-frame, if it can be one.
fn vnet(frame: &[u8]) -> Option<Vnet> {
    let layers = weft_router_proto::sleeve::inner::Layers::parse(frame)?;
    let gso = match (
        frame[12],
        frame[usize::from(layers.l4) - 1],
        layers.transport.checksum_offset(),
    ) {
        (0x08, _, 16) => Gso::Tcp4,
        (_, _, 16) => Gso::Tcp6,
        (_, _, _) => Gso::Udp,
    };
    Some(Vnet {
        checksum: Some(Checksum {
            start: u16::from(layers.l4),
            offset: layers.transport.checksum_offset(),
        }),
        gso,
        ecn: false,
        headers: u16::from(layers.headers),
        gso_size: 200,
    })
}

/// The cars of a frame's train, each behind the byte that names the train.
fn cars(frame: &[u8]) -> Option<Vec<Vec<u8>>> {
    let train = Train::plan(Segment::DEFAULT, vnet(frame)?, frame, frame.len(), 600).ok()?;
    let (headers, payload) = frame.split_at(train.headers());
    let car = |index: u8| {
        let from = usize::from(index) * train.chunk();
        let part = &payload[from..from + train.payload_of(index)];
        [&[4][..], &train.car(index).encode(), headers, part].concat()
    };
    Some((0..train.cars()).map(car).collect())
}

/// The pieces of a body, each behind the byte that names it.
fn pieces(total: usize, datagram: usize) -> Vec<Vec<u8>> {
    let (first, count) =
        Piece::plan(Segment::DEFAULT, Kind::Frames, total, datagram).expect("fits");
    let piece = |index: u8| {
        let piece = Piece { index, ..first };
        let len = usize::from(piece.chunk).min(total - piece.start());
        [&[2][..], &piece.encode(), &vec![index; len]].concat()
    };
    (0..count).map(piece).collect()
}

fn datagrams() -> Vec<Vec<u8>> {
    let plain = |kind, body: &[u8]| [&payload::encode(kind, Segment::DEFAULT), body].concat();
    let record = |frame: &[u8], checksum| {
        let head = bundle::encode(frame.len(), checksum).expect("a short frame");
        [&head, frame].concat()
    };
    let frames = frames();
    let sum = Checksum {
        start: 34,
        offset: 16,
    };
    let bundled = [
        record(&frames[6], None),
        record(&frames[0], Some(sum)),
        vec![0; 8],
    ]
    .concat();
    let all = [
        plain(Kind::Frames, &bundled),
        plain(Kind::Message, &Message::Confirm(SessionIndex(1)).encode()),
        plain(Kind::Probe, &probe::probe(7, 100)),
        plain(Kind::ProbeReply, &probe::probe(7, 20)),
        cars(&frames[0]).expect("a train")[0][1..].to_vec(),
        pieces(3000, 1200)[2][1..].to_vec(),
    ];
    let question = PathProbe {
        id: 7,
        slot: Slot::new(1),
    };
    let mut asked = [0; PathReply::LEN];
    question.emit(&mut asked);
    let told = PathReply {
        id: 7,
        highest: 9,
        received: 8,
        seen_at: Some(([192, 0, 2, 1], 6783).into()),
    };
    let carried = [&[1, 0, 0, 4, 0, 0, 0, 1][..], &[0; 24]].concat();
    let relayed = Relayed::towards(NodeId::new([1; 32])).encode();
    let ways = [
        plain(Kind::PathProbe, &asked),
        plain(Kind::PathReply, &told.encode()),
        plain(Kind::Relayed, &[&relayed, &carried[..]].concat()),
    ];
    let stranger = [&[1, 0, 0, 0, 0, 0, 0, 1][..], &[0; 40]].concat();
    vec![
        behind(1, &joined(&all)),
        behind(0x13, &joined(&all[..3])),
        behind(0, &joined(&[stranger])),
        behind(0xd1, &joined(&ways)),
    ]
}
