//! Shows on one machine what weft does: three hosts in network namespaces, joined as a user would, measured, and searched.
//!
//! ```text
//!   alpha: weft up          beta: weft join          gamma: weft join         each in a namespace, on one switch
//!     └ container             └ container              └ container            each put on the mesh by weft attach
//! ```
//!
//! The routers are this very program, started by its own command line. Needs no other program. What it made goes when it
//! ends, however it ends; after `--keep` it stays until `weft demo --down`.
//!
//! **Failure policy.** A step that fails ends the demo with that step's problem. A figure that is not as promised (a
//! marker found in clear, a broadcast that did not arrive once everywhere) is told, and the demo exits with 4.

mod figures;
mod interrupt;
mod kept;
mod measure;
mod problem;
mod stage;

use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};
use weft_kernel::netns::{NetNs, NetNsError, UserNamespaceError, enter_user_namespace};
use weft_lab::Lab;
use weft_types::{ExitCode, Problem};

use self::figures::{Attached, Broadcast, Failover, FirstAnswer, Join, Ping, Report, Search, Tcp};
use self::interrupt::Interrupt;
use self::problem::{failed, forbidden};
use self::stage::Stage;
use crate::output::Output;

/// Of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Leave it up, and say how to look around
    #[arg(long, env = "WEFT_KEEP", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(crate) keep: bool,
    /// Take down what --keep has left up
    #[arg(long, env = "WEFT_DOWN", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new(), conflicts_with = "keep")]
    pub(crate) down: bool,
}

/// How often to try again while a thread that has ended is still being counted.
const SETTLE: u32 = 20;

/// Runs the demo.
pub(crate) fn run(args: &DemoArgs, out: Output) -> Result<ExitCode, Problem> {
    if args.down {
        return kept::take_down(out);
    }
    let unprivileged = enter_if_unprivileged()?;
    let interrupt = Interrupt::listen()?;
    Lab::sweep();
    let outcome = perform(args, out, &interrupt, unprivileged);
    if interrupt.came() {
        Output::complaint("interrupted; everything the demo made is gone");
        // 128 + SIGINT, as shells count.
        std::process::exit(130);
    }
    outcome
}

fn perform(
    args: &DemoArgs,
    out: Output,
    interrupt: &Interrupt,
    unprivileged: bool,
) -> Result<ExitCode, Problem> {
    out.note(figures::headline());
    let lab = if args.keep { Lab::kept } else { Lab::new };
    let mut stage = Stage::build(&lab("demo")).map_err(|error| failed(&error))?;
    let report = show(&mut stage, out, interrupt)?;
    if out.is_json() {
        Output::json(&report)?;
    } else {
        out.note(report.verdict());
    }
    if args.keep {
        stage.let_stand().map_err(|error| failed(&error))?;
        out.note(kept::guide(&stage, unprivileged));
        // Nothing of it is dropped, so it outlives this process.
        std::mem::forget(stage);
    }
    Ok(if report.as_promised() {
        ExitCode::Ok
    } else {
        ExitCode::Degraded
    })
}

/// Plays it through, and tells each figure as it is known.
fn show(stage: &mut Stage, out: Output, interrupt: &Interrupt) -> Result<Report, Problem> {
    let wire = measure::Wire::tap(stage)?;

    let told = Told { out, interrupt };
    let joins = 0..stage.nodes();
    let joins = joins.map(|at| told.figure(|| stage.join(at), Join::text));
    // In the order of the play, which is that of the report.
    Ok(Report {
        joins: joins.collect::<Result<_, _>>()?,
        attached: told.figure(|| stage.attach_containers(), Attached::text)?,
        first_answer: told.figure(
            || measure::first_answer(stage, interrupt),
            FirstAnswer::text,
        )?,
        ping: told.figure(|| measure::ping(stage), Ping::text)?,
        broadcast: told.figure(|| measure::broadcast(stage), Broadcast::text)?,
        wire: told.figure(|| wire.search(stage), Search::text)?,
        tcp: told.figure(|| measure::tcp(stage, interrupt), Tcp::text)?,
        failover: told.figure(|| measure::failover(stage, interrupt), Failover::text)?,
    })
}

/// Where figures are told, as long as nobody interrupts.
struct Told<'a> {
    out: Output,
    interrupt: &'a Interrupt,
}

impl Told<'_> {
    /// Takes a figure and tells it.
    fn figure<T>(
        &self,
        take: impl FnOnce() -> Result<T, Problem>,
        text: fn(&T) -> String,
    ) -> Result<T, Problem> {
        self.interrupt.check()?;
        let figure = take()?;
        self.out.note(text(&figure));
        Ok(figure)
    }
}

/// Becomes root of a namespace of its own where this user may not make network namespaces otherwise.
fn enter_if_unprivileged() -> Result<bool, Problem> {
    match NetNs::create() {
        Ok(_) => return Ok(false),
        Err(NetNsError::Create(error)) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
        Err(error) => return Err(failed(&error.into())),
    }
    for _ in 0..SETTLE {
        match enter_user_namespace() {
            Ok(()) => return Ok(true),
            Err(UserNamespaceError::Threaded) => std::thread::sleep(Duration::from_millis(10)),
            Err(error @ UserNamespaceError::Forbidden { .. }) => return Err(forbidden(&error)),
        }
    }
    Err(forbidden(&UserNamespaceError::Threaded))
}
