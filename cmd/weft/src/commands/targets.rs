//! What was told to be dialled.

use clap::{Args, Subcommand};
use weft_api::Client;
use weft_api::targets::TargetStatus;

use crate::complete;
use crate::context::Context;
use crate::output::{Outcome, Output, clean};
use crate::render::{finish, nothing, table};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Dial hosts, and remember them
    Connect(Targets),
    /// Dial hosts no more
    Forget(Targets),
    /// Dial at once whoever is waited for, members and hosts alike
    Retry,
}

/// Of `connect` and `forget`.
#[derive(Debug, Args)]
pub(crate) struct Targets {
    /// Which
    #[arg(required = true, value_name = "HOST[:PORT]", add = complete::targets())]
    pub(crate) targets: Vec<String>,
}

impl Verb {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let out = context.out;
        context.with_router(async |router| match self {
            Self::Connect(args) => connect(&router, args, out).await,
            Self::Forget(args) => forget(&router, args, out).await,
            Self::Retry => retry(&router, out).await,
        })
    }
}

/// Dials hosts, for good.
async fn connect(router: &Client, args: Targets, out: Output) -> Outcome {
    let list = args.targets.join(", ");
    router.connect(args.targets).await?;
    out.done(format!("dialling {list}; see: weft status targets"))
}

/// Dials hosts no more.
async fn forget(router: &Client, args: Targets, out: Output) -> Outcome {
    let list = args.targets.join(", ");
    router.forget(args.targets).await?;
    out.done(format!("{list} forgotten"))
}

/// Dials at once whoever is waited for: after an outage, without waiting for the pauses between dials to end.
async fn retry(router: &Client, out: Output) -> Outcome {
    router.retry().await?;
    out.done("dialling whoever is waited for; see: weft status connections, weft status targets")
}

/// What was told to be dialled, one a line.
pub(super) fn list(targets: &[TargetStatus]) -> String {
    if targets.is_empty() {
        return "nothing was told to be dialled".to_owned();
    }
    let mut table = table(&["TARGET", "STATE", "NODE", "NEXT TRY", "LAST ERROR"]);
    for target in targets {
        table.add_row(vec![
            clean(&target.target),
            clean(&target.state),
            target.node.map_or_else(nothing, |node| node.short()),
            target
                .retry_in_ms
                .map_or_else(nothing, |wait| format!("in {:.1} s", wait as f64 / 1e3)),
            clean(&target.last_error),
        ]);
    }
    finish(&table)
}
