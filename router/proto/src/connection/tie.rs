//! Decides which of two connections between one pair of nodes stays, so that both ends decide alike.
//!
//! Both nodes may dial at once, and a node may come back before its loss was noticed. In this order:
//!
//! 1. Of two runs of the peer the later one is alive.
//! 2. A connection that has gone silent makes way: its other end has probably given it up.
//! 3. Of two directions, that which the smaller node dialled stays.
//! 4. Of two in one direction, the older one stays: its dialler gives up the others when one is there.

use weft_types::{Boot, NodeId};

/// One of the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contender {
    /// Whether we dialled it.
    pub dialled: bool,
    /// Which run of the peer it leads to.
    pub boot: Boot,
    /// Whether it is overdue ([`super::Link::is_silent`]); false for one that has just come about.
    pub silent: bool,
}

/// Which one stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The one in use; close the one that has come about.
    KeepOld,
    /// The one that has come about; close the one in use.
    TakeNew,
}

/// Decides between the connection in use and one that has come about.
pub fn settle(ourself: NodeId, peer: NodeId, old: &Contender, new: &Contender) -> Verdict {
    if new.boot.counter != old.boot.counter {
        return verdict(new.boot.counter > old.boot.counter);
    }
    if old.silent {
        return Verdict::TakeNew;
    }
    if new.dialled != old.dialled {
        let ours_stays = ourself < peer;
        return verdict(new.dialled == ours_stays);
    }
    Verdict::KeepOld
}

const fn verdict(take_new: bool) -> Verdict {
    if take_new {
        Verdict::TakeNew
    } else {
        Verdict::KeepOld
    }
}

#[cfg(test)]
mod tests {
    use weft_types::BootId;

    use super::*;

    const SMALL: NodeId = NodeId::new([1; 32]);
    const LARGE: NodeId = NodeId::new([2; 32]);

    fn contender(dialled: bool, counter: u64) -> Contender {
        let id = BootId::new([0; 8]);
        Contender {
            dialled,
            boot: Boot { counter, id },
            silent: false,
        }
    }

    #[test]
    fn both_ends_keep_the_same_one_when_both_dial() {
        let (ours, theirs) = (contender(true, 1), contender(false, 1));

        // The small node's dial stays, whichever came about first at either end.
        assert_eq!(settle(SMALL, LARGE, &ours, &theirs), Verdict::KeepOld);
        assert_eq!(settle(SMALL, LARGE, &theirs, &ours), Verdict::TakeNew);
        assert_eq!(settle(LARGE, SMALL, &ours, &theirs), Verdict::TakeNew);
        assert_eq!(settle(LARGE, SMALL, &theirs, &ours), Verdict::KeepOld);
    }

    #[test]
    fn a_later_run_replaces_an_earlier_one_whoever_dialled() {
        for dialled in [true, false] {
            let (old, new) = (contender(true, 1), contender(dialled, 2));

            assert_eq!(settle(SMALL, LARGE, &old, &new), Verdict::TakeNew);
            assert_eq!(settle(SMALL, LARGE, &new, &old), Verdict::KeepOld);
        }
    }

    #[test]
    fn a_silent_connection_makes_way_for_any() {
        let mut old = contender(true, 1);
        assert_eq!(
            settle(SMALL, LARGE, &old, &contender(true, 1)),
            Verdict::KeepOld
        );

        old.silent = true;

        assert_eq!(
            settle(SMALL, LARGE, &old, &contender(true, 1)),
            Verdict::TakeNew
        );
        assert_eq!(
            settle(SMALL, LARGE, &old, &contender(false, 1)),
            Verdict::TakeNew
        );
    }
}
