//! Names every reason for which a frame is not carried: the same word in metric, trace and test.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why a frame was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// Every reason, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The label of its metric.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

reasons! {
    /// A source address that belongs to another node.
    AddressForeign = "address_foreign",
    /// A source address that no packet on this network may have: group, loopback, IPv4 link-local, or unspecified
    /// where the protocol does not call for it.
    AddressIllegal = "address_illegal",
    /// A source address outside the mesh's ranges: nobody is a router here.
    AddressOutside = "address_outside",
    /// A source address of the mesh that nobody owns, as far as is known here.
    AddressUnknown = "address_unknown",
    /// More datagrams came over control connections than are kept until they are looked at.
    ControlFlood = "control_flood",
    /// More datagrams than control connections carry.
    ControlFull = "control_full",
    /// A DHCP server's answer: addresses on a mesh come from the mesh.
    DhcpReply = "dhcp_reply",
    /// More frames for everybody in a second than a mesh needs.
    FloodLimit = "flood_limit",
    /// Meant for the link and not for the network: spanning tree, LLDP, and the probes of the kernel path.
    LinkControl = "link_control",
    /// Captured from the bridge though its destination is on this host.
    Local = "local",
    /// Captured from the bridge though a peer sent it: it comes back to where it came from.
    Loop = "loop",
    /// A source Ethernet address that belongs to another node.
    MacForeign = "mac_foreign",
    /// A source Ethernet address that nobody owns, as far as is known here.
    MacUnknown = "mac_unknown",
    /// Headers that contradict themselves.
    Malformed = "malformed",
    /// More tags, extension headers or tunnels than anybody needs.
    Nested = "nested",
    /// No address of the peer is known to work.
    NoAddress = "no_address",
    /// The member that should pass it on is not reached straight, or there is none.
    NoRelay = "no_relay",
    /// No session with the peer came about in time, or too many frames waited for it.
    NoSession = "no_session",
    /// The destination's owner is a member that is away.
    OwnerAbsent = "owner_absent",
    /// Out of a session with a node that is not present.
    PeerAbsent = "peer_absent",
    /// More probes in a second than a member gets answered.
    ProbeLimit = "probe_limit",
    /// To be passed on, though it was as often as anything is.
    RelayHops = "relay_hops",
    /// More to be passed on for a member than it may have in a second.
    RelayLimit = "relay_limit",
    /// To be passed on to the member that it came from.
    RelayReturn = "relay_return",
    /// To be passed on to a node that is not present here.
    RelayUnknown = "relay_unknown",
    /// A router advertisement or redirect: nobody is a router here.
    RouterMessage = "router_message",
    /// On a network of the mesh that this host is not on.
    SegmentUnknown = "segment_unknown",
    /// The system refused to send: no route, or a firewall of this host.
    SendRefused = "send_refused",
    /// The socket was full: what cannot leave at once is not kept.
    SocketFull = "socket_full",
    /// The bridge's device refused the frame: it is down.
    TapRefused = "tap_refused",
    /// Longer than anything the mesh carries, or than the datagrams to that peer can hold.
    TooLong = "too_long",
    /// Ends within a header.
    Truncated = "truncated",
}

impl DropReason {
    /// Its place in [`Self::ALL`], for an array of counters.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether no honest router sends such a frame, so that it is counted against whoever did: the same check stops it
    /// where it is captured. Views that differ for a moment are no proof of anything.
    pub const fn is_forgery(self) -> bool {
        match self {
            Self::AddressForeign
            | Self::AddressIllegal
            | Self::AddressOutside
            | Self::DhcpReply
            | Self::LinkControl
            | Self::MacForeign
            | Self::Malformed
            | Self::Nested
            | Self::RouterMessage
            | Self::Truncated => true,
            Self::AddressUnknown
            | Self::ControlFlood
            | Self::ControlFull
            | Self::FloodLimit
            | Self::Local
            | Self::Loop
            | Self::MacUnknown
            | Self::NoAddress
            | Self::NoRelay
            | Self::NoSession
            | Self::OwnerAbsent
            | Self::PeerAbsent
            | Self::ProbeLimit
            | Self::RelayHops
            | Self::RelayLimit
            | Self::RelayReturn
            | Self::RelayUnknown
            | Self::SegmentUnknown
            | Self::SendRefused
            | Self::SocketFull
            | Self::TapRefused
            | Self::TooLong => false,
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_and_labels_are_in_alphabetical_order() {
        assert!(
            DropReason::ALL
                .windows(2)
                .all(|pair| pair[0].label() < pair[1].label())
        );
        assert!(
            DropReason::ALL
                .iter()
                .enumerate()
                .all(|(i, reason)| reason.index() == i)
        );
    }
}
