//! Puts one request to whoever listens on a Unix socket: the router, or a container engine.

use std::fmt;
use std::io;
use std::path::Path;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::Method;

/// More than any answer of ours has; a bound, since a wrong process may listen there.
const MAX_ANSWER: usize = 16 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub enum Fault {
    /// The connection ended before there was one: so it does where a process is being killed, whose socket takes callers
    /// until it is gone.
    CutOff(hyper::Error),
    /// What came is no HTTP, or too much.
    Nonsense(String),
    /// Nobody takes the connection.
    Unreachable(io::Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CutOff(error) => error.fmt(f),
            Self::Nonsense(text) => f.write_str(text),
            Self::Unreachable(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Fault {}

impl From<hyper::Error> for Fault {
    fn from(error: hyper::Error) -> Self {
        if error.is_parse() {
            nonsense(error)
        } else {
            Self::CutOff(error)
        }
    }
}

fn nonsense(error: impl fmt::Display) -> Fault {
    Fault::Nonsense(error.to_string())
}

/// Sends a request; the answer's body is still to come.
pub async fn send(
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Response<Incoming>, Fault> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(Fault::Unreachable)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(match method {
            Method::Get => hyper::Method::GET,
            Method::Post => hyper::Method::POST,
        })
        .uri(path)
        .header(header::HOST, "localhost")
        .body(Full::new(Bytes::from(body)))
        .map_err(nonsense)?;
    Ok(sender.send_request(request).await?)
}

/// Reads a body to its end.
pub async fn collect(body: Incoming) -> Result<Bytes, Fault> {
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    Ok(body.map_err(nonsense)?.to_bytes())
}

/// Reads a resource; `None` where there is none, or it may not be read.
pub async fn get(socket: &Path, path: &str) -> Result<Option<Bytes>, Fault> {
    let response = send(socket, Method::Get, path, Vec::new()).await?;
    let found = response.status().is_success();
    let body = collect(response.into_body()).await?;
    Ok(found.then_some(body))
}
