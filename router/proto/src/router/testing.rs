//! What tests of parts stand on: a member that nobody drives, and what it puts out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_types::{Boot, BootId, Mtu, Nickname, NodeId};

use super::config::{Intent, RouterConfig};
use super::ground::{Ground, Reach, mesh::Mesh};
use super::{Life, Router};
use crate::crypto::seeded::SeededCrypto;
use crate::genesis::Genesis;
use crate::identity::NodeKeys;
use crate::io::{Event, Input, Output, Reply, RequestId};
use crate::membership::{Admit, Record, Role};
use crate::snapshot::{Peer, Snapshot};
use crate::store::Saved;

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
}

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
        }
    }

    /// Admits somebody whom nobody has heard of yet.
    pub(crate) fn admit(&mut self, nickname: &str) -> NodeId {
        let keys = NodeKeys::generate(&mut self.crypto);
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
        keys.node()
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
