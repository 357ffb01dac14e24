//! Starts the router, for `up` and `join`, and says how that went.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use clap::Subcommand;
use weft_api::Client;
use weft_api::peers::PeerStatus;
use weft_api::ping::PingAnswer;
use weft_api::settings::Settings;
use weft_api::status::{MeshStatus, Status};
use weft_fastdp::outward;
use weft_router_proto::token::Token;
use weft_types::{Code, ExitCode, PathKind, PeerState, Problem};

use crate::config::{self, Config, Purpose, RouterArgs, STATE_DIR};
use crate::context::{Context, block_on};
use crate::output::{Outcome, Output};
use crate::render::start::{Joined, Started, slow};
use crate::turn::Turn;
use crate::word::Word;
use crate::{daemon, launch, machine, reboot, saved, token};

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
    let token = config.token.as_ref().map(token::parse).transpose()?;
    if let Some(found) = block_on(running(&config))? {
        return already(&config, token.as_ref(), &found, out);
    }
    saved::refuse_unfit_settings(&config)?;
    if token.is_none() && !config.peers.is_empty() {
        require_mesh(&config)?;
    }
    weft_fastdp::check::machine()?;
    let _turn = Turn::take(&config.state_dir)?;
    // Somebody may have had his turn since the first look.
    if let Some(found) = block_on(running(&config))? {
        return already(&config, token.as_ref(), &found, out);
    }
    if config.foreground {
        let said = config.clone();
        return daemon::foreground(config, move |word| {
            // A confirmation that cannot be printed stops nothing.
            let _ = tell(&said, word, out);
        });
    }
    machine::check(&config)?;
    out.aside(&dialling(&config));
    let launched = launch::launch(&config, |word| {
        if let Word::Tried { problem } = word {
            out.aside(&format!("{}; going on", problem.what));
        }
    })?;
    if launched.interrupted {
        end_interrupted(&launched.word, out);
    }
    tell(&config, &launched.word, out)
}

/// What a join does before anything is known; nothing where nobody waits for others.
fn dialling(config: &Config) -> String {
    match config.purpose {
        Purpose::Join => format!("dialling {}", config.peers.join(", ")),
        Purpose::Up => String::new(),
    }
}

/// Says what was left of a start that Ctrl-C came into, and ends as shells expect it.
fn end_interrupted(word: &Word, out: Output) -> ! {
    match word {
        Word::Failed { problem } => out.problem(problem),
        // It was ready at that very moment.
        Word::Ready { .. } | Word::Tried { .. } | Word::Verified { .. } => {
            let what = "interrupted when the router was ready; it was stopped again";
            out.problem(&Problem::new(Code::CutShort, what).fix("Start it: sudo weft up"));
        }
    }
    std::process::exit(launch::INTERRUPTED)
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

/// A router that runs already.
struct Found {
    status: Status,
    /// What it was told; nothing where it is of an earlier release.
    settings: Settings,
}

/// Asks a router that may run already.
async fn running(config: &Config) -> Result<Option<Found>, Problem> {
    let router = Client::new(&config.socket);
    match router.status().await {
        Ok(status) => {
            let settings = router.settings().await.unwrap_or_default();
            Ok(Some(Found { status, settings }))
        }
        // One that hangs is not replaced: starting fails on its lock, and says so.
        Err(problem) if problem.code == Code::DaemonNotRunning => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// A router runs already: what was asked for holds, or it is said why not.
fn already(config: &Config, token: Option<&Token>, found: &Found, out: Output) -> Outcome {
    let status = &found.status;
    if config.foreground {
        return Err(in_the_foreground(config));
    }
    match (&status.mesh, token) {
        (Some(mesh), Some(token)) if token.mesh != mesh.id => Err(in_another(mesh)),
        (Some(mesh), Some(_)) => {
            refuse_other_settings(config, found)?;
            again(config, mesh, status, out)
        }
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
            refuse_other_settings(config, found)?;
            let told = Started::new(status, false, None, &[]);
            out.confirm(&told, |_| nothing_to_do(mesh.as_ref()))
        }
    }
}

/// Refuses by name what was said and is not as the running router has it: it cannot take it.
fn refuse_other_settings(config: &Config, found: &Found) -> Result<(), Problem> {
    let wanted = config.settings();
    let differs = |flag: &str| {
        let has = setting(flag, config, found)?;
        (wanted.get(flag) != Some(&has)).then(|| (format!("--{flag}"), format!("--{flag} {has}")))
    };
    let differing = config.said.flags().filter_map(differs);
    let (flags, has): (Vec<String>, Vec<String>) = differing.unzip();
    if flags.is_empty() {
        return Ok(());
    }
    let what = format!(
        "a router runs already, and takes no other {}",
        flags.join(", ")
    );
    let mesh = flags
        .iter()
        .any(|flag| matches!(flag.as_str(), "--mtu" | "--range"));
    let fix = if mesh && found.status.mesh.is_some() {
        "A mesh keeps the range and the MTU that it began with. Other settings: sudo weft down, and the same command again"
    } else {
        "Stop it first, and give the same command again: sudo weft down"
    };
    Err(Problem::new(Code::DaemonRunning, what)
        .why(format!("it has {}", has.join(", ")))
        .fix(fix))
}

/// What the running router has, as its flag is written; as it was said, where that is the same. `None` where nobody knows.
fn setting(flag: &str, config: &Config, found: &Found) -> Option<String> {
    let Status { mesh, node, .. } = &found.status;
    let told = found.settings.get(flag).cloned();
    match (flag, mesh) {
        ("address", Some(_)) => {
            let wanted = config.address.filter(|wanted| {
                let mut own = node.addresses.iter();
                own.any(|own| own.addr() == wanted.addr())
            });
            wanted
                .or(node.addresses.first().copied())
                .map(|net| net.to_string())
        }
        ("mtu", Some(mesh)) => Some(mesh.mtu.to_string()),
        ("range", Some(mesh)) => mesh.ranges.first().map(ToString::to_string),
        ("name", _) if node.nickname == config.nickname => Some(node.nickname.to_string()),
        _ => told,
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
        Word::Failed { problem } | Word::Tried { problem } => Err(problem.clone()),
        Word::Ready {
            status,
            created,
            token,
        } => {
            // Asked only for a join line: in the foreground there is none, and this runs within the daemon's runtime.
            let known = token.as_ref().map_or_else(Vec::new, |_| reached_at(config));
            let started = Started::new(status, *created, token.as_ref(), &known);
            let told = out.confirm(&started, |started| started.text(config));
            told.map_err(|unwritten| unseen(unwritten, *created))?;
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
            Ok(health(ping, config, out))
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

/// The token of the join line went with what could not be printed.
fn unseen(unwritten: Problem, created: bool) -> Problem {
    if created {
        unwritten.fix("The router runs; a token for the next host: sudo weft token create")
    } else {
        unwritten
    }
}

/// Frames over control connections reach the mesh, slowly.
fn health(ping: &PingAnswer, config: &Config, out: Output) -> ExitCode {
    if ping.path == Some(PathKind::Control) {
        out.problem(&slow(ping, config.port));
        return ExitCode::Degraded;
    }
    ExitCode::Ok
}
