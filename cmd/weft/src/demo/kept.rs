//! A stage that stays: how to look around in it, and how it goes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use weft_api::Client;
use weft_lab::{Host, Lab};
use weft_types::{ExitCode, Problem};

use super::stage::Stage;
use crate::context::block_on;
use crate::output::Output;

/// How long a router gets to end; one that hangs is ended with its namespace.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// Says how to look around, in lines that can be pasted: the program need not be on the path, and a shell that is root's
/// already may have no sudo.
pub(super) fn guide(stage: &Stage, unprivileged: bool) -> String {
    let sudo = match std::env::var_os("SUDO_UID") {
        Some(_) => "sudo ",
        None => "",
    };
    let weft = format!("{sudo}{}", program());
    let (first, second) = (stage.node(0), stage.node(1));
    let to = second.inside.map(|net| net.addr().to_string());
    let to = to.unwrap_or_default();
    let enter = if unprivileged {
        user_namespace(stage)
    } else {
        sudo.to_owned()
    };
    let inside = |host: &Host| format!("{enter}nsenter --net=/run/netns/{}", host.full_name());
    let socket = first.weft.socket();
    let socket = quoted(&socket.to_string_lossy());
    format!(
        "\nIt is still up. Look around:\n  {weft} --socket {socket} status\n  {weft} --socket {socket} ping beta\n  {} ping -c 3 {to}\n  {} tcpdump -i eth0\nTake it down:\n  {weft} demo --down",
        inside(&first.container),
        inside(&first.host),
    )
}

fn program() -> String {
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("weft"));
    quoted(&path.to_string_lossy())
}

/// As a shell reads it: in quotes where it must be.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A user's namespaces have names only inside the user namespace, to which a process inside leads.
fn user_namespace(stage: &Stage) -> String {
    let processes = stage.node(0).host.processes().unwrap_or_default();
    let first = processes
        .first()
        .map(|pid| format!("nsenter -t {pid} -U -m --preserve-credentials "));
    first.unwrap_or_default()
}

/// Takes down what was left up. Routers are told to end, by their sockets: what a user has made has no names outside of
/// its namespace, and goes with the last process in it.
pub(super) fn take_down(out: Output) -> Result<ExitCode, Problem> {
    let folders = Lab::kept_folders();
    block_on(async {
        for folder in &folders {
            end(&folder.join("weft.sock")).await;
        }
        Ok(())
    })?;
    let text = match Lab::take_down().len() {
        0 => "no demo is up",
        _ => "the demo is down",
    };
    out.done(text)
}

async fn end(socket: &Path) {
    if Client::new(socket).shutdown().await.is_err() {
        return;
    }
    let until = Instant::now() + PATIENCE;
    while socket.exists() && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_a_path_as_it_is() {
        assert_eq!(quoted("/usr/bin/weft"), "/usr/bin/weft");
        assert_eq!(quoted("/a b/it's"), "'/a b/it'\\''s'");
    }
}
