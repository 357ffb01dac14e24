//! Starts a router and keeps hold of it.
//!
//! [`start`] opens everything a router needs, wakes its core and leaves it to one task, the [`hub`]; [`Running`] is what
//! the caller keeps: how far it has come, what to forward by, and the way to stop it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use weft_kernel::tap::Tap;
use weft_router_proto::identity::NodeKeys;
use weft_router_proto::io::{Input, Output};
use weft_router_proto::router::{Router, RouterConfig};
use weft_router_proto::snapshot::Snapshot;
use weft_router_proto::status::RouterStatus;
use weft_router_proto::store::Saved;
use weft_types::{Code, NodeId, Problem};

use crate::api::server::{Server, ServerConfig};
use crate::api::{self, Api, HubEnds};
use crate::config::Config;
use crate::crypto::SystemCrypto;
use crate::datapath::DataPath;
use crate::hub::{self, Checks, Core, Effects, Hub, Sources};
use crate::persist::{Store, Writer};
use crate::progress::Progress;
use crate::tcp::Tcp;
use crate::worker::Report;
use crate::{datapath, keyfile, tcp, underlay};

/// A router at work. Dropping it stops it, without waiting.
pub struct Running {
    /// Who it is.
    pub node: NodeId,
    /// The port it has.
    pub port: u16,
    /// What to forward by; `None` before this node is a member.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// How far it has come.
    pub progress: watch::Receiver<Progress>,
    /// What the caller has met and wants shown: the whole list, each time.
    pub problems: watch::Sender<Vec<Problem>>,
    /// The way to ask it, without a socket.
    pub api: Api,
    stop: oneshot::Sender<()>,
    hub: JoinHandle<()>,
    server: JoinHandle<()>,
}

impl Running {
    /// Stops it: last words are sent, connections closed, state is on disk.
    pub async fn shutdown(self) -> Result<(), Problem> {
        drop(self.stop);
        finish(self.hub, self.server, &self.progress).await
    }

    /// Waits until it ends by itself: it was told to over its API, or cannot go on.
    pub async fn ended(self) -> Result<(), Problem> {
        let Self {
            hub,
            server,
            progress,
            stop: _stop, // held: dropping it would stop the router
            ..
        } = self;
        finish(hub, server, &progress).await
    }
}

async fn finish(
    hub: JoinHandle<()>,
    server: JoinHandle<()>,
    progress: &watch::Receiver<Progress>,
) -> Result<(), Problem> {
    let panicked = hub.await.is_err() | server.await.is_err();
    let ended = progress.borrow().ended.clone();
    match ended {
        Some(verdict) if !panicked => verdict,
        Some(_) | None => Err(Problem::new(Code::Internal, "the router ended in a panic")
            .fix("Please report it with the log: journalctl -u weft")),
    }
}

/// Starts a router: opens its state, its ports and its API, and wakes its core.
///
/// With a TAP device frames are carried over it; without one the router is a member of the control plane only. `checks`
/// compares this machine with a mesh that it is about to join. `addresses` always holds those at which others may reach
/// this host. Nothing has left this host, and no token is spent, where this fails.
pub async fn start(
    config: Config,
    tap: Option<Tap>,
    checks: Arc<Checks>,
    addresses: watch::Receiver<Vec<IpAddr>>,
) -> Result<Running, Problem> {
    let listen = config.listen.clone();
    let opened = open(config, tap).await?;
    Ok(run(opened, listen, checks, addresses))
}

/// Everything that may fail at a start, once it has not.
struct Opened {
    node: NodeId,
    port: u16,
    core: Router,
    listeners: Vec<TcpListener>,
    data: Box<dyn DataPath>,
    workers: mpsc::Receiver<Report>,
    server: Server,
    writer: Writer,
    saved: mpsc::Receiver<Input>,
}

/// Opens state, ports and API, and wakes the core.
async fn open(config: Config, tap: Option<Tap>) -> Result<Opened, Problem> {
    let mut crypto = SystemCrypto::new();
    keyfile::check_alone(&config.state_dir)?;
    let (store, saved) = Store::open(&config.state_dir)?;
    let keys = keyfile::load_or_create(&config.state_dir, &saved, &mut crypto)?;
    let node = keys.node();
    let (listeners, port) = tcp::bind(&config.listen, config.port)?;
    let (data, workers) = datapath::start(node, tap, &config.listen, port)?;
    let server = Server::bind(ServerConfig {
        socket: config.socket.clone(),
        status: config.status,
        version: config.release.clone(),
        settings: config.settings.clone(),
    })
    .await?;
    let core = core(config, keys, port, &saved, crypto)?;
    let (writer, saved) = Writer::start(store).map_err(|error| {
        Problem::new(Code::Internal, "no thread could be started").why(error.to_string())
    })?;
    Ok(Opened {
        node,
        port,
        core,
        listeners,
        data,
        workers,
        server,
        writer,
        saved,
    })
}

/// Connects what was opened, and sets it going.
fn run(
    opened: Opened,
    listen: Vec<IpAddr>,
    checks: Arc<Checks>,
    addresses: watch::Receiver<Vec<IpAddr>>,
) -> Running {
    let (tcp, tcp_events) = Tcp::start(opened.listeners);
    let (side, side_inputs) = mpsc::channel(hub::SIDE_QUEUE);
    let (requests, api_requests) = mpsc::channel(api::QUEUE);
    let (events, _) = broadcast::channel(hub::EVENT_QUEUE);
    let (snapshot_sender, snapshots) = watch::channel(None);
    let (progress_sender, progress) = watch::channel(Progress::default());
    let (problems, met) = watch::channel(Vec::new());
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(underlay::tell(
        listen,
        addresses,
        snapshots.clone(),
        side.clone(),
    ));
    let api = opened.server.api(HubEnds {
        requests,
        events: events.clone(),
    });
    let effects = Effects {
        tcp,
        writer: opened.writer,
        data: opened.data,
        checks,
        side,
        events,
        snapshots: snapshot_sender,
        progress: progress_sender,
    };
    let sources = Sources {
        tcp: tcp_events,
        saved: opened.saved,
        workers: opened.workers,
        side: side_inputs,
        api: api_requests,
        problems: met,
        stop: stopped,
    };
    let stopping = ended(progress.clone());
    let server = tokio::spawn(opened.server.serve(api.clone(), stopping));
    let hub = tokio::spawn(Hub::new(opened.core, effects).run(sources));
    Running {
        node: opened.node,
        port: opened.port,
        snapshots,
        progress,
        problems,
        api,
        stop,
        hub,
        server,
    }
}

/// Wakes the core.
fn core(
    config: Config,
    keys: NodeKeys,
    port: u16,
    saved: &Saved,
    crypto: SystemCrypto,
) -> Result<Router, Problem> {
    let config = RouterConfig {
        keys,
        nickname: config.nickname,
        port,
        advertise: config.advertise,
        targets: config.targets,
        intent: config.intent,
        features: features(),
        release: config.release,
        // A clock that shows a time before 1970 is wrong, and says nothing.
        wall_clock: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default(),
    };
    Router::new(config, saved, Box::new(crypto), Instant::now())
}

/// Waits until the router has ended; also where the hub is gone without a word.
async fn ended(mut progress: watch::Receiver<Progress>) {
    let _ = progress.wait_for(|progress| progress.ended.is_some()).await;
}

/// What this machine can do, as it stands in the node record.
fn features() -> Vec<String> {
    if has_aes() {
        vec!["aes".to_owned()]
    } else {
        Vec::new()
    }
}

/// Whether AES is done by the processor: in software it is slower than ChaCha20, and not constant in time everywhere.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq")
        && std::arch::is_x86_feature_detected!("avx")
}

/// Whether AES is done by the processor: in software it is slower than ChaCha20, and not constant in time everywhere.
#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull")
}

/// Whether AES is done by the processor: unknown here, so it is not counted on.
#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

impl Core for Router {
    fn handle_input(&mut self, input: Input, now: Instant) {
        Self::handle_input(self, input, now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        Self::poll_output(self)
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        Self::poll_timeout(self)
    }

    fn handle_timeout(&mut self, now: Instant) {
        Self::handle_timeout(self, now);
    }

    fn status(&self, now: Instant) -> RouterStatus {
        Self::status(self, now)
    }
}
