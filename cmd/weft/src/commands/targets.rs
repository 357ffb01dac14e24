//! What was told to be dialled.

use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::time::Instant;
use weft_api::Client;
use weft_api::targets::TargetStatus;
use weft_types::{Code, ExitCode, Problem};

use crate::complete;
use crate::context::Context;
use crate::output::{Outcome, Output, clean};
use crate::render::{finish, nothing, table};

/// How long `connect` waits for how a dial comes out: a dial gets 5 s.
const DIAL: Duration = Duration::from_secs(6);

/// How often it looks: nobody waits noticeably longer.
const POLL: Duration = Duration::from_millis(50);

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

/// Dials hosts, for good, and says whether they are reached: what is not is remembered all the same.
async fn connect(router: &Client, args: Targets, out: Output) -> Outcome {
    router.connect(args.targets.clone()).await?;
    let until = Instant::now() + DIAL;
    loop {
        let mut targets = router.status().await?.targets;
        targets.retain(|target| args.targets.contains(&target.target));
        let open = targets
            .iter()
            .any(|one| !is_reached(one) && !is_silent(one));
        if !open || Instant::now() >= until {
            return told(&targets, out);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// How far the dials have come.
fn told(targets: &[TargetStatus], out: Output) -> Outcome {
    out.done(outcome(targets))?;
    for target in targets.iter().filter(|target| is_silent(target)) {
        out.problem(&unreached(target));
    }
    Ok(health(targets))
}

fn outcome(targets: &[TargetStatus]) -> String {
    let names = |is: fn(&TargetStatus) -> bool| {
        let names = targets
            .iter()
            .filter(|one| is(one))
            .map(|one| clean(&one.target));
        names.collect::<Vec<_>>().join(", ")
    };
    let (reached, rest) = (names(is_reached), names(|one| !is_reached(one)));
    match (reached.as_str(), rest.as_str()) {
        (reached, "") => format!("connected to {reached}"),
        ("", rest) => format!("dialling {rest}; see: weft status targets"),
        (reached, rest) => {
            format!("connected to {reached}, dialling {rest}; see: weft status targets")
        }
    }
}

fn is_reached(target: &TargetStatus) -> bool {
    matches!(target.state.as_str(), "connected" | "ourself")
}

/// Nobody answered there the last time.
fn is_silent(target: &TargetStatus) -> bool {
    !is_reached(target) && !target.last_error.is_empty()
}

fn unreached(target: &TargetStatus) -> Problem {
    let name = &target.target;
    Problem::new(
        Code::PeerUnreachable,
        format!("nobody is reached at {name}"),
    )
    .why(target.last_error.clone())
    .fix(format!(
        "It is remembered, and dialled again and again. To dial it no more: sudo weft forget {name}"
    ))
}

/// "Degraded" where somebody who was to be dialled is not reached.
pub(super) fn health(targets: &[TargetStatus]) -> ExitCode {
    if targets.iter().any(is_silent) {
        ExitCode::Degraded
    } else {
        ExitCode::Ok
    }
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
