//! Says how things stand.

use std::collections::BTreeMap;
use std::time::SystemTime;

use clap::{Args, Subcommand, ValueEnum};
use weft_api::Client;
use weft_api::status::Status;
use weft_api::wire::WireStatus;
use weft_types::ExitCode;

use super::{containers, targets};
use crate::context::Context;
use crate::output::{Outcome, Output, clean};
use crate::render::{self, finish, members, table};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Say how things stand
    Status(StatusArgs),
}

/// Of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// One part of it
    #[arg(value_enum)]
    pub(crate) part: Option<Part>,
}

/// A part of the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Control connections
    Connections,
    /// Containers of this host
    Containers,
    /// The other members
    Peers,
    /// What was told to be dialled
    Targets,
    /// What crosses the underlay
    Wire,
}

impl Verb {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let out = context.out;
        let Self::Status(args) = self;
        context.with_router(async |router| status(&router, &args, out).await)
    }
}

/// Shows how things stand. The whole of it ends with "degraded" or "not joined" where that is so.
async fn status(router: &Client, args: &StatusArgs, out: Output) -> Outcome {
    let status = router.status().await?;
    let now = SystemTime::now();
    match args.part {
        None => {
            out.answer(&status, |status| render::status::status(status, now))?;
            Ok(health(&status))
        }
        Some(Part::Connections) => {
            out.answer(&status.connections, |all| members::connections(all, now))
        }
        Some(Part::Containers) => out.answer(&status.containers, |all| containers::table_of(all)),
        Some(Part::Peers) => out.answer(&status.peers, |all| members::peers(all, now)),
        Some(Part::Targets) => {
            out.answer(&status.targets, |all| targets::list(all))?;
            Ok(targets::health(&status.targets))
        }
        Some(Part::Wire) => out.answer(&status.wire, |all| wire(all, &status.drops)),
    }
}

fn health(status: &Status) -> ExitCode {
    if status.mesh.is_none() {
        ExitCode::NotJoined
    } else if status.problems.is_empty() {
        ExitCode::Ok
    } else {
        ExitCode::Degraded
    }
}

/// What crosses the underlay.
fn wire(wire: &WireStatus, drops: &BTreeMap<String, u64>) -> String {
    let mut table = table(&[]);
    let mut row = |name: &str, value: String| {
        table.add_row(vec![name.to_owned(), value]);
    };
    row("cipher", clean(&wire.cipher));
    row("sessions", wire.sessions.to_string());
    for counter in wire.counters.table() {
        row(&counter.label(), counter.value.to_string());
    }
    for (reason, count) in drops {
        row(&format!("dropped: {}", clean(reason)), count.to_string());
    }
    finish(&table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::status::sample;

    #[test]
    fn the_exit_code_tells_health() {
        let mut status = sample();

        assert_eq!(health(&status), ExitCode::Degraded);
        status.problems.clear();
        assert_eq!(health(&status), ExitCode::Ok);
        status.mesh = None;
        assert_eq!(health(&status), ExitCode::NotJoined);
    }
}
