//! How things stand. Its larger parts have files of their own, here and in the schema.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use weft_types::{Code, MeshId, Nickname, NodeId, Problem};

use crate::connections::{ConnectionStatus, SwitchCount};
use crate::containers::ContainerStatus;
use crate::peers::PeerStatus;
use crate::targets::TargetStatus;
use crate::wire::WireStatus;
use crate::{Client, Route};

/// Says how things stand.
pub const STATUS: Route<(), Status> = Route::get("/v1/status");

/// How things stand: `GET /v1/status`, `weft status -o json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The release of the router that answers.
    pub version: String,
    /// The mesh; null before this node is a member of one.
    pub mesh: Option<MeshStatus>,
    /// This node.
    pub node: NodeStatus,
    /// Every other member, sorted by nickname.
    #[schemars(schema_with = "of_peers")]
    pub peers: Vec<PeerStatus>,
    /// What crosses the underlay.
    #[schemars(schema_with = "of_wire")]
    pub wire: WireStatus,
    /// What is wrong at the moment; empty on a healthy mesh.
    pub problems: Vec<Problem>,
    /// What a person told this node to dial.
    #[schemars(schema_with = "of_targets")]
    pub targets: Vec<TargetStatus>,
    /// Containers on ports of this host.
    #[schemars(schema_with = "of_containers")]
    #[serde(default)]
    pub containers: Vec<ContainerStatus>,
    /// How each other member is reached, with a control connection or without one.
    #[schemars(schema_with = "of_connections")]
    pub connections: Vec<ConnectionStatus>,
    /// Frames and datagrams dropped since the start, by reason.
    pub drops: BTreeMap<String, u64>,
    /// What this node has passed on for other members since the start.
    #[serde(default)]
    pub relayed: Vec<RelayedStatus>,
    /// How often frames have left one way for another since the start, over all peers.
    #[serde(default)]
    pub switches: Vec<SwitchCount>,
}

fn of_connections(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "$ref": "connections.json" })
}

fn of_containers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "$ref": "containers.json" })
}

fn of_peers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "$ref": "peers.json" })
}

fn of_targets(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "$ref": "targets.json" })
}

fn of_wire(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "$ref": "wire.json" })
}

/// The mesh this node is a member of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MeshStatus {
    /// What people call it.
    #[schemars(with = "String")]
    pub name: Nickname,
    /// The hash of its genesis record.
    #[schemars(with = "String")]
    pub id: MeshId,
    /// Whether every frame is sealed.
    pub encrypted: bool,
    /// How many members there are, this node included.
    pub members: usize,
    /// How many of the other members are reached.
    pub connected: usize,
    /// The largest IP packet, in bytes.
    pub mtu: u16,
    /// Where addresses come from: one range of IPv4, one of IPv6.
    #[schemars(with = "Vec<String>")]
    #[serde(default)]
    pub ranges: Vec<IpNet>,
}

/// This node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeStatus {
    /// Its public key: who it is, for life.
    #[schemars(with = "String")]
    pub id: NodeId,
    /// What people call it.
    #[schemars(with = "String")]
    pub nickname: Nickname,
    /// Its addresses on the mesh.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// Since the router was started.
    pub uptime_seconds: u64,
    /// Addresses of the underlay at which others may reach it.
    #[schemars(with = "Vec<String>")]
    pub advertised: Vec<SocketAddr>,
}

/// What this node has passed on from one member to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RelayedStatus {
    /// Whom it came from: a relay itself, maybe.
    #[schemars(with = "String")]
    pub from: NodeId,
    /// Whom it is for in the end.
    #[schemars(with = "String")]
    pub to: NodeId,
    /// Datagrams.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Client {
    /// How things stand.
    pub async fn status(&self) -> Result<Status, Problem> {
        self.ask(STATUS).await
    }
}

/// The answer where a mesh is needed.
pub fn not_joined() -> Problem {
    Problem::new(Code::NotJoined, "this node is in no mesh yet")
        .fix("Begin one: sudo weft up, or join one: sudo weft join HOST --token TOKEN")
}

impl Status {
    /// Finds a member by nickname, identity, mesh address, or an unambiguous beginning of the first two. An exact match
    /// wins over a beginning.
    ///
    /// # Errors
    ///
    /// [`Code::NotJoined`], [`Code::UnknownNode`], [`Code::AmbiguousNode`].
    pub fn find_peer(&self, name: &str) -> Result<&PeerStatus, Problem> {
        if self.mesh.is_none() {
            return Err(not_joined());
        }
        let exact = self.peers.iter().filter(|peer| peer.is_called(name));
        let mut found: Vec<&PeerStatus> = exact.collect();
        if found.is_empty() {
            let beginning = self.peers.iter().filter(|peer| peer.begins_with(name));
            found = beginning.collect();
        }
        match found.as_slice() {
            [peer] => Ok(peer),
            [] => Err(self.unknown(name)),
            several => Err(ambiguous(name, several)),
        }
    }

    /// What a node is called, whoever it is.
    pub fn name_of(&self, node: NodeId) -> String {
        let peer = self.peers.iter().find(|peer| peer.id == node);
        let own = (node == self.node.id).then_some(&self.node.nickname);
        let known = peer.map(|peer| &peer.nickname).or(own);
        known.map_or_else(|| node.short(), ToString::to_string)
    }

    fn unknown(&self, name: &str) -> Problem {
        let own = &self.node;
        let why = if own.nickname.as_str() == name || own.id.to_string() == name {
            "it is this node itself".to_owned()
        } else {
            format!("the mesh has {} other members", self.peers.len())
        };
        Problem::new(
            Code::UnknownNode,
            format!("no other member is called {name:?}"),
        )
        .why(why)
        .fix("See who there is: weft peers")
    }
}

fn ambiguous(name: &str, found: &[&PeerStatus]) -> Problem {
    let names: Vec<String> = found
        .iter()
        .map(|peer| format!("{} {}", peer.nickname, peer.id.short()))
        .collect();
    Problem::new(
        Code::AmbiguousNode,
        format!("{name:?} may be several members"),
    )
    .why(names.join(", "))
    .fix("Write more of the identity")
}
