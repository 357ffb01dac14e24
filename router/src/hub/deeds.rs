//! Tells what people have done to this router, once it is done: events that no part of the core makes, since to the core
//! they are commands.

use std::collections::BTreeMap;

use tracing::info;
use weft_api::events::EventKind;
use weft_router_proto::io::{Command, Reply, RequestId};

/// Commands under way that are worth an event.
#[derive(Debug, Default)]
pub(super) struct Deeds(BTreeMap<RequestId, EventKind>);

impl Deeds {
    /// A command begins.
    pub(super) fn begin(&mut self, id: RequestId, command: &Command) {
        if let Some(deed) = deed(command) {
            self.0.insert(id, deed);
        }
    }

    /// A command was answered: what has happened by it, if it was done.
    pub(super) fn end(&mut self, id: RequestId, reply: &Reply) -> Option<EventKind> {
        let deed = self.0.remove(&id)?;
        (!matches!(reply, Reply::Failed(_))).then_some(deed)
    }
}

fn deed(command: &Command) -> Option<EventKind> {
    Some(match command {
        Command::Attach { mac, addresses, .. } => EventKind::Attached {
            mac: *mac,
            addresses: addresses.clone(),
        },
        Command::Detach { mac } => EventKind::Detached { mac: *mac },
        Command::TokenCreate { reusable, ttl } => EventKind::TokenCreated {
            reusable: *reusable,
            seconds: ttl.as_secs(),
        },
        Command::TokenRevoke { token } => EventKind::TokenRevoked { token: *token },
        Command::Connect { .. }
        | Command::Forget { .. }
        | Command::Leave
        | Command::Ping { .. }
        | Command::Retry
        | Command::Trace { .. } => return None,
    })
}

/// Writes the log an operator reads.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what the core tells is logged where it is told"
)]
pub(super) fn note(deed: &EventKind) {
    match deed {
        EventKind::Attached { mac, .. } => info!(%mac, "container attached"),
        EventKind::Detached { mac } => info!(%mac, "container detached"),
        EventKind::TokenCreated { reusable, seconds } => info!(reusable, seconds, "token made"),
        EventKind::TokenRevoked { token } => info!(%token, "token revoked"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use weft_types::{Code, MacAddr, Problem};

    use super::*;

    #[test]
    fn what_was_done_is_told_and_what_failed_is_not() {
        let mac = MacAddr::new([2, 0, 0, 0, 0, 1]);
        let command = Command::Detach { mac };
        let failed = Reply::Failed(Problem::new(Code::AttachTarget, "no"));
        let mut deeds = Deeds::default();
        for number in [1, 2] {
            deeds.begin(RequestId(number), &command);
        }
        deeds.begin(RequestId(3), &Command::Retry);

        let replies = [Reply::Done, failed, Reply::Done];
        let told = replies
            .iter()
            .zip(1..)
            .map(|(reply, number)| deeds.end(RequestId(number), reply));

        let told: Vec<Option<EventKind>> = told.collect();
        assert_eq!(told, [Some(EventKind::Detached { mac }), None, None]);
    }
}
