//! Asks a container engine for the process of a container.

use std::path::Path;
use std::time::Duration;

use weft_api::http;

/// Where engines that speak Docker's API listen.
const ENGINES: [&str; 2] = ["/var/run/docker.sock", "/run/podman/podman.sock"];

/// How long an engine gets.
const PATIENCE: Duration = Duration::from_secs(5);

/// The process of a running container; `None` where there is no engine, or no such container.
pub(super) async fn process(name: &str) -> Option<u32> {
    for engine in ENGINES {
        let asked = tokio::time::timeout(PATIENCE, ask(Path::new(engine), name));
        if let Ok(Some(process)) = asked.await {
            return Some(process);
        }
    }
    None
}

async fn ask(socket: &Path, name: &str) -> Option<u32> {
    if !name.bytes().all(is_legal) {
        return None;
    }
    let path = format!("/containers/{name}/json");
    process_of(&http::get(socket, &path).await.ok()??)
}

/// What engines allow in a name.
const fn is_legal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn process_of(body: &[u8]) -> Option<u32> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    body["State"]["Pid"]
        .as_u64()
        .and_then(|process| u32::try_from(process).ok())
        .filter(|process| *process != 0)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    /// Asks an engine that gives this answer.
    async fn answered(answer: &str) -> Option<u32> {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("engine.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let answer = answer.to_owned();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        ask(&socket, "web").await
    }

    fn json(status: &str, pid: u64) -> String {
        let body = format!("{{\"State\":{{\"Pid\":{pid}}}}}");
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}")
    }

    #[tokio::test]
    async fn a_running_container_is_found_and_a_stopped_one_is_not() {
        assert_eq!(answered(&json("200 OK", 42)).await, Some(42));
        assert_eq!(answered(&json("200 OK", 0)).await, None);
        assert_eq!(answered(&json("404 Not Found", 42)).await, None);
        assert_eq!(answered("nonsense").await, None);
    }
}
