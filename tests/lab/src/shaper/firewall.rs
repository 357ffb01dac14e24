//! A firewall with a memory, as two rules of one cable: in comes only what belongs to something that went out before.
//!
//! This is what most hosts with public IPv6 addresses stand behind. Neighbour discovery and ARP pass, or there would be no
//! cable; every other frame that is neither TCP nor UDP stays out, and so does a fragment that names no ports.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Match;
use crate::packet::Packet;

/// Protocol, and address and port of the host inside and of the one outside.
type Conversation = (u8, (IpAddr, u16), (IpAddr, u16));

/// When something last went out.
type Memory = Arc<Mutex<BTreeMap<Conversation, Instant>>>;

/// Makes the set of frames that go out, which is empty and remembers them, and that of those which may not come in.
pub(crate) fn rules(idle: Duration) -> (Match, Match) {
    let memory = Memory::default();
    let told = Arc::clone(&memory);
    let out = move |frame: &[u8]| {
        if let Some((protocol, from, to)) = conversation(frame) {
            let mut memory = told.lock().unwrap_or_else(PoisonError::into_inner);
            memory.insert((protocol, from, to), Instant::now());
        }
        false
    };
    let stays_out = move |frame: &[u8]| {
        let Some(packet) = Packet::of_frame(frame) else {
            return false;
        };
        let Some((protocol, from, to)) = conversation(frame) else {
            return !packet.is_discovery(frame);
        };
        let memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
        let known = memory.get(&(protocol, to, from));
        known.is_none_or(|at| at.elapsed() > idle)
    };
    (
        Match::Custom(Arc::new(out)),
        Match::Custom(Arc::new(stays_out)),
    )
}

fn conversation(frame: &[u8]) -> Option<Conversation> {
    let packet = Packet::of_frame(frame)?;
    let [source, target] = packet.ports?;
    let [from, to] = packet.ends;
    Some((packet.protocol, (from, source), (to, target)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::udp4;

    /// The same frame the other way.
    fn back(frame: &[u8]) -> Vec<u8> {
        let mut back = frame.to_vec();
        back.copy_within(26..30, 30);
        back[26..30].copy_from_slice(&frame[30..34]);
        back.copy_within(34..36, 36);
        back[34..36].copy_from_slice(&frame[36..38]);
        back
    }

    #[test]
    fn only_what_answers_comes_in_and_only_for_a_while() {
        let idle = Duration::from_millis(50);
        let (out, stays_out) = rules(idle);
        let (asked, other) = (udp4(6783, 6784, 10), udp4(6783, 6785, 10));

        assert!(stays_out.contains(&back(&asked)));
        assert!(!out.contains(&asked), "it leaves");
        assert!(!stays_out.contains(&back(&asked)));
        assert!(stays_out.contains(&back(&other)));

        std::thread::sleep(2 * idle);
        assert!(stays_out.contains(&back(&asked)));
    }
}
