//! What tests of parts stand on: a member that nobody drives, and what it puts out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_types::{Boot, BootId, Mtu, Nickname, NodeId, Replica};

use super::config::{Intent, RouterConfig};
use super::ground::conn::{Conn, Stage};
use super::ground::{Ground, Reach, mesh::Mesh};
use super::{Life, Router};
use crate::crypto::seeded::SeededCrypto;
use crate::genesis::Genesis;
use crate::gossip::registers::{Registers, TOPOLOGY};
use crate::handshake::Other;
use crate::identity::NodeKeys;
use crate::io::{ConnId, Event, Input, Output, Reply, RequestId};
use crate::membership::{Admit, Record, Role};
use crate::snapshot::{Peer, Snapshot};
use crate::store::Saved;
use crate::topology::{LINKS, Links, NodeRecord, RECORD};
use crate::wire::preface::{DoorKeyId, Repr};

/// The origin of a virtual clock.
#[expect(clippy::disallowed_methods, reason = "the origin of a virtual clock")]
pub(crate) fn origin() -> Instant {
    Instant::now()
}

/// A command's number.
pub(crate) const ID: RequestId = RequestId(7);

/// A member that nobody drives.
pub(crate) struct Fixture {
    pub(crate) ground: Ground,
    pub(crate) mesh: Mesh,
    pub(crate) now: Instant,
    crypto: SeededCrypto,
    /// Those whom a test has made up.
    keys: BTreeMap<NodeId, NodeKeys>,
    conns: u64,
}

/// How a member asks to be let in.
pub(crate) const AS_MEMBER: Repr = Repr::Member(DoorKeyId::new([3; 16]));

/// A router that begins a mesh; its boot counter is not durable yet.
pub(crate) fn creator(now: Instant) -> Router {
    let mut crypto = SeededCrypto::new(1);
    let config = RouterConfig {
        keys: NodeKeys::generate(&mut crypto),
        nickname: Nickname::new("a").expect("a short name"),
        port: 6783,
        advertise: Vec::new(),
        targets: Vec::new(),
        intent: Intent::Create {
            name: None,
            range: Genesis::DEFAULT_RANGE,
            mtu: Mtu::MESH,
            address: None,
        },
        features: Vec::new(),
        release: "test".to_owned(),
        wall_clock: Duration::ZERO,
    };
    Router::new(config, &Saved::default(), Box::new(crypto), now).expect("a mesh")
}

/// A creator that is up, and has said all that it has to say.
pub(crate) fn running(now: Instant) -> Router {
    let mut router = creator(now);
    while let Some(output) = router.poll_output() {
        if let Output::Save { ticket, .. } = output {
            router.handle_input(Input::Saved { ticket }, now);
        }
    }
    router
}

impl Fixture {
    /// The creator of a mesh of one.
    pub(crate) fn new() -> Self {
        let now = origin();
        let Router { ground, life } = running(now);
        let Life::Member(member) = life else {
            panic!("a creator is a member");
        };
        Self {
            ground,
            mesh: member.mesh,
            now,
            crypto: SeededCrypto::new(2),
            keys: BTreeMap::new(),
            conns: 0,
        }
    }

    /// Makes up somebody who is no member.
    pub(crate) fn stranger(&mut self) -> NodeId {
        let keys = NodeKeys::generate(&mut self.crypto);
        let node = keys.node();
        self.keys.insert(node, keys);
        node
    }

    /// Admits somebody whom nobody has heard of yet.
    pub(crate) fn admit(&mut self, nickname: &str) -> NodeId {
        let node = self.stranger();
        let keys = &self.keys[&node];
        let admit = Admit {
            node: keys.node(),
            noise_key: keys.noise().public(),
            nickname: Nickname::new(nickname).expect("a short name"),
            addresses: Vec::new(),
            role: Role::Introducer,
            token: None,
        };
        let signed = self.reach().append(Record::Admit(admit));
        signed.expect("a creator may admit");
        node
    }

    /// What somebody proves of itself in a handshake.
    pub(crate) fn other(&self, node: NodeId, asked: Repr) -> Other {
        Other {
            node,
            cert: self.keys[&node].certify(&self.mesh.id),
            boot: boot(1),
            nickname: Nickname::new("other").expect("a short name"),
            features: Vec::new(),
            port: 6783,
            wanted: None,
            asked,
        }
    }

    /// A connection on which nobody has said anything.
    pub(crate) fn open(&mut self, dialled: bool) -> ConnId {
        self.conns += 1;
        let conn = ConnId {
            dialled,
            number: 1000 + self.conns,
        };
        let from = SocketAddr::from(([192, 0, 2, 9], 6783));
        let open = Conn::new(from, Stage::Handshaking);
        self.ground.conns.insert(conn, open);
        conn
    }

    /// A connection that came from somebody who has proved who it is.
    pub(crate) fn knock(&mut self, node: NodeId, asked: Repr) -> ConnId {
        let conn = self.open(false);
        let other = self.other(node, asked);
        let open = self.ground.conns.get_mut(&conn);
        open.expect("just opened").other = Some(other);
        conn
    }

    /// Admits somebody who is linked to us and says so.
    pub(crate) fn link_to(&mut self, nickname: &str, features: &[&str]) -> (NodeId, ConnId) {
        let node = self.admit(nickname);
        let conn = self.knock(node, AS_MEMBER);
        let now = self.now;
        self.reach().link_up(conn, now).expect("a member");
        self.say(node, features);
        self.look();
        (node, conn)
    }

    /// Somebody says what it is, and that it is linked to us.
    fn say(&mut self, node: NodeId, features: &[&str]) {
        let (keys, mesh) = (&self.keys[&node], &mut self.mesh);
        let record = NodeRecord {
            nickname: Nickname::new("other").expect("a short name"),
            cert: keys.certify(&mesh.id),
            addresses: Vec::new(),
            features: features.iter().map(|&feature| feature.into()).collect(),
            release: "test".to_owned(),
            mtu: None,
            observed: Vec::new(),
        };
        let links = Links::new(&BTreeSet::from([mesh.ourself]));
        let mut theirs = Registers::new(mesh.id, node, boot(1));
        let members = mesh.membership.members().map(|member| member.node);
        mesh.registers.set_members(members);
        for (slot, body) in [(RECORD, record.encode()), (LINKS, links.encode())] {
            let said = theirs.write(TOPOLOGY, slot, body, keys.signing());
            // One that nobody has seen waits.
            mesh.registers.merge(said.expect("news"), self.now);
        }
    }

    /// Looks at the topology anew.
    pub(crate) fn look(&mut self) {
        self.mesh.look(self.now);
    }

    /// Admits somebody and forwards to it, as if it were present.
    pub(crate) fn forward_to(&mut self, nickname: &str) -> NodeId {
        let node = self.admit(nickname);
        let mut snapshot = Snapshot::clone(self.mesh.snapshot.as_ref().expect("a creator's"));
        snapshot.peers.push(Peer {
            node,
            nickname: Nickname::new(nickname).expect("a short name"),
            path: None,
        });
        self.mesh.snapshot = Some(Arc::new(snapshot));
        node
    }

    /// What parts get.
    pub(crate) fn reach(&mut self) -> Reach<'_> {
        Reach {
            ground: &mut self.ground,
            mesh: &mut self.mesh,
        }
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, time: Duration) -> Instant {
        self.now += time;
        self.now
    }

    /// What was put out since it was last asked.
    pub(crate) fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.ground.poll_output()).collect()
    }

    /// The answers among it.
    pub(crate) fn replies(&mut self) -> Vec<Reply> {
        let mut replies = Vec::new();
        for output in self.outputs() {
            if let Output::Reply { reply, .. } = output {
                replies.push(reply);
            }
        }
        replies
    }

    /// The events among it.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for output in self.outputs() {
            if let Output::Event(event) = output {
                events.push(event);
            }
        }
        events
    }
}

/// A run of a node.
pub(crate) const fn boot(counter: u64) -> Boot {
    Boot {
        counter,
        id: BootId::new([9; 8]),
    }
}
