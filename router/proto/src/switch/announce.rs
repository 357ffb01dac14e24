//! Tells the containers of this host that an address is behind another Ethernet address than before.
//!
//! A container that takes another's place has an Ethernet address of its own. Whoever spoke with the first keeps that
//! one's for half a minute (RFC 4861 §7.3), and no word of the second comes by: a container says nothing of itself, and
//! the bridge sends announcements to no other host. So each router announces, on its own bridge, what moved anywhere in
//! the mesh: IPv4 by an ARP announcement (RFC 5227 §3), IPv6 by an unsolicited neighbour advertisement (RFC 4861
//! §7.2.6).
//!
//! Nobody is told of an address by its own advertisement: a container that is still checking the address for duplicates
//! would give it up (RFC 4862 §5.4.4). So an IPv6 address of this host is announced to every other endpoint here, one by
//! one; to all at once if it is elsewhere.
//!
//! **Invariant.** What is where it was before is not announced, however long it was away; nor what was never seen.
//! **Room.** Of addresses that are gone the last [`REMEMBERED`] are known.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use weft_types::{MacAddr, Segment};

use super::ethernet::ethertype;
use crate::endpoints::{Endpoints, Holder};
use crate::snapshot::Snapshot;

/// Addresses that went and may come back elsewhere: all containers of four full hosts.
const REMEMBERED: usize = 4096;

/// All nodes of a link (RFC 4291 §2.7.1), and the Ethernet address they listen to (RFC 2464 §7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: MacAddr = MacAddr::new([0x33, 0x33, 0, 0, 0, 1]);

type Key = (Segment, IpAddr);

/// Knows where addresses were.
#[derive(Debug, Default)]
pub struct Announcer {
    now: Endpoints,
    /// Where those were that are gone.
    gone: BTreeMap<Key, MacAddr>,
    /// The same, the first that went first. One that came back meanwhile stays until its turn.
    order: VecDeque<Key>,
}

impl Announcer {
    /// Follows to another moment: the frames to put on the bridge.
    pub fn follow(&mut self, snapshot: &Snapshot) -> Vec<Vec<u8>> {
        let was = std::mem::replace(&mut self.now, snapshot.endpoints.clone());
        let pairs = was.by_address().iter().zip(snapshot.endpoints.by_address());
        let mut frames = Vec::new();
        for (before, after) in pairs.filter(|(before, after)| !Arc::ptr_eq(before, after)) {
            for holder in without(before, after) {
                self.remember(holder);
            }
            for holder in after.iter() {
                let key = (holder.segment, holder.address);
                let known = find(before, key).or_else(|| self.gone.remove(&key));
                if known.is_some_and(|mac| mac != holder.mac) {
                    frames.extend(announce(holder, snapshot));
                }
            }
        }
        frames
    }

    fn remember(&mut self, holder: &Holder) {
        let key = (holder.segment, holder.address);
        if self.gone.insert(key, holder.mac).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED
            && let Some(first) = self.order.pop_front()
        {
            self.gone.remove(&first);
        }
    }
}

/// Those of `these` whose addresses nobody of `others` has.
fn without<'a>(these: &'a [Holder], others: &'a [Holder]) -> impl Iterator<Item = &'a Holder> {
    let gone = |holder: &&Holder| find(others, (holder.segment, holder.address)).is_none();
    these.iter().filter(gone)
}

/// Where an address is. Holders are sorted.
fn find(holders: &[Holder], key: Key) -> Option<MacAddr> {
    let at = holders.binary_search_by_key(&key, |holder| (holder.segment, holder.address));
    at.ok().map(|at| holders[at].mac)
}

fn announce(holder: &Holder, snapshot: &Snapshot) -> Vec<Vec<u8>> {
    if holder.segment != Segment::DEFAULT {
        return Vec::new(); // On no bridge of this host.
    }
    let (mac, here) = (holder.mac, holder.owner == snapshot.node);
    match holder.address {
        IpAddr::V4(address) => vec![arp(mac, address)],
        IpAddr::V6(address) if here => others_here(snapshot, mac)
            .map(|to| advertisement(to, mac, address))
            .collect(),
        IpAddr::V6(address) => vec![advertisement(ALL_NODES_MAC, mac, address)],
    }
}

/// The endpoints of this host but one.
fn others_here(snapshot: &Snapshot, but: MacAddr) -> impl Iterator<Item = MacAddr> {
    let here = snapshot.endpoints.iter();
    let here = here.filter(|endpoint| endpoint.owner == snapshot.node);
    here.map(|endpoint| endpoint.mac)
        .filter(move |mac| *mac != but)
}

/// RFC 5227 §3: a request in which sender and target are one.
fn arp(mac: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(MacAddr::BROADCAST, mac, ethertype::ARP);
    frame.extend([0, 1, 0x08, 0x00, 6, 4, 0, 1]);
    frame.extend(mac.as_bytes());
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// RFC 4861 §4.4, with the flag that says that what is known is to be overridden.
fn advertisement(to: MacAddr, mac: MacAddr, address: Ipv6Addr) -> Vec<u8> {
    const OVERRIDE: u8 = 0x20;
    const LENGTH: u16 = 32;
    const ICMPV6: u8 = 58;
    let mut message = vec![136, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(address.octets());
    message.extend([2, 1]);
    message.extend(mac.as_bytes());
    let [high, low] = LENGTH.to_be_bytes();
    // RFC 8200 §8.1.
    let pseudo = [
        &address.octets()[..],
        &ALL_NODES.octets(),
        &[0, 0, high, low, 0, 0, 0, ICMPV6],
    ];
    let sum = checksum(&[&pseudo.concat(), &message[..]].concat());
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut frame = ethernet(to, mac, ethertype::IPV6);
    // From afar no such message is believed (RFC 4861 §7.1.2).
    frame.extend([0x60, 0, 0, 0, high, low, ICMPV6, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

fn ethernet(to: MacAddr, from: MacAddr, kind: u16) -> Vec<u8> {
    let kind = kind.to_be_bytes();
    [&to.as_bytes()[..], &from.as_bytes()[..], &kind].concat()
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    let sum: u32 = words.map(|pair| u32::from(u16::from_be_bytes(pair))).sum();
    let [a, b, c, d] = sum.to_be_bytes();
    let (carry, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let (sum, again) = low.overflowing_add(carry);
    !(sum + u16::from(again))
}

#[cfg(test)]
mod tests {
    use weft_types::{Mtu, NodeId};

    use super::*;
    use crate::snapshot::{Endpoint, EndpointKind};
    use crate::switch::ForwardingTable;

    const HERE: NodeId = NodeId::new([1; 32]);
    const THERE: NodeId = NodeId::new([2; 32]);
    const FIRST: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);
    const SECOND: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 2]);
    const NEIGHBOUR: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 3]);

    fn endpoint(owner: NodeId, mac: MacAddr, last: u8) -> Endpoint {
        Endpoint {
            segment: Segment::DEFAULT,
            mac,
            addresses: vec![
                IpAddr::from([10, 32, 0, last]),
                IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)]),
            ],
            owner,
            kind: EndpointKind::Attached {
                port: String::new(),
            },
            metadata: None,
        }
    }

    /// A container of this host that stays, and what else there is.
    fn snapshot(others: &[Endpoint]) -> Snapshot {
        let neighbour = endpoint(HERE, NEIGHBOUR, 3);
        Snapshot {
            generation: 1,
            node: HERE,
            mtu: Mtu::MESH,
            ranges: vec![
                "10.32.0.0/12".parse().unwrap(),
                "fd00::/64".parse().unwrap(),
            ],
            host_addresses: Vec::new(),
            peers: Vec::new(),
            endpoints: others.iter().cloned().chain([neighbour]).collect(),
        }
    }

    /// To whom, from whom, and what kind.
    fn summary(frames: &[Vec<u8>]) -> Vec<(MacAddr, MacAddr, u16)> {
        let mac = |bytes: &[u8]| MacAddr::new(bytes.try_into().unwrap());
        let one = |frame: &Vec<u8>| {
            let kind = u16::from_be_bytes([frame[12], frame[13]]);
            (mac(&frame[..6]), mac(&frame[6..12]), kind)
        };
        let mut all: Vec<_> = frames.iter().map(one).collect();
        all.sort_by_key(|(_, _, kind)| *kind);
        all
    }

    #[test]
    fn who_takes_an_address_over_is_announced_whether_or_not_there_was_a_gap() {
        for gap in [false, true] {
            for owner in [HERE, THERE] {
                let mut announcer = Announcer::default();
                announcer.follow(&snapshot(&[endpoint(owner, FIRST, 9)]));
                if gap {
                    assert!(announcer.follow(&snapshot(&[])).is_empty());
                }

                let frames = announcer.follow(&snapshot(&[endpoint(owner, SECOND, 9)]));

                // An own address is told to the neighbour alone.
                let v6 = if owner == HERE {
                    NEIGHBOUR
                } else {
                    ALL_NODES_MAC
                };
                let expected = [(MacAddr::BROADCAST, SECOND, 0x0806), (v6, SECOND, 0x86dd)];
                assert_eq!(summary(&frames), expected, "{owner} after a gap: {gap}");
            }
        }
    }

    #[test]
    fn what_is_seen_first_or_comes_back_as_it_was_is_not_announced() {
        let mut announcer = Announcer::default();
        let there = snapshot(&[endpoint(THERE, FIRST, 9)]);

        assert!(announcer.follow(&there).is_empty());
        assert!(announcer.follow(&snapshot(&[])).is_empty());
        assert!(announcer.follow(&there).is_empty());
    }

    #[test]
    fn what_went_is_remembered_in_bounds() {
        let mut announcer = Announcer::default();
        for last in 0..=255 {
            for third in 0..20 {
                let address = IpAddr::from([10, 32, third, last]);
                announcer.remember(&Holder {
                    segment: Segment::DEFAULT,
                    address,
                    owner: THERE,
                    mac: FIRST,
                });
            }
        }

        assert_eq!(announcer.order.len(), REMEMBERED);
        assert_eq!(announcer.gone.len(), REMEMBERED);
    }

    #[test]
    fn what_is_announced_is_what_the_owner_might_say_itself() {
        let after = snapshot(&[endpoint(THERE, SECOND, 9)]);
        let mut announcer = Announcer::default();
        announcer.follow(&snapshot(&[endpoint(THERE, FIRST, 9)]));
        let frames = announcer.follow(&after);
        let peer = crate::snapshot::Peer {
            node: THERE,
            nickname: weft_types::Nickname::new("there").unwrap(),
            path: None,
        };
        let table = ForwardingTable::compile(&Snapshot {
            peers: vec![peer],
            ..after
        });

        for frame in frames {
            assert_eq!(table.check_received(Segment::DEFAULT, 0, &frame), Ok(()));
        }
    }

    #[test]
    fn the_advertisement_s_checksum_is_right() {
        let frame = advertisement(ALL_NODES_MAC, FIRST, "fd00::9".parse().unwrap());

        let (header, message) = frame[14..].split_at(40);
        let pseudo = [&header[8..40], &[0, 0, 0, 32, 0, 0, 0, 58]].concat();
        assert_eq!(checksum(&[&pseudo[..], message].concat()), 0);
    }
}
