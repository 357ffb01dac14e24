//! Proves that the mesh carries what it promises: sends a full-size frame over the first link there is.
//!
//! ```text
//!            a link is up              it came back
//!   Wanted ──────────────▶ Begun ───────────────────────▶ Proven (final)
//!      ▲                     │
//!      └─────────────────────┘ it did not: the next link gets its chance
//! ```
//!
//! **Failure policy.** A ping that fails at once had nowhere to go. One that fails late was lost, and the next may pass:
//! it is sent again over the same link. As long as none passes, frames of full size do not, and that is said.

use std::time::Duration;

use tokio::time::Instant;
use weft_router_proto::io::{Command, Pong, Reply, RequestId};
use weft_types::{Nickname, NodeId, Problem};

use crate::ask::{Ask, Reading};
use crate::progress::Verified;

/// A ping that fails sooner has nowhere to go.
pub(super) const LATE: Duration = Duration::from_secs(1);

/// Whether a full-size frame has passed yet.
pub(super) enum Verification {
    /// No link is tried at the moment.
    Wanted,
    /// This one is.
    Begun(Attempt),
    /// One has passed.
    Proven,
}

/// A ping under way.
pub(super) struct Attempt {
    id: RequestId,
    link: Link,
    begun: Instant,
    answer: Reading<Pong>,
}

/// To whom.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) node: NodeId,
    pub(super) nickname: Nickname,
}

impl Verification {
    /// A link is up: what to ask the core under this id, if the link is to be tried.
    pub(super) fn link_up(&mut self, link: Link, id: RequestId) -> Option<Command> {
        let Self::Wanted = self else { return None };
        let (command, answer) = Ask::ping(link.node).split();
        *self = Self::Begun(Attempt {
            id,
            link,
            begun: Instant::now(),
            answer,
        });
        Some(command)
    }

    /// The core replied: what is proven by that, and the link to try once more. `None` for the reply to another question.
    pub(super) fn replied(
        &mut self,
        id: RequestId,
        reply: Reply,
    ) -> Option<(Result<Verified, Problem>, Option<Link>)> {
        let asked = |state: &mut Self| matches!(state, Self::Begun(attempt) if attempt.id == id);
        let Self::Begun(attempt) = asked(self).then(|| std::mem::replace(self, Self::Wanted))?
        else {
            return None;
        };
        match (attempt.answer)(reply) {
            Ok(pong) => {
                *self = Self::Proven;
                let Link { node, nickname } = attempt.link;
                let verified = Verified {
                    node,
                    nickname,
                    pong,
                };
                Some((Ok(verified), None))
            }
            Err(problem) => {
                let late = attempt.begun.elapsed() >= LATE;
                Some((Err(problem), late.then_some(attempt.link)))
            }
        }
    }
}
