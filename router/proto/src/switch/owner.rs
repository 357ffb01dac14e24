//! Checks every address that a frame claims as its sender's: in Ethernet, ARP, IPv4, IPv6, neighbour discovery, and in
//! packets within packets.
//!
//! | claimed | by | must be |
//! |---|---|---|
//! | Ethernet source | every frame | an endpoint of the sender |
//! | ARP sender hardware address | ARP (RFC 826) | an endpoint of the sender |
//! | ARP sender protocol address | ARP | the sender's; unspecified in a probe (RFC 5227 §2.1.1), then the target is |
//! | IPv4 source | every packet and fragment | the sender's; unspecified for a DHCP client and IGMP |
//! | IPv6 source | every packet and fragment | the sender's, or link-local; unspecified for ND and MLD |
//! | link-layer address options | ND (RFC 4861 §4.6.1) | an endpoint of the sender |
//! | target | neighbour advertisement, and solicitation for duplicate detection | the sender's, or link-local |
//! | source of a tunnelled packet | protocols 4 and 41, over IPv4 and IPv6 | the sender's where it is of the mesh |
//!
//! The sender of a captured frame is the one endpoint of this host that has its Ethernet source: the bridge lets a
//! container's frames in with no other, and here they end unless all else in them is that container's too. The sender of
//! a received frame is the peer, with all its endpoints: which of them it was, its own router has judged.
//!
//! "The sender's" is an address within the mesh's ranges that an endpoint of the sender has. Addresses outside the
//! ranges are refused. A link-local address that is made of an Ethernet address (RFC 4291 appendix A) is refused if that
//! one is another's. Router advertisements, redirects and DHCP servers' answers are refused whoever sends them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_types::{MacAddr, Segment};

use super::ethernet::{Header, ethertype, split};
use super::table::OwnerNumber;
use super::{DropReason, ForwardingTable, Owner};

/// Packets within packets that are looked into; deeper ones are dropped.
pub const MAX_TUNNELS: usize = 3;
/// Extension headers of one IPv6 packet. Every kind once (RFC 8200 §4.1), and one to spare.
pub const MAX_EXTENSIONS: usize = 8;
/// Options of one neighbour discovery message. RFC 4861 knows five.
const MAX_OPTIONS: usize = 16;
/// A later fragment that begins before this would rewrite a tunnelled packet's source (RFC 1858 §3).
const TUNNELLED_SOURCE_END: usize = 24;

mod protocol {
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION_OPTIONS: u8 = 60;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ICMP: u8 = 1;
    pub(super) const ICMPV6: u8 = 58;
    pub(super) const IGMP: u8 = 2;
    pub(super) const IPV4: u8 = 4;
    pub(super) const IPV6: u8 = 41;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const UDP: u8 = 17;
}

mod icmp {
    pub(super) const REDIRECT: u8 = 5;
    pub(super) const ROUTER_ADVERTISEMENT: u8 = 9;
}

mod icmpv6 {
    pub(super) const LISTENER_REPORT: u8 = 131;
    pub(super) const LISTENER_REPORT_V2: u8 = 143;
    pub(super) const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    pub(super) const NEIGHBOUR_SOLICITATION: u8 = 135;
    pub(super) const REDIRECT: u8 = 137;
    pub(super) const ROUTER_ADVERTISEMENT: u8 = 134;
    pub(super) const ROUTER_SOLICITATION: u8 = 133;
}

/// In whose name a frame may speak.
#[derive(Clone, Copy)]
pub(super) enum Sender {
    /// One endpoint of this host's.
    Endpoint(OwnerNumber),
    /// All of a peer's.
    Peer(usize),
}

/// The check of one frame: whose name it may bear.
pub(super) struct Check<'a> {
    table: &'a ForwardingTable,
    segment: Segment,
    from: Sender,
}

/// A packet's header, of either family.
struct Packet<'a> {
    source: IpAddr,
    protocol: u8,
    /// Where in the whole this piece begins, if it is a piece.
    fragment: Option<usize>,
    payload: &'a [u8],
}

impl<'a> Check<'a> {
    pub(super) const fn new(table: &'a ForwardingTable, segment: Segment, from: Sender) -> Self {
        Self {
            table,
            segment,
            from,
        }
    }

    pub(super) fn frame(&self, header: &Header<'_>) -> Result<(), DropReason> {
        self.mac(header.source)?;
        match header.ethertype {
            ethertype::ARP => self.arp(header.payload),
            ethertype::IPV4 => self.packet(&ipv4(header.payload)?),
            ethertype::IPV6 => self.packet(&ipv6(header.payload)?),
            _ => Ok(()),
        }
    }

    fn mac(&self, mac: MacAddr) -> Result<(), DropReason> {
        match self.table.number_of_mac(self.segment, mac) {
            Some(number) if self.is_senders(number) => Ok(()),
            Some(_) => Err(DropReason::MacForeign),
            None => Err(DropReason::MacUnknown),
        }
    }

    fn is_senders(&self, number: OwnerNumber) -> bool {
        match self.from {
            Sender::Endpoint(own) => number == own,
            Sender::Peer(peer) => self.table.owner(number) == Some(Owner::Peer(peer)),
        }
    }

    /// An address that is claimed, and is neither unspecified nor link-local.
    fn address(&self, address: IpAddr) -> Result<(), DropReason> {
        if !self.table.in_range(address) {
            return Err(if is_illegal(address) {
                DropReason::AddressIllegal
            } else {
                DropReason::AddressOutside
            });
        }
        match self.table.number_of_address(self.segment, address) {
            Some(number) if self.is_senders(number) => Ok(()),
            Some(_) => Err(DropReason::AddressForeign),
            None => Err(DropReason::AddressUnknown),
        }
    }

    /// An address that is claimed by a protocol in which link-local ones have their place.
    fn address_or_link_local(&self, address: Ipv6Addr) -> Result<(), DropReason> {
        if !address.is_unicast_link_local() {
            return self.address(IpAddr::V6(address));
        }
        let Some(mac) = embedded_mac(address) else {
            return Ok(());
        };
        match self.mac(mac) {
            // Whoever has no such Ethernet address may still have the bits.
            Ok(()) | Err(DropReason::MacUnknown) => Ok(()),
            Err(_) => Err(DropReason::AddressForeign),
        }
    }

    fn arp(&self, bytes: &[u8]) -> Result<(), DropReason> {
        // Ethernet, IPv4, and the lengths of their addresses: the only kind there is (RFC 826).
        const KIND: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];
        let (kind, rest) = split::<6>(bytes)?;
        if *kind != KIND {
            return Err(DropReason::Malformed);
        }
        let (_operation, rest) = split::<2>(rest)?;
        let (hardware, rest) = split::<6>(rest)?;
        let (protocol, rest) = split::<4>(rest)?;
        let (_, rest) = split::<6>(rest)?;
        let (target, _) = split::<4>(rest)?;
        self.mac(MacAddr::new(*hardware))?;
        let claimed = Ipv4Addr::from(*protocol);
        if claimed.is_unspecified() {
            // A probe claims what it asks for.
            return self.address(IpAddr::V4(Ipv4Addr::from(*target)));
        }
        self.address(IpAddr::V4(claimed))
    }

    fn packet(&self, packet: &Packet<'_>) -> Result<(), DropReason> {
        match packet.source {
            source if source.is_unspecified() => unspecified_source(packet)?,
            IpAddr::V4(_) => self.address(packet.source)?,
            IpAddr::V6(source) => self.address_or_link_local(source)?,
        }
        if packet.fragment.is_some_and(|offset| offset > 0) {
            return self.tunnelled(packet);
        }
        match (packet.source, packet.protocol) {
            (_, protocol::UDP) => no_dhcp_reply(packet),
            (IpAddr::V4(_), protocol::ICMP) => no_router_message(packet),
            (IpAddr::V6(_), protocol::ICMPV6) => self.icmpv6(packet),
            _ => self.tunnelled(packet),
        }
    }

    /// Looks into a packet within a packet. What is not of the mesh may be there: it is a tunnel's own affair.
    fn tunnelled(&self, outer: &Packet<'_>) -> Result<(), DropReason> {
        let mut inner = inner(outer)?;
        for _ in 0..MAX_TUNNELS {
            let Some(packet) = inner else {
                return Ok(());
            };
            let source = unmapped(packet.source);
            if self.table.in_range(source) {
                self.address(source)?;
            }
            inner = self::inner(&packet)?;
        }
        match inner {
            None => Ok(()),
            Some(_) => Err(DropReason::Nested),
        }
    }

    fn icmpv6(&self, packet: &Packet<'_>) -> Result<(), DropReason> {
        let (&[kind, _code, _, _], rest) = split::<4>(packet.payload)?;
        let claims_target = match kind {
            icmpv6::REDIRECT | icmpv6::ROUTER_ADVERTISEMENT => {
                return Err(DropReason::RouterMessage);
            }
            icmpv6::NEIGHBOUR_ADVERTISEMENT => true,
            // Duplicate address detection claims what it asks for (RFC 4862 §5.4.2).
            icmpv6::NEIGHBOUR_SOLICITATION => packet.source.is_unspecified(),
            icmpv6::ROUTER_SOLICITATION => false,
            _ => return Ok(()),
        };
        if packet.fragment.is_some() {
            return Err(DropReason::Malformed); // RFC 6980 §5
        }
        let (_reserved, rest) = split::<4>(rest)?;
        if kind == icmpv6::ROUTER_SOLICITATION {
            return self.options(rest);
        }
        let (target, options) = split::<16>(rest)?;
        if claims_target {
            self.address_or_link_local(Ipv6Addr::from(*target))?;
        }
        self.options(options)
    }

    /// RFC 4861 §4.6: type, length in units of 8 bytes, body.
    fn options(&self, mut options: &[u8]) -> Result<(), DropReason> {
        const SOURCE_LINK_LAYER: u8 = 1;
        const TARGET_LINK_LAYER: u8 = 2;
        for _ in 0..MAX_OPTIONS {
            if options.is_empty() {
                return Ok(());
            }
            let (&[kind, units], _) = split::<2>(options)?;
            if units == 0 {
                return Err(DropReason::Malformed);
            }
            let (option, rest) = options
                .split_at_checked(usize::from(units) * 8)
                .ok_or(DropReason::Truncated)?;
            if let SOURCE_LINK_LAYER | TARGET_LINK_LAYER = kind {
                let (_, body) = split::<2>(option)?;
                let (mac, padding) = split::<6>(body)?;
                if !padding.is_empty() {
                    return Err(DropReason::Malformed);
                }
                self.mac(MacAddr::new(*mac))?;
            }
            options = rest;
        }
        if options.is_empty() {
            return Ok(());
        }
        Err(DropReason::Nested)
    }
}

/// RFC 791 §3.1.
fn ipv4(bytes: &[u8]) -> Result<Packet<'_>, DropReason> {
    let (header, _) = split::<20>(bytes)?;
    let length = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || length < header.len() {
        return Err(DropReason::Malformed);
    }
    let payload = bytes.get(length..).ok_or(DropReason::Truncated)?;
    let flags = u16::from_be_bytes([header[6], header[7]]);
    const MORE: u16 = 0x2000;
    const OFFSET: u16 = 0x1fff;
    Ok(Packet {
        source: IpAddr::V4(Ipv4Addr::new(
            header[12], header[13], header[14], header[15],
        )),
        protocol: header[9],
        fragment: (flags & (MORE | OFFSET) != 0).then_some(usize::from(flags & OFFSET) * 8),
        payload,
    })
}

/// RFC 8200 §3, through the extension headers of §4.
fn ipv6(bytes: &[u8]) -> Result<Packet<'_>, DropReason> {
    let (header, rest) = split::<40>(bytes)?;
    if header[0] >> 4 != 6 {
        return Err(DropReason::Malformed);
    }
    // Short frames are padded behind the packet.
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let payload = rest.get(..length).unwrap_or(rest);
    let (source, _) = split::<16>(&header[8..])?;
    let mut packet = Packet {
        source: IpAddr::V6(Ipv6Addr::from(*source)),
        protocol: header[6],
        fragment: None,
        payload,
    };
    for _ in 0..=MAX_EXTENSIONS {
        let length = match packet.protocol {
            protocol::DESTINATION_OPTIONS | protocol::HOP_BY_HOP | protocol::ROUTING => {
                let (&[_, units], _) = split::<2>(packet.payload)?;
                usize::from(units) * 8 + 8
            }
            protocol::AUTHENTICATION => {
                let (&[_, words], _) = split::<2>(packet.payload)?;
                usize::from(words) * 4 + 8 // RFC 4302 §2.2
            }
            protocol::FRAGMENT => {
                let (&[_, _, high, low, ..], _) = split::<8>(packet.payload)?;
                if packet.fragment.is_some() {
                    return Err(DropReason::Malformed);
                }
                packet.fragment = Some(usize::from(u16::from_be_bytes([high, low]) & !7));
                8
            }
            _ => return Ok(packet),
        };
        let (extension, rest) = packet
            .payload
            .split_at_checked(length)
            .ok_or(DropReason::Truncated)?;
        packet.protocol = extension[0];
        packet.payload = rest;
        if packet.fragment.is_some_and(|offset| offset > 0) {
            return Ok(packet); // The rest is the middle of something.
        }
    }
    Err(DropReason::Nested)
}

/// The packet within a packet, if there is one and it begins here.
fn inner<'a>(outer: &Packet<'a>) -> Result<Option<Packet<'a>>, DropReason> {
    let tunnels = matches!(outer.protocol, protocol::IPV4 | protocol::IPV6);
    match outer.fragment {
        Some(1..) if !tunnels => Ok(None),
        Some(offset @ 1..) if offset < TUNNELLED_SOURCE_END => Err(DropReason::Malformed),
        Some(1..) => Ok(None),
        None | Some(0) => match outer.protocol {
            protocol::IPV4 => ipv4(outer.payload).map(Some),
            protocol::IPV6 => ipv6(outer.payload).map(Some),
            _ => Ok(None),
        },
    }
}

/// Lets those speak who have no address yet.
fn unspecified_source(packet: &Packet<'_>) -> Result<(), DropReason> {
    if packet.fragment.is_some() {
        return Err(DropReason::AddressIllegal);
    }
    let allowed = match (packet.source, packet.protocol) {
        (IpAddr::V4(_), protocol::IGMP) => true, // RFC 4541 §2.1.1
        (IpAddr::V4(_), protocol::UDP) => {
            let (ports, _) = split::<4>(packet.payload)?;
            *ports == [0, 68, 0, 67] // RFC 2131 §4.1
        }
        (IpAddr::V6(_), protocol::ICMPV6) => {
            let (&[kind], _) = split::<1>(packet.payload)?;
            matches!(
                kind,
                icmpv6::LISTENER_REPORT
                    | icmpv6::LISTENER_REPORT_V2 // RFC 3590 §4
                    | icmpv6::NEIGHBOUR_SOLICITATION
                    | icmpv6::ROUTER_SOLICITATION
            )
        }
        _ => false,
    };
    if allowed {
        Ok(())
    } else {
        Err(DropReason::AddressIllegal)
    }
}

/// RFC 792 and RFC 1256; in IPv6 they are among the messages of neighbour discovery.
fn no_router_message(packet: &Packet<'_>) -> Result<(), DropReason> {
    let (&[kind], _) = split::<1>(packet.payload)?;
    match kind {
        icmp::REDIRECT | icmp::ROUTER_ADVERTISEMENT => Err(DropReason::RouterMessage),
        _ => Ok(()),
    }
}

fn no_dhcp_reply(packet: &Packet<'_>) -> Result<(), DropReason> {
    const CLIENT: u16 = 68; // RFC 2131 §4.1
    const CLIENT_V6: u16 = 546; // RFC 8415 §7.2
    let (&[_, _, high, low], _) = split::<4>(packet.payload)?;
    match (packet.source, u16::from_be_bytes([high, low])) {
        (IpAddr::V4(_), CLIENT) | (IpAddr::V6(_), CLIENT_V6) => Err(DropReason::DhcpReply),
        _ => Ok(()),
    }
}

/// What is never a source, on any network of ours.
fn is_illegal(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_unspecified()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.octets()[0] >= 240 // RFC 1112 §4, RFC 919 §7
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_multicast()
                || v6.to_ipv4_mapped().is_some()
        }
    }
}

/// The IPv4 address that an IPv6 one stands for, if it does (RFC 4291 §2.5.5).
fn unmapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => v6.to_ipv4().map_or(address, IpAddr::V4),
    }
}

/// The Ethernet address a link-local address was made of (RFC 4291 appendix A).
fn embedded_mac(address: Ipv6Addr) -> Option<MacAddr> {
    match address.octets() {
        [_, _, _, _, _, _, _, _, a, b, c, 0xff, 0xfe, d, e, f] => {
            Some(MacAddr::new([a ^ 0x02, b, c, d, e, f]))
        }
        _ => None,
    }
}
