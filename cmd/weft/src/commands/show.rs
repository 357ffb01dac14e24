//! Shows how things stand, what happens, and waits for it.

use std::time::{Duration, SystemTime};

use minijinja::{Environment, UndefinedBehavior};
use tokio::time::Instant;
use weft_api::Client;
use weft_api::status::Status;
use weft_types::PeerState;
use weft_types::{Code, ExitCode, Problem};

use super::{Outcome, interrupt};
use crate::args::{Condition, EventsArgs, Part, ReportArgs, StatusArgs, TraceArgs, WaitArgs};
use crate::output::Output;
use crate::render;

/// Often enough for a script, seldom enough for the router.
const POLL: Duration = Duration::from_millis(100);

/// Shows how things stand. The whole of it ends with "degraded" or "not joined" where that is so.
pub(super) async fn status(router: &Client, args: &StatusArgs, out: Output) -> Outcome {
    let status = router.status().await?;
    let now = SystemTime::now();
    match args.part {
        None => {
            out.answer(&status, |status| render::status(status, now))?;
            return Ok(health(&status));
        }
        Some(Part::Connections) => {
            out.answer(&status.connections, |all| render::connections(all, now))?;
        }
        Some(Part::Peers) => out.answer(&status.peers, |peers| render::peers(peers, now))?,
        Some(Part::Targets) => out.answer(&status.targets, |all| render::targets(all))?,
        Some(Part::Wire) => {
            out.answer(&status.wire, |wire| render::wire(wire, &status.drops))?;
        }
    }
    Ok(ExitCode::Ok)
}

fn health(status: &Status) -> ExitCode {
    if status.mesh.is_none() {
        ExitCode::NotJoined
    } else if status.problems.is_empty() {
        ExitCode::Ok
    } else {
        ExitCode::Degraded
    }
}

/// Shows the other members.
pub(super) async fn peers(router: &Client, out: Output) -> Outcome {
    let status = router.status().await?;
    out.answer(&status.peers, |peers| {
        render::peers(peers, SystemTime::now())
    })?;
    Ok(ExitCode::Ok)
}

/// Follows a member's frames from relay to relay.
pub(super) async fn trace(router: &Client, args: &TraceArgs, out: Output) -> Outcome {
    let trace = router.trace(&args.node).await?;
    out.answer(&trace, render::trace)?;
    Ok(if trace.complete {
        ExitCode::Ok
    } else {
        ExitCode::Degraded
    })
}

/// Shows what happened lately, or what happens until the router stops.
pub(super) async fn events(router: &Client, args: &EventsArgs, out: Output) -> Outcome {
    if !args.follow {
        for event in router.recent_events().await? {
            out.answer(&event, render::event)?;
        }
        return Ok(ExitCode::Ok);
    }
    let mut interrupt = interrupt()?;
    let mut events = router.events().await?;
    loop {
        let event = tokio::select! {
            event = events.next() => event?,
            _ = interrupt.recv() => None,
        };
        match event {
            Some(event) => out.answer(&event, render::event)?,
            None => return Ok(ExitCode::Ok),
        }
    }
}

/// Prints the whole status, or what a template makes of it.
pub(super) async fn report(router: &Client, args: &ReportArgs) -> Outcome {
    let status = router.status().await?;
    let text = match &args.format {
        None => serde_json::to_string_pretty(&status).map_err(|error| {
            Problem::new(Code::Internal, "the status cannot be written").why(error.to_string())
        })?,
        Some(template) => fill(template, &status)?,
    };
    Output::plain(&text);
    Ok(ExitCode::Ok)
}

/// Fills a template. `{{.field}}`, as Weave Net's reports are written, means `{{field}}`.
fn fill(template: &str, status: &Status) -> Result<String, Problem> {
    let mut plain = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("{{") {
        let (before, after) = rest.split_at(at + 2);
        plain.push_str(before);
        let trimmed = after.trim_start();
        rest = trimmed.strip_prefix('.').unwrap_or(after);
    }
    plain.push_str(rest);

    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment
        .render_str(&plain, minijinja::value::Serde(status))
        .map_err(|error| {
            let error = error.to_string();
            Problem::new(Code::Usage, "the template cannot be filled")
                .why(error.lines().next().unwrap_or_default())
                .fix("See the names of all fields: weft report")
        })
}

/// Waits until a condition holds. A router that is not there yet may come.
pub(super) async fn wait(router: &Client, args: &WaitArgs, out: Output) -> Outcome {
    let until = Instant::now() + args.timeout;
    let router = router.clone().timeout(Duration::from_secs(2));
    loop {
        let seen = router.status().await;
        if let Ok(status) = &seen
            && holds(args.condition, status)
        {
            out.note(format!("{} ✓", args.condition));
            return Ok(ExitCode::Ok);
        }
        // What no waiting cures is said at once.
        if let Err(problem) = &seen
            && problem.code == Code::Privilege
        {
            return Err(problem.clone());
        }
        if Instant::now() >= until {
            let why = match seen {
                Ok(status) => state(&status),
                Err(problem) => problem.what,
            };
            return Err(Problem::new(
                Code::WaitTimedOut,
                format!(
                    "{} did not come true within {}",
                    args.condition,
                    humantime::format_duration(args.timeout)
                ),
            )
            .why(why)
            .fix("See how things stand: weft status"));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn holds(condition: Condition, status: &Status) -> bool {
    let mut connected = status
        .peers
        .iter()
        .filter(|peer| peer.state == PeerState::Connected);
    match condition {
        Condition::Encrypted => {
            status.mesh.as_ref().is_some_and(|mesh| mesh.encrypted)
                && status.wire.cipher != "none"
                && connected.all(|peer| peer.path.is_some())
        }
        Condition::Joined => status.mesh.is_some(),
        Condition::Peers(count) => connected.count() >= count,
        Condition::Ready => true,
    }
}

fn state(status: &Status) -> String {
    match &status.mesh {
        None => "this node is in no mesh yet".to_owned(),
        Some(mesh) => format!(
            "{} of {} other members connected, cipher {}",
            mesh.connected,
            mesh.members.saturating_sub(1),
            status.wire.cipher
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;

    #[test]
    fn a_template_may_be_written_as_in_weave_or_as_in_jinja() {
        let status = sample();

        for template in [
            "{{.node.nickname}}",
            "{{ .node.nickname }}",
            "{{ node.nickname }}",
        ] {
            assert_eq!(fill(template, &status).unwrap(), "b", "{template}");
        }
        let list = "{% for p in peers %}{{ p.nickname }},{% endfor %}";
        assert_eq!(fill(list, &status).unwrap(), "a,c,");
    }

    #[test]
    fn a_wrong_template_is_a_matter_of_usage() {
        for template in ["{{.node.nonsense}}", "{{", "{% for %}"] {
            assert_eq!(
                fill(template, &sample()).unwrap_err().code,
                Code::Usage,
                "{template}"
            );
        }
    }

    #[test]
    fn conditions_hold_when_they_say_so() {
        let mut status = sample();

        assert!(holds(Condition::Ready, &status));
        assert!(holds(Condition::Joined, &status));
        assert!(holds(Condition::Encrypted, &status));
        assert!(holds(Condition::Peers(1), &status));
        assert!(!holds(Condition::Peers(2), &status));
        status.wire.cipher = "none".to_owned();
        assert!(!holds(Condition::Encrypted, &status));
        status.mesh = None;
        assert!(!holds(Condition::Joined, &status));
    }

    #[test]
    fn the_exit_code_tells_health() {
        let mut status = sample();

        assert_eq!(health(&status), ExitCode::Degraded);
        status.problems.clear();
        assert_eq!(health(&status), ExitCode::Ok);
        status.mesh = None;
        assert_eq!(health(&status), ExitCode::NotJoined);
    }
}
