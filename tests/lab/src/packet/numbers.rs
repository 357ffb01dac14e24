//! Numbers by which headers are told, and their lengths.

/// What follows the two addresses of a frame.
pub mod ethertype {
    /// RFC 826.
    pub const ARP: u16 = 0x0806;
    /// RFC 894.
    pub const IPV4: u16 = 0x0800;
    /// RFC 2464.
    pub const IPV6: u16 = 0x86dd;
    /// IEEE 802.1Q: a tag, and then what would stand here without.
    pub const VLAN: u16 = 0x8100;
}

/// What follows an IP header.
pub mod protocol {
    /// RFC 792.
    pub const ICMP: u8 = 1;
    /// RFC 9293.
    pub const TCP: u8 = 6;
    /// RFC 768.
    pub const UDP: u8 = 17;
    /// RFC 4443.
    pub const ICMPV6: u8 = 58;
}

/// The field of an IPv4 header that tells of fragments (RFC 791 §3.1).
pub mod fragment {
    /// Whoever cannot pass the packet on in one piece is to say so.
    pub const NEVER: u16 = 0x4000;
    /// This is not the last one.
    pub const MORE: u16 = 0x2000;
    /// Where in the whole it belongs, in units of 8 bytes.
    pub const OFFSET: u16 = 0x1fff;
}

/// Two addresses and a type.
pub(super) const ETHERNET_HEADER: usize = 14;
pub(super) const TAG: usize = 4;
pub(super) const IPV4_HEADER: usize = 20;
pub(super) const IPV6_HEADER: usize = 40;
pub(super) const TCP_HEADER: usize = 20;
pub(super) const UDP_HEADER: usize = 8;
