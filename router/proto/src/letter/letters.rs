//! What letters say, and how each kind is written: a CBOR map of its kind.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use minicbor::{Decode, Encode};
use weft_types::{Boot, Code, Nickname, NodeId};

use crate::status::PathKind;
use crate::wire;

/// What members ask and tell each other in private.
#[derive(Clone, Debug, PartialEq)]
pub enum Letter {
    /// An introducer asks the creator for a joiner's address.
    AddressRequest(AddressRequest),
    /// The creator answers.
    AddressReply(AddressReply),
    /// Another machine with the receiver's identity came to the sender, and was refused.
    CloneSeen(CloneSeen),
    /// Asks the receiver to send to these addresses, as the sender does to the receiver's: both ends open their NATs.
    Punch(Vec<SocketAddr>),
    /// Answers a [`WayRequest`].
    WayReply(WayReply),
    /// Asks by which way frames for another leave the receiver.
    WayRequest(WayRequest),
}

/// Another machine uses the receiver's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloneSeen {
    /// Its run: a receiver that finds its own has restarted, and was taken for a clone.
    pub boot: Boot,
    /// Where it came from.
    pub from: SocketAddr,
}

/// Asks a node on the way of somebody's frames by which way it takes them on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayRequest {
    /// Comes back with the reply.
    pub request: u64,
    /// For whom the frames are.
    pub to: NodeId,
}

/// Answers a [`WayRequest`].
#[derive(Clone, Debug, PartialEq)]
pub struct WayReply {
    /// Which.
    pub request: u64,
    /// By what; `None` where there is no way.
    pub path: Option<PathKind>,
    /// Through whom, where that is a relay.
    pub via: Option<NodeId>,
    /// Smoothed round trip by that way.
    pub rtt: Option<Duration>,
    /// Share of frames or probes lost, 0 to 1.
    pub loss: f64,
    /// The largest IP packet of the underlay that is known to pass.
    pub mtu: Option<u16>,
}

/// Asks the creator for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRequest {
    /// Comes back with the reply.
    pub request: u64,
    /// Whom the address is for.
    pub node: NodeId,
    /// What people call it.
    pub nickname: Nickname,
    /// The address it asks for; the creator chooses if `None`.
    pub wanted: Option<IpNet>,
}

/// Answers an [`AddressRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressReply {
    /// Which.
    pub request: u64,
    /// The addresses, or why there are none.
    pub result: Result<Vec<IpNet>, Code>,
}

/// Why a sealed body was not opened. Nothing changes by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Forged, corrupted, for another, or of another than it says.
    #[error("a sealed unicast is not authentic")]
    Inauthentic,
    /// Authentic, and no letter.
    #[error("an authentic unicast holds no letter that makes sense")]
    Letter,
    /// Opened before, or too old to tell.
    #[error("a sealed unicast came twice")]
    Replayed,
    /// Of a kind that a later release made.
    #[error("a sealed unicast holds a letter of unknown kind {0}")]
    UnknownKind(u8),
}

impl Letter {
    const ADDRESS_REQUEST: u8 = 2;
    const ADDRESS_REPLY: u8 = 3;
    const PUNCH: u8 = 4;
    const WAY_REQUEST: u8 = 5;
    const WAY_REPLY: u8 = 6;
    const CLONE_SEEN: u8 = 7;

    /// Its kind and its bytes.
    pub(super) fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Self::AddressRequest(request) => {
                let repr = RequestRepr {
                    request: request.request,
                    node: request.node,
                    nickname: request.nickname.clone(),
                    wanted: request.wanted.map(Net),
                };
                (Self::ADDRESS_REQUEST, wire::encode(&repr))
            }
            Self::AddressReply(reply) => {
                let (addresses, code) = match &reply.result {
                    Ok(addresses) => (addresses.clone(), None),
                    Err(code) => (Vec::new(), Some(code.number())),
                };
                let repr = ReplyRepr {
                    request: reply.request,
                    addresses,
                    code,
                };
                (Self::ADDRESS_REPLY, wire::encode(&repr))
            }
            Self::CloneSeen(seen) => (
                Self::CLONE_SEEN,
                wire::encode(&CloneSeenRepr {
                    boot: seen.boot,
                    from: seen.from,
                }),
            ),
            Self::WayReply(reply) => (Self::WAY_REPLY, wire::encode(&WayReplyRepr::from(reply))),
            Self::WayRequest(request) => (
                Self::WAY_REQUEST,
                wire::encode(&WayRequestRepr {
                    request: request.request,
                    to: request.to,
                }),
            ),
            Self::Punch(addresses) => (
                Self::PUNCH,
                wire::encode(&PunchRepr {
                    addresses: addresses.clone(),
                }),
            ),
        }
    }

    /// Reads a letter of a kind.
    pub fn decode(kind: u8, bytes: &[u8]) -> Result<Self, OpenError> {
        match kind {
            Self::ADDRESS_REQUEST => {
                let repr: RequestRepr = wire::decode_whole(bytes).map_err(|_| OpenError::Letter)?;
                Ok(Self::AddressRequest(AddressRequest {
                    request: repr.request,
                    node: repr.node,
                    nickname: repr.nickname,
                    wanted: repr.wanted.map(|Net(net)| net),
                }))
            }
            Self::ADDRESS_REPLY => {
                let repr: ReplyRepr = wire::decode_whole(bytes).map_err(|_| OpenError::Letter)?;
                let result = match repr.code {
                    None => Ok(repr.addresses),
                    // One that a later release made is a failure all the same.
                    Some(number) => Err(Code::from_number(number).unwrap_or(Code::Internal)),
                };
                Ok(Self::AddressReply(AddressReply {
                    request: repr.request,
                    result,
                }))
            }
            Self::PUNCH => {
                let repr: PunchRepr = wire::decode_whole(bytes).map_err(|_| OpenError::Letter)?;
                Ok(Self::Punch(repr.addresses))
            }
            Self::WAY_REQUEST => {
                let repr: WayRequestRepr =
                    wire::decode_whole(bytes).map_err(|_| OpenError::Letter)?;
                Ok(Self::WayRequest(WayRequest {
                    request: repr.request,
                    to: repr.to,
                }))
            }
            Self::WAY_REPLY => {
                let repr: WayReplyRepr =
                    wire::decode_whole(bytes).map_err(|_| OpenError::Letter)?;
                Ok(Self::WayReply(repr.into()))
            }
            Self::CLONE_SEEN => {
                let repr: CloneSeenRepr =
                    wire::decode_whole(bytes).map_err(|_| OpenError::Letter)?;
                Ok(Self::CloneSeen(CloneSeen {
                    boot: repr.boot,
                    from: repr.from,
                }))
            }
            other => Err(OpenError::UnknownKind(other)),
        }
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct RequestRepr {
    #[n(0)]
    request: u64,
    #[n(1)]
    node: NodeId,
    #[n(2)]
    nickname: Nickname,
    #[n(3)]
    wanted: Option<Net>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct ReplyRepr {
    #[n(0)]
    request: u64,
    #[cbor(n(1), with = "wire::ip::net_list")]
    addresses: Vec<IpNet>,
    #[n(2)]
    code: Option<u16>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct WayRequestRepr {
    #[n(0)]
    request: u64,
    #[n(1)]
    to: NodeId,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct WayReplyRepr {
    #[n(0)]
    request: u64,
    /// 1: direct, 2: over a member, 3: over control connections; what a later release adds counts as none.
    #[n(1)]
    path: Option<u8>,
    #[n(2)]
    via: Option<NodeId>,
    #[n(3)]
    rtt_micros: Option<u64>,
    /// Of a million.
    #[n(4)]
    loss: u32,
    #[n(5)]
    mtu: Option<u16>,
}

impl From<&WayReply> for WayReplyRepr {
    fn from(reply: &WayReply) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a million fits"
        )]
        let loss = (reply.loss.clamp(0.0, 1.0) * 1e6) as u32;
        Self {
            request: reply.request,
            path: reply.path.map(|path| match path {
                PathKind::Sleeve => 1,
                PathKind::Relay => 2,
                PathKind::Control => 3,
            }),
            via: reply.via,
            rtt_micros: reply
                .rtt
                .map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
            loss,
            mtu: reply.mtu,
        }
    }
}

impl From<WayReplyRepr> for WayReply {
    fn from(repr: WayReplyRepr) -> Self {
        Self {
            request: repr.request,
            path: match repr.path {
                Some(1) => Some(PathKind::Sleeve),
                Some(2) => Some(PathKind::Relay),
                Some(3) => Some(PathKind::Control),
                Some(_) | None => None,
            },
            via: repr.via,
            rtt: repr.rtt_micros.map(Duration::from_micros),
            loss: f64::from(repr.loss.min(1_000_000)) / 1e6,
            mtu: repr.mtu,
        }
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct PunchRepr {
    #[cbor(n(0), with = "wire::ip::socket_list")]
    addresses: Vec<SocketAddr>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct CloneSeenRepr {
    #[n(0)]
    boot: Boot,
    #[cbor(n(1), with = "wire::ip::socket")]
    from: SocketAddr,
}

#[derive(Encode, Decode)]
#[cbor(transparent)]
struct Net(#[cbor(n(0), with = "wire::ip::net")] IpNet);

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use weft_types::BootId;

    use super::*;

    pub(in crate::letter) fn id(n: u8) -> NodeId {
        NodeId::new([n; 32])
    }

    pub(in crate::letter) fn boot(counter: u64) -> Boot {
        Boot {
            counter,
            id: BootId::new([0; 8]),
        }
    }

    pub(in crate::letter) fn letters() -> [Letter; 9] {
        let request = |wanted: Option<&str>| {
            Letter::AddressRequest(AddressRequest {
                request: 7,
                node: id(5),
                nickname: Nickname::new("new").expect("a nickname"),
                wanted: wanted.map(|net| net.parse().expect("a network")),
            })
        };
        let reply = |result| Letter::AddressReply(AddressReply { request: 7, result });
        [
            request(None),
            request(Some("10.32.0.9/12")),
            reply(Ok(vec!["10.32.0.9/12".parse().expect("a network")])),
            reply(Err(Code::RangeExhausted)),
            Letter::CloneSeen(CloneSeen {
                boot: boot(7),
                from: "[2001:db8::7]:40001".parse().expect("an address"),
            }),
            Letter::Punch(vec!["192.0.2.7:40001".parse().expect("an address")]),
            Letter::WayRequest(WayRequest {
                request: 7,
                to: id(5),
            }),
            Letter::WayReply(WayReply {
                request: 7,
                path: Some(PathKind::Relay),
                via: Some(id(6)),
                rtt: Some(Duration::from_micros(1500)),
                loss: 0.25,
                mtu: Some(1500),
            }),
            Letter::WayReply(WayReply {
                request: 7,
                path: None,
                via: None,
                rtt: None,
                loss: 0.0,
                mtu: None,
            }),
        ]
    }

    #[test]
    fn what_is_written_is_read_back_and_prefixes_are_refused() {
        for letter in letters() {
            let (kind, bytes) = letter.encode();
            assert_eq!(Letter::decode(kind, &bytes), Ok(letter));
            for cut in 0..bytes.len() {
                assert_eq!(Letter::decode(kind, &bytes[..cut]), Err(OpenError::Letter));
            }
        }
        assert_eq!(Letter::decode(9, &[]), Err(OpenError::UnknownKind(9)));
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(kind in 0_u8..10, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Letter::decode(kind, &bytes);
        }
    }
}
