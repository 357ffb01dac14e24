//! Remembers what members are called: events that name a node by its id are told with its nickname, also when it has just
//! left, and the core knows it no more.

use std::collections::BTreeMap;

use weft_router_proto::io::Event;
use weft_types::{Nickname, NodeId};

/// What members are called.
#[derive(Debug, Default)]
pub(crate) struct Names(BTreeMap<NodeId, Nickname>);

impl Names {
    /// Takes what an event says of somebody's name; who has left is forgotten at the next event.
    pub(crate) fn note(&mut self, event: &Event) {
        if let Event::LinkUp { node, nickname, .. } | Event::MemberJoined { node, nickname } = event
        {
            self.0.insert(*node, nickname.clone());
        }
    }

    /// Forgets who has left, once that was told.
    pub(crate) fn told(&mut self, event: &Event) {
        if let Event::MemberLeft { node } = event {
            self.0.remove(node);
        }
    }

    /// What a member is called.
    pub(crate) fn of(&self, node: NodeId) -> Option<Nickname> {
        self.0.get(&node).cloned()
    }

    /// For a log: the nickname, and the beginning of the id.
    pub(crate) fn spoken(&self, node: NodeId) -> String {
        match self.0.get(&node) {
            Some(nickname) => format!("{nickname} ({})", node.short()),
            None => node.short(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_is_told_by_name_and_forgotten() {
        let node = NodeId::new([1; 32]);
        let nickname: Nickname = "b".parse().unwrap();
        let mut names = Names::default();
        names.note(&Event::MemberJoined {
            node,
            nickname: nickname.clone(),
        });
        let left = Event::MemberLeft { node };

        names.note(&left);
        let before = (names.of(node), names.spoken(node));
        names.told(&left);

        assert_eq!(before, (Some(nickname), "b (0101010101)".to_owned()));
        assert_eq!(names.of(node), None);
    }
}
