//! Asks a container engine for the process of a container.

use std::path::Path;
use std::time::Duration;

use weft_api::http;

/// Where engines that speak Docker's API listen.
const ENGINES: [&str; 2] = ["/var/run/docker.sock", "/run/podman/podman.sock"];

/// How long an engine gets.
const PATIENCE: Duration = Duration::from_secs(5);

/// The process of a running container; else what each engine said.
pub(super) async fn process(name: &str) -> Result<u32, String> {
    let mut said = Vec::new();
    for engine in ENGINES {
        let asked = tokio::time::timeout(PATIENCE, ask(Path::new(engine), name));
        match asked.await.unwrap_or(Err("no answer".to_owned())) {
            Ok(process) => return Ok(process),
            Err(why) => said.push(format!("{engine}: {why}")),
        }
    }
    Err(said.join(", "))
}

async fn ask(socket: &Path, name: &str) -> Result<u32, String> {
    if !name.bytes().all(is_legal) {
        return Err("no container can be called so".to_owned());
    }
    let path = format!("/containers/{name}/json");
    let answer = http::get(socket, &path).await;
    let answer = answer.map_err(|fault| fault.to_string())?;
    let container = answer.ok_or("no such container")?;
    process_of(&container).ok_or_else(|| "it does not run".to_owned())
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
    async fn answered(answer: &str) -> Result<u32, String> {
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
        let refused = |why: &str| Err(why.to_owned());

        assert_eq!(answered(&json("200 OK", 42)).await, Ok(42));
        assert_eq!(
            answered(&json("200 OK", 0)).await,
            refused("it does not run")
        );
        assert_eq!(
            answered(&json("404 Not Found", 42)).await,
            refused("no such container")
        );
        assert!(answered("nonsense").await.is_err());
    }

    #[tokio::test]
    async fn every_engine_that_was_asked_is_named() {
        let said = process("no-such-container-of-anybody").await.unwrap_err();

        for engine in ENGINES {
            assert!(said.contains(engine), "{said}");
        }
    }
}
