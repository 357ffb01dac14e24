//! Numbers everything that can go wrong, once: what programs match on and people look up.
//!
//! A [`Code`] is `WFT-nnn` in messages and `docs/errors/WFT-nnn.md` in the documentation; an [`ExitCode`] is the number
//! a command ends with. The table below is the single place where the two are tied together.

use std::fmt;

/// What a command ends with. Documented, tested, and the same for every verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// All is well.
    Ok = 0,
    /// A fault of ours.
    Internal = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// No daemon answers on the socket.
    NotRunning = 3,
    /// It works, and something is wrong.
    Degraded = 4,
    /// This node is in no mesh yet.
    NotJoined = 5,
    /// Not authenticated or not allowed.
    Refused = 6,
    /// A peer, port or path does not answer.
    Unreachable = 7,
    /// `wait` waited long enough.
    TimedOut = 8,
    /// The configuration is wrong.
    Configuration = 9,
    /// Root, or the capabilities named.
    Privilege = 10,
    /// Two things want one name, address, range or identity.
    Conflict = 11,
    /// The other side speaks another version.
    Version = 12,
    /// The machine lacks a device, a kernel feature or disk space.
    Machine = 13,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $exit:ident, $title:literal;)*) => {
        /// One thing that can go wrong, or needs attention.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Code {
            $($(#[$doc])* $name = $number,)*
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// What a command that ends in it exits with.
            pub const fn exit(self) -> ExitCode {
                match self { $(Self::$name => ExitCode::$exit,)* }
            }

            /// The headline of its page.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// A bug of ours.
    Internal = 1, Internal, "weft itself failed";
    /// clap said no.
    Usage = 2, Usage, "the command line makes no sense";
    /// Nothing answers on the Unix socket.
    DaemonNotRunning = 3, NotRunning, "no weft router is running";
    /// A router runs with this state directory or socket already.
    DaemonRunning = 4, Conflict, "a weft router is running already";
    /// The router runs and has no mesh.
    NotJoined = 5, NotJoined, "this node is in no mesh";
    /// `wait` gave up.
    WaitTimedOut = 6, TimedOut, "what was waited for did not happen in time";
    /// The router did not come up in time.
    StartTimedOut = 7, TimedOut, "the router did not become ready in time";

    /// CAP_NET_ADMIN or CAP_NET_RAW is missing.
    Privilege = 10, Privilege, "more privilege is needed";
    /// /dev/net/tun cannot be opened.
    NoTun = 11, Machine, "this machine has no TUN/TAP device";
    /// A kernel feature without which no router can run.
    KernelFeature = 12, Machine, "the kernel lacks a feature that weft needs";
    /// The state directory cannot be written.
    StateDirectory = 13, Machine, "the state directory cannot be used";
    /// The disk is full.
    DiskFull = 14, Machine, "the disk is full";
    /// What is in the state directory cannot be read.
    StateDamaged = 15, Machine, "the saved state is damaged";
    /// Written by a later weft.
    StateVersion = 16, Version, "the saved state was written by another version";
    /// Another process has the port.
    PortInUse = 17, Conflict, "the port is in use";
    /// weft.toml, or a value in it.
    Configuration = 18, Configuration, "the configuration is wrong";
    /// A device of that name exists that is not ours.
    DeviceInUse = 19, Conflict, "a network device of that name exists already";

    /// Nothing came back at all.
    Filtered = 20, Unreachable, "nothing came back: a firewall drops the connection, or the host is down";
    /// The host answered, nothing listens.
    ConnectionRefused = 21, Unreachable, "the host is there, but no weft router listens on this port";
    /// The kernel has no route, or a router on the way said so.
    NoRoute = 22, Unreachable, "there is no route to the host";
    /// The name has no address.
    NameUnknown = 23, Unreachable, "the host name does not resolve";
    /// TCP works, UDP does not.
    UdpBlocked = 24, Unreachable, "UDP is blocked between the two hosts";
    /// The creator, who hands out addresses, cannot be reached.
    CreatorUnreachable = 25, Unreachable, "the mesh's creator cannot be reached, and only it hands out addresses";
    /// A node that is named is not present.
    PeerUnreachable = 26, Unreachable, "the peer does not answer";
    /// Full-size frames do not pass.
    FullSizeLost = 27, Unreachable, "small packets pass, full-size ones do not";
    /// A connection ended when both ends knew each other, before the joiner was in.
    CutShort = 28, Refused, "the connection ended before this node was in the mesh";
    /// What listens there is no weft router, or a broken one, or its bytes are changed on the way.
    Unintelligible = 29, Refused, "what the other side sent makes no sense";

    /// Not a token at all.
    TokenMalformed = 30, Refused, "this is no weft token";
    /// The other side does not know it.
    TokenNotAccepted = 31, Refused, "the token is not accepted here";
    /// Somebody joined with it.
    TokenUsed = 32, Refused, "the token was used already";
    /// Its time is over.
    TokenExpired = 33, Refused, "the token has expired";
    /// It was revoked.
    TokenVoided = 34, Refused, "the token was revoked";
    /// Left, or removed.
    NotAMember = 35, Refused, "this node is not a member of the mesh any more";
    /// The role does not allow it.
    NotAuthorised = 36, Refused, "this node's role does not allow that";
    /// The node asked is not an introducer.
    NotAnIntroducer = 37, Refused, "the node that was asked may not admit others";

    /// Two machines with one key.
    Clone = 40, Conflict, "another machine uses this node's identity";
    /// Local state belongs to another mesh.
    OtherMesh = 41, Conflict, "this node is in another mesh already";
    /// The mesh's range and a host route.
    RangeOverlap = 42, Conflict, "the mesh's address range overlaps a route of this host";
    /// Two owners of one overlay address.
    AddressInUse = 43, Conflict, "the address is in use in the mesh";
    /// The range is exhausted.
    RangeExhausted = 44, Conflict, "the mesh's address range has no free address";
    /// Outside the range.
    AddressOutsideRange = 45, Conflict, "the address lies outside the mesh's range";
    /// Several nodes fit the name.
    AmbiguousNode = 46, Usage, "several nodes fit that name";
    /// No node fits the name.
    UnknownNode = 47, Usage, "no node of the mesh fits that name";
    /// The container already has such an interface, or the namespace does not exist.
    AttachTarget = 48, Usage, "the container cannot be attached";
    /// More members than this release carries.
    MeshFull = 49, Conflict, "the mesh has as many members as this release supports";

    /// Another protocol version.
    VersionMismatch = 50, Version, "the other side speaks another version of the protocol";

    /// node.key has changed.
    KeyDamaged = 51, Machine, "the node's key is damaged";
    /// There is a state, and no node.key beside it.
    KeyMissing = 52, Machine, "the node's key is missing";
    /// node.key and the state are of two nodes.
    KeyMismatch = 53, Machine, "the node's key is not the one of its state";
    /// There is a node.key, and no state beside it.
    StateMissing = 54, Machine, "the node's state is missing";

    /// Heartbeats go over TCP.
    HeartbeatsByTcp = 60, Degraded, "heartbeats to a peer travel over TCP";
    /// A member is away.
    PeerDown = 61, Degraded, "a member of the mesh cannot be reached";
    /// Addresses or frames of others were claimed.
    OwnerViolation = 62, Degraded, "a member sends frames in another's name";
    /// A log forks.
    Equivocation = 63, Degraded, "a member signed two different records under one number";
    /// A kernel feature is missing, weft runs without it.
    KernelFeatureMissing = 64, Degraded, "the kernel lacks a feature, weft does without";
    /// The mesh was created without encryption.
    Unencrypted = 65, Degraded, "this mesh is not encrypted";
    /// The state could not be saved.
    NotSaved = 66, Degraded, "changes could not be saved";
    /// Bridged packets go through a filter that drops them.
    BridgeFiltered = 67, Degraded, "this host's packet filter drops what containers send";
    /// Forged, unreadable or too much.
    Misbehaviour = 68, Degraded, "a member sends what no member may";
}

/// What a join that failed with a code may hope for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It says something about one way into the mesh, and there may be several: another host or address may lead in.
    Elsewhere,
    /// No other way would change it, another moment may.
    Later,
    /// No further attempt changes it.
    Never,
}

impl Code {
    /// What a join that failed with it may hope for.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "few codes say anything about other ways; whatever else is wrong is wrong on all of them"
    )]
    pub const fn outlook(self) -> Outlook {
        match self {
            Self::ConnectionRefused
            | Self::CutShort
            | Self::Filtered
            | Self::NameUnknown
            | Self::NoRoute
            | Self::NotAnIntroducer
            | Self::TokenNotAccepted
            | Self::Unintelligible => Outlook::Elsewhere,
            Self::AddressInUse
            | Self::AddressOutsideRange
            | Self::Clone
            | Self::MeshFull
            | Self::NotAMember
            | Self::OtherMesh
            | Self::RangeExhausted
            | Self::TokenExpired
            | Self::TokenUsed
            | Self::TokenVoided
            | Self::VersionMismatch => Outlook::Never,
            _ => Outlook::Later,
        }
    }
}

impl Code {
    /// The number in `WFT-nnn`.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Reads the number back; `None` for one that a later release made.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.number() == number)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WFT-{:03}", self.number())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let number = text
            .strip_prefix("WFT-")
            .and_then(|digits| digits.parse().ok());
        number
            .and_then(Self::from_number)
            .ok_or_else(|| serde::de::Error::custom("a code is written WFT-nnn"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_ascend() {
        assert!(
            Code::ALL
                .windows(2)
                .all(|pair| pair[0].number() < pair[1].number())
        );
    }

    #[test]
    fn a_number_names_its_code() {
        assert_eq!(Code::from_number(32), Some(Code::TokenUsed));
        assert_eq!(Code::TokenUsed.to_string(), "WFT-032");
        assert_eq!(Code::from_number(999), None);
    }
}
