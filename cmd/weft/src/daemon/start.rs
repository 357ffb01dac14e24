//! Starts a router on the host's devices, and undoes a start that fails.

use std::convert::Infallible;
use std::time::Instant;

use tokio::sync::watch;
use weft_api::ping::PingAnswer;
use weft_api::status::Status;
use weft_api::tokens::TokenRequest;
use weft_fastdp::check;
use weft_router::Running;
use weft_router::progress::{Membership, Progress, Verified};
use weft_router_proto::io::Target;
use weft_router_proto::router::Intent;
use weft_types::{Code, Nickname, Problem};

use super::patience;
use super::signals::Signals;
use super::starter::Starter;
use crate::config::{Config, Purpose};
use crate::host::{self, Host};
use crate::secret::Secret;
use crate::word::Word;
use crate::{machine, state_dir, token};

/// How long the token of the join line is good, in seconds.
const INVITATION: u64 = 15 * 60;

/// A router at work, with what it needs of this host.
pub(super) struct Started {
    pub(super) running: Running,
    pub(super) host: Host,
    pub(super) signals: Signals,
}

/// Starts a router and waits until it is where the command wants it.
pub(super) async fn start(config: Config, starter: &Starter) -> Result<(Started, Word), Problem> {
    let begun = Instant::now();
    let created =
        config.peers.is_empty() && config.token.is_none() && !machine::has_mesh(&config.state_dir)?;
    // Before it is a member: a node that is killed the moment it is one starts again under its name.
    let called = state_dir::saved_name(&config.state_dir);
    let mut started = open(&config, created).await?;
    match settle(&mut started, &config, starter, (created, begun)).await {
        Ok(word) => Ok((started, word)),
        Err(problem) => {
            undo(started, config, called).await;
            Err(problem)
        }
    }
}

async fn undo(started: Started, config: Config, called: Option<Nickname>) {
    let Started { running, host, .. } = started;
    // What was only tried must not be remembered: the next command may name other hosts, or none.
    if running.progress.borrow().joined.is_none() {
        state_dir::save_name(&config.state_dir, called.as_ref());
        if !config.peers.is_empty() {
            let _ = running.api.forget(config.peers).await;
        }
    }
    let _ = running.shutdown().await;
    host.undo().await;
}

/// Opens devices and router; what was opened is closed again where the rest fails.
async fn open(config: &Config, created: bool) -> Result<Started, Problem> {
    let signals = Signals::new()?;
    let settings = settings(config)?;
    if created {
        check::ranges(&host::names(&config.bridge), &[config.range.into()]).await?;
    }
    let (mut host, tap) = Host::open(&config.bridge).await?;
    let called = state_dir::saved_name(&config.state_dir);
    state_dir::save_name(&config.state_dir, Some(&config.nickname));
    match weft_router::start(settings, Some(tap), host.checks(), host.addresses()).await {
        Ok(running) => {
            host.follow(&running);
            Ok(Started {
                running,
                host,
                signals,
            })
        }
        Err(problem) => {
            state_dir::save_name(&config.state_dir, called.as_ref());
            host.undo().await;
            Err(problem)
        }
    }
}

/// Says to the router what was said to the command.
fn settings(config: &Config) -> Result<weft_router::config::Config, Problem> {
    let intent = intent(config)?;
    Ok(weft_router::config::Config {
        nickname: config.nickname.clone(),
        intent,
        targets: config.peers.iter().cloned().map(Target).collect(),
        port: config.port,
        listen: config.listen.into_iter().collect(),
        advertise: config.advertise.clone(),
        state_dir: config.state_dir.clone(),
        socket: config.socket.clone(),
        status: config.status_listen,
        release: env!("CARGO_PKG_VERSION").to_owned(),
        settings: config.settings(),
    })
}

/// What the router is to do about a mesh.
fn intent(config: &Config) -> Result<Intent, Problem> {
    Ok(match &config.token {
        Some(token) => Intent::Join {
            token: token::parse(token)?,
            address: config.address,
        },
        None if config.peers.is_empty() => Intent::Create {
            name: None,
            range: config.range,
            mtu: config.mtu,
            address: config.address,
        },
        None => Intent::Resume,
    })
}

/// Waits until the router is where the command wants it.
async fn settle(
    started: &mut Started,
    config: &Config,
    starter: &Starter,
    (created, begun): (bool, Instant),
) -> Result<Word, Problem> {
    let wait = async {
        match config.purpose {
            Purpose::Join => joined(&started.running, config, begun).await,
            Purpose::Up => ready(&started.running, config, created).await,
        }
    };
    let progress = &started.running.progress;
    let why = tokio::select! {
        word = wait => return word,
        never = tell_tries(progress.clone(), starter) => match never {},
        name = started.signals.stop() => name,
        () = starter.gone() => "the end of the command that waited",
    };
    Err(interrupted(why, progress.borrow().joined.as_ref()))
}

/// Tells of each way into the mesh that leads nowhere, as it is found out.
async fn tell_tries(mut progress: watch::Receiver<Progress>, starter: &Starter) -> Infallible {
    let mut told = 0;
    loop {
        let tried = progress.borrow_and_update().tried.clone();
        for problem in tried.iter().skip(told).cloned() {
            starter.hear(&Word::Tried { problem });
        }
        told = tried.len();
        if progress.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// What was begun is undone; a membership is not, since others know of it.
fn interrupted(why: &str, joined: Option<&Membership>) -> Problem {
    match joined {
        Some(Membership { mesh, .. }) => {
            let what = format!("interrupted when this node was in mesh \"{mesh}\" already");
            Problem::new(Code::PeerUnreachable, what)
                .why(format!("{why} came before a packet had passed"))
                .fix("Go on with it: sudo weft up. Or leave it for good: sudo weft up, sudo weft reset")
        }
        None => Problem::new(Code::CutShort, "interrupted before this node was in the mesh")
            .why(format!("{why} came; what was begun is undone"))
            .fix("Join again, by this host or another: to this node a token that this attempt has used is still good"),
    }
}

async fn joined(running: &Running, config: &Config, begun: Instant) -> Result<Word, Problem> {
    let verified = patience::joined(running.progress.clone(), config).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let status = running.api.status().await?;
    let ping = proven(&status, &verified)?;
    Ok(Word::Verified {
        status,
        ping,
        seconds,
    })
}

/// The ping that has proved the join, in the words of the API.
fn proven(status: &Status, verified: &Verified) -> Result<PingAnswer, Problem> {
    let peer = status.find_peer(&verified.node.to_string())?;
    let mut ping = weft_router::api::ping_answer(status, peer, &verified.pong, &[]);
    // The probe may have waited for its session, which the peer's round trip has not.
    ping.rtt_ms = peer.rtt_ms.map_or(ping.rtt_ms, |rtt| rtt.min(ping.rtt_ms));
    Ok(ping)
}

async fn ready(running: &Running, config: &Config, created: bool) -> Result<Word, Problem> {
    patience::ready(running.progress.clone(), config).await?;
    let mesh = running.snapshots.borrow().clone();
    if let Some(mesh) = mesh.filter(|_| !created) {
        // What has come since this host joined; what came before was looked at before anything was made.
        check::ranges_of_mesh(&host::names(&config.bridge), &mesh.ranges).await?;
    }
    let status = running.api.status().await?;
    let invites = status.mesh.is_some() && created && !config.foreground;
    let token = if invites {
        Some(invite(running).await?)
    } else {
        None
    };
    Ok(Word::Ready {
        status,
        created,
        token,
    })
}

/// Makes a token for the next host.
async fn invite(running: &Running) -> Result<Secret, Problem> {
    let request = TokenRequest {
        reusable: false,
        ttl_seconds: INVITATION,
    };
    Ok(Secret::new(running.api.create_token(&request).await?.token))
}
