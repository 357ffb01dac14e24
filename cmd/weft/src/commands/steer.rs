//! Steers a running router, stops it, and takes away what it made.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;
use weft_api::Client;
use weft_api::Done;
use weft_types::{Code, ExitCode, Problem};

use super::Outcome;
use crate::args::{ResetArgs, Targets};
use crate::config::{self, Place};
use crate::output::Output;
use crate::{host, launch};

/// How long a router gets to put its devices away.
const STOP: Duration = Duration::from_secs(10);

/// Dials hosts, for good.
pub(super) async fn connect(router: &Client, args: Targets, out: Output) -> Outcome {
    let list = args.targets.join(", ");
    router.connect(args.targets).await?;
    out.confirm(&Done {}, |_| {
        format!("dialling {list}; see: weft status targets")
    })?;
    Ok(ExitCode::Ok)
}

/// Dials hosts no more.
pub(super) async fn forget(router: &Client, args: Targets, out: Output) -> Outcome {
    let list = args.targets.join(", ");
    router.forget(args.targets).await?;
    out.confirm(&Done {}, |_| format!("{list} forgotten"))?;
    Ok(ExitCode::Ok)
}

/// Leaves the mesh for good, and stops the router: it has nothing left to do.
pub(super) async fn leave(router: &Client, out: Output) -> Outcome {
    let name = router.status().await?.mesh.map(|mesh| mesh.name);
    router.leave().await?;
    match stop(router).await {
        Ok(()) => {}
        Err(problem) if problem.code == Code::DaemonNotRunning => {}
        Err(problem) => return Err(problem),
    }
    out.confirm(&Done {}, |_| match name {
        Some(name) => format!("left \"{name}\" for good; to begin anew here: sudo weft reset"),
        None => "left; to begin anew here: sudo weft reset".to_owned(),
    })?;
    Ok(ExitCode::Ok)
}

/// Stops the router and waits until it is gone.
pub(super) async fn down(router: &Client, out: Output) -> Outcome {
    stop(router).await?;
    out.confirm(&Done {}, |_| {
        "stopped; its state is kept: weft up resumes".to_owned()
    })?;
    Ok(ExitCode::Ok)
}

async fn stop(router: &Client) -> Result<(), Problem> {
    let process = router.process().await?;
    router.shutdown().await?;
    let until = Instant::now() + STOP;
    while process.is_some_and(is_alive) || router.process().await.is_ok() {
        if Instant::now() >= until {
            let name = process.map_or_else(|| "it".to_owned(), |id| format!("process {id}"));
            return Err(Problem::new(
                Code::Internal,
                format!("the router did not stop within {} s", STOP.as_secs()),
            )
            .fix(format!("Look into its log, then end {name} by hand")));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Whether a process runs. One that has ended and that nobody has asked about yet does not.
fn is_alive(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| {
        // proc(5): the state follows the name, which is in brackets and may hold anything.
        let state = stat
            .rsplit_once(')')
            .map_or("", |(_, rest)| rest.trim_start());
        !state.starts_with(['Z', 'X'])
    })
}

/// Stops the router and removes everything it made.
pub(super) async fn reset(place: &Place, args: &ResetArgs, out: Output) -> Outcome {
    let bridge = args.bridge.as_ref().unwrap_or(&place.bridge);
    config::check_bridge(bridge)?;
    if place.state_dir.exists() && !looks_ours(&place.state_dir) {
        return Err(Problem::new(
            Code::Usage,
            format!(
                "{} holds files that weft did not make",
                place.state_dir.display()
            ),
        )
        .fix("Name the router's own state directory with --state-dir"));
    }
    let router = Client::new(&place.socket);
    let told = match router.status().await {
        Ok(status) => {
            let told = match status.mesh {
                Some(_) => router.leave().await.map(|_| ()),
                None => Ok(()),
            };
            if let Err(problem) = told
                && !args.force
            {
                return Err(problem.fix("Go on without telling the mesh: sudo weft reset --force"));
            }
            match stop(&router).await {
                // Having left, it may have stopped by itself.
                Ok(()) => {}
                Err(problem) if problem.code == Code::DaemonNotRunning => {}
                Err(problem) => return Err(problem),
            }
            true
        }
        Err(problem) if problem.code == Code::DaemonNotRunning => false,
        Err(problem) => return Err(problem),
    };
    weft_fastdp::host::Host::remove_leftovers(&host::names(bridge)).await?;
    remove_state(&place.state_dir)?;
    match fs::remove_file(&place.socket) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(launch::state_problem(&place.socket, &error)),
    }
    out.confirm(&Done {}, |_| {
        if told {
            "reset: no device, no file and no identity is left".to_owned()
        } else {
            "reset: no device, no file and no identity is left; no router ran, so other members keep this node as down"
                .to_owned()
        }
    })?;
    Ok(ExitCode::Ok)
}

/// Whether a directory is empty or holds the router's own files: what `--state-dir /home` must never remove.
fn looks_ours(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| {
        entries.all(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(is_our_file))
        })
    })
}

fn is_our_file(name: &str) -> bool {
    launch::STATE_FILES.contains(&name)
}

fn remove_state(directory: &Path) -> Result<(), Problem> {
    for name in launch::STATE_FILES {
        match fs::remove_file(directory.join(name)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(launch::state_problem(directory, &error)),
        }
    }
    // Under systemd the directory is a mount of its own, and stays; one with files of others stays too.
    let _ = fs::remove_dir(directory);
    Ok(())
}
