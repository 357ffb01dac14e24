//! Puts containers on the mesh, and takes them off.
//!
//! The router never enters another namespace; this command does, and tells the router what it made.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use weft_api::Client;
use weft_api::containers::AttachRequest;
use weft_api::containers::DetachRequest;
use weft_fastdp::attach::{self as fastdp, Attachment};
use weft_fastdp::target::Target;
use weft_kernel::netns::NAMED;
use weft_types::{Code, ExitCode, MacAddr, Problem};

use super::Outcome;
use crate::args::{AttachArgs, DetachArgs};
use crate::config::{self, Place};
use crate::output::Output;

/// Where engines that speak Docker's API listen.
const ENGINES: [&str; 2] = ["/var/run/docker.sock", "/run/podman/podman.sock"];

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
    if status.mesh.is_none() {
        return Err(Problem::new(Code::NotJoined, "this node is in no mesh yet")
            .fix("Begin one: sudo weft up, or join one: sudo weft join HOST --token TOKEN"));
    }
    let attachment = Attachment {
        target: find(&args.target),
        bridge: bridge.clone(),
        device: args.interface.clone(),
        mac: None,
        addresses: args.addresses.clone(),
    };
    let made = fastdp::attach(&attachment).await?;
    let request = AttachRequest {
        mac: made.mac,
        addresses: args.addresses.clone(),
        port: made.port.clone(),
    };
    if let Err(problem) = router.attach(&request).await {
        let _ = fastdp::detach(&attachment.target, &args.interface).await;
        return Err(problem);
    }
    for problem in &made.problems {
        Output::problem(problem);
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
    let mac = fastdp::detach(&find(&args.target), &args.interface).await?;
    router.detach(&DetachRequest { mac }).await?;
    let done = Done {
        mac,
        interface: args.interface,
        port: None,
    };
    out.confirm(&done, |_| format!("{} is off the mesh", args.target))?;
    Ok(ExitCode::Ok)
}

/// Finds what is meant: a container's name is its engine's to know, unless a named namespace is called so.
fn find(text: &str) -> Target {
    let Ok(target) = text.parse();
    let Target::Name(name) = &target else {
        return target;
    };
    if Path::new(NAMED).join(name).exists() {
        return target;
    }
    let process = ENGINES
        .iter()
        .find_map(|engine| ask_engine(Path::new(engine), name));
    process.map_or(target, Target::Pid)
}

/// Asks a container engine for the process of a container; `None` where there is no engine or no such container.
fn ask_engine(socket: &Path, name: &str) -> Option<u32> {
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

fn process_of(answer: &str) -> Option<u32> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split(' ').nth(1).filter(|status| *status == "200")?;
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    body["State"]["Pid"]
        .as_u64()
        .and_then(|process| u32::try_from(process).ok())
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
}
