//! A member that says what it is told to: built from the cores that honest routers are built from, with its own keys and
//! those of the mesh, and without their manners.
//!
//! ```text
//!   honest member ──turn──▶ Rogue ── one channel and one link machine for each connection: links are made, and stay alive
//!                             ├─ tells neighbours what the test says: registers, door keys, Admits, addresses, letters
//!                             └─ welcomes who comes, or refuses it by any code
//! ```
//!
//! What it does of itself is what keeps it linked: handshakes, heartbeats by TCP, and a true list of its links. It answers
//! no digest and passes nothing on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use weft_router_proto::connection::{Link, LinkOutput};
use weft_router_proto::control::{ControlMessage, Refused};
use weft_router_proto::crypto::seeded::SeededCrypto;
use weft_router_proto::crypto::{Crypto, Label, Secret32};
use weft_router_proto::gossip::Piece;
use weft_router_proto::gossip::exchange::{DeltaMessage, Topic};
use weft_router_proto::gossip::registers::{Register, RegisterDelta, SignedRegister, TOPOLOGY};
use weft_router_proto::handshake::{ChannelOutput, ControlChannel, Keyring, Ourself, Refusal};
use weft_router_proto::identity::NodeKeys;
use weft_router_proto::io::{ConnId, Input, Output};
use weft_router_proto::letter::{Letter, Mail};
use weft_router_proto::membership::{
    Admit, DoorKey, Membership, MembershipDelta, Record, Role, SignedDoorKey,
};
use weft_router_proto::session::handshake::Local;
use weft_router_proto::store::{Saved, Table};
use weft_router_proto::topology::{LINKS, Links, NodeRecord, RECORD};
use weft_router_proto::unicast::Unicast;
use weft_router_proto::wire::envelope::Signed;
use weft_router_proto::wire::preface::{DoorKeyId, Repr};
use weft_types::{Boot, BootId, Code, MeshId, Nickname, NodeId, Version};

/// Where it listens: what the simulation gives every host.
const PORT: u16 = 6783;

/// A member that says what it is told to.
pub struct Rogue {
    /// Who it is.
    pub keys: NodeKeys,
    /// What it tells whoever comes, instead of becoming its link.
    pub refuses: Option<Code>,
    mesh: MeshId,
    boot: Boot,
    address: SocketAddr,
    membership: Membership,
    mail: Mail,
    crypto: SeededCrypto,
    door: (DoorKeyId, Secret32),
    keyring: Keyring,
    talks: BTreeMap<ConnId, Talk>,
    dialled: u64,
    sequence: u64,
    outputs: VecDeque<Output>,
}

struct Talk {
    channel: Option<ControlChannel>,
    other: Option<NodeId>,
    link: Option<Link>,
    remote: SocketAddr,
}

impl Rogue {
    /// Takes over what an honest member knew, as its next run.
    pub(crate) fn new(
        keys: NodeKeys,
        (mesh, membership): (MeshId, Membership),
        disk: &Saved,
        address: SocketAddr,
        seed: u64,
    ) -> Self {
        let mut crypto = SeededCrypto::new(seed);
        let counter = disk.value(Table::Node, b"boot");
        let counter = counter.and_then(|bytes| bytes.first_chunk().copied());
        let boot = Boot {
            counter: counter.map_or(0, u64::from_be_bytes) + 1,
            id: BootId::new((&mut crypto as &mut dyn Crypto).array()),
        };
        let mut keyring = Keyring::default();
        let mut door = None;
        for (_, value) in disk.table(Table::DoorKeys) {
            let known = SignedDoorKey::decode(value).expect("an honest member's door key");
            let known = known.door();
            keyring.add_door(known.id, known.key.clone());
            door = Some((known.id, known.key.clone()));
        }
        let mail = Mail::new(Local {
            node: keys.node(),
            key: keys.noise().clone(),
            mesh,
            boot,
        });
        Self {
            refuses: None,
            mesh,
            boot,
            address,
            membership,
            mail,
            crypto,
            door: door.expect("a member has a door key"),
            keyring,
            talks: BTreeMap::new(),
            dialled: 0,
            sequence: 0,
            outputs: VecDeque::new(),
            keys,
        }
    }

    /// Everybody it is linked to.
    pub fn linked(&self) -> BTreeSet<NodeId> {
        let linked = self.talks.values().filter(|talk| talk.link.is_some());
        linked.filter_map(|talk| talk.other).collect()
    }

    /// Connects, as a member.
    pub fn dial(&mut self, to: SocketAddr) {
        self.dialled += 1;
        let conn = ConnId {
            dialled: true,
            number: self.dialled,
        };
        self.talks.insert(conn, Talk::new(to));
        self.outputs.push_back(Output::Connect { conn, to });
    }

    /// Says something to one neighbour.
    pub fn tell(&mut self, node: NodeId, message: &ControlMessage) {
        let to = |talk: &Talk| talk.link.is_some() && talk.other == Some(node);
        let conns = self.talks.iter().filter(|(_, talk)| to(talk));
        for conn in conns.map(|(&conn, _)| conn).collect::<Vec<_>>() {
            self.say(conn, message);
        }
    }

    /// Says the same to all neighbours.
    pub fn tell_all(&mut self, message: &ControlMessage) {
        for node in self.linked() {
            self.tell(node, message);
        }
    }

    /// Tells all neighbours that they are refused, by any code, and hangs up. They come again.
    pub fn refuse_all(&mut self, code: Code) {
        let code = Refusal::new(code);
        self.tell_all(&ControlMessage::Refused(Refused { code }));
        for (conn, _) in std::mem::take(&mut self.talks) {
            self.outputs.push_back(Output::Close { conn });
        }
    }

    /// Tells all neighbours registers as news.
    pub fn spread(&mut self, registers: impl IntoIterator<Item = Signed>) {
        let registers = registers.into_iter().filter_map(|signed| {
            let register = SignedRegister::new(signed).ok()?;
            Some(std::sync::Arc::new(register))
        });
        let delta: RegisterDelta = registers.collect();
        self.tell_all(&self.news(Topic::Registers, delta.encode()));
    }

    /// Tells all neighbours records of logs as news.
    pub fn spread_records(&mut self, records: Vec<Signed>) {
        let delta = MembershipDelta::new(records).encode();
        self.tell_all(&self.news(Topic::Membership, delta));
    }

    fn news(&self, topic: Topic, delta: Vec<u8>) -> ControlMessage {
        ControlMessage::Delta(DeltaMessage {
            topic,
            root: Some(self.keys.node()),
            delta,
        })
    }

    /// A register of this run, with the next number.
    pub fn register(&mut self, channel: u8, slot: u16, body: Vec<u8>) -> Signed {
        self.sequence += 1;
        let version = Version {
            boot: self.boot,
            sequence: self.sequence,
        };
        self.forge(&self.keys.clone(), (channel, slot, version), body)
    }

    /// A register that `keys` sign, whatever it says.
    pub fn forge(
        &self,
        keys: &NodeKeys,
        (channel, slot, version): (u8, u16, Version),
        body: Vec<u8>,
    ) -> Signed {
        let register = Register {
            channel,
            owner: keys.node(),
            slot,
            version,
            body,
        };
        let payload = weft_router_proto::wire::encode(&register);
        Signed::seal(keys.signing(), Label::Register, &self.mesh, payload)
    }

    /// The same bytes with a signature of nobody.
    ///
    /// # Panics
    ///
    /// Never: what is spoilt is an encoding of ours.
    pub fn spoil(signed: Signed) -> Signed {
        let mut bytes = signed.encode();
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        Signed::decode(&bytes).expect("the signature comes last")
    }

    /// What a node says of itself, with these addresses.
    pub fn record_of(&self, keys: &NodeKeys, addresses: Vec<SocketAddr>) -> NodeRecord {
        NodeRecord {
            nickname: nickname("rogue"),
            cert: keys.certify(&self.mesh),
            addresses,
            features: Vec::new(),
            release: "rogue".to_owned(),
            mtu: None,
            observed: Vec::new(),
        }
    }

    /// Says that it can be reached at these addresses.
    pub fn claim_addresses(&mut self, addresses: Vec<SocketAddr>) {
        let record = self.record_of(&self.keys, addresses).encode();
        let signed = self.register(TOPOLOGY, RECORD, record);
        self.spread([signed]);
    }

    /// Says that it holds these links, and no others.
    pub fn claim_links(&mut self, nodes: &BTreeSet<NodeId>) {
        let signed = self.register(TOPOLOGY, LINKS, Links::new(nodes).encode());
        self.spread([signed]);
    }

    /// Makes up somebody.
    pub fn stranger(&mut self) -> NodeKeys {
        NodeKeys::generate(&mut self.crypto)
    }

    /// Makes up a member: its keys, and the Admit that this member signs for it.
    ///
    /// # Panics
    ///
    /// If this member may not admit.
    pub fn puppet(&mut self, addresses: Vec<ipnet::IpNet>) -> (NodeKeys, Signed) {
        let puppet = self.stranger();
        let admit = Admit {
            node: puppet.node(),
            noise_key: puppet.noise().public(),
            nickname: nickname("puppet"),
            addresses,
            role: Role::Introducer,
            token: None,
        };
        let signed = self.append(Record::Admit(admit));
        (puppet, signed)
    }

    /// Signs a record of its own log.
    ///
    /// # Panics
    ///
    /// If its log takes none.
    pub fn append(&mut self, record: Record) -> Signed {
        let signed = self.membership.append(record, &self.keys);
        signed.expect("a member's log")
    }

    /// A letter in a cover, as neighbours pass it on.
    ///
    /// # Panics
    ///
    /// If `to` is no member.
    pub fn letter(&mut self, to: NodeId, letter: &Letter) -> ControlMessage {
        let key = self.membership.member(to).expect("a member").noise_key;
        let sealed = self.mail.seal(&key, letter, &mut self.crypto);
        let body = sealed.expect("sealed");
        ControlMessage::Unicast(Unicast::new(self.keys.node(), to, body))
    }

    /// A door key that nobody has heard of, signed by this member in the name of another.
    pub fn door_key(&mut self, generation: u64, signer: NodeId) -> SignedDoorKey {
        let crypto: &mut dyn Crypto = &mut self.crypto;
        let door = DoorKey {
            id: DoorKeyId::new(crypto.array()),
            key: crypto.secret(),
            generation,
            signer,
        };
        SignedDoorKey::sign(door, self.keys.signing(), &self.mesh)
    }

    pub(crate) fn handle_input(&mut self, input: Input, now: Instant) {
        match input {
            Input::Accepted { conn, from } => {
                let mut talk = Talk::new(from);
                talk.channel = Some(ControlChannel::accept(self.ourself(), now));
                self.talks.insert(conn, talk);
            }
            Input::Connected { conn } => self.connected(conn, now),
            Input::Received { conn, bytes } => {
                let Some(talk) = self.talks.get_mut(&conn) else {
                    return;
                };
                if let Some(channel) = &mut talk.channel {
                    channel.handle_bytes(&bytes, &mut self.keyring, &mut self.crypto);
                }
                self.pump(conn, now);
            }
            Input::Closed { conn } | Input::ConnectFailed { conn, .. } => {
                self.talks.remove(&conn);
            }
            // Nothing else happens to it that it cares for.
            Input::ByControl { .. }
            | Input::Chatter { .. }
            | Input::Command { .. }
            | Input::GenesisChecked { .. }
            | Input::Heard { .. }
            | Input::LinkDatagram { .. }
            | Input::LocalAddresses(_)
            | Input::PathAnswered(_)
            | Input::ProbeAnswered { .. }
            | Input::Resolved { .. }
            | Input::SaveFailed { .. }
            | Input::Saved { .. }
            | Input::Sent { .. }
            | Input::SessionMessage { .. }
            | Input::SessionWanted { .. }
            | Input::TooBig { .. }
            | Input::Traffic { .. } => {}
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let due = |talk: &Talk| Some(talk.link.as_ref()?.poll_timeout()?.0);
        self.talks.values().filter_map(due).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let conns: Vec<ConnId> = self.talks.keys().copied().collect();
        for conn in conns {
            let talk = self.talks.get_mut(&conn);
            if let Some(link) = talk.and_then(|talk| talk.link.as_mut()) {
                link.handle_timeout(&mut self.crypto, now);
            }
            self.pump_link(conn);
        }
    }

    fn connected(&mut self, conn: ConnId, now: Instant) {
        let ourself = self.ourself();
        let Some(talk) = self.talks.get_mut(&conn) else {
            return;
        };
        let (asked, secret) = (Repr::Member(self.door.0), &self.door.1);
        let channel = ControlChannel::dial(ourself, asked, secret, &mut self.crypto, now);
        talk.channel = Some(channel);
        self.pump(conn, now);
    }

    fn ourself(&self) -> Ourself {
        Ourself {
            keys: self.keys.clone(),
            mesh: self.mesh,
            boot: self.boot,
            nickname: nickname("rogue"),
            features: Vec::new(),
            port: PORT,
            wanted: None,
            genesis: None,
        }
    }

    fn say(&mut self, conn: ConnId, message: &ControlMessage) {
        let talk = self.talks.get_mut(&conn);
        if let Some(channel) = talk.and_then(|talk| talk.channel.as_mut()) {
            channel.send(&message.encode());
        }
        self.send(conn);
    }

    /// Sends what a channel wants sent, and nothing else.
    fn send(&mut self, conn: ConnId) {
        let Some(channel) = self.talks.get_mut(&conn).and_then(|it| it.channel.as_mut()) else {
            return;
        };
        while let Some(output) = channel.poll_output() {
            if let ChannelOutput::Send(bytes) = output {
                self.outputs.push_back(Output::Send { conn, bytes });
            }
        }
    }

    fn pump(&mut self, conn: ConnId, now: Instant) {
        while let Some(output) = self.poll_channel(conn) {
            match output {
                ChannelOutput::Authenticated(other) => self.meet(conn, other.node, now),
                ChannelOutput::Failed(_) => {
                    self.talks.remove(&conn);
                    self.outputs.push_back(Output::Close { conn });
                }
                ChannelOutput::GenesisReceived(_) => {}
                ChannelOutput::Message(bytes) => self.hear(conn, &bytes, now),
                ChannelOutput::Send(bytes) => self.outputs.push_back(Output::Send { conn, bytes }),
            }
        }
    }

    fn poll_channel(&mut self, conn: ConnId) -> Option<ChannelOutput> {
        let talk = self.talks.get_mut(&conn)?;
        talk.channel.as_mut()?.poll_output()
    }

    /// Somebody has proved who it is: becomes its link, or refuses it.
    fn meet(&mut self, conn: ConnId, node: NodeId, now: Instant) {
        if let Some(code) = self.refuses {
            let code = Refusal::new(code);
            self.say(conn, &ControlMessage::Refused(Refused { code }));
            self.talks.remove(&conn);
            return self.outputs.push_back(Output::Close { conn });
        }
        let Some(talk) = self.talks.get_mut(&conn) else {
            return;
        };
        let to = SocketAddr::new(talk.remote.ip(), PORT);
        talk.other = Some(node);
        talk.link = Some(Link::new(to, &mut self.crypto, now));
        self.pump_link(conn);
        let record = self.record_of(&self.keys, vec![self.address]).encode();
        let links = Links::new(&self.linked()).encode();
        let said = [(RECORD, record), (LINKS, links)];
        let said = said.map(|(slot, body)| self.register(TOPOLOGY, slot, body));
        self.spread(said);
    }

    fn hear(&mut self, conn: ConnId, bytes: &[u8], now: Instant) {
        let talk = self.talks.get_mut(&conn);
        let Some(link) = talk.and_then(|talk| talk.link.as_mut()) else {
            return;
        };
        match ControlMessage::decode(bytes) {
            Ok(ControlMessage::Heartbeat(heartbeat)) => link.handle_heartbeat(&heartbeat, now),
            Ok(_) | Err(_) => link.handle_message(now),
        }
        self.pump_link(conn);
    }

    fn pump_link(&mut self, conn: ConnId) {
        while let Some(output) = self.poll_link(conn) {
            match output {
                LinkOutput::SendHeartbeat(heartbeat) => {
                    self.say(conn, &ControlMessage::Heartbeat(heartbeat));
                }
                LinkOutput::SendKeys(keys) => self.say(conn, &ControlMessage::LinkKeys(keys)),
                LinkOutput::Down(_) => {
                    self.talks.remove(&conn);
                    self.outputs.push_back(Output::Close { conn });
                }
                // It talks by TCP alone.
                LinkOutput::AdmitLink(_)
                | LinkOutput::RetireLink(_)
                | LinkOutput::SendDatagram { .. }
                | LinkOutput::UdpSilent
                | LinkOutput::UdpWorks(_)
                | LinkOutput::Up { .. } => {}
            }
        }
    }

    fn poll_link(&mut self, conn: ConnId) -> Option<LinkOutput> {
        let talk = self.talks.get_mut(&conn)?;
        talk.link.as_mut()?.poll_output()
    }
}

impl Talk {
    const fn new(remote: SocketAddr) -> Self {
        Self {
            channel: None,
            other: None,
            link: None,
            remote,
        }
    }
}

fn nickname(name: &str) -> Nickname {
    Nickname::new(name).expect("a short name")
}
