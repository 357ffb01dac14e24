//! Serves the local API: everything on the Unix socket, reading on loopback TCP.
//!
//! The Unix socket answers the routes of `weft-api`; by TCP there is `GET /status`, as JSON, and `GET /metrics`, for
//! Prometheus. Whatever fails answers with a [`Problem`] in JSON.

use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use weft_api::settings::Settings;
use weft_types::{Code, Problem};

use super::access::{only_allowed_callers, only_local_names};
use super::handle::{Api, HubEnds};
use super::listen::{Caller, Socket};
use super::routes::Routes;
use super::{
    containers, events, metrics, ping, process, reading, settings, status, targets, tokens, trace,
};

/// More than any request of ours has: a hundred targets.
const MAX_BODY: usize = 64 << 10;

/// How long answers under way get when the router stops.
const GRACE: Duration = Duration::from_secs(1);

/// Where the API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// The Unix socket's path.
    pub socket: PathBuf,
    /// Where status and metrics are read; `None` for nowhere.
    pub status: Option<SocketAddr>,
    /// The release, for people.
    pub version: String,
    /// What the router was told at its start.
    pub settings: Settings,
}

/// Open sockets that nobody serves yet.
#[derive(Debug)]
pub struct Server {
    socket: Socket,
    unix: UnixListener,
    tcp: Option<TcpListener>,
    version: String,
    settings: Settings,
    problems: Vec<Problem>,
}

impl Server {
    /// Opens the sockets. A port that another process has costs status and metrics on TCP, not the router: the problem
    /// is part of every status.
    ///
    /// # Errors
    ///
    /// [`Code::DaemonRunning`], [`Code::Privilege`] or [`Code::Configuration`], about the Unix socket.
    pub async fn bind(config: ServerConfig) -> Result<Self, Problem> {
        let (socket, unix) = Socket::bind(&config.socket).await?;
        let (tcp, problem) = match config.status {
            Some(address) => listen(address).await,
            None => (None, None),
        };
        Ok(Self {
            socket,
            unix,
            tcp,
            version: config.version,
            settings: config.settings,
            problems: problem.into_iter().collect(),
        })
    }

    /// Where status and metrics are read.
    pub fn status_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.local_addr().ok()
    }

    /// The way to ask a router whose hub has these ends.
    pub fn api(&self, hub: HubEnds) -> Api {
        let (version, settings) = (self.version.clone(), self.settings.clone());
        Api::new(hub, version, settings, self.problems.clone())
    }

    /// Serves until `stop` resolves and a moment longer, for answers under way. The socket's file is gone then.
    pub async fn serve(self, api: Api, stop: impl Future<Output = ()> + Send + 'static) {
        let remembering = events::remember(api.clone());
        let (stopped, stopping) = watch::channel(());
        let serving = serve_both(self.unix, self.tcp, api, stopping);
        tokio::pin!(serving);
        tokio::select! {
            () = &mut serving => {}
            () = remembering => {}
            () = stop => {
                drop(stopped);
                let _ = tokio::time::timeout(GRACE, serving).await;
            }
        }
        drop(self.socket);
    }
}

/// Begins to listen by TCP, or says why not.
async fn listen(address: SocketAddr) -> (Option<TcpListener>, Option<Problem>) {
    match TcpListener::bind(address).await {
        Ok(listener) => (Some(listener), None),
        // Loopback is down, as in a namespace nobody has touched: nobody could ask there, so nobody misses it.
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
            tracing::info!(%address, %error, "status is not served by TCP");
            (None, None)
        }
        Err(error) => {
            let problem = Problem::new(
                Code::PortInUse,
                format!("status and metrics are not served at {address}"),
            )
            .why(error.to_string())
            .fix("Choose another address with --status-listen, or none: --status-listen off");
            tracing::warn!(code = %problem.code, %address, %error, "status is not served");
            (None, Some(problem))
        }
    }
}

/// Serves by both sockets until `stopping` changes or ends, and what was begun is done.
async fn serve_both(
    unix: UnixListener,
    tcp: Option<TcpListener>,
    api: Api,
    stopping: watch::Receiver<()>,
) {
    let wait = |mut stopping: watch::Receiver<()>| async move {
        let _ = stopping.changed().await;
    };
    let steering = steering(api.clone()).into_make_service_with_connect_info::<Caller>();
    let unix = axum::serve(unix, steering).with_graceful_shutdown(wait(stopping.clone()));
    let tcp = async {
        if let Some(listener) = tcp {
            reading::serve(listener, readable(api), stopping).await;
        }
    };
    let (unix, ()) = tokio::join!(unix.into_future(), tcp);
    if let Err(error) = unix {
        tracing::error!(%error, "the local API ended");
    }
}

/// Everything, for who may.
fn steering(api: Api) -> Router {
    [
        containers::routes,
        events::routes,
        ping::routes,
        process::routes,
        settings::routes,
        status::routes,
        targets::routes,
        tokens::routes,
        trace::routes,
    ]
    .into_iter()
    .fold(Routes::new(), |routes, more| more(routes))
    .finish()
    .layer(DefaultBodyLimit::max(MAX_BODY))
    .layer(middleware::from_fn(only_allowed_callers))
    .with_state(api)
}

/// What anybody on this host may read.
fn readable(api: Api) -> Router {
    metrics::routes(status::page(Routes::new()))
        .finish()
        .layer(middleware::from_fn(only_local_names))
        .with_state(api)
}
