//! Follows a member's frames from relay to relay.

use clap::{Args, Subcommand};
use weft_api::Client;
use weft_api::trace::TraceAnswer;
use weft_types::{ExitCode, PathKind};

use crate::complete;
use crate::context::Context;
use crate::output::{Outcome, Output, clean};
use crate::render::{finish, nothing, or_nothing, rtt, table};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Follow a member's frames from relay to relay
    Trace(TraceArgs),
}

/// Of `trace`.
#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// A nickname, a mesh address, an identity, or the beginning of one
    #[arg(add = complete::members())]
    pub(crate) node: String,
}

impl Verb {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let out = context.out;
        let Self::Trace(args) = self;
        context.with_router(async |router| trace(&router, &args, out).await)
    }
}

/// Follows a member's frames from relay to relay.
async fn trace(router: &Client, args: &TraceArgs, out: Output) -> Outcome {
    let trace = router.trace(&args.node).await?;
    out.answer(&trace, text)?;
    Ok(if trace.complete {
        ExitCode::Ok
    } else {
        ExitCode::Degraded
    })
}

/// The way of a member's frames, a hop a line.
fn text(trace: &TraceAnswer) -> String {
    let mut table = table(&["HOP", "FROM", "TO", "PATH", "RTT", "LOSS", "PATH MTU"]);
    for (number, hop) in trace.hops.iter().enumerate() {
        table.add_row(vec![
            (number + 1).to_string(),
            clean(&hop.from_nickname),
            clean(&hop.to_nickname),
            or_nothing(hop.path.map(PathKind::name)),
            hop.rtt_ms.map_or_else(nothing, rtt),
            format!("{:.1} %", hop.loss * 100.0),
            or_nothing(hop.mtu),
        ]);
    }
    let text = finish(&table);
    if trace.complete {
        return text;
    }
    let (text, name) = (text.trim_end(), clean(trace.nickname.as_str()));
    format!("{text}\nthe way from there to {name} is not known")
}
