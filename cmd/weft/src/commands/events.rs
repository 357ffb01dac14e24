//! Shows what happens.

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Subcommand};
use ipnet::IpNet;
use weft_api::Client;
use weft_api::events::{Event, EventKind};
use weft_types::ExitCode;

use crate::context::{Context, interrupt};
use crate::output::{Outcome, Output, clean};

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
        EventKind::Joined {
            mesh, addresses, ..
        } => format!("in mesh \"{mesh}\" as {}", list(addresses)),
        EventKind::JoinAttemptFailed { problem } => format!("join: {problem}"),
        EventKind::PathChanged {
            node,
            path,
            via,
            reason,
            ..
        } => {
            let through = via.map_or_else(String::new, |via| format!(" via {}", via.short()));
            format!("{} by {}{through}: {reason}", node.short(), path.name())
        }
        EventKind::LinkDown { node, reason } => format!("link to {} down: {reason}", node.short()),
        EventKind::LinkUp {
            node,
            nickname,
            endpoint,
        } => {
            format!("link to {nickname} ({}) up at {endpoint}", node.short())
        }
        EventKind::MemberJoined { node, nickname } => {
            format!("{nickname} ({}) joined", node.short())
        }
        EventKind::MemberLeft { node } => format!("{} left", node.short()),
        EventKind::Missed { events } => format!("{events} events missed"),
        EventKind::Problem { problem } => problem.to_string(),
        EventKind::SessionDown { node } => format!("no session with {} any more", node.short()),
        EventKind::SessionUp { node } => format!("session with {} up", node.short()),
        EventKind::Stopping {
            problem: Some(problem),
        } => format!("stopping: {problem}"),
        EventKind::Stopping { problem: None } => "stopping, as asked".to_owned(),
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
                node: weft_types::NodeId::new([1; 32]),
                reason: "closed\n\u{1b}[31m".to_owned(),
            },
        });

        assert_eq!(
            text,
            "2026-01-01T00:00:00.000Z  link to 0101010101 down: closed??[31m"
        );
    }
}
