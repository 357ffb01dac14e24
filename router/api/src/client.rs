//! Speaks to a router over its Unix socket, and says in a [`Problem`] why not. What can be asked stands with each resource.

use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use hyper::Response;
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use weft_types::{Code, Problem};

use crate::http::{self, Fault};
use crate::{Method, Route};

/// How long a router gives itself for an answer. What waits for others is the slowest: a ping takes up to 3 s and four
/// round trips, a trace a few seconds, a leave until the disk has it.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Longer than the router gives itself, so that its own words arrive.
const TIMEOUT: Duration = PATIENCE.saturating_add(Duration::from_secs(2));

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

    /// The router's process, where this one can see it; `None` from within another namespace.
    pub async fn process(&self) -> Result<Option<u32>, Problem> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.unreachable(&error))?;
        let pid = stream.peer_cred().ok().and_then(|cred| cred.pid());
        let pid = pid.and_then(|pid| u32::try_from(pid).ok());
        Ok(pid.filter(|pid| *pid != 0))
    }

    /// Asks what carries nothing.
    pub(crate) async fn ask<A: DeserializeOwned>(&self, route: Route<(), A>) -> Result<A, Problem> {
        self.answer(route, Vec::new()).await
    }

    /// Asks with a request.
    pub(crate) async fn request<Q: Serialize, A: DeserializeOwned>(
        &self,
        route: Route<Q, A>,
        request: &Q,
    ) -> Result<A, Problem> {
        let body = serde_json::to_vec(request).map_err(|error| self.broken(&error))?;
        self.answer(route, body).await
    }

    /// Asks for what comes piece by piece.
    pub(crate) async fn stream<A>(&self, route: Route<(), A>) -> Result<Incoming, Problem> {
        let response = self
            .bounded(self.send(route.method, route.path, Vec::new()))
            .await?;
        Ok(response.into_body())
    }

    async fn answer<Q, A: DeserializeOwned>(
        &self,
        route: Route<Q, A>,
        body: Vec<u8>,
    ) -> Result<A, Problem> {
        self.bounded(async {
            let response = self.send(route.method, route.path, body).await?;
            let body = http::collect(response.into_body()).await;
            let body = body.map_err(|fault| self.broken(&fault))?;
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
            .unwrap_or_else(|_| Err(self.too_late()))
    }

    /// Sends one request; an answer that is no success becomes its problem.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, Problem> {
        let sent = http::send(&self.socket, method, path, body).await;
        let response = sent.map_err(|fault| self.fault(&fault))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = http::collect(response.into_body()).await;
        let body = body.map_err(|fault| self.broken(&fault))?;
        Err(serde_json::from_slice(&body).unwrap_or_else(|_| self.broken(&status)))
    }

    fn fault(&self, fault: &Fault) -> Problem {
        match fault {
            Fault::CutOff(error) => cut_off(error),
            Fault::Nonsense(text) => self.broken(text),
            Fault::Unreachable(error) => self.unreachable(error),
        }
    }

    fn too_late(&self) -> Problem {
        Problem::new(
            Code::DaemonNotRunning,
            format!("the router at {} does not answer", self.socket.display()),
        )
        .why(format!("nothing came within {} s", self.timeout.as_secs()))
        .fix("Look into its log, and restart it: sudo weft down, sudo weft up")
    }

    fn unreachable(&self, error: &io::Error) -> Problem {
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

    fn broken(&self, error: &dyn Display) -> Problem {
        Problem::new(
            Code::Internal,
            format!("the answer at {} makes no sense", self.socket.display()),
        )
        .why(error.to_string())
        .fix("Use a weft command of the router's own release: weft version")
    }
}

fn cut_off(error: &dyn Display) -> Problem {
    Problem::new(
        Code::DaemonNotRunning,
        "the router ended before it answered",
    )
    .why(error.to_string())
    .fix("Start it again: sudo weft up")
}
