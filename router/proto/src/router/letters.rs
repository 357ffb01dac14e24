//! What members tell each other over any number of others: sealed letters, session messages, datagrams without another way.
//!
//! A unicast goes on by the control connection to whom it is for, or else by the next hop of the topology; never back to
//! where it came from.
//!
//! **Failure policy.** What cannot go on is dropped: who needs an answer asks again.

use std::time::Instant;

use ipnet::IpNet;
use weft_types::{Code, NodeId};

use super::Router;
use crate::control::ControlMessage;
use crate::io::ConnId;
use crate::letter::{AddressReply, Letter};
use crate::session::Via;
use crate::switch::DropReason;
use crate::unicast::{Body, Unicast};

impl Router {
    /// Sends a letter that only its receiver can open; false if there is no way to it.
    pub(super) fn send_sealed(&mut self, to: NodeId, letter: &Letter, now: Instant) -> bool {
        let Some(mesh) = &mut self.mesh else {
            return false;
        };
        let Some(key) = mesh.membership.member(to).map(|member| member.noise_key) else {
            return false;
        };
        let Ok(body) = mesh.mail.seal(&key, letter, &mut *self.crypto) else {
            return false;
        };
        self.route(Unicast::new(self.node(), to, body), None, now)
    }

    /// Sends a unicast on its way; false if there is none. It never goes back to where it came from.
    pub(super) fn route(&mut self, unicast: Unicast, from: Option<NodeId>, now: Instant) -> bool {
        let Some(conn) = self.hop_towards(unicast.to, from) else {
            return false;
        };
        self.tell(conn, &ControlMessage::Unicast(unicast), now);
        true
    }

    /// The connection by which a unicast goes on.
    pub(super) fn hop_towards(&self, to: NodeId, from: Option<NodeId>) -> Option<ConnId> {
        let mesh = self.mesh.as_ref()?;
        let direct = mesh.links.contains_key(&to).then_some(to);
        let hop = direct.or_else(|| mesh.topology.routes().next_hop(to));
        hop.filter(|hop| Some(*hop) != from)
            .and_then(|hop| mesh.links.get(&hop))
            .map(|link| link.conn)
    }

    pub(super) fn unicast(&mut self, via: NodeId, unicast: Unicast, now: Instant) {
        let ourself = self.node();
        if unicast.to != ourself {
            let carries = matches!(Body::decode(&unicast.body), Some(Body::Datagram(_)));
            match unicast.forwarded() {
                Some(onward) if carries => self.pass_on(onward, via, now),
                Some(onward) => {
                    self.route(onward, Some(via), now);
                }
                None if carries => self.discard_transit(DropReason::RelayHops),
                None => {}
            }
            return;
        }
        let from = unicast.from;
        match Body::decode(&unicast.body) {
            Some(Body::Datagram(bytes)) => self.datagram_came(from, bytes),
            Some(Body::Session(bytes)) => {
                self.with_sessions(|sessions, around| {
                    sessions.handle_message(from, bytes, Via::Unicast, around, now)
                });
            }
            Some(Body::Sealed(sealed)) => {
                let Some(mesh) = &mut self.mesh else { return };
                let Some(key) = mesh.membership.member(from).map(|member| member.noise_key) else {
                    return;
                };
                match mesh.mail.open(from, &key, sealed, &mut *self.crypto) {
                    Ok(Letter::AddressRequest(asked)) => self.address_requested(from, &asked, now),
                    Ok(Letter::AddressReply(AddressReply { request, result })) => {
                        if mesh.genesis.genesis().creator == from {
                            self.address_told(request, result, now);
                        }
                    }
                    Ok(Letter::CloneSeen(seen)) => {
                        self.clone_seen(seen.boot, seen.from, Some(from), now);
                    }
                    Ok(Letter::Punch(addresses)) => self.punched(from, &addresses, now),
                    Ok(Letter::WayReply(told)) => self.way_told(from, &told, now),
                    Ok(Letter::WayRequest(asked)) => self.way_requested(from, &asked, now),
                    Err(_) => mesh.bad_payloads += 1,
                }
            }
            None => {}
        }
    }

    pub(super) fn tell_address(
        &mut self,
        to: NodeId,
        request: u64,
        result: Result<Vec<IpNet>, Code>,
        now: Instant,
    ) {
        self.send_sealed(
            to,
            &Letter::AddressReply(AddressReply { request, result }),
            now,
        );
    }
}
