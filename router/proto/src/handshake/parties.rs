//! What each end of a connection brings along: the secrets it knows, and what it says of itself.

use std::collections::BTreeMap;
use std::time::Instant;

use weft_types::{Boot, MeshId, Nickname, NodeId, TokenId};

use super::payload::Introduction;
use super::visits::Visits;
use crate::crypto::Secret32;
use crate::identity::{NodeKeys, NoiseCert};
use crate::wire::preface::{DoorKeyId, Repr};

/// Which secrets open the door.
#[derive(Default)]
pub struct Keyring {
    doors: BTreeMap<DoorKeyId, Secret32>,
    tokens: BTreeMap<TokenId, Secret32>,
    visits: Visits,
}

impl Keyring {
    /// Adds a door key. Superseded ones open the door as well: what counts is who comes in.
    pub fn add_door(&mut self, id: DoorKeyId, key: Secret32) {
        self.doors.insert(id, key);
    }

    /// Forgets a door key: it opens no more.
    pub fn remove_door(&mut self, id: DoorKeyId) {
        self.doors.remove(&id);
    }

    /// Adds a token's secret; that of a spent token too, so that its holder can be told.
    pub fn add_token(&mut self, id: TokenId, secret: Secret32) {
        self.tokens.insert(id, secret);
    }

    /// Forgets all tokens, before they are added anew.
    pub fn clear_tokens(&mut self) {
        self.tokens.clear();
    }

    /// Whether a first message comes for the first time.
    pub(super) fn is_first(&mut self, asked: &Repr, message: &[u8], now: Instant) -> bool {
        self.visits.is_first(asked, message, now)
    }

    pub(super) fn secret(&self, asked: &Repr) -> Option<&Secret32> {
        match asked {
            Repr::Member(id) => self.doors.get(id),
            Repr::Token(id) => self.tokens.get(id),
        }
    }
}

/// What this node says of itself.
#[derive(Clone, Debug)]
pub struct Ourself {
    /// Its keys.
    pub keys: NodeKeys,
    /// Which mesh the connection is about.
    pub mesh: MeshId,
    /// This run.
    pub boot: Boot,
    /// What people call it.
    pub nickname: Nickname,
    /// Optional features.
    pub features: Vec<String>,
    /// Where it listens, TCP and UDP.
    pub port: u16,
    /// The mesh address it asks for, if it joins.
    pub wanted: Option<String>,
    /// The signed genesis, if it has one: told to those who come with a token.
    pub genesis: Option<Vec<u8>>,
}

impl Ourself {
    pub(super) fn introduction(&self) -> Introduction {
        Introduction {
            cert: self.keys.certify(&self.mesh),
            boot: self.boot,
            nickname: self.nickname.clone(),
            features: self.features.clone(),
            port: self.port,
            wanted: self.wanted.clone(),
        }
    }

    pub(super) fn prologue(&self, asked: &Repr) -> Vec<u8> {
        [&b"weft-control"[..], &asked.emit(), self.mesh.as_bytes()].concat()
    }
}

/// Who is at the other end: proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Who it is.
    pub node: NodeId,
    /// Its Noise key and the proof that it is this node's.
    pub cert: NoiseCert,
    /// Which run of it.
    pub boot: Boot,
    /// What people call it.
    pub nickname: Nickname,
    /// What it can.
    pub features: Vec<String>,
    /// Where it listens.
    pub port: u16,
    /// The mesh address it asks for.
    pub wanted: Option<String>,
    /// How it asked to be let in.
    pub asked: Repr,
}
