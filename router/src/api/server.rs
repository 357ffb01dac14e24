//! Serves the local API: everything on the Unix socket, reading on loopback TCP.
//!
//! | method and path | what |
//! |---|---|
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/events` | a JSON line per [`Event`], until the caller goes or the router stops |
//! | `GET /v1/events/recent` | the last 64 of them |
//! | `GET /v1/tokens`, `POST /v1/tokens`, `POST /v1/tokens/revoke` | join tokens |
//! | `POST /v1/connect`, `/v1/forget`, `/v1/ping`, `/v1/trace`, `/v1/attach`, `/v1/detach`, `/v1/leave` | as the commands |
//! | `POST /v1/shutdown` | stop the router |
//! | `GET /status`, `GET /metrics` (TCP) | [`Status`], Prometheus |
//!
//! Whatever fails answers with a [`Problem`] in JSON. The TCP side answers only to the names of this host: a web page
//! that points a name of its own at 127.0.0.1 gets nothing.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;
use weft_router_proto::io::{Command, Hop, Reply, Target};
use weft_router_proto::status::PathKind;
use weft_types::{Code, ExitCode, NodeId, Problem};

use super::assemble::{assemble_token, milliseconds, not_joined, path_kind};
use super::listen::{Caller, Socket};
use super::model::{
    AttachRequest, DetachRequest, Done, Event, EventKind, HopStatus, PingAnswer, PingRequest,
    Status, TargetsRequest, TokenAnswer, TokenRequest, TokenRevokeRequest, TokenStatus,
    TraceAnswer,
};
use super::{ApiRequest, HUB_TIMEOUT, Hub, Report, metrics};
use crate::resolve::is_target;

/// More than any request of ours has: a hundred targets.
const MAX_BODY: usize = 64 << 10;

/// How many past events are kept for a person who comes late: what a screen shows.
const HISTORY: usize = 64;

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
}

/// Open sockets that nobody serves yet.
#[derive(Debug)]
pub struct Server {
    socket: Socket,
    unix: UnixListener,
    tcp: Option<TcpListener>,
    version: String,
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
        let mut problems = Vec::new();
        let mut tcp = None;
        if let Some(address) = config.status {
            match TcpListener::bind(address).await {
                Ok(listener) => tcp = Some(listener),
                // Loopback is down, as in a namespace nobody has touched: nobody could ask there, so nobody misses it.
                Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
                    tracing::info!(%address, %error, "status is not served by TCP");
                }
                Err(error) => {
                    let problem = Problem::new(
                        Code::PortInUse,
                        format!("status and metrics are not served at {address}"),
                    )
                    .why(error.to_string())
                    .fix(
                        "Choose another address with --status-listen, or none: --status-listen off",
                    );
                    tracing::warn!(code = %problem.code, %address, %error, "status is not served");
                    problems.push(problem);
                }
            }
        }
        Ok(Self {
            socket,
            unix,
            tcp,
            version: config.version,
            problems,
        })
    }

    /// Where status and metrics are read.
    pub fn status_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.local_addr().ok()
    }

    /// Serves until `stop` resolves and a moment longer, for answers under way. The socket's file is gone then.
    pub async fn serve(self, hub: Hub, stop: impl Future<Output = ()> + Send + 'static) {
        let mut events = hub.events.subscribe();
        let state = Arc::new(Shared {
            hub,
            history: Mutex::new(VecDeque::with_capacity(HISTORY)),
            version: self.version,
            problems: self.problems,
        });
        let keeper = Arc::clone(&state);
        let remembering = async move {
            loop {
                match events.recv().await {
                    Ok(event) => keeper.remember(event),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        let (stopped, stopping) = tokio::sync::watch::channel(());
        let wait = |mut stopping: tokio::sync::watch::Receiver<()>| async move {
            let _ = stopping.changed().await;
        };
        let unix = axum::serve(
            self.unix,
            steering(Arc::clone(&state)).into_make_service_with_connect_info::<Caller>(),
        )
        .with_graceful_shutdown(wait(stopping.clone()));
        let tcp = async {
            if let Some(listener) = self.tcp {
                let _ = axum::serve(listener, reading(state))
                    .with_graceful_shutdown(wait(stopping))
                    .await;
            }
        };
        let serving = async {
            let (unix, ()) = tokio::join!(unix.into_future(), tcp);
            if let Err(error) = unix {
                tracing::error!(%error, "the local API ended");
            }
        };
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

struct Shared {
    hub: Hub,
    version: String,
    problems: Vec<Problem>,
    history: Mutex<VecDeque<Event>>,
}

impl Shared {
    fn remember(&self, event: Event) {
        let mut history = self.history();
        if history.len() == HISTORY {
            history.pop_front();
        }
        history.push_back(event);
    }

    /// Nothing that holds the lock can panic halfway, so a poisoned one is whole.
    fn history(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts one request to the hub and waits for its answer.
    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> ApiRequest,
    ) -> Result<T, Problem> {
        let (answer, receiver) = oneshot::channel();
        let asked = async {
            self.hub.requests.send(request(answer)).await.ok()?;
            receiver.await.ok()
        };
        match tokio::time::timeout(HUB_TIMEOUT, asked).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(
                Problem::new(Code::DaemonNotRunning, "the router is stopping")
                    .fix("Start it again: sudo weft up"),
            ),
            Err(_) => Err(Problem::new(
                Code::Internal,
                format!(
                    "the router did not answer within {} s",
                    HUB_TIMEOUT.as_secs()
                ),
            )
            .fix("Look into its log, and restart it: sudo weft down, sudo weft up")),
        }
    }

    async fn report(&self) -> Result<Report, Problem> {
        self.ask(|answer| ApiRequest::Status { answer }).await
    }

    async fn status(&self) -> Result<Status, Problem> {
        let report = self.report().await?;
        let mut status = Status::assemble(report, &self.version, SystemTime::now());
        status.problems.extend_from_slice(&self.problems);
        Ok(status)
    }

    async fn command(&self, command: Command) -> Result<Reply, Problem> {
        match self
            .ask(|answer| ApiRequest::Command { command, answer })
            .await?
        {
            Reply::Failed(problem) => Err(problem),
            reply @ (Reply::Done | Reply::Pong(_) | Reply::Token(_) | Reply::Trace(_)) => Ok(reply),
        }
    }

    /// Follows a member's frames from relay to relay.
    async fn follow(&self, node: NodeId) -> Result<Vec<Hop>, Problem> {
        match self.command(Command::Trace { node }).await? {
            Reply::Trace(hops) => Ok(hops),
            other @ (Reply::Done | Reply::Failed(_) | Reply::Pong(_) | Reply::Token(_)) => {
                Err(unexpected(&other))
            }
        }
    }

    /// Runs a command that has nothing to say but "done".
    async fn run(&self, command: Command) -> Answer<Done> {
        match self.command(command).await? {
            Reply::Done => Ok(Json(Done {})),
            other @ (Reply::Failed(_) | Reply::Pong(_) | Reply::Token(_) | Reply::Trace(_)) => {
                Err(unexpected(&other).into())
            }
        }
    }
}

type Ctx = State<Arc<Shared>>;
type Answer<T> = Result<Json<T>, Refusal>;

fn steering(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/events", get(events))
        .route("/v1/events/recent", get(recent_events))
        .route("/v1/tokens", get(tokens).post(create_token))
        .route("/v1/tokens/revoke", post(revoke_token))
        .route("/v1/connect", post(connect))
        .route("/v1/forget", post(forget))
        .route("/v1/ping", post(ping))
        .route("/v1/trace", post(trace))
        .route("/v1/attach", post(attach))
        .route("/v1/detach", post(detach))
        .route("/v1/leave", post(leave))
        .route("/v1/shutdown", post(shutdown))
        .fallback(unknown_path)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(only_allowed_callers))
        .with_state(shared)
}

fn reading(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/metrics", get(metrics_page))
        .fallback(unknown_path)
        .layer(middleware::from_fn(only_local_names))
        .with_state(shared)
}

async fn only_allowed_callers(
    ConnectInfo(caller): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    if caller.allowed() {
        return next.run(request).await;
    }
    let problem = Problem::new(Code::Privilege, "this user may not steer the router")
        .why("it is neither root nor in the group of the socket")
        .fix("Run the command with sudo");
    Refusal(problem).into_response()
}

/// Turns away names that are not this host's: DNS rebinding.
async fn only_local_names(request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_local_name) {
        return StatusCode::MISDIRECTED_REQUEST.into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Whether a `Host` header names this host, with or without a port.
fn is_local_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

async fn unknown_path() -> Response {
    let problem = Problem::new(Code::Usage, "the router has no such resource")
        .fix("Use a weft command of the router's own release: weft version");
    (StatusCode::NOT_FOUND, Json(problem)).into_response()
}

async fn status(State(shared): Ctx) -> Answer<Status> {
    Ok(Json(shared.status().await?))
}

async fn metrics_page(State(shared): Ctx) -> Result<Response, Refusal> {
    let page = metrics::render(&shared.status().await?).map_err(|error| {
        Problem::new(Code::Internal, "metrics cannot be written").why(error.to_string())
    })?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], page).into_response())
}

async fn events(State(shared): Ctx) -> Response {
    let receiver = shared.hub.events.subscribe();
    let lines = futures_util::stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        let event = match receiver.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(events)) => {
                Event::new(EventKind::Missed { events }, SystemTime::now())
            }
            Err(RecvError::Closed) => return None,
        };
        let last = matches!(event.kind, EventKind::Stopping { .. });
        let mut line = serde_json::to_vec(&event).ok()?;
        line.push(b'\n');
        Some((
            Ok::<_, std::convert::Infallible>(Bytes::from(line)),
            (!last).then_some(receiver),
        ))
    });
    (
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(lines),
    )
        .into_response()
}

async fn recent_events(State(shared): Ctx) -> Json<Vec<Event>> {
    Json(shared.history().iter().cloned().collect())
}

async fn tokens(State(shared): Ctx) -> Answer<Vec<TokenStatus>> {
    let report = shared.report().await?;
    if report.core.mesh.is_none() {
        return Err(not_joined().into());
    }
    Ok(Json(
        report.core.tokens.into_iter().map(assemble_token).collect(),
    ))
}

async fn create_token(State(shared): Ctx, body: Bytes) -> Answer<TokenAnswer> {
    let request: TokenRequest = parse(&body)?;
    let reply = shared
        .command(Command::TokenCreate {
            reusable: request.reusable,
            ttl: Duration::from_secs(request.ttl_seconds),
        })
        .await?;
    match reply {
        Reply::Token(text) => Ok(Json(TokenAnswer {
            token: text.reveal().to_owned(),
        })),
        other @ (Reply::Done | Reply::Failed(_) | Reply::Pong(_) | Reply::Trace(_)) => {
            Err(unexpected(&other).into())
        }
    }
}

async fn revoke_token(State(shared): Ctx, body: Bytes) -> Answer<Done> {
    let request: TokenRevokeRequest = parse(&body)?;
    let report = shared.report().await?;
    if report.core.mesh.is_none() {
        return Err(not_joined().into());
    }
    let mut found = report
        .core
        .tokens
        .iter()
        .filter(|token| token.id.to_string().starts_with(&request.token));
    let (Some(token), None) = (found.next(), found.next()) else {
        return Err(Problem::new(
            Code::Usage,
            format!("{:?} names no single token of this node", request.token),
        )
        .fix("See which there are: weft token list")
        .into());
    };
    shared.run(Command::TokenRevoke { token: token.id }).await
}

async fn connect(State(shared): Ctx, body: Bytes) -> Answer<Done> {
    let targets = targets(&body)?;
    if let Some(Target(text)) = targets.iter().find(|target| !is_target(&target.0)) {
        return Err(Problem::new(
            Code::Usage,
            format!("{text:?} is no host: HOST, HOST:PORT or [ADDRESS]:PORT"),
        )
        .into());
    }
    shared.run(Command::Connect { targets }).await
}

async fn forget(State(shared): Ctx, body: Bytes) -> Answer<Done> {
    let targets = targets(&body)?;
    shared.run(Command::Forget { targets }).await
}

fn targets(body: &Bytes) -> Result<Vec<Target>, Problem> {
    let request: TargetsRequest = parse(body)?;
    Ok(request.targets.into_iter().map(Target).collect())
}

async fn ping(State(shared): Ctx, body: Bytes) -> Answer<PingAnswer> {
    let request: PingRequest = parse(&body)?;
    let status = shared.status().await?;
    let peer = status.find_peer(&request.node)?;
    let pong = match shared.command(Command::Ping { node: peer.id }).await? {
        Reply::Pong(pong) => pong,
        other @ (Reply::Done | Reply::Failed(_) | Reply::Token(_) | Reply::Trace(_)) => {
            return Err(unexpected(&other).into());
        }
    };
    // Only a relay can say where it passes frames on to; a way that cannot be followed is no failure of the ping.
    let hops = match pong.path {
        PathKind::Relay => shared.follow(peer.id).await.unwrap_or_default(),
        PathKind::Control | PathKind::Sleeve => Vec::new(),
    };
    let nickname = peer.nickname.clone();
    Ok(Json(PingAnswer::of(
        &status, peer.id, nickname, &pong, &hops,
    )))
}

async fn trace(State(shared): Ctx, body: Bytes) -> Answer<TraceAnswer> {
    let request: PingRequest = parse(&body)?;
    let status = shared.status().await?;
    let peer = status.find_peer(&request.node)?;
    let hops = shared.follow(peer.id).await?;
    let last = hops.last();
    Ok(Json(TraceAnswer {
        node: peer.id,
        nickname: peer.nickname.clone(),
        complete: last.is_some_and(|hop| hop.to == peer.id && hop.path.is_some()),
        hops: hops
            .into_iter()
            .map(|hop| HopStatus {
                from: hop.from,
                from_nickname: status.name_of(hop.from),
                to: hop.to,
                to_nickname: status.name_of(hop.to),
                path: hop.path.map(path_kind),
                rtt_ms: hop.rtt.map(milliseconds),
                loss: hop.loss,
                mtu: hop.mtu,
            })
            .collect(),
    }))
}

async fn attach(State(shared): Ctx, body: Bytes) -> Answer<Done> {
    let request: AttachRequest = parse(&body)?;
    shared
        .run(Command::Attach {
            mac: request.mac,
            addresses: request.addresses,
            port: request.port,
        })
        .await
}

async fn detach(State(shared): Ctx, body: Bytes) -> Answer<Done> {
    let request: DetachRequest = parse(&body)?;
    shared.run(Command::Detach { mac: request.mac }).await
}

async fn leave(State(shared): Ctx) -> Answer<Done> {
    shared.run(Command::Leave).await
}

async fn shutdown(State(shared): Ctx) -> Answer<Done> {
    shared.ask(|answer| ApiRequest::Shutdown { answer }).await?;
    Ok(Json(Done {}))
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        Problem::new(Code::Usage, "the request cannot be read").why(error.to_string())
    })
}

fn unexpected(reply: &Reply) -> Problem {
    Problem::new(Code::Internal, "the router answered another question").why(format!("{reply:?}"))
}

/// A problem on its way to the caller.
struct Refusal(Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.0.code.exit() {
            ExitCode::Usage | ExitCode::Configuration => StatusCode::BAD_REQUEST,
            ExitCode::Refused | ExitCode::Privilege => StatusCode::FORBIDDEN,
            ExitCode::Conflict | ExitCode::NotJoined | ExitCode::Version => StatusCode::CONFLICT,
            ExitCode::Unreachable => StatusCode::BAD_GATEWAY,
            ExitCode::NotRunning => StatusCode::SERVICE_UNAVAILABLE,
            ExitCode::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            ExitCode::Ok | ExitCode::Internal | ExitCode::Degraded | ExitCode::Machine => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        (status, Json(self.0)).into_response()
    }
}

/// JSON on its way out.
struct Json<T>(T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => ([(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_host_are_answered() {
        for host in [
            "localhost",
            "localhost:6782",
            "127.0.0.1:6782",
            "[::1]:6782",
            "[::1]",
        ] {
            assert!(is_local_name(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:6782",
            "127.0.0.1.evil.example",
            "",
            ":6782",
        ] {
            assert!(!is_local_name(host), "{host}");
        }
    }
}
