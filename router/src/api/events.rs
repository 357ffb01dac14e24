//! Tells what happens, as it happens, and what happened lately.

use std::convert::Infallible;
use std::time::SystemTime;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use weft_api::events::{Event, EventKind, RECENT, STREAM};
use weft_router_proto::io;

use super::handle::Api;
use super::routes::Routes;
use crate::hub::Names;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .at(STREAM.path, get(stream))
        .on(RECENT, |api| async move {
            Ok(api.history().iter().cloned().collect())
        })
}

/// Keeps what happens for who comes late. Never returns.
pub(super) async fn remember(api: Api) {
    let mut events = api.listen();
    loop {
        match events.recv().await {
            Ok(event) => api.remember(event),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

async fn stream(State(api): State<Api>) -> Response {
    let lines = futures_util::stream::unfold(Some(api.listen()), |events| async move {
        let mut events = events?;
        let event = next(&mut events).await?;
        let last = matches!(event.kind, EventKind::Stopping { .. });
        let mut line = serde_json::to_vec(&event).ok()?;
        line.push(b'\n');
        let more = (!last).then_some(events);
        Some((Ok::<_, Infallible>(Bytes::from(line)), more))
    });
    let body = Body::from_stream(lines);
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// Waits for one; `None` where there will be none.
async fn next(events: &mut Receiver<Event>) -> Option<Event> {
    match events.recv().await {
        Ok(event) => Some(event),
        Err(RecvError::Lagged(events)) => {
            Some(stamped(EventKind::Missed { events }, SystemTime::now()))
        }
        Err(RecvError::Closed) => None,
    }
}

/// What the core tells in the words of the API.
pub(crate) fn told(event: io::Event, names: &Names, now: SystemTime) -> Event {
    let kind = match event {
        io::Event::Joined {
            mesh,
            addresses,
            mtu,
        } => EventKind::Joined {
            mesh,
            addresses,
            mtu: mtu.get(),
        },
        io::Event::JoinAttemptFailed(problem) => EventKind::JoinAttemptFailed { problem },
        io::Event::LinkUp {
            node,
            nickname,
            endpoint,
        } => EventKind::LinkUp {
            node,
            nickname,
            endpoint,
        },
        io::Event::LinkDown { node, reason } => EventKind::LinkDown {
            node,
            nickname: names.of(node),
            reason,
        },
        io::Event::MemberJoined { node, nickname } => EventKind::MemberJoined { node, nickname },
        io::Event::MemberLeft { node } => EventKind::MemberLeft {
            node,
            nickname: names.of(node),
        },
        io::Event::PathChanged {
            node,
            at: _,
            from,
            to: path,
            via,
            reason,
        } => EventKind::PathChanged {
            node,
            nickname: names.of(node),
            from,
            path,
            via,
            via_nickname: via.and_then(|via| names.of(via)),
            reason,
        },
        io::Event::Problem(problem) => EventKind::Problem { problem },
        io::Event::SessionUp { node } => EventKind::SessionUp {
            node,
            nickname: names.of(node),
        },
        io::Event::SessionDown { node } => EventKind::SessionDown {
            node,
            nickname: names.of(node),
        },
    };
    stamped(kind, now)
}

/// Something that happened, with the time of day.
pub fn stamped(kind: EventKind, now: SystemTime) -> Event {
    Event {
        time: timestamp(now),
        kind,
    }
}

/// A time of day, as the API writes it.
pub(super) fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}
