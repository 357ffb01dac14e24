//! Ends the router: for a while, for good, or without a trace.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Subcommand};
use tokio::time::Instant;
use weft_api::Client;
use weft_fastdp::host::Host;
use weft_router::persist::io_problem;
use weft_types::{Code, Problem};

use crate::config::{self, Place};
use crate::context::{Context, block_on};
use crate::output::{Outcome, Output};
use crate::{host, state_dir};

/// How long a router gets to put its devices away.
const STOP: Duration = Duration::from_secs(10);

/// How often to look whether it is gone. The end of a process is told to its parent, and this command is not that of a
/// daemon; nobody waits noticeably longer than the router takes.
const POLL: Duration = Duration::from_millis(10);

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Stop the router; its state stays
    #[command(visible_alias = "stop")]
    Down,
    /// Leave the mesh for good
    Leave,
    /// Stop the router and remove everything it made: devices, files, identity
    Reset(ResetArgs),
}

/// Of `reset`.
#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    /// Go on where the mesh cannot be told that this node is gone
    #[arg(long, env = "WEFT_FORCE", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(crate) force: bool,
    /// The bridge's device name, where it was chosen [default: weft]
    #[arg(long, env = "WEFT_BRIDGE", value_name = "NAME")]
    pub(crate) bridge: Option<String>,
}

impl Verb {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let out = context.out;
        match self {
            Self::Down => context.with_router(async |router| down(&router, out).await),
            Self::Leave => context.with_router(async |router| leave(&router, out).await),
            Self::Reset(args) => {
                let place = context.place()?;
                block_on(reset(&place, &args, out))
            }
        }
    }
}

/// Leaves the mesh for good, and stops the router: it has nothing left to do.
async fn leave(router: &Client, out: Output) -> Outcome {
    let name = router.status().await?.mesh.map(|mesh| mesh.name);
    router.leave().await?;
    stop_if_running(router).await?;
    let left = name.map_or_else(String::new, |name| format!(" \"{name}\" for good"));
    out.done(format!("left{left}; to begin anew here: sudo weft reset"))
}

/// Stops the router and waits until it is gone.
async fn down(router: &Client, out: Output) -> Outcome {
    stop(router).await?;
    out.done("stopped; its state is kept: weft up resumes")
}

async fn stop(router: &Client) -> Result<(), Problem> {
    let process = router.process().await?;
    router.shutdown().await?;
    let until = Instant::now() + STOP;
    while process.is_some_and(is_alive) || router.process().await.is_ok() {
        if Instant::now() >= until {
            return Err(lingers(process));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn lingers(process: Option<u32>) -> Problem {
    let name = process.map_or_else(|| "it".to_owned(), |id| format!("process {id}"));
    let what = format!("the router did not stop within {} s", STOP.as_secs());
    Problem::new(Code::Internal, what).fix(format!("Look into its log, then end {name} by hand"))
}

/// Having left, it may have stopped by itself.
async fn stop_if_running(router: &Client) -> Result<(), Problem> {
    match stop(router).await {
        Err(problem) if problem.code == Code::DaemonNotRunning => Ok(()),
        stopped => stopped,
    }
}

/// Whether a process runs. One that has ended and that nobody has asked about yet does not.
fn is_alive(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    stat.is_ok_and(|stat| !state(&stat).starts_with(['Z', 'X']))
}

/// proc(5): the state follows the name, which is in brackets and may hold anything.
fn state(stat: &str) -> &str {
    let rest = stat.rsplit_once(')');
    rest.map_or("", |(_, rest)| rest.trim_start())
}

/// Stops the router and removes everything it made.
async fn reset(place: &Place, args: &ResetArgs, out: Output) -> Outcome {
    let bridge = args.bridge.as_ref().unwrap_or(&place.bridge);
    config::check_bridge(bridge)?;
    if place.state_dir.exists() && !state_dir::looks_ours(&place.state_dir) {
        return Err(not_ours(&place.state_dir));
    }
    let told = end(&Client::new(&place.socket), args.force).await?;
    Host::remove_leftovers(&host::names(bridge)).await?;
    state_dir::remove(&place.state_dir)?;
    remove_socket(&place.socket)?;
    let untold = if told {
        ""
    } else {
        "; no router ran, so other members keep this node as down"
    };
    out.done(format!(
        "reset: no device, no file and no identity is left{untold}"
    ))
}

fn not_ours(directory: &Path) -> Problem {
    let what = format!("{} holds files that weft did not make", directory.display());
    Problem::new(Code::Usage, what).fix("Name the router's own state directory with --state-dir")
}

/// Has a router leave and stop. Says whether there was one.
async fn end(router: &Client, force: bool) -> Result<bool, Problem> {
    let status = match router.status().await {
        Ok(status) => status,
        Err(problem) if problem.code == Code::DaemonNotRunning => return Ok(false),
        Err(problem) => return Err(problem),
    };
    if status.mesh.is_some()
        && let Err(problem) = router.leave().await
        && !force
    {
        return Err(problem.fix("Go on without telling the mesh: sudo weft reset --force"));
    }
    stop_if_running(router).await?;
    Ok(true)
}

fn remove_socket(socket: &Path) -> Result<(), Problem> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io_problem(socket, &error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
