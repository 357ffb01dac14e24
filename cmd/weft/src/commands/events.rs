//! Shows what happens.

use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Subcommand};
use ipnet::IpNet;
use weft_api::Client;
use weft_api::events::{Event, EventKind};
use weft_types::{ExitCode, Nickname, NodeId};

use crate::context::{Context, interrupt};
use crate::output::{Outcome, Output, clean};
use crate::render::age;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show what happens
    Events(EventsArgs),
}

/// Of `events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Go on as they happen
    #[arg(short, long, env = "WEFT_FOLLOW", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(crate) follow: bool,
}

impl Verb {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let out = context.out;
        let Self::Events(args) = self;
        context.with_router(async |router| events(&router, &args, out).await)
    }
}

/// Shows what happened lately, or what happens until the router stops.
async fn events(router: &Client, args: &EventsArgs, out: Output) -> Outcome {
    if args.follow {
        return follow(router, out).await;
    }
    recent(router, out).await
}

async fn recent(router: &Client, out: Output) -> Outcome {
    for event in router.recent_events().await? {
        out.answer(&event, line)?;
    }
    Ok(ExitCode::Ok)
}

async fn follow(router: &Client, out: Output) -> Outcome {
    let mut interrupt = interrupt()?;
    let mut events = router.events().await?;
    loop {
        let event = tokio::select! {
            event = events.next() => event?,
            _ = interrupt.recv() => None,
        };
        let Some(event) = event else {
            return Ok(ExitCode::Ok);
        };
        out.answer(&event, line)?;
    }
}

/// An event, on one line.
fn line(event: &Event) -> String {
    let what = what(&event.kind);
    format!("{}  {}", clean(&event.time), clean(&what))
}

fn what(kind: &EventKind) -> String {
    match kind {
        EventKind::Attached { mac, addresses } => {
            format!("container {mac} attached at {}", list(addresses))
        }
        EventKind::Detached { mac } => format!("container {mac} detached"),
        EventKind::Joined {
            mesh, addresses, ..
        } => format!("in mesh \"{mesh}\" as {}", list(addresses)),
        EventKind::JoinAttemptFailed { problem } => format!("join: {problem}"),
        EventKind::PathChanged {
            node,
            nickname,
            path,
            via,
            via_nickname,
            reason,
            ..
        } => {
            let through = via.map(|via| format!(" via {}", who(via, via_nickname.as_ref())));
            let (node, through) = (who(*node, nickname.as_ref()), through.unwrap_or_default());
            format!("{node} by {}{through}: {reason}", path.name())
        }
        EventKind::LinkDown {
            node,
            nickname,
            reason,
        } => format!("link to {} down: {reason}", who(*node, nickname.as_ref())),
        EventKind::LinkUp {
            node,
            nickname,
            endpoint,
        } => format!("link to {} up at {endpoint}", who(*node, Some(nickname))),
        EventKind::MemberJoined { node, nickname } => {
            format!("{} joined", who(*node, Some(nickname)))
        }
        EventKind::MemberLeft { node, nickname } => {
            format!("{} left", who(*node, nickname.as_ref()))
        }
        EventKind::Missed { events } => format!("{events} events missed"),
        EventKind::Problem { problem } => problem.to_string(),
        EventKind::SessionDown { node, nickname } => {
            format!("no session with {} any more", who(*node, nickname.as_ref()))
        }
        EventKind::SessionUp { node, nickname } => {
            format!("session with {} up", who(*node, nickname.as_ref()))
        }
        EventKind::Stopping {
            problem: Some(problem),
        } => format!("stopping: {problem}"),
        EventKind::Stopping { problem: None } => "stopping, as asked".to_owned(),
        EventKind::TokenCreated { reusable, seconds } => {
            let times = if *reusable { "many hosts" } else { "one host" };
            let long = age(Duration::from_secs(*seconds));
            format!("token for {times} made, good for {long}")
        }
        EventKind::TokenRevoked { token } => format!("token {token} revoked"),
    }
}

/// A node, for people: by its nickname and the beginning of its id.
fn who(node: NodeId, nickname: Option<&Nickname>) -> String {
    match nickname {
        Some(nickname) => format!("{nickname} ({})", node.short()),
        None => node.short(),
    }
}

fn list(addresses: &[IpNet]) -> String {
    let list: Vec<String> = addresses.iter().map(|net| net.addr().to_string()).collect();
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_harmless_line() {
        let text = line(&Event {
            time: "2026-01-01T00:00:00.000Z".to_owned(),
            kind: EventKind::LinkDown {
                node: NodeId::new([1; 32]),
                nickname: Some("b".parse().unwrap()),
                reason: "closed\n\u{1b}[31m".to_owned(),
            },
        });

        assert_eq!(
            text,
            "2026-01-01T00:00:00.000Z  link to b (0101010101) down: closed??[31m"
        );
    }
}
