//! Carries a message from one member to another over any number of others, who forward what they cannot read.
//!
//! ```text
//!   Unicast = { 0: from, 1: to, 2: hop limit, 3: body }                                    CBOR map
//!   body    = 0 ‖ Noise X message of { 0: boot, 1: counter, 2: kind, 3: letter }           sealed
//!           | 1 ‖ session message                                                          carries its own seal
//!           | 2 ‖ sealed datagram of a session, as on the data port                        where no datagram passes
//! ```
//!
//! A sealed body is one Noise X message from the sender's static key to the recipient's: only the recipient reads it,
//! and it knows that the sender wrote it. It has no forward secrecy and no post-quantum part, so it carries nothing
//! that must stay secret for long; connections between neighbours seal it once more.
//!
//! **Invariant.** A letter is opened once: the recipient keeps, per sender, the boot and the last [`WINDOW`] counters.
//! After the recipient's own restart an old letter may open again, so what letters ask for must bear being asked twice.
//! **Failure policy.** A unicast that cannot be forwarded or opened is dropped; who needs an answer asks again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode, decode};
use weft_types::{Boot, Code, Nickname, NodeId};

use crate::crypto::Crypto;
use crate::crypto::noise::{NoiseError, NoiseHandshake, NoisePublic, Pattern};
use crate::session::handshake::Local;
use crate::status::PathKind;
use crate::wire;

/// Hops of a message: several times the diameter of any control graph, and little to lose in a loop.
pub const HOP_LIMIT: u8 = 16;
/// The longest body: a session message of full size and its header.
pub const MAX_BODY: usize = 65_535 + 16;
/// Letters that may arrive out of order.
pub const WINDOW: u64 = 64;

const PROLOGUE: &[u8] = b"weft-v1 unicast";

/// One message on its way.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Unicast {
    /// Who sends it: a claim, until the body is opened.
    #[n(0)]
    pub from: NodeId,
    /// Whom it is for.
    #[n(1)]
    pub to: NodeId,
    /// How many more times it may be forwarded.
    #[n(2)]
    pub hop_limit: u8,
    /// See [`Body`].
    #[cbor(n(3), with = "bounded")]
    pub body: Vec<u8>,
}

/// What a unicast carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// A datagram of a session, for want of a way by UDP.
    Datagram(&'a [u8]),
    /// A Noise X message: see [`Mail::open`].
    Sealed(&'a [u8]),
    /// A session message, bare.
    Session(&'a [u8]),
}

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

impl Unicast {
    /// Begins a journey.
    pub fn new(from: NodeId, to: NodeId, body: Vec<u8>) -> Self {
        Self {
            from,
            to,
            hop_limit: HOP_LIMIT,
            body,
        }
    }

    /// Reads one, with nothing behind it.
    pub fn decode(bytes: &[u8]) -> Result<Self, decode::Error> {
        wire::decode_whole(bytes)
    }

    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Takes a hop; `None` if it was the last.
    pub fn forwarded(mut self) -> Option<Self> {
        self.hop_limit = self.hop_limit.checked_sub(1).filter(|&left| left > 0)?;
        Some(self)
    }
}

impl std::fmt::Debug for Unicast {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "unicast {} to {}, {} bytes",
            self.from.short(),
            self.to.short(),
            self.body.len()
        )
    }
}

impl<'a> Body<'a> {
    const SEALED: u8 = 0;
    const SESSION: u8 = 1;
    const DATAGRAM: u8 = 2;

    /// Reads a body; `None` for one that a later release made.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = bytes.split_first()?;
        match kind {
            Self::SEALED => Some(Self::Sealed(rest)),
            Self::SESSION => Some(Self::Session(rest)),
            Self::DATAGRAM => Some(Self::Datagram(rest)),
            _ => None,
        }
    }

    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Datagram(bytes) => [&[Self::DATAGRAM], *bytes].concat(),
            Self::Sealed(bytes) => [&[Self::SEALED], *bytes].concat(),
            Self::Session(bytes) => [&[Self::SESSION], *bytes].concat(),
        }
    }
}

/// Seals letters, and opens each once.
#[derive(Debug)]
pub struct Mail {
    local: Local,
    sent: u64,
    windows: BTreeMap<NodeId, Window>,
}

impl Mail {
    /// Begins with nothing sent and nothing opened.
    pub fn new(local: Local) -> Self {
        Self {
            local,
            sent: 0,
            windows: BTreeMap::new(),
        }
    }

    /// Steps to another run of this node: its counters begin anew.
    pub const fn set_boot(&mut self, boot: Boot) {
        self.local.boot = boot;
        self.sent = 0;
    }

    /// Seals a letter to the owner of `to`: the body of a [`Unicast`].
    pub fn seal(
        &mut self,
        to: &NoisePublic,
        letter: &Letter,
        crypto: &mut dyn Crypto,
    ) -> Result<Vec<u8>, NoiseError> {
        self.sent += 1;
        let (kind, bytes) = letter.encode();
        let envelope = Envelope {
            boot: self.local.boot,
            counter: self.sent,
            kind,
            letter: bytes.into(),
        };
        let mut noise = NoiseHandshake::initiator(
            Pattern::Sealed,
            &self.prologue(),
            &self.local.key,
            Some(to),
            crypto,
        )?;
        let sealed = noise.write(&wire::encode(&envelope))?;
        Ok(Body::Sealed(&sealed).encode())
    }

    /// Opens what [`Body::Sealed`] holds. `key` is that of the member `from`.
    pub fn open(
        &mut self,
        from: NodeId,
        key: &NoisePublic,
        sealed: &[u8],
        crypto: &mut dyn Crypto,
    ) -> Result<Letter, OpenError> {
        let mut noise =
            NoiseHandshake::responder(Pattern::Sealed, &self.prologue(), &self.local.key, crypto)
                .map_err(|_| OpenError::Inauthentic)?;
        let payload = noise.read(sealed).map_err(|_| OpenError::Inauthentic)?;
        if noise.remote() != Some(*key) {
            return Err(OpenError::Inauthentic);
        }
        let envelope: Envelope = wire::decode_whole(&payload).map_err(|_| OpenError::Letter)?;
        let window = self.windows.entry(from).or_default();
        if !window.admit(envelope.boot, envelope.counter) {
            return Err(OpenError::Replayed);
        }
        Letter::decode(envelope.kind, &envelope.letter)
    }

    /// Forgets a node that is no member any more.
    pub fn forget(&mut self, node: NodeId) {
        self.windows.remove(&node);
    }

    fn prologue(&self) -> Vec<u8> {
        [PROLOGUE, self.local.mesh.as_bytes()].concat()
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Envelope {
    #[n(0)]
    boot: Boot,
    #[n(1)]
    counter: u64,
    #[n(2)]
    kind: u8,
    #[n(3)]
    letter: ByteVec,
}

/// What was opened of one sender: the highest counter of its run, and which of those just below.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    boot: u64,
    highest: u64,
    /// Bit n is set when `highest - n` was opened.
    opened: u64,
}

impl Window {
    /// Counters begin at 1 in every run.
    fn admit(&mut self, boot: Boot, counter: u64) -> bool {
        if boot.counter < self.boot || counter == 0 {
            return false;
        }
        if boot.counter > self.boot {
            *self = Self {
                boot: boot.counter,
                highest: 0,
                opened: 0,
            };
        }
        if counter > self.highest {
            let ahead = counter - self.highest;
            self.opened = match u32::try_from(ahead) {
                Ok(shift) => self.opened.checked_shl(shift).unwrap_or(0) | 1,
                Err(_) => 1,
            };
            self.highest = counter;
            return true;
        }
        let behind = self.highest - counter;
        if behind >= WINDOW || self.opened >> behind & 1 == 1 {
            return false;
        }
        self.opened |= 1 << behind;
        true
    }
}

impl Letter {
    const ADDRESS_REQUEST: u8 = 2;
    const ADDRESS_REPLY: u8 = 3;
    const PUNCH: u8 = 4;
    const WAY_REQUEST: u8 = 5;
    const WAY_REPLY: u8 = 6;
    const CLONE_SEEN: u8 = 7;

    fn encode(&self) -> (u8, Vec<u8>) {
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
    /// 1: straight, 2: over a member, 3: over control connections; what a later release adds counts as none.
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

mod bounded {
    use minicbor::decode::Error;
    use minicbor::encode::{Error as WriteError, Write};
    use minicbor::{Decoder, Encoder};

    use super::MAX_BODY;

    pub(super) fn encode<C, W: Write>(
        body: &[u8],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), WriteError<W::Error>> {
        e.bytes(body)?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<u8>, Error> {
        let body = d.bytes()?;
        if body.len() > MAX_BODY {
            return Err(Error::message("a unicast's body is too long"));
        }
        Ok(body.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_types::{BootId, MeshId};

    use super::*;
    use crate::crypto::Secret32;
    use crate::crypto::noise::NoiseKey;
    use crate::crypto::seeded::SeededCrypto;

    fn id(n: u8) -> NodeId {
        NodeId::new([n; 32])
    }

    fn key(n: u8) -> NoiseKey {
        NoiseKey::from_secret(&Secret32::new([n; 32]))
    }

    fn boot(counter: u64) -> Boot {
        Boot {
            counter,
            id: BootId::new([0; 8]),
        }
    }

    fn mail(n: u8, run: u64) -> Mail {
        Mail::new(Local {
            node: id(n),
            key: key(n),
            mesh: MeshId::new([9; 32]),
            boot: boot(run),
        })
    }

    fn letters() -> [Letter; 5] {
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
        ]
    }

    fn open(to: &mut Mail, from: u8, body: &[u8]) -> Result<Letter, OpenError> {
        let Some(Body::Sealed(sealed)) = Body::decode(body) else {
            panic!("sealed")
        };
        to.open(
            id(from),
            &key(from).public(),
            sealed,
            &mut SeededCrypto::new(2),
        )
    }

    fn seal(from: &mut Mail, letter: &Letter) -> Vec<u8> {
        from.seal(&key(2).public(), letter, &mut SeededCrypto::new(from.sent))
            .expect("seals")
    }

    #[test]
    fn every_letter_is_opened_once() {
        let (mut from, mut to) = (mail(1, 1), mail(2, 1));

        for letter in letters() {
            let body = seal(&mut from, &letter);

            assert_eq!(open(&mut to, 1, &body), Ok(letter));
            assert_eq!(open(&mut to, 1, &body), Err(OpenError::Replayed));
        }
    }

    #[test]
    fn nobody_opens_anothers_letter_or_writes_in_anothers_name() {
        let mut from = mail(1, 1);
        let body = seal(&mut from, &letters()[0]);
        let mut damaged = body.clone();
        damaged[40] ^= 1;

        assert_eq!(open(&mut mail(3, 1), 1, &body), Err(OpenError::Inauthentic));
        assert_eq!(open(&mut mail(2, 1), 3, &body), Err(OpenError::Inauthentic));
        assert_eq!(
            open(&mut mail(2, 1), 1, &damaged),
            Err(OpenError::Inauthentic)
        );
        let mut elsewhere = mail(2, 1);
        elsewhere.local.mesh = MeshId::new([8; 32]);
        assert_eq!(open(&mut elsewhere, 1, &body), Err(OpenError::Inauthentic));
    }

    #[test]
    fn letters_of_an_earlier_run_are_refused() {
        let mut to = mail(2, 1);
        let old = seal(&mut mail(1, 1), &letters()[0]);
        let new = seal(&mut mail(1, 2), &letters()[0]);

        assert!(open(&mut to, 1, &new).is_ok());
        assert_eq!(open(&mut to, 1, &old), Err(OpenError::Replayed));
    }

    #[test]
    fn the_last_hop_is_the_last() {
        let mut unicast = Unicast::new(id(1), id(2), vec![1]);
        let mut hops = 0;
        while let Some(forwarded) = unicast.clone().forwarded() {
            unicast = forwarded;
            hops += 1;
        }

        assert_eq!(hops, HOP_LIMIT - 1);
    }

    #[test]
    fn what_is_written_is_read_back_and_prefixes_are_refused() {
        let unicast = Unicast::new(id(1), id(2), Body::Session(b"words").encode());
        let bytes = unicast.encode();

        assert_eq!(Unicast::decode(&bytes).expect("decodes"), unicast);
        assert_eq!(Body::decode(&unicast.body), Some(Body::Session(b"words")));
        assert!((0..bytes.len()).all(|cut| Unicast::decode(&bytes[..cut]).is_err()));
        for letter in letters() {
            let (kind, bytes) = letter.encode();
            assert_eq!(Letter::decode(kind, &bytes), Ok(letter));
            for cut in 0..bytes.len() {
                assert_eq!(Letter::decode(kind, &bytes[..cut]), Err(OpenError::Letter));
            }
        }
        assert_eq!(Letter::decode(9, &[]), Err(OpenError::UnknownKind(9)));
    }

    #[test]
    fn a_body_too_long_is_refused() {
        let unicast = Unicast::new(id(1), id(2), vec![0; MAX_BODY + 1]);

        assert!(Unicast::decode(&unicast.encode()).is_err());
    }

    proptest! {
        #[test]
        fn a_window_admits_each_counter_once(
            counters in prop::collection::vec(1_u64..200, 0..200),
        ) {
            let mut window = Window::default();
            let mut admitted = std::collections::BTreeSet::new();
            for counter in counters {
                let highest = admitted.last().copied().unwrap_or(0);
                let fresh = !admitted.contains(&counter) && counter + WINDOW > highest;

                prop_assert_eq!(window.admit(boot(1), counter), fresh);
                admitted.extend(fresh.then_some(counter));
            }
        }

        #[test]
        fn random_bytes_do_not_panic(kind: u8, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Unicast::decode(&bytes);
            let _ = Body::decode(&bytes);
            let _ = Letter::decode(kind % 5, &bytes);
            let _ = mail(2, 1).open(id(1), &key(1).public(), &bytes, &mut SeededCrypto::new(1));
        }
    }
}
