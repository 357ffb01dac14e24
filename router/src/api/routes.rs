//! Answers the routes of `weft-api`: JSON in, JSON out, and a refusal with the status that fits it.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;
use weft_api::{Method, Route};
use weft_types::{Code, ExitCode, Problem};

use super::handle::Api;

/// Routes with what answers them.
pub(super) struct Routes(Router<Api>);

impl Routes {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(Router::new())
    }

    /// Answers a route that carries nothing.
    pub(super) fn on<A, F, W>(self, route: Route<(), A>, answer: F) -> Self
    where
        A: Serialize + 'static,
        F: FnOnce(Api) -> W + Clone + Send + Sync + 'static,
        W: Future<Output = Result<A, Problem>> + Send + 'static,
    {
        let handler = move |State(api): State<Api>| async move { reply(answer(api).await) };
        let method = match route.method {
            Method::Get => get(handler),
            Method::Post => post(handler),
        };
        self.at(route.path, method)
    }

    /// Answers a route that carries a request.
    pub(super) fn on_request<Q, A, F, W>(self, route: Route<Q, A>, answer: F) -> Self
    where
        Q: DeserializeOwned + Send + 'static,
        A: Serialize + 'static,
        F: FnOnce(Api, Q) -> W + Clone + Send + Sync + 'static,
        W: Future<Output = Result<A, Problem>> + Send + 'static,
    {
        let handler = move |State(api): State<Api>, body: Bytes| async move {
            match parse(&body) {
                Ok(request) => reply(answer(api, request).await),
                Err(problem) => refusal(&problem),
            }
        };
        let method = match route.method {
            Method::Get => get(handler),
            Method::Post => post(handler),
        };
        self.at(route.path, method)
    }

    /// Answers a path in words of its own.
    pub(super) fn at(self, path: &str, method: MethodRouter<Api>) -> Self {
        Self(self.0.route(path, method))
    }

    /// All of them; any other path is told to be none.
    pub(super) fn finish(self) -> Router<Api> {
        self.0.fallback(unknown_path)
    }
}

fn parse<Q: DeserializeOwned>(body: &Bytes) -> Result<Q, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        Problem::new(Code::Usage, "the request cannot be read").why(error.to_string())
    })
}

fn reply<A: Serialize>(answer: Result<A, Problem>) -> Response {
    match answer {
        Ok(answer) => json(&answer),
        Err(problem) => refusal(&problem),
    }
}

fn json<A: Serialize>(answer: &A) -> Response {
    match serde_json::to_vec(answer) {
        Ok(bytes) => ([(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A problem on its way to the caller.
pub(super) fn refusal(problem: &Problem) -> Response {
    (status_of(problem.code.exit()), json(problem)).into_response()
}

const fn status_of(exit: ExitCode) -> StatusCode {
    match exit {
        ExitCode::Usage | ExitCode::Configuration => StatusCode::BAD_REQUEST,
        ExitCode::Refused | ExitCode::Privilege => StatusCode::FORBIDDEN,
        ExitCode::Conflict | ExitCode::NotJoined | ExitCode::Version => StatusCode::CONFLICT,
        ExitCode::Unreachable => StatusCode::BAD_GATEWAY,
        ExitCode::NotRunning => StatusCode::SERVICE_UNAVAILABLE,
        ExitCode::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        ExitCode::Ok | ExitCode::Internal | ExitCode::Degraded | ExitCode::Machine => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

async fn unknown_path() -> Response {
    let problem = Problem::new(Code::Usage, "the router has no such resource")
        .fix("Use a weft command of the router's own release: weft version");
    (StatusCode::NOT_FOUND, json(&problem)).into_response()
}
