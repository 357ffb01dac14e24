//! What happens, as it happens, and what happened lately.

use std::net::SocketAddr;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weft_types::{Code, MacAddr, Nickname, NodeId, PathKind, Problem, TokenId};

use crate::{Client, Route};

/// A JSON line per event, until the caller goes or the router stops.
pub const STREAM: Route<(), Event> = Route::get("/v1/events");
/// The last of them, oldest first.
pub const RECENT: Route<(), Vec<Event>> = Route::get("/v1/events/recent");

/// Something happened: one line of `GET /v1/events`, `weft events -o json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// When, by this host's clock.
    pub time: String,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A container was put on the mesh here.
    Attached {
        /// Its Ethernet address.
        #[schemars(with = "String")]
        mac: MacAddr,
        /// Its addresses.
        #[schemars(with = "Vec<String>")]
        addresses: Vec<IpNet>,
    },
    /// A container was taken off the mesh here, or is gone.
    Detached {
        /// Its Ethernet address.
        #[schemars(with = "String")]
        mac: MacAddr,
    },
    /// This node is a member: it was admitted, or created the mesh, or resumed.
    Joined {
        /// The mesh's name.
        #[schemars(with = "String")]
        mesh: Nickname,
        /// This host's mesh addresses.
        #[schemars(with = "Vec<String>")]
        addresses: Vec<IpNet>,
        /// The largest IP packet, in bytes.
        mtu: u16,
    },
    /// A join, or a dial on behalf of one, failed.
    JoinAttemptFailed {
        /// Why.
        problem: Problem,
    },
    /// A link to a peer is down.
    LinkDown {
        /// To whom.
        #[schemars(with = "String")]
        node: NodeId,
        /// What people call it; null where that is not known.
        #[serde(default)]
        #[schemars(with = "Option<String>")]
        nickname: Option<Nickname>,
        /// Why, in a few words.
        reason: String,
    },
    /// A link to a peer is up.
    LinkUp {
        /// To whom.
        #[schemars(with = "String")]
        node: NodeId,
        /// What people call it.
        #[schemars(with = "String")]
        nickname: Nickname,
        /// Its address.
        #[schemars(with = "String")]
        endpoint: SocketAddr,
    },
    /// A member appeared for the first time.
    MemberJoined {
        /// Who.
        #[schemars(with = "String")]
        node: NodeId,
        /// What people call it.
        #[schemars(with = "String")]
        nickname: Nickname,
    },
    /// A member left for good.
    MemberLeft {
        /// Who.
        #[schemars(with = "String")]
        node: NodeId,
        /// What people call it; null where that is not known.
        #[serde(default)]
        #[schemars(with = "Option<String>")]
        nickname: Option<Nickname>,
    },
    /// The reader was too slow for the stream.
    Missed {
        /// How many events it did not see.
        events: u64,
    },
    /// Frames for a peer take another way.
    PathChanged {
        /// To whom.
        #[schemars(with = "String")]
        node: NodeId,
        /// What people call it; null where that is not known.
        #[serde(default)]
        #[schemars(with = "Option<String>")]
        nickname: Option<Nickname>,
        /// By what they travelled; null where they did not.
        from: Option<PathKind>,
        /// By what they travel.
        path: PathKind,
        /// Through whom, where that is a relay.
        #[schemars(with = "Option<String>")]
        via: Option<NodeId>,
        /// What people call that one.
        #[serde(default)]
        #[schemars(with = "Option<String>")]
        via_nickname: Option<Nickname>,
        /// Why, in a few words.
        reason: String,
    },
    /// Something needs attention.
    Problem {
        /// What.
        problem: Problem,
    },
    /// No data session with a peer is left.
    SessionDown {
        /// With whom.
        #[schemars(with = "String")]
        node: NodeId,
        /// What people call it; null where that is not known.
        #[serde(default)]
        #[schemars(with = "Option<String>")]
        nickname: Option<Nickname>,
    },
    /// A data session with a peer is up.
    SessionUp {
        /// With whom.
        #[schemars(with = "String")]
        node: NodeId,
        /// What people call it; null where that is not known.
        #[serde(default)]
        #[schemars(with = "Option<String>")]
        nickname: Option<Nickname>,
    },
    /// The router stops. The last event.
    Stopping {
        /// Why, where it was not asked to.
        problem: Option<Problem>,
    },
    /// A token was made here.
    TokenCreated {
        /// Whether it admits more than one node.
        reusable: bool,
        /// How long it is good.
        seconds: u64,
    },
    /// A token was revoked here.
    TokenRevoked {
        /// Which.
        #[schemars(with = "String")]
        token: TokenId,
    },
}

impl Client {
    /// Everything that happens from here on.
    pub async fn events(&self) -> Result<Events, Problem> {
        Ok(Events {
            body: self.stream(STREAM).await?,
            buffer: Vec::new(),
        })
    }

    /// What happened lately, oldest first.
    pub async fn recent_events(&self) -> Result<Vec<Event>, Problem> {
        self.ask(RECENT).await
    }
}

/// Events as they come.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Events {
    /// Waits for one; `None` when the router has stopped. May be dropped and called again without losing any.
    pub async fn next(&mut self) -> Result<Option<Event>, Problem> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return parse(&line).map(Some);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                // A router that was killed ends its stream in the middle.
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}

fn parse(line: &[u8]) -> Result<Event, Problem> {
    serde_json::from_slice(line).map_err(|error| {
        Problem::new(Code::Internal, "an event of the router makes no sense").why(error.to_string())
    })
}
