//! Starts the router, for `up` and `join`, and says how that went.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use clap::Subcommand;
use weft_api::Client;
use weft_api::peers::PeerStatus;
use weft_api::ping::PingAnswer;
use weft_api::status::{MeshStatus, Status};
use weft_fastdp::outward;
use weft_router_proto::token::Token;
use weft_types::{Code, ExitCode, PathKind, PeerState, Problem};

use crate::config::{self, Config, Purpose, RouterArgs, STATE_DIR};
use crate::context::{Context, block_on};
use crate::output::{Outcome, Output};
use crate::render::start::{Joined, Started, slow};
use crate::word::Word;
use crate::{daemon, launch, machine, reboot};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Join a mesh, and prove that an encrypted full-size packet passes both ways
    Join(RouterArgs),
    /// Start the router: begin a mesh, or go on with the one this node is in
    #[command(visible_alias = "launch")]
    Up(RouterArgs),
}

impl Verb {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Join(args) => start(Purpose::Join, args, context),
            Self::Up(args) => start(Purpose::Up, args, context),
        }
    }
}

/// Starts a router, or finds that one runs already.
fn start(purpose: Purpose, args: RouterArgs, context: &Context) -> Outcome {
    let (global, out) = (&context.global, context.out);
    let file = config::read_file(global)?;
    let config = Config::new(purpose, global, args, file)?;
    let token = config.token.as_ref().map(machine::parse_token);
    let token = token.transpose()?;
    if let Some(status) = block_on(running(&config))? {
        if config.foreground {
            return Err(in_the_foreground(&config));
        }
        return already(&config, token.as_ref(), &status, out);
    }
    if token.is_none() && !config.peers.is_empty() {
        require_mesh(&config)?;
    }
    if config.foreground {
        let said = config.clone();
        return daemon::foreground(config, move |word| {
            // A confirmation that cannot be printed stops nothing.
            let _ = tell(&said, word, out);
        });
    }
    machine::check(&config)?;
    tell(&config, &launch::launch(&config)?, out)
}

/// With a host to dial a mesh is never begun, so there must be one already.
fn require_mesh(config: &Config) -> Result<(), Problem> {
    if machine::has_mesh(&config.state_dir)? {
        return Ok(());
    }
    Err(Problem::new(
        Code::NotJoined,
        format!("this node is in no mesh, and {} admits nobody without a token", config.peers.join(", ")),
    )
    .fix("Make one there, sudo weft token create, and join: sudo weft join HOST --token TOKEN. To begin a mesh of its own: sudo weft up"))
}

/// Asks a router that may run already.
async fn running(config: &Config) -> Result<Option<Status>, Problem> {
    match Client::new(&config.socket).status().await {
        Ok(status) => Ok(Some(status)),
        // One that hangs is not replaced: starting fails on its lock, and says so.
        Err(problem) if problem.code == Code::DaemonNotRunning => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// A router runs already: what was asked for holds, or it is said why not.
fn already(config: &Config, token: Option<&Token>, status: &Status, out: Output) -> Outcome {
    match (&status.mesh, token) {
        (Some(mesh), Some(token)) if token.mesh != mesh.id => Err(in_another(mesh)),
        (Some(mesh), Some(_)) => again(config, mesh, status, out),
        (None, Some(_)) => Err(
            running_already("a router runs already, and waits to join", config)
                .fix("See how far it is: weft status. Begin anew: sudo weft reset"),
        ),
        (Some(_), None) if !config.peers.is_empty() => {
            let fix = format!(
                "To dial another host: sudo weft connect {}",
                config.peers.join(" ")
            );
            Err(running_already("a router runs already", config).fix(fix))
        }
        (mesh, None) => {
            let told = Started::new(status, false, None, &[]);
            out.confirm(&told, |_| nothing_to_do(mesh.as_ref()))
        }
    }
}

fn nothing_to_do(mesh: Option<&MeshStatus>) -> String {
    let place = mesh.map_or_else(
        || "in no mesh yet".to_owned(),
        |mesh| format!("in mesh \"{}\"", mesh.name),
    );
    format!("a router runs already, {place}; see: weft status")
}

fn running_already(what: &str, config: &Config) -> Problem {
    Problem::new(Code::DaemonRunning, what)
        .why(format!("it answers at {}", config.socket.display()))
}

/// What stays in the foreground is the router: a service manager would take success for its end, and start it again.
fn in_the_foreground(config: &Config) -> Problem {
    running_already("a router runs already", config)
        .fix("End it, and let this one take over: sudo weft down")
}

fn in_another(mesh: &MeshStatus) -> Problem {
    let name = &mesh.name;
    let what = format!("this node is in mesh \"{name}\" already, and the token is for another");
    Problem::new(Code::OtherMesh, what).fix("Leave it first: sudo weft reset")
}

/// In this mesh already: tries the way to a peer again.
fn again(config: &Config, mesh: &MeshStatus, status: &Status, out: Output) -> Outcome {
    let peer = connected(status).ok_or_else(|| lonely(mesh))?;
    let ping = block_on(Client::new(&config.socket).ping(&peer.id.to_string()))?;
    out.confirm(&Joined::new(status, &ping, None), Joined::text)
}

fn connected(status: &Status) -> Option<&PeerStatus> {
    let mut peers = status.peers.iter();
    peers.find(|peer| peer.state == PeerState::Connected)
}

fn lonely(mesh: &MeshStatus) -> Problem {
    let name = &mesh.name;
    let what = format!("this node is in mesh \"{name}\" already, and reaches nobody");
    Problem::new(Code::PeerUnreachable, what).fix("See why: weft status")
}

/// Prints how a start went.
fn tell(config: &Config, progress: &Word, out: Output) -> Outcome {
    match progress {
        Word::Failed { problem } => Err(problem.clone()),
        Word::Ready {
            status,
            created,
            token,
        } => {
            let known = reached_at(config);
            let started = Started::new(status, *created, token.as_ref(), &known);
            out.confirm(&started, |started| started.text(config))?;
            tell_of_boot(config, out);
            Ok(ExitCode::Ok)
        }
        Word::Verified {
            status,
            ping,
            seconds,
        } => {
            let joined = Joined::new(status, ping, Some(*seconds));
            let joined = joined.who_wished(&config.nickname);
            out.confirm(&joined, Joined::text)?;
            tell_of_boot(config, out);
            Ok(health(ping, config))
        }
    }
}

/// What starts a router in the foreground starts it at boot, too.
fn tell_of_boot(config: &Config, out: Output) {
    let usual = config.state_dir == Path::new(STATE_DIR);
    if !config.foreground
        && let Some(hint) = reboot::hint(Path::new("/"), usual)
    {
        out.note(hint);
    }
}

/// Where others likely reach this host: at what a person said, then where it speaks from itself. Where that cannot be read
/// a guess has to do.
fn reached_at(config: &Config) -> Vec<IpAddr> {
    let said = config.advertise.iter().map(SocketAddr::ip);
    let spoken = block_on(outward::sources()).unwrap_or_default();
    said.chain(spoken).collect()
}

/// Frames over control connections reach the mesh, slowly.
fn health(ping: &PingAnswer, config: &Config) -> ExitCode {
    if ping.path == Some(PathKind::Control) {
        Output::problem(&slow(ping, config.port));
        return ExitCode::Degraded;
    }
    ExitCode::Ok
}
