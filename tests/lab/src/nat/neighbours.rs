//! Finds the stations of one side, and is found there: the part of ARP (RFC 826) that a gateway needs.
//!
//! **Invariant.** At most [`HELD`] packets wait for a station that has not answered.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use weft_types::MacAddr;

use crate::packet::{Arp, Operation, ethernet, ethertype};

/// A first flight of datagrams to somebody fits.
const HELD: usize = 64;

/// A question may be lost on a bad link; a person would not notice this wait.
const AGAIN: Duration = Duration::from_millis(200);

/// Who has not answered by then is not there, and what waited is lost.
const PATIENCE: Duration = Duration::from_secs(3);

/// One side of a gateway.
#[derive(Debug)]
pub(super) struct Neighbours {
    address: Ipv4Addr,
    gateway: Option<Ipv4Addr>,
    known: BTreeMap<Ipv4Addr, MacAddr>,
    mac: MacAddr,
    sought: BTreeMap<Ipv4Addr, Sought>,
}

#[derive(Debug)]
struct Sought {
    again: Instant,
    held: Vec<Vec<u8>>,
    until: Instant,
}

impl Neighbours {
    /// Stands in a subnet of 256 addresses, with or without a way beyond it.
    pub(super) fn new(mac: MacAddr, address: Ipv4Addr, gateway: Option<Ipv4Addr>) -> Self {
        Self {
            address,
            gateway,
            known: BTreeMap::new(),
            mac,
            sought: BTreeMap::new(),
        }
    }

    /// Returns our own address.
    pub(super) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Says whether an address lies in the subnet.
    pub(super) fn spans(&self, address: Ipv4Addr) -> bool {
        address.octets()[..3] == self.address.octets()[..3]
    }

    /// Says whether there is a way to an address.
    pub(super) fn reaches(&self, address: Ipv4Addr) -> bool {
        self.spans(address) || self.gateway.is_some()
    }

    /// Takes the IPv4 packet out of a frame, if it is one for us.
    pub(super) fn packet<'a>(&self, frame: &'a [u8]) -> Option<&'a [u8]> {
        let (header, packet) = frame.split_first_chunk::<14>()?;
        (header[..6] == *self.mac.as_bytes() && header[12..] == ethertype::IPV4.to_be_bytes())
            .then_some(packet)
    }

    /// Takes a frame of ARP in and returns what to send: an answer, or what waited for this one.
    pub(super) fn hear(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        let told = Arp::of_frame(frame).filter(|word| word.target.1 == self.address);
        // Whoever asks whether an address is free has none yet (RFC 5227 §1.1).
        let told = told.filter(|word| !word.sender.1.is_unspecified());
        let Some(word) = told else {
            return Vec::new();
        };
        let (sender, address) = word.sender;
        self.known.insert(address, sender);
        let held = self.sought.remove(&address).map(|sought| sought.held);
        let mut out: Vec<Vec<u8>> = held
            .into_iter()
            .flatten()
            .map(|packet| self.framed(sender, &packet))
            .collect();
        if word.operation == Operation::Request {
            out.push(self.arp(Operation::Reply, word.sender).frame(sender));
        }
        out
    }

    /// Returns the frames that bring a packet on its way: itself, or the question where to.
    pub(super) fn send(&mut self, to: Ipv4Addr, packet: Vec<u8>, now: Instant) -> Vec<Vec<u8>> {
        let Some(next) = Some(to).filter(|&to| self.spans(to)).or(self.gateway) else {
            return Vec::new();
        };
        if let Some(&mac) = self.known.get(&next) {
            return vec![self.framed(mac, &packet)];
        }
        let sought = self.sought.entry(next).or_insert_with(|| Sought {
            again: now,
            held: Vec::new(),
            until: now + PATIENCE,
        });
        if sought.held.len() < HELD {
            sought.held.push(packet);
        }
        self.handle_timeout(now)
    }

    /// Returns the questions that are due.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<Vec<u8>> {
        self.sought.retain(|_, sought| sought.until > now);
        let due: Vec<Ipv4Addr> = self
            .sought
            .iter_mut()
            .filter(|(_, sought)| sought.again <= now)
            .map(|(&wanted, sought)| {
                sought.again = now + AGAIN;
                wanted
            })
            .collect();
        due.into_iter()
            .map(|wanted| {
                let nobody = (MacAddr::new([0; 6]), wanted);
                self.arp(Operation::Request, nobody)
                    .frame(MacAddr::BROADCAST)
            })
            .collect()
    }

    fn arp(&self, operation: Operation, target: (MacAddr, Ipv4Addr)) -> Arp {
        Arp {
            operation,
            sender: (self.mac, self.address),
            target,
        }
    }

    fn framed(&self, to: MacAddr, packet: &[u8]) -> Vec<u8> {
        ethernet(to, self.mac, ethertype::IPV4, packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(number: u8, gateway: Option<u8>) -> Neighbours {
        let address = |number| Ipv4Addr::new(192, 0, 2, number);
        let mac = MacAddr::new([2, 0, 0, 0, 0, number]);
        Neighbours::new(mac, address(number), gateway.map(address))
    }

    #[test]
    fn a_question_releases_what_waited_for_the_answer() {
        let now = Instant::now();
        let (mut one, mut two) = (side(1, None), side(2, None));

        let question = one.send(two.address, vec![7; 20], now);
        assert!(one.send(two.address, vec![8; 20], now).is_empty());
        let answer = two.hear(&question[0]);
        let released = one.hear(&answer[0]);

        assert_eq!(released.len(), 2);
        assert_eq!(two.packet(&released[0]), Some(&[7; 20][..]));
        assert_eq!(one.packet(&released[0]), None);
        assert_eq!(one.send(two.address, vec![9; 20], now).len(), 1);
        // The asked one knows the asker too.
        assert_eq!(
            one.packet(&two.send(one.address, vec![6], now)[0]),
            Some(&[6][..])
        );
    }

    #[test]
    fn a_lost_question_is_asked_again_and_what_waits_is_bounded() {
        let now = Instant::now();
        let (mut one, mut two) = (side(1, None), side(2, None));

        let asked: usize = (0..1000)
            .map(|_| one.send(two.address, vec![7], now).len())
            .sum();
        let early = one.handle_timeout(now + AGAIN / 2).len();
        let again = one.handle_timeout(now + AGAIN);

        assert_eq!((asked, early, again.len()), (1, 0, 1));
        let answer = two.hear(&again[0]);
        assert_eq!(one.hear(&answer[0]).len(), HELD);
        assert!(one.handle_timeout(now + 2 * AGAIN).is_empty());
    }

    #[test]
    fn who_never_answers_is_given_up() {
        let now = Instant::now();
        let (mut one, mut two) = (side(1, None), side(2, None));

        let question = one.send(two.address, vec![7], now);
        assert!(one.handle_timeout(now + PATIENCE).is_empty());
        let answer = two.hear(&question[0]);

        assert!(one.hear(&answer[0]).is_empty());
    }

    #[test]
    fn what_lies_beyond_goes_to_the_gateway_or_nowhere() {
        let now = Instant::now();
        let far = Ipv4Addr::new(203, 0, 113, 1);
        let mut gateway = side(254, None);

        let question = side(1, Some(254)).send(far, vec![7], now);

        assert_eq!(gateway.hear(&question[0]).len(), 1);
        assert!(!side(1, None).reaches(far));
        assert!(side(1, None).send(far, vec![7], now).is_empty());
    }

    #[test]
    fn words_to_others_and_broken_ones_say_nothing() {
        let mut one = side(1, None);
        let question = side(2, None).send(Ipv4Addr::new(192, 0, 2, 3), vec![7], Instant::now());

        assert!(one.hear(&question[0]).is_empty());
        for end in 0..42 {
            assert!(one.hear(&question[0][..end]).is_empty());
        }
    }
}
