//! Says who came to the mesh and who left it, each once.

use std::collections::BTreeSet;

use weft_types::NodeId;

use crate::io::Event;
use crate::router::ground::Reach;

/// Members that an event was made for.
#[derive(Default)]
pub(crate) struct Roster {
    greeted: BTreeSet<NodeId>,
}

impl Roster {
    /// Compares the membership with what was said of it. Gives those who have left.
    pub(crate) fn handle_membership(&mut self, reach: &mut Reach<'_>) -> Vec<NodeId> {
        let members = reach.mesh.membership.members();
        let new = members.filter(|member| !self.greeted.contains(&member.node));
        let new: Vec<_> = new.map(|it| (it.node, it.nickname.clone())).collect();
        for (node, nickname) in new {
            self.greeted.insert(node);
            if node != reach.mesh.ourself {
                reach.ground.event(Event::MemberJoined { node, nickname });
            }
        }
        let gone: Vec<NodeId> = self
            .greeted
            .extract_if(.., |&node| reach.mesh.is_gone(node))
            .collect();
        for &node in &gone {
            reach.mesh.mail.forget(node);
            reach.mesh.down.remove(&node);
            reach.ground.event(Event::MemberLeft { node });
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::testing::Fixture;

    #[test]
    fn who_comes_is_told_of_once() {
        let mut fixture = Fixture::new();
        let mut roster = Roster::default();
        roster.handle_membership(&mut fixture.reach());
        let before = fixture.events();
        let node = fixture.admit("b");

        roster.handle_membership(&mut fixture.reach());
        roster.handle_membership(&mut fixture.reach());

        assert_eq!(before, [], "nobody greets itself");
        let nickname = "b".parse().expect("a short name");
        assert_eq!(fixture.events(), [Event::MemberJoined { node, nickname }]);
    }
}
