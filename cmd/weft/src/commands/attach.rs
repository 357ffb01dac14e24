//! Puts containers on the mesh, and takes them off.
//!
//! The router never enters another namespace; this command does, and tells the router what it made.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use weft_router::api::client::Client;
use weft_router::api::model::{AttachRequest, DetachRequest};
use weft_types::{Code, ExitCode, MacAddr, Mtu, Problem};

use super::Outcome;
use crate::args::{AttachArgs, DetachArgs};
use crate::config::{self, Place};
use crate::host;
use crate::output::Output;

/// Where engines that speak Docker's API listen.
const ENGINES: [&str; 2] = ["/var/run/docker.sock", "/run/podman/podman.sock"];

/// Where `ip netns` keeps named namespaces.
const NAMED: &str = "/run/netns";

#[derive(Serialize)]
struct Done {
    mac: MacAddr,
    interface: String,
    port: Option<String>,
}

/// Puts a container on the mesh. If the router refuses, what was made is taken away again.
pub(super) async fn attach(place: &Place, args: AttachArgs, out: Output) -> Outcome {
    let router = Client::new(&place.socket);
    let bridge = args.bridge.as_ref().unwrap_or(&place.bridge);
    config::check_bridge(bridge)?;
    let status = router.status().await?;
    let Some(mesh) = &status.mesh else {
        return Err(Problem::new(Code::NotJoined, "this node is in no mesh yet")
            .fix("Begin one: sudo weft up, or join one: sudo weft join HOST --token TOKEN"));
    };
    let mtu = Mtu::new(mesh.mtu).unwrap_or(Mtu::MESH);
    let namespace = namespace(&args.target)?;
    let made = host::attach(bridge, &namespace, &args.interface, &args.addresses, mtu).await?;
    let request = AttachRequest {
        mac: made.mac,
        addresses: args.addresses.clone(),
        port: made.port.clone(),
    };
    if let Err(problem) = router.attach(&request).await {
        let _ = host::detach(&namespace, &args.interface).await;
        return Err(problem);
    }
    let done = Done {
        mac: made.mac,
        interface: args.interface,
        port: Some(made.port),
    };
    out.confirm(&done, |done| {
        let list: Vec<String> = args.addresses.iter().map(ToString::to_string).collect();
        format!(
            "{} is on the mesh as {} ({})",
            args.target,
            list.join(", "),
            done.interface
        )
    })?;
    Ok(ExitCode::Ok)
}

/// Takes a container off the mesh.
pub(super) async fn detach(router: &Client, args: DetachArgs, out: Output) -> Outcome {
    let namespace = namespace(&args.target)?;
    let mac = host::detach(&namespace, &args.interface).await?;
    router.detach(&DetachRequest { mac }).await?;
    let done = Done {
        mac,
        interface: args.interface,
        port: None,
    };
    out.confirm(&done, |_| format!("{} is off the mesh", args.target))?;
    Ok(ExitCode::Ok)
}

/// Finds the network namespace that is meant: a path, a process, a named one, or a container's.
fn namespace(target: &str) -> Result<PathBuf, Problem> {
    if target.contains('/') {
        return existing(PathBuf::from(target), target);
    }
    if target.bytes().all(|byte| byte.is_ascii_digit()) && !target.is_empty() {
        return existing(format!("/proc/{target}/ns/net").into(), target);
    }
    let named = Path::new(NAMED).join(target);
    if named.exists() {
        return Ok(named);
    }
    for engine in ENGINES {
        if let Some(process) = ask_engine(Path::new(engine), target) {
            return existing(format!("/proc/{process}/ns/net").into(), target);
        }
    }
    Err(unknown(
        target,
        "no container, named namespace or process is called that",
    ))
}

fn existing(path: PathBuf, target: &str) -> Result<PathBuf, Problem> {
    if path.exists() {
        return Ok(path);
    }
    Err(unknown(
        target,
        &format!("{} does not exist", path.display()),
    ))
}

fn unknown(target: &str, why: &str) -> Problem {
    Problem::new(
        Code::AttachTarget,
        format!("{target:?} is nothing to attach to"),
    )
    .why(why)
    .fix("Name a running container, a namespace of `ip netns`, a process id, or a path")
}

/// Asks a container engine for the process of a container; `None` where there is no engine or no such container.
fn ask_engine(socket: &Path, name: &str) -> Option<u64> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !name.bytes().all(legal) {
        return None;
    }
    let mut stream = UnixStream::connect(socket).ok()?;
    let limit = Some(Duration::from_secs(5));
    stream.set_read_timeout(limit).ok()?;
    stream.set_write_timeout(limit).ok()?;
    // HTTP/1.0, so that the answer is neither chunked nor kept open.
    write!(
        stream,
        "GET /containers/{name}/json HTTP/1.0\r\nHost: localhost\r\n\r\n"
    )
    .ok()?;
    let mut answer = Vec::new();
    stream.take(1 << 20).read_to_end(&mut answer).ok()?;
    process_of(&String::from_utf8_lossy(&answer))
}

fn process_of(answer: &str) -> Option<u64> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split(' ').nth(1).filter(|status| *status == "200")?;
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    body["State"]["Pid"]
        .as_u64()
        .filter(|process| *process != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_container_is_found_and_a_stopped_one_is_not() {
        let answer = |status: &str, pid: u64| {
            format!(
                "HTTP/1.0 {status}\r\nContent-Type: application/json\r\n\r\n{{\"State\":{{\"Pid\":{pid}}}}}"
            )
        };

        assert_eq!(process_of(&answer("200 OK", 42)), Some(42));
        assert_eq!(process_of(&answer("200 OK", 0)), None);
        assert_eq!(process_of(&answer("404 Not Found", 42)), None);
        assert_eq!(process_of("nonsense"), None);
    }

    #[test]
    fn a_process_and_a_path_name_their_namespace() {
        let own = std::process::id().to_string();

        assert_eq!(
            namespace(&own).unwrap(),
            Path::new(&format!("/proc/{own}/ns/net"))
        );
        assert_eq!(
            namespace("/proc/self/ns/net").unwrap(),
            Path::new("/proc/self/ns/net")
        );
        assert_eq!(
            namespace("no-such-container").unwrap_err().code,
            Code::AttachTarget
        );
    }
}
