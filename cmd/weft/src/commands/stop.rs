//! Ends the router: for a while, for good, or without a trace.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Subcommand};
use tokio::time::Instant;
use weft_api::Client;
use weft_api::peers::PeerStatus;
use weft_api::status::{MeshStatus, Status};
use weft_fastdp::host::Host;
use weft_router::private::io_problem;
use weft_router_proto::router::SavedMesh;
use weft_types::{Code, Nickname, PeerState, Problem};

use crate::config::{self, Place};
use crate::context::{Context, block_on};
use crate::output::{Outcome, Output};
use crate::turn::Turn;
use crate::{host, saved, state_dir};

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
    let status = router.status().await?;
    if let Some(mesh) = &status.mesh
        && !can_tell(router, &status).await
    {
        return Err(cut_off(mesh));
    }
    router.leave().await?;
    stop_if_running(router).await?;
    let name = status.mesh.map(|mesh| mesh.name);
    let left = name.map_or_else(String::new, |name| format!(" \"{name}\" for good"));
    out.done(format!("left{left}; to begin anew here: sudo weft reset"))
}

/// Stops the router and waits until it is gone; where none runs, that is what was wanted.
async fn down(router: &Client, out: Output) -> Outcome {
    match stop(router).await {
        Ok(()) => out.done("stopped; its state is kept: weft up resumes"),
        Err(problem) if problem.code == Code::DaemonNotRunning => {
            out.done("no router runs here; weft up starts one")
        }
        Err(problem) => Err(problem),
    }
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
    weft_fastdp::check::privilege()?;
    let there = place.state_dir.exists();
    if there && !state_dir::looks_ours(&place.state_dir) {
        return Err(not_ours(&place.state_dir));
    }
    let end = end(place, args.force).await?;
    // Nobody else starts a router here meanwhile.
    let _turn = there.then(|| Turn::take(&place.state_dir)).transpose()?;
    Host::remove_leftovers(&host::names(bridge)).await?;
    state_dir::remove(&place.state_dir)?;
    remove_socket(&place.socket)?;
    out.done(format!(
        "reset: no device, no file and no identity is left{end}"
    ))
}

/// What the mesh knows of the end of this node.
enum End {
    /// It left before.
    Earlier(Nickname),
    /// There is nobody who had to be told.
    Quiet,
    Told(Nickname),
    /// It was not told, and whoever is left there cannot remove this node.
    Untold(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earlier(mesh) => write!(f, "; this node had left mesh \"{mesh}\" before"),
            Self::Quiet => Ok(()),
            Self::Told(mesh) => write!(f, "; mesh \"{mesh}\" was told that this node has left"),
            Self::Untold(mesh) => {
                write!(
                    f,
                    "; {mesh} was not told, and keeps this node as a member that is down"
                )
            }
        }
    }
}

fn not_ours(directory: &Path) -> Problem {
    let what = format!("{} holds files that weft did not make", directory.display());
    Problem::new(Code::Usage, what).fix("Name the router's own state directory with --state-dir")
}

/// Has this node leave its mesh, and the router stop. Where the mesh cannot be told it goes on only by force.
async fn end(place: &Place, force: bool) -> Result<End, Problem> {
    let router = Client::new(&place.socket);
    let status = match router.status().await {
        Ok(status) => status,
        Err(problem) if problem.code == Code::DaemonNotRunning => {
            return end_of_saved(&place.state_dir, force);
        }
        Err(problem) => return Err(problem),
    };
    let end = match &status.mesh {
        Some(mesh) => leave_for_good(&router, mesh, &status, force).await?,
        None => End::Quiet,
    };
    stop_if_running(&router).await?;
    Ok(end)
}

async fn leave_for_good(
    router: &Client,
    mesh: &MeshStatus,
    status: &Status,
    force: bool,
) -> Result<End, Problem> {
    let told = can_tell(router, status).await;
    if !told && !force {
        return Err(cut_off(mesh));
    }
    match router.leave().await {
        Err(problem) if !force => Err(problem.fix(BY_FORCE)),
        Ok(_) if mesh.members <= 1 => Ok(End::Quiet),
        Ok(_) if told => Ok(End::Told(mesh.name.clone())),
        Ok(_) | Err(_) => Ok(End::Untold(format!("mesh \"{}\"", mesh.name))),
    }
}

/// How many members are asked, one after another, before the mesh counts as out of reach.
const ASKED: usize = 3;

/// Whether what this node says reaches another member, or there is none: one that counts as connected is asked, since a
/// link that was cut a moment ago still does.
async fn can_tell(router: &Client, status: &Status) -> bool {
    if status.mesh.as_ref().is_none_or(|mesh| mesh.members <= 1) {
        return true;
    }
    let near = |peer: &&PeerStatus| peer.state == PeerState::Connected;
    for peer in status.peers.iter().filter(near).take(ASKED) {
        if router.ping(&peer.id.to_string()).await.is_ok() {
            return true;
        }
    }
    false
}

/// No router runs: what it has saved tells whether somebody has to be told.
fn end_of_saved(state_dir: &Path, force: bool) -> Result<End, Problem> {
    match saved::mesh(state_dir) {
        Ok(None) => Ok(End::Quiet),
        Ok(Some(mesh)) if mesh.addresses.is_none() => Ok(End::Earlier(mesh.name)),
        Ok(Some(mesh)) if mesh.others == 0 => Ok(End::Quiet),
        Ok(Some(mesh)) if force => Ok(End::Untold(format!("mesh \"{}\"", mesh.name))),
        Ok(Some(mesh)) => Err(nobody_tells(&mesh)),
        Err(_) if force => Ok(End::Untold("the mesh, if this node was in one,".to_owned())),
        Err(problem) => Err(problem),
    }
}

const BY_FORCE: &str = "Go on without telling the mesh, which then keeps this node as a member that is down, for good: sudo weft reset --force";

fn nobody_tells(mesh: &SavedMesh) -> Problem {
    let name = &mesh.name;
    let what = format!("no router runs that could tell mesh \"{name}\" that this node leaves");
    Problem::new(Code::DaemonNotRunning, what)
        .why(format!("{} other members know it", mesh.others))
        .fix(format!(
            "Start it, sudo weft up, and reset then. {BY_FORCE}"
        ))
}

fn cut_off(mesh: &MeshStatus) -> Problem {
    let name = &mesh.name;
    let what = format!("mesh \"{name}\" cannot be told that this node leaves");
    let others = mesh.members.saturating_sub(1);
    Problem::new(Code::PeerUnreachable, what)
        .why(format!("none of its {others} other members answers"))
        .fix(format!(
            "See why, weft status, and try again when one is reached. {BY_FORCE}"
        ))
}

fn remove_socket(socket: &Path) -> Result<(), Problem> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io_problem(socket, &error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
