//! The test vectors in `docs/wire-vectors.md` are what this code says: write them anew with
//! `UPDATE=1 cargo test -p weft-router-proto --test wire_vectors`.
//!
//! A change of them is a change of the protocol. Everything is made by the code that the router runs, both ends of it, with
//! keys that are written down; the key pair of ML-KEM, whose implementation draws its own chance, was drawn once and kept.

#![expect(
    clippy::disallowed_methods,
    reason = "a page is compared and written; no time passes after the moment that is asked for"
)]

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
use weft_router_proto::connection::{Beat, Echo, LinkKeys};
use weft_router_proto::control::ControlMessage;
use weft_router_proto::crypto::noise::NoiseKey;
use weft_router_proto::crypto::seal::{AeadKey, Backend, lane_key};
use weft_router_proto::crypto::{
    Crypto, KEM_CIPHERTEXT_LEN, KEM_KEY_LEN, KemError, KemKeys, KemSecret, Label, Secret32,
    hkdf_sha256,
};
use weft_router_proto::endpoints::{LocalEndpoints, Metadata, bucket_of, decode};
use weft_router_proto::genesis::{Genesis, SignedGenesis};
use weft_router_proto::gossip::registers::{Register, SignedRegister};
use weft_router_proto::handshake::{ChannelOutput, ControlChannel, Keyring, Ourself};
use weft_router_proto::identity::NodeKeys;
use weft_router_proto::letter::{AddressRequest, Letter, Mail};
use weft_router_proto::membership::{Admit, DoorKey, Entry, Record, Role, SignedDoorKey};
use weft_router_proto::session::handshake::{Initiation, Local, Received};
use weft_router_proto::session::message::Message;
use weft_router_proto::session::{Cipher, SessionKeys};
use weft_router_proto::sleeve::header::{Header, Type};
use weft_router_proto::sleeve::lane::{OVERHEAD, ReceiveLanes, SendLane};
use weft_router_proto::sleeve::payload::{self, Kind};
use weft_router_proto::sleeve::{SessionIndex, bundle, header};
use weft_router_proto::token::{Issuer, Token};
use weft_router_proto::topology::NodeRecord;
use weft_router_proto::unicast::{Body, Unicast};
use weft_router_proto::wire::envelope::Signed;
use weft_router_proto::wire::preface::{DoorKeyId, Repr};
use weft_types::{Boot, BootId, MacAddr, MeshId, Mtu, Nickname, Segment, TokenId, Version};

/// A key pair, a ciphertext for it, and the secret in that: hexadecimal, a line each.
const KEM: &str = include_str!("vectors/ml-kem-768.txt");

/// Digits in a line of the page.
const WIDTH: usize = 96;

#[test]
fn the_vectors_are_as_written() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/wire-vectors.md");
    let text = page();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).expect("docs can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();

    assert!(
        text == written,
        "{} differs; if that is meant: UPDATE=1 cargo test -p weft-router-proto --test wire_vectors",
        path.display()
    );
}

#[test]
fn the_key_pair_of_the_vectors_is_one() {
    let kem = Kem::read();

    let kept = kem.decapsulate(&kem.ciphertext).expect("decapsulates");
    let public = EncapsulationKey::new(&ML_KEM_768, &kem.encapsulation()).expect("a key");
    let (ciphertext, fresh) = public.encapsulate().expect("encapsulates");
    let again = kem.decapsulate(ciphertext.as_ref()).expect("decapsulates");

    assert_eq!(kept.as_bytes()[..], kem.shared[..]);
    assert_eq!(again.as_bytes()[..], *fresh.as_ref());
}

/// What the page says.
fn page() -> String {
    let mut page = Page(INTRODUCTION.to_owned());
    let a = Person::new(1);
    let b = Person::new(2);
    page.section(
        "Nodes",
        "A and B. A key file is the ASCII bytes `weftkey1` ‖ Ed25519 seed ‖ X25519 scalar.",
    );
    for (name, who) in [("A", &a), ("B", &b)] {
        page.hex(&format!("{name}: Ed25519 seed"), &who.seed);
        page.hex(&format!("{name}: NodeId"), who.keys.node().as_bytes());
        page.hex(&format!("{name}: X25519 scalar"), &who.scalar);
        page.hex(
            &format!("{name}: X25519 public key"),
            who.keys.noise().public().as_bytes(),
        );
    }
    let genesis = genesis(&mut page, &a);
    let mesh = genesis.mesh_id();
    signed(&mut page, &a, &b, mesh);
    door_key(&mut page, &a, mesh);
    let token = tokens(&mut page, &a, mesh);
    control(&mut page, &a, &b, &genesis, &token);
    link(&mut page);
    unicast(&mut page, &a, &b, mesh);
    session(&mut page, &a, &b, mesh);
    sleeve(&mut page);
    page.0
}

const INTRODUCTION: &str = "\
# Test vectors of the weft protocol, version 3

For whoever writes a peer by [wire.md](wire.md): keys that are written down, and the bytes that follow from them. All of it
is made and checked by `router/proto/tests/wire_vectors.rs`. Bytes are hexadecimal, long ones in several lines; `‖` joins.

No key here is good for anything else.
";

fn genesis(page: &mut Page, a: &Person) -> SignedGenesis {
    page.section(
        "Genesis",
        "A makes the mesh \"amber-otter\": 10.32.0.0/12, MTU 1350.",
    );
    let range = Genesis::DEFAULT_RANGE;
    let name = Nickname::new("amber-otter").expect("a name");
    let signed = Genesis::create(Some(name), range, Mtu::MESH, &a.keys, &mut Chance::new(3));
    let signed = signed.expect("a mesh can be like that");
    let outer = Signed::decode(&signed.encode()).expect("an envelope");
    page.hex("payload", outer.unverified());
    page.hex(
        "signed, with label genesis and 32 zero bytes for the mesh",
        &signed.encode(),
    );
    page.hex(
        "MeshId: SHA-256 of the payload",
        signed.mesh_id().as_bytes(),
    );
    assert_eq!(
        SignedGenesis::decode(&signed.encode()).expect("a genesis"),
        signed
    );
    signed
}

fn signed(page: &mut Page, a: &Person, b: &Person, mesh: MeshId) {
    page.section("Signed payloads", "");
    let cert = b.keys.certify(&mesh);
    page.hex("B's NoiseCert", &weft_router_proto::wire::encode(&cert));
    assert_eq!(cert.verify(&mesh), Ok(()));

    let entry = Entry {
        signer: a.keys.node(),
        number: 1,
        previous: *mesh.as_bytes(),
        record: Record::Admit(Admit {
            node: b.keys.node(),
            noise_key: b.keys.noise().public(),
            nickname: Nickname::new("b").expect("a name"),
            addresses: vec!["10.32.0.2/12".parse().expect("a network")],
            role: Role::Introducer,
            token: Some(TOKEN),
        }),
    };
    let record = entry.seal(a.keys.signing(), &mesh).expect("short enough");
    page.hex(
        "the first record of A's log admits B: payload",
        record.unverified(),
    );
    page.hex("signed, with label member-log", &record.encode());
    assert_eq!(Entry::open(&record, &mesh), Ok(entry));

    let addresses: [SocketAddr; 2] = [
        SocketAddr::from(([192, 0, 2, 2], 6783)),
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 2], 6783)),
    ];
    let node = NodeRecord {
        nickname: Nickname::new("b").expect("a name"),
        cert,
        addresses: addresses.to_vec(),
        features: vec!["aes".to_owned()],
        release: "0.1.0".to_owned(),
        mtu: None,
        observed: vec!["203.0.113.7:40000".parse().expect("an address")],
    };
    let register = Register {
        channel: 1,
        owner: b.keys.node(),
        slot: 0,
        version: Version {
            boot: BOOT,
            sequence: 1,
        },
        body: node.encode(),
    };
    let payload = weft_router_proto::wire::encode(&register);
    let signed = Signed::seal(b.keys.signing(), Label::Register, &mesh, payload);
    page.hex(
        "B's node record: the register's payload",
        signed.unverified(),
    );
    page.hex("signed, with label register", &signed.encode());
    let read = SignedRegister::decode(&signed.encode()).expect("a register");
    assert_eq!(*read.register(), register);
    endpoints(page, b);
}

fn endpoints(page: &mut Page, b: &Person) {
    let mut local = LocalEndpoints::new(b.keys.node());
    let addresses = ["10.32.1.7/12", "fd00::7/64"].map(|text| text.parse().expect("a network"));
    let labels = [("app", "web"), ("tier", "front")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let metadata = Metadata::new(Some("web-1".to_owned()), labels.into());
    let metadata = metadata.expect("short enough").shared();
    let slot = local
        .attach(MAC, &addresses, "wv0".to_owned(), metadata)
        .expect("there is room");
    let body = local.body(slot);
    page.hex(
        &format!("a bucket of B with one container, {MAC}: the body of its register, slot {slot}"),
        &body,
    );
    let read = decode(b.keys.node(), slot, &body).expect("a bucket");
    assert_eq!(read.len(), 1);
    for last in [0, 1, 2, 0xff] {
        let mac = MacAddr::new([2, 0, 0, 0, 0, last]);
        page.text(&format!("the bucket of {mac}"), &bucket_of(mac).to_string());
    }
}

const MAC: MacAddr = MacAddr::new([0x02, 0x42, 0x0a, 0x20, 0x01, 0x07]);

const TOKEN: TokenId = TokenId::new([0x77; 16]);
const BOOT: Boot = Boot {
    counter: 1,
    id: BootId::new([0xb0; 8]),
};

fn door_key(page: &mut Page, a: &Person, mesh: MeshId) {
    page.section(
        "A door key",
        "Made by A: id 16 times `66`, key 32 times `88`, generation 2.",
    );
    let door = DoorKey {
        id: DoorKeyId::new([0x66; 16]),
        key: Secret32::new([0x88; 32]),
        generation: 2,
        signer: a.keys.node(),
    };
    let signed = SignedDoorKey::sign(door, a.keys.signing(), &mesh);
    page.hex(
        "as it travels, and as the body of message 3",
        &signed.encode(),
    );
    let read = SignedDoorKey::decode(&signed.encode()).expect("a door key");
    assert_eq!(read.verify(&mesh), Ok(()));
    assert_eq!(read, signed);
}

fn tokens(page: &mut Page, a: &Person, mesh: MeshId) -> Token {
    page.section("Tokens", "Both with the secret 32 times `99`.");
    let reusable = Token {
        mesh,
        id: TOKEN,
        secret: Secret32::new([0x99; 32]),
        issuer: None,
    };
    let single = Token {
        issuer: Some(Issuer {
            node: a.keys.node(),
            addresses: vec![SocketAddr::from(([192, 0, 2, 1], 6783))],
        }),
        ..reusable.clone()
    };
    page.text("reusable", reusable.reveal().reveal());
    page.text(
        "single use, issued by A at 192.0.2.1:6783",
        single.reveal().reveal(),
    );
    for token in [&reusable, &single] {
        assert_eq!(Token::parse(token.reveal().reveal()).as_ref(), Ok(token));
    }
    single
}

fn control(page: &mut Page, a: &Person, b: &Person, genesis: &SignedGenesis, token: &Token) {
    page.section(
        "A control connection",
        "B dials A, in mode TOKEN with the token above. Each is in its first run, whose boot id is 8 times `b0`. The
ephemeral X25519 scalars and the ML-KEM-768 secrets are given; the encapsulation key stands behind the first 1152
bytes of the decapsulation key (FIPS 203 §7.1).",
    );
    let kem = Kem::read();
    page.hex("ML-KEM-768 decapsulation key", &kem.decapsulation);
    page.hex("ML-KEM-768 shared secret, psk3", &kem.shared);
    let mesh = genesis.mesh_id();
    let ourself = |who: &Person, name: &str| Ourself {
        keys: who.keys.clone(),
        mesh,
        boot: BOOT,
        nickname: Nickname::new(name).expect("a name"),
        features: vec!["aes".to_owned()],
        port: 6783,
        wanted: None,
        genesis: Some(genesis.encode()),
    };
    let now = Instant::now();
    let asked = Repr::Token(token.id);
    let (mut dialler, mut listener) = (Chance::new(4), Chance::new(5));
    let mut keyring = Keyring::default();
    keyring.add_token(token.id, token.secret.clone());

    let mut dials = ControlChannel::dial(ourself(b, "b"), asked, &token.secret, &mut dialler, now);
    let mut hears = ControlChannel::accept(ourself(a, "a"), now);
    let first = sent(&mut dials);
    hears.handle_bytes(&first, &mut keyring, &mut listener);
    let second = sent(&mut hears);
    dials.handle_bytes(&second, &mut keyring, &mut dialler);
    dials.approve();
    let third = sent(&mut dials);
    hears.handle_bytes(&third, &mut keyring, &mut listener);
    assert!(hears.is_open() && dials.is_open());

    page.hex("B's ephemeral scalar", &dialler.ephemeral());
    page.hex("A's ephemeral scalar", &listener.ephemeral());
    let (preface, message) = first.split_at(32);
    // The ephemeral key stands in clear behind the length.
    let public = NoiseKey::from_secret(&Secret32::new(dialler.ephemeral())).public();
    assert_eq!(message[2..34], public.as_bytes()[..]);
    page.hex("preface", preface);
    page.hex("message 1, with its length", message);
    page.hex("message 2, with its length", &second);
    page.hex("message 3, with its length", &third);

    let keys = LinkKeys {
        index: 0x0102_0304,
        key: Secret32::new([0x55; 32]),
    };
    let said = ControlMessage::LinkKeys(keys).encode();
    page.hex("A's first control message: LinkKeys", &said);
    hears.send(&said);
    let frame = sent(&mut hears);
    page.hex("the same as a frame", &frame);
    dials.handle_bytes(&frame, &mut keyring, &mut dialler);
    assert_eq!(heard(&mut dials), said);
    dials.send(&said);
    let frame = sent(&mut dials);
    page.hex("the same as a frame of B", &frame);
    hears.handle_bytes(&frame, &mut keyring, &mut listener);
    assert_eq!(heard(&mut hears), said);
}

/// What a channel has to send.
fn sent(channel: &mut ControlChannel) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(output) = channel.poll_output() {
        match output {
            ChannelOutput::Send(more) => bytes.extend(more),
            ChannelOutput::Failed(error) => panic!("{error}"),
            ChannelOutput::Authenticated(_)
            | ChannelOutput::GenesisReceived(_)
            | ChannelOutput::Message(_) => {}
        }
    }
    bytes
}

fn heard(channel: &mut ControlChannel) -> Vec<u8> {
    match channel.poll_output() {
        Some(ChannelOutput::Message(message)) => message,
        other => panic!("no message, but {other:?}"),
    }
}

fn link(page: &mut Page) {
    page.section(
        "A link's datagram",
        "B's first heartbeat to A, by the LinkKeys above: index 01020304, the key 32 times `55`.",
    );
    let beat = Beat {
        wants_answer: true,
        stamp: 1_000_000,
        echo: Echo::new(999_000, 250),
    };
    page.hex("plaintext", &beat.encode());
    let header = Header {
        kind: Type::Link,
        lane: 0,
        index: SessionIndex(0x0102_0304),
        counter: 0,
    };
    let head = header.encode();
    let mut body = beat.encode().to_vec();
    let key = AeadKey::new(Backend::Ring, Cipher::ChaCha20Poly1305, &[0x55; 32]);
    let tag = key.seal(0, &head, &mut body);
    let datagram = [&head[..], &body, &tag].concat();
    page.hex("datagram", &datagram);
    assert_eq!(Header::decode(&datagram), Some(header));
}

fn unicast(page: &mut Page, a: &Person, b: &Person, mesh: MeshId) {
    page.section(
        "A sealed unicast",
        "B asks A for an address of a joiner whose NodeId is 32 times `c0`.",
    );
    let letter = Letter::AddressRequest(AddressRequest {
        request: 7,
        node: weft_types::NodeId::new([0xc0; 32]),
        nickname: Nickname::new("c").expect("a name"),
        wanted: None,
    });
    let mut chance = Chance::new(6);
    let mut post = Mail::new(b.local(mesh));
    let body = post
        .seal(&a.keys.noise().public(), &letter, &mut chance)
        .expect("seals");
    page.hex("ephemeral scalar", &chance.ephemeral());
    let unicast = Unicast::new(b.keys.node(), a.keys.node(), body.clone());
    page.hex("Unicast", &unicast.encode());
    let Some(Body::Sealed(sealed)) = Body::decode(&body) else {
        panic!("a sealed body");
    };
    let opened = Mail::new(a.local(mesh)).open(
        b.keys.node(),
        &b.keys.noise().public(),
        sealed,
        &mut Chance::new(7),
    );
    assert_eq!(opened, Ok(letter));
}

fn session(page: &mut Page, a: &Person, b: &Person, mesh: MeshId) {
    page.section(
        "A session",
        "A begins, with handshake counter 1 and session index 0a0a0a0a; B answers with 0b0b0b0b. The cipher is 2, no
registers come along, and the ML-KEM values are those of the control connection.",
    );
    let (mut ours, mut theirs) = (Chance::new(8), Chance::new(9));
    let cipher = Cipher::ChaCha20Poly1305;
    let to = b.keys.noise().public();
    let (mut begun, first) = Initiation::begin(
        &a.local(mesh),
        &to,
        1,
        SessionIndex(0x0a0a_0a0a),
        cipher,
        Vec::new(),
        &mut ours,
    )
    .expect("begins");
    let received = Received::open(&b.local(mesh), &first, &mut theirs).expect("opens");
    let index = SessionIndex(0x0b0b_0b0b);
    let (answered, second) = received
        .answer(&b.local(mesh), index, cipher, Vec::new(), &mut theirs)
        .expect("answers");
    let finished = begun.finish(&second).expect("finishes");
    assert_eq!(finished.keys.send, answered.keys.receive);
    assert_eq!(finished.keys.receive, answered.keys.send);

    page.hex("A's ephemeral scalar", &ours.ephemeral());
    page.hex("B's ephemeral scalar", &theirs.ephemeral());
    page.hex("INITIATE", &Message::Initiate(&first).encode());
    let respond = Message::Respond {
        to: SessionIndex(0x0a0a_0a0a),
        noise: &second,
    };
    page.hex("RESPOND", &respond.encode());
    page.hex("key, initiator to responder", &finished.keys.send);
    page.hex("key, responder to initiator", &finished.keys.receive);
    page.hex("CONFIRM", &Message::Confirm(index).encode());
}

fn sleeve(page: &mut Page) {
    page.section(
        "The sleeve's datagrams",
        "The first datagram of lane 1, to session index 0b0b0b0b, under a key of 32 times `44` for its direction: one whole
frame in segment 0, from 02:00:00:00:00:01 to 02:00:00:00:00:02, of ethertype 88b5.",
    );
    let frame = [
        &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5][..],
        b"a frame for whoever reads this",
    ]
    .concat();
    let record = bundle::encode(frame.len(), None).expect("a frame");
    let plain = [
        &payload::encode(Kind::Frames, Segment::DEFAULT)[..],
        &record,
        &frame,
    ]
    .concat();
    page.hex("plaintext", &plain);
    page.hex("key of lane 1", &lane_key(&[0x44; 32], 1)[..]);
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let keys = |send, receive| SessionKeys {
            local: SessionIndex(0x0b0b_0b0b),
            remote: SessionIndex(0x0b0b_0b0b),
            cipher,
            send,
            receive,
        };
        let mut datagram = vec![0; header::LEN];
        datagram.extend(&plain);
        datagram.extend([0; OVERHEAD - header::LEN]);
        let sealing = keys([0x44; 32], [0; 32]);
        let sealed = SendLane::new(&sealing, 1, Backend::Ring).seal(&mut datagram);
        sealed.expect("a lane lasts long");
        page.hex(&format!("datagram, {}", cipher.as_str()), &datagram);
        // The other implementation opens it.
        let opening = keys([0; 32], [0x44; 32]);
        let head = Header::decode(&datagram).expect("a header");
        let mut lanes = ReceiveLanes::new(&opening, Backend::AwsLc);
        assert_eq!(lanes.open(head, &mut datagram), Ok(&mut plain.clone()[..]));
    }
}

/// The page as it grows.
struct Page(String);

impl Page {
    fn section(&mut self, title: &str, text: &str) {
        self.0.push_str(&format!("\n## {title}\n"));
        if !text.is_empty() {
            self.0.push_str(&format!("\n{text}\n"));
        }
    }

    fn hex(&mut self, what: &str, bytes: &[u8]) {
        let digits = hex(bytes);
        let lines: Vec<&str> = digits
            .as_bytes()
            .chunks(WIDTH)
            .filter_map(|line| std::str::from_utf8(line).ok())
            .collect();
        self.text(
            &format!("{what} ({} bytes)", bytes.len()),
            &lines.join("\n"),
        );
    }

    fn text(&mut self, what: &str, text: &str) {
        let mut capital = what.to_owned();
        if let Some(first) = capital.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        self.0
            .push_str(&format!("\n{capital}:\n\n```text\n{text}\n```\n"));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .filter_map(|digit| u8::try_from(digit).ok())
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// A node whose secrets are a byte again and again.
struct Person {
    seed: [u8; 32],
    scalar: [u8; 32],
    keys: NodeKeys,
}

impl Person {
    fn new(number: u8) -> Self {
        let (seed, scalar) = ([number; 32], [number << 4; 32]);
        let file = [&b"weftkey1"[..], &seed, &scalar].concat();
        Self {
            seed,
            scalar,
            keys: NodeKeys::from_bytes(&file).expect("a key file"),
        }
    }

    fn local(&self, mesh: MeshId) -> Local {
        Local {
            node: self.keys.node(),
            key: self.keys.noise().clone(),
            mesh,
            boot: BOOT,
        }
    }
}

/// Chance that is none: a byte again and again. Every run of Noise takes its seed from it once.
struct Chance(u8);

impl Chance {
    const fn new(byte: u8) -> Self {
        Self(byte)
    }

    /// The scalar that Noise draws first, out of the seed that it was given.
    fn ephemeral(&self) -> [u8; 32] {
        *hkdf_sha256(&[], &[self.0; 32], &0_u64.to_be_bytes()).as_bytes()
    }
}

impl Crypto for Chance {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(self.0);
    }

    fn kem_generate(&mut self) -> KemKeys {
        let kem = Kem::read();
        KemKeys {
            encapsulation: Box::new(kem.encapsulation()),
            secret: Box::new(kem),
        }
    }

    fn kem_encapsulate(
        &mut self,
        encapsulation: &[u8],
    ) -> Result<(Box<[u8; KEM_CIPHERTEXT_LEN]>, Secret32), KemError> {
        let kem = Kem::read();
        if encapsulation != kem.encapsulation() {
            return Err(KemError);
        }
        let ciphertext = kem.ciphertext.as_slice().try_into().map_err(|_| KemError)?;
        Ok((Box::new(ciphertext), kem.secret()))
    }
}

/// The pair of [`KEM`].
struct Kem {
    decapsulation: Vec<u8>,
    ciphertext: Vec<u8>,
    shared: Vec<u8>,
}

impl Kem {
    fn read() -> Self {
        let mut lines = KEM.lines().map(unhex);
        let mut next = || lines.next().expect("three lines");
        Self {
            decapsulation: next(),
            ciphertext: next(),
            shared: next(),
        }
    }

    fn key(&self) -> DecapsulationKey {
        DecapsulationKey::new(&ML_KEM_768, &self.decapsulation).expect("a decapsulation key")
    }

    /// The key that others encapsulate to: it is kept within the other one, behind 1152 bytes (FIPS 203 §7.1).
    fn encapsulation(&self) -> [u8; KEM_KEY_LEN] {
        let bytes = &self.decapsulation[1152..][..KEM_KEY_LEN];
        bytes.try_into().expect("their number")
    }

    fn secret(&self) -> Secret32 {
        Secret32::new(self.shared.as_slice().try_into().expect("32 bytes"))
    }
}

impl KemSecret for Kem {
    fn decapsulate(&self, ciphertext: &[u8]) -> Result<Secret32, KemError> {
        let secret = self
            .key()
            .decapsulate(Ciphertext::from(ciphertext))
            .map_err(|_| KemError)?;
        Ok(Secret32::new(
            secret.as_ref().try_into().map_err(|_| KemError)?,
        ))
    }
}

/// To be run by hand where the pair is lost: `cargo test -p weft-router-proto --test wire_vectors -- --ignored`.
#[test]
#[ignore = "draws another key pair, and with it other vectors"]
fn a_key_pair_is_drawn() {
    let key = DecapsulationKey::generate(&ML_KEM_768).expect("a key pair");
    let public = key.encapsulation_key().expect("its public half");
    let (ciphertext, secret) = public.encapsulate().expect("encapsulates");
    let bytes = key.key_bytes().expect("its bytes");
    let lines = [bytes.as_ref(), ciphertext.as_ref(), secret.as_ref()].map(hex);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/ml-kem-768.txt");

    fs::write(path, format!("{}\n", lines.join("\n"))).expect("the file can be written");
}
