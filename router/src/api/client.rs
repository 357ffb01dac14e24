//! Speaks to a router over its Unix socket, and says in a [`Problem`] why not.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use weft_types::{Code, Problem};

use super::HUB_TIMEOUT;
use super::model::{
    AttachRequest, DetachRequest, Done, Event, PingAnswer, PingRequest, Status, TargetsRequest,
    TokenAnswer, TokenRequest, TokenRevokeRequest, TokenStatus, TraceAnswer,
};

/// Longer than the router gives itself, so that its own words arrive.
const TIMEOUT: Duration = HUB_TIMEOUT.saturating_add(Duration::from_secs(2));

/// More than any answer of ours has; a bound, since a wrong process may listen there.
const MAX_ANSWER: usize = 16 << 20;

/// A router on this host.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// Names the router by its socket; nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            timeout: TIMEOUT,
        }
    }

    /// Waits at most this long for each answer.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How things stand.
    pub async fn status(&self) -> Result<Status, Problem> {
        self.get("/v1/status").await
    }

    /// Everything that happens from here on.
    pub async fn events(&self) -> Result<Events, Problem> {
        let response = self
            .bounded(self.send(Method::GET, "/v1/events", Bytes::new()))
            .await?;
        Ok(Events {
            body: response.into_body(),
            buffer: Vec::new(),
        })
    }

    /// What happened lately, oldest first.
    pub async fn recent_events(&self) -> Result<Vec<Event>, Problem> {
        self.get("/v1/events/recent").await
    }

    /// The router's process, where this one can see it; `None` from within another namespace.
    pub async fn process(&self) -> Result<Option<u32>, Problem> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.unreachable(&error))?;
        let pid = stream.peer_cred().ok().and_then(|cred| cred.pid());
        Ok(pid
            .and_then(|pid| u32::try_from(pid).ok())
            .filter(|pid| *pid != 0))
    }

    /// Tokens, without their secrets.
    pub async fn tokens(&self) -> Result<Vec<TokenStatus>, Problem> {
        self.get("/v1/tokens").await
    }

    /// Makes a token.
    pub async fn create_token(&self, request: &TokenRequest) -> Result<TokenAnswer, Problem> {
        self.post("/v1/tokens", request).await
    }

    /// Voids a token.
    pub async fn revoke_token(&self, token: &str) -> Result<Done, Problem> {
        let token = token.to_owned();
        self.post("/v1/tokens/revoke", &TokenRevokeRequest { token })
            .await
    }

    /// Dials, for good.
    pub async fn connect(&self, targets: Vec<String>) -> Result<Done, Problem> {
        self.post("/v1/connect", &TargetsRequest { targets }).await
    }

    /// Dials no more.
    pub async fn forget(&self, targets: Vec<String>) -> Result<Done, Problem> {
        self.post("/v1/forget", &TargetsRequest { targets }).await
    }

    /// Sends a full-size probe to a peer and back.
    pub async fn ping(&self, node: &str) -> Result<PingAnswer, Problem> {
        let node = node.to_owned();
        self.post("/v1/ping", &PingRequest { node }).await
    }

    /// Follows a peer's frames from relay to relay.
    pub async fn trace(&self, node: &str) -> Result<TraceAnswer, Problem> {
        let node = node.to_owned();
        self.post("/v1/trace", &PingRequest { node }).await
    }

    /// Tells of a container.
    pub async fn attach(&self, request: &AttachRequest) -> Result<Done, Problem> {
        self.post("/v1/attach", request).await
    }

    /// Tells that a container is gone.
    pub async fn detach(&self, request: &DetachRequest) -> Result<Done, Problem> {
        self.post("/v1/detach", request).await
    }

    /// Leaves the mesh for good.
    pub async fn leave(&self) -> Result<Done, Problem> {
        self.post("/v1/leave", &Done {}).await
    }

    /// Stops the router; it is going when this returns, and gone a moment later.
    pub async fn shutdown(&self) -> Result<Done, Problem> {
        self.post("/v1/shutdown", &Done {}).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        self.answer(self.send(Method::GET, path, Bytes::new()))
            .await
    }

    async fn post<Q: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        request: &Q,
    ) -> Result<T, Problem> {
        let body = serde_json::to_vec(request).map_err(|error| self.broken(&error))?;
        self.answer(self.send(Method::POST, path, body.into()))
            .await
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        sent: impl Future<Output = Result<Response<Incoming>, Problem>>,
    ) -> Result<T, Problem> {
        self.bounded(async {
            let body = self.collect(sent.await?.into_body()).await?;
            serde_json::from_slice(&body).map_err(|error| self.broken(&error))
        })
        .await
    }

    async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        tokio::time::timeout(self.timeout, work)
            .await
            .unwrap_or_else(|_| {
                Err(Problem::new(
                    Code::DaemonNotRunning,
                    format!("the router at {} does not answer", self.socket.display()),
                )
                .why(format!("nothing came within {} s", self.timeout.as_secs()))
                .fix("Look into its log, and restart it: sudo weft down, sudo weft up"))
            })
    }

    /// Sends one request; an answer that is no success becomes its problem.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Problem> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&error))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "weft")
            .body(Full::new(body))
            .map_err(|error| self.broken(&error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.cut_off(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = self.collect(response.into_body()).await?;
        Err(serde_json::from_slice(&body).unwrap_or_else(|_| self.broken(&status)))
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes, Problem> {
        http_body_util::Limited::new(body, MAX_ANSWER)
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .map_err(|error| self.broken(&error))
    }

    fn unreachable(&self, error: &std::io::Error) -> Problem {
        let socket = self.socket.display();
        let kind = error.kind();
        if matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
            return Problem::new(Code::DaemonNotRunning, "no weft router is running")
                .why(format!("nothing answers at {socket}"))
                .fix("Start one: sudo weft up, or sudo weft join HOST --token TOKEN");
        }
        if kind == ErrorKind::PermissionDenied {
            return Problem::new(Code::Privilege, "this user may not talk to the router")
                .why(format!("{socket}: {error}"))
                .fix("Run the command with sudo");
        }
        Problem::new(
            Code::DaemonNotRunning,
            format!("the socket {socket} cannot be used"),
        )
        .why(error.to_string())
        .fix("Name the router's socket with --socket")
    }

    /// The connection ended before there was an answer: so does a router that is being killed, whose socket takes callers
    /// until its process is gone. Bytes that are no HTTP are another matter.
    fn cut_off(&self, error: &hyper::Error) -> Problem {
        if error.is_parse() {
            return self.broken(error);
        }
        Problem::new(
            Code::DaemonNotRunning,
            "the router ended before it answered",
        )
        .why(error.to_string())
        .fix("Start it again: sudo weft up")
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> Problem {
        Problem::new(
            Code::Internal,
            format!("the answer at {} makes no sense", self.socket.display()),
        )
        .why(error.to_string())
        .fix("Use a weft command of the router's own release: weft version")
    }
}

/// Events as they come.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Events {
    /// Waits for one; `None` when the router has stopped. May be dropped and called again without losing any.
    pub async fn next(&mut self) -> Result<Option<Event>, Problem> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return match serde_json::from_slice(&line) {
                    Ok(event) => Ok(Some(event)),
                    Err(error) => Err(Problem::new(
                        Code::Internal,
                        "an event of the router makes no sense",
                    )
                    .why(error.to_string())),
                };
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                // A router that was killed ends its stream in the middle.
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}
