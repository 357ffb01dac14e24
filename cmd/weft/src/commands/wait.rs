//! Waits for something to become true.

use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::time::Instant;
use weft_api::Client;
use weft_api::status::Status;
use weft_types::{Code, ExitCode, PeerState, Problem};

use crate::context::Context;
use crate::output::{Outcome, Output};

/// Often enough for a script, seldom enough for the router. Not everything that is waited for is told as an event, and the
/// router itself may come only later.
const POLL: Duration = Duration::from_millis(100);

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Wait for something to become true
    Wait(WaitArgs),
}

/// Of `wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// What for: ready, joined, peers=N or encrypted
    #[arg(long = "for", env = "WEFT_FOR", value_name = "CONDITION")]
    pub(crate) condition: Condition,
    /// How long
    #[arg(long, env = "WEFT_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
}

/// What `wait` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The mesh is an encrypted one, sessions are up, and frames have a way to every member that is reached.
    Encrypted,
    /// This node is in a mesh.
    Joined,
    /// So many members are reached.
    Peers(usize),
    /// The router answers.
    Ready,
}

impl std::str::FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| text.strip_prefix("peers=")?.parse().ok();
        match text {
            "encrypted" => Ok(Self::Encrypted),
            "joined" => Ok(Self::Joined),
            "ready" => Ok(Self::Ready),
            other => number(other)
                .map(Self::Peers)
                .ok_or_else(|| "one of: ready, joined, peers=N, encrypted".to_owned()),
        }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Encrypted => f.write_str("encrypted"),
            Self::Joined => f.write_str("joined"),
            Self::Peers(count) => write!(f, "peers={count}"),
            Self::Ready => f.write_str("ready"),
        }
    }
}

impl Verb {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let out = context.out;
        let Self::Wait(args) = self;
        context.with_router(async |router| wait(&router, &args, out).await)
    }
}

/// Waits until a condition holds. A router that is not there yet may come.
async fn wait(router: &Client, args: &WaitArgs, out: Output) -> Outcome {
    let until = Instant::now() + args.timeout;
    let router = router.clone().timeout(Duration::from_secs(2));
    loop {
        let seen = router.status().await;
        match &seen {
            Ok(status) if holds(args.condition, status) => {
                out.note(format!("{} ✓", args.condition));
                return Ok(ExitCode::Ok);
            }
            // What no waiting cures is said at once.
            Err(problem) if problem.code == Code::Privilege => return Err(problem.clone()),
            Ok(_) | Err(_) if Instant::now() >= until => return Err(in_vain(args, seen)),
            Ok(_) | Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

fn in_vain(args: &WaitArgs, seen: Result<Status, Problem>) -> Problem {
    let limit = humantime::format_duration(args.timeout);
    let why = match seen {
        Ok(status) => state(&status),
        Err(problem) => problem.what,
    };
    let what = format!("{} did not come true within {limit}", args.condition);
    Problem::new(Code::WaitTimedOut, what)
        .why(why)
        .fix("See how things stand: weft status")
}

/// No frame leaves without a session, and in an encrypted mesh a session seals: so what travels is sealed where both are.
fn holds(condition: Condition, status: &Status) -> bool {
    let mut connected = status
        .peers
        .iter()
        .filter(|peer| peer.state == PeerState::Connected);
    match condition {
        Condition::Encrypted => is_sealed(status) && connected.all(|peer| peer.path.is_some()),
        Condition::Joined => status.mesh.is_some(),
        Condition::Peers(count) => connected.count() >= count,
        Condition::Ready => true,
    }
}

fn is_sealed(status: &Status) -> bool {
    let encrypted = status.mesh.as_ref().is_some_and(|mesh| mesh.encrypted);
    encrypted && status.wire.cipher != "none"
}

fn state(status: &Status) -> String {
    match &status.mesh {
        None => "this node is in no mesh yet".to_owned(),
        Some(mesh) => format!(
            "{} of {} other members connected, cipher {}",
            mesh.connected,
            mesh.members.saturating_sub(1),
            status.wire.cipher
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::status::sample;

    #[test]
    fn conditions_hold_when_they_say_so() {
        let mut status = sample();

        assert!(holds(Condition::Ready, &status));
        assert!(holds(Condition::Joined, &status));
        assert!(holds(Condition::Encrypted, &status));
        assert!(holds(Condition::Peers(1), &status));
        assert!(!holds(Condition::Peers(2), &status));
        status.wire.cipher = "none".to_owned();
        assert!(!holds(Condition::Encrypted, &status));
        status.mesh = None;
        assert!(!holds(Condition::Joined, &status));
    }
}
