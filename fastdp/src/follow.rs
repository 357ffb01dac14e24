//! Keeps the kernel as the latest snapshot wants it, whatever others do to it meanwhile.
//!
//! Each turn looks at everything and changes what differs, so it does not matter what woke it: a snapshot, a notice of
//! the kernel, a failed turn, or the audit. **Failure policy.** A step that fails does not stop the others; the turn is
//! repeated, later and later. A step that this kernel cannot do is reported and waits for the next reason to look.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, info, warn};
use weft_fastdp_proto::diff::{Step, diff};
use weft_fastdp_proto::plan::desired;
use weft_kernel::monitor::{Change, Monitor};
use weft_kernel::netlink::{LinkIndex, NetlinkError};
use weft_router_proto::snapshot::Snapshot;
use weft_types::{Code, Problem};

use crate::apply::apply;
use crate::fault;
use crate::host::{Host, create_bridge};
use crate::observe::{Sight, container_ports, look};

/// How long a burst of notices is left to settle: our own changes come back as notices too.
const SETTLE: Duration = Duration::from_millis(100);
/// The first wait after a failed turn.
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// The longest wait after failed turns.
const RETRY_LAST: Duration = Duration::from_secs(15);
/// A look without a reason: notices may be lost.
const AUDIT: Duration = Duration::from_secs(30);

/// How a turn ended.
struct Turn {
    /// What is wrong, in words.
    problems: Vec<Problem>,
    /// Whether to try again soon.
    again: bool,
    /// The devices whose tables are ours.
    ours: Vec<LinkIndex>,
}

pub(crate) async fn follow(
    host: &Host,
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    problems: watch::Sender<Vec<Problem>>,
) {
    let mut monitor = open_monitor();
    let mut patience = RETRY_FIRST;
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        let turn = turn(host, snapshot.as_deref()).await;
        let known = host.lacks.iter().cloned();
        let all: Vec<Problem> = known.chain(turn.problems).collect();
        problems.send_if_modified(|shown| {
            let news = *shown != all;
            shown.clone_from(&all);
            news
        });
        let wait = if turn.again { patience } else { AUDIT };
        patience = if turn.again {
            (patience * 2).min(RETRY_LAST)
        } else {
            RETRY_FIRST
        };
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() {
                return;
            },
            () = notice(&mut monitor, &turn.ours) => settle(&mut monitor).await,
            () = sleep_until(Instant::now() + wait) => {}
        }
        if monitor.is_none() {
            monitor = open_monitor();
        }
    }
}

fn open_monitor() -> Option<Monitor> {
    Monitor::open()
        .inspect_err(
            |error| warn!(%error, "no notices from the kernel: changes are found by looking"),
        )
        .ok()
}

/// Looks, plans, and changes what differs.
async fn turn(host: &Host, snapshot: Option<&Snapshot>) -> Turn {
    let sight = match find(host).await {
        Ok(sight) => sight,
        Err(error) => {
            return Turn {
                problems: vec![fault::refused("read the kernel's tables", error)],
                again: true,
                ours: Vec::new(),
            };
        }
    };
    let ports = container_ports(&sight, &host.names);
    host.ports.send_if_modified(|shown| {
        let news = *shown != ports;
        shown.clone_from(&ports);
        news
    });
    let mut turn = Turn {
        problems: Vec::new(),
        again: false,
        ours: sight.index.values().copied().collect(),
    };
    turn.ours.push(sight.bridge);
    if !sight.devices.ports.contains(&host.names.tap) {
        turn.problems.push(no_tap(&host.names.tap));
    }
    if let Some(snapshot) = snapshot {
        converge(host, sight, snapshot, &mut turn).await;
    }
    turn
}

/// Looks; makes the bridge anew where somebody has removed it.
async fn find(host: &Host) -> Result<Sight, NetlinkError> {
    if let Some(sight) = look(&host.netlink, &host.names).await? {
        return Ok(sight);
    }
    warn!(bridge = %host.names.bridge, "the bridge was removed: making it again");
    create_bridge(&host.netlink, &host.names).await?;
    look(&host.netlink, &host.names)
        .await?
        .ok_or(NetlinkError::NoDevice)
}

async fn converge(host: &Host, sight: Sight, snapshot: &Snapshot, turn: &mut Turn) {
    let want = desired(snapshot, &sight.devices);
    let have = sight.observed.ours(&sight.devices, &want);
    let patch = diff(&have, &want);
    if patch.is_empty() {
        return;
    }
    debug!(
        generation = snapshot.generation,
        steps = patch.steps.len(),
        "changing kernel tables"
    );
    let mut failure = None;
    for step in &patch.steps {
        let Err(error) = apply(&host.netlink, sight.bridge, &sight.index, step).await else {
            continue;
        };
        info!(?step, %error, "the kernel refuses a change");
        // A device that went away meanwhile is no problem, but a reason to look again.
        turn.again |= error != NetlinkError::Unsupported;
        if !error.is_absent() && failure.is_none() {
            failure = Some(explain(&host.names.bridge, step, error));
        }
    }
    turn.problems.extend(failure);
}

fn explain(bridge: &str, step: &Step, error: NetlinkError) -> Problem {
    // The kernel's answer to an IPv6 address on a device that shall have none.
    if let (Step::AddAddress(IpNet::V6(net)), NetlinkError::Denied) = (step, error) {
        return Problem::new(
            Code::KernelFeatureMissing,
            format!("IPv6 is switched off on {bridge}: this host has no address {net}"),
        )
        .fix(format!("sysctl net.ipv6.conf.{bridge}.disable_ipv6=0"));
    }
    fault::refused("write the kernel's tables", error)
}

fn no_tap(name: &str) -> Problem {
    Problem::new(
        Code::Internal,
        format!("the device {name} was removed: no frames leave this host"),
    )
    .fix("Restart weft: weft down, then weft up")
}

/// Waits for a notice that concerns us; for ever where there are none to come.
async fn notice(monitor: &mut Option<Monitor>, ours: &[LinkIndex]) {
    while let Some(open) = monitor {
        match open.next().await {
            Some(change) if concerns(change, ours) => return,
            Some(_) => {}
            None => *monitor = None,
        }
    }
    std::future::pending().await
}

fn concerns(change: Change, ours: &[LinkIndex]) -> bool {
    match change {
        Change::Address(link) | Change::Fdb(link) | Change::Neighbour(link) => ours.contains(&link),
        // It may be a port of ours that appears.
        Change::Link(_) | Change::Lost => true,
    }
}

/// Lets a burst of notices pass.
async fn settle(monitor: &mut Option<Monitor>) {
    let end = Instant::now() + SETTLE;
    if let Some(open) = monitor {
        let drain = async { while open.next().await.is_some() {} };
        // Silence ends it early only where no more notices will come.
        let _ = timeout_at(end, drain).await;
    }
    sleep_until(end).await;
}
