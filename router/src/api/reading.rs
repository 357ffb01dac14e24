//! Serves what anybody on this host may read by TCP, to few at a time and to nobody for long.
//!
//! Whoever connects has [`HEADER`] to say what is wanted and gets one answer. [`MOST`] are served at once, and fewer where
//! this process may open few descriptors: what control connections and the Unix socket need is not to be had here.
//! **Failure policy.** Whoever is late is cut off; an accept that fails is tried again.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use weft_kernel::privilege;

/// How long a request may take to come.
const HEADER: Duration = Duration::from_secs(5);
/// How long all of a connection may take: the request, what the hub takes, and the answer.
const WHOLE: Duration = Duration::from_secs(15);
/// How many are served at once.
const MOST: usize = 64;
/// The part of all descriptors that may be used here: one in eight.
const SHARE: u64 = 8;
/// How long to wait after a failed accept, which means that descriptors ran out.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stopping` changes or ends, and what was begun is done.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    mut stopping: watch::Receiver<()>,
) {
    let most = limit(privilege::descriptors());
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopping.changed() => break,
            Some(_) = open.join_next(), if !open.is_empty() => {}
            accepted = listener.accept(), if open.len() < most => match accepted {
                Ok((stream, _)) => {
                    open.spawn(answer(stream, router.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "status cannot be asked for by TCP");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
    while open.join_next().await.is_some() {}
}

fn limit(descriptors: u64) -> usize {
    let share = usize::try_from(descriptors / SHARE).unwrap_or(MOST);
    share.clamp(1, MOST)
}

async fn answer(stream: TcpStream, router: Router) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // Whoever went away, or was late, needs no answer.
    let _ = tokio::time::timeout(WHOLE, serving).await;
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn serving() -> (SocketAddr, watch::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (stopped, stopping) = watch::channel(());
        let router = Router::new().route("/", get(async || "well"));
        tokio::spawn(serve(listener, router, stopping));
        (at, stopped)
    }

    async fn half_asked(at: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        stream
    }

    async fn asked(at: SocketAddr) -> String {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_thousand_half_asked_questions_hold_up_a_whole_one_for_the_patience_of_a_few() {
        let (at, _stopped) = serving().await;
        let mut half = Vec::new();
        for _ in 0..3 * MOST {
            half.push(half_asked(at).await);
        }

        let begun = tokio::time::Instant::now();
        let answer = asked(at).await;

        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("well"),
            "{answer}"
        );
        assert!(begun.elapsed() < HEADER * 6, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn whoever_asks_by_halves_is_cut_off() {
        let (at, _stopped) = serving().await;
        let mut half = half_asked(at).await;

        let mut rest = Vec::new();
        let cut = tokio::time::timeout(HEADER * 3, half.read_to_end(&mut rest)).await;

        assert!(cut.is_ok(), "it is waited for without end");
    }

    #[test]
    fn where_there_are_few_descriptors_fewer_are_served() {
        assert_eq!(limit(1_048_576), MOST);
        assert_eq!(limit(256), 32);
        assert_eq!(limit(4), 1);
    }
}
