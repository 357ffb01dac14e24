//! What members tell each other over any number of others: sealed letters, session messages, datagrams without another way.
//!
//! A unicast goes on by the control connection to whom it is for, or else by the next hop of the topology; never back to
//! where it came from.
//!
//! **Failure policy.** What cannot go on is dropped: who needs an answer asks again.

use weft_types::NodeId;

use super::Reach;
use crate::control::ControlMessage;
use crate::io::ConnId;
use crate::letter::Letter;
use crate::unicast::Unicast;

impl Reach<'_> {
    /// Sends a letter that only its receiver can open; false if there is no way to it.
    pub(crate) fn send_sealed(&mut self, to: NodeId, letter: &Letter) -> bool {
        let Some(member) = self.mesh.membership.member(to) else {
            return false;
        };
        let key = member.noise_key;
        let crypto = &mut *self.ground.crypto;
        let Ok(body) = self.mesh.mail.seal(&key, letter, crypto) else {
            return false;
        };
        self.route(Unicast::new(self.mesh.ourself, to, body), None)
    }

    /// Opens a letter; one that does not open, or was opened before, is counted.
    pub(crate) fn open_sealed(&mut self, from: NodeId, sealed: &[u8]) -> Option<Letter> {
        let key = self.mesh.membership.member(from)?.noise_key;
        let crypto = &mut *self.ground.crypto;
        let opened = self.mesh.mail.open(from, &key, sealed, crypto);
        if opened.is_err() {
            self.mesh.bad_payloads += 1;
        }
        opened.ok()
    }

    /// Sends a unicast on its way; false if there is none. It never goes back to where it came from.
    pub(crate) fn route(&mut self, unicast: Unicast, from: Option<NodeId>) -> bool {
        let Some(conn) = self.hop_towards(unicast.to, from) else {
            return false;
        };
        self.ground.tell(conn, &ControlMessage::Unicast(unicast));
        true
    }

    /// The connection by which a unicast goes on.
    pub(crate) fn hop_towards(&self, to: NodeId, from: Option<NodeId>) -> Option<ConnId> {
        let direct = self.mesh.links.contains_key(&to).then_some(to);
        let hop = direct.or_else(|| self.mesh.topology.routes().next_hop(to));
        hop.filter(|hop| Some(*hop) != from)
            .and_then(|hop| self.mesh.links.get(&hop))
            .map(|link| link.conn)
    }
}

#[cfg(test)]
mod tests {
    use crate::router::testing::Fixture;

    #[test]
    fn a_letter_that_cannot_be_read_is_counted() {
        let mut fixture = Fixture::new();
        let node = fixture.mesh.ourself;

        assert!(fixture.reach().open_sealed(node, b"no seal").is_none());

        assert_eq!(fixture.mesh.bad_payloads, 1);
    }
}
