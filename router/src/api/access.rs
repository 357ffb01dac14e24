//! Says whose requests are heard: on the Unix socket those of root and the socket's group, by TCP those to names of this
//! host. A web page that points a name of its own at 127.0.0.1 gets nothing.

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use weft_types::{Code, Problem};

use super::listen::Caller;
use super::routes::refusal;

/// Turns away who may not steer the router.
pub(super) async fn only_allowed_callers(
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
    refusal(&problem)
}

/// Turns away names that are not this host's: DNS rebinding.
pub(super) async fn only_local_names(request: Request, next: Next) -> Response {
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
