//! Does what each verb says. A verb that talks to the router does so by its socket, and by nothing else.

mod attach;
mod ping;
mod shell;
mod show;
mod start;
mod steer;
mod token;

pub(crate) use ping::PingSummary;
pub(crate) use start::tell;

use tokio::signal::unix::{Signal, SignalKind, signal};
use weft_api::Client;
use weft_types::{Code, ExitCode, Problem};

use crate::args::{Cli, Global, Verb};
use crate::config::{self, Place, Purpose};
use crate::launch;
use crate::output::Output;

/// How a verb ends: with success, with something wrong that it has told already, or with a problem.
pub(crate) type Outcome = Result<ExitCode, Problem>;

/// Does it.
pub(crate) fn run(cli: Cli) -> Outcome {
    let Cli { global, verb } = cli;
    let out = Output::new(global.output, global.quiet);
    match verb {
        Verb::Attach(args) => {
            let place = place(&global)?;
            block_on(attach::attach(&place, args, out))
        }
        Verb::Completion(args) => shell::completion(&args),
        Verb::Config(args) => shell::config(args, &global, out),
        Verb::Connect(args) => with_router(&global, async |router| {
            steer::connect(&router, args, out).await
        }),
        Verb::Daemon => crate::daemon::detached(),
        Verb::Demo(args) => crate::demo::run(&args, out),
        Verb::Detach(args) => with_router(&global, async |router| {
            attach::detach(&router, args, out).await
        }),
        Verb::Down => with_router(&global, async |router| steer::down(&router, out).await),
        Verb::Events(args) => with_router(&global, async |router| {
            show::events(&router, &args, out).await
        }),
        Verb::Forget(args) => with_router(&global, async |router| {
            steer::forget(&router, args, out).await
        }),
        Verb::Join(args) => start::start(Purpose::Join, &global, args, out),
        Verb::Leave => with_router(&global, async |router| steer::leave(&router, out).await),
        Verb::Man(args) => shell::man(&args),
        Verb::Peers => with_router(&global, async |router| show::peers(&router, out).await),
        Verb::Ping(args) => with_router(&global, async |router| {
            ping::ping(&router, &args, out).await
        }),
        Verb::Trace(args) => with_router(&global, async |router| {
            show::trace(&router, &args, out).await
        }),
        Verb::Report(args) => {
            with_router(&global, async |router| show::report(&router, &args).await)
        }
        Verb::Reset(args) => {
            let place = place(&global)?;
            block_on(steer::reset(&place, &args, out))
        }
        Verb::Status(args) => with_router(&global, async |router| {
            show::status(&router, &args, out).await
        }),
        Verb::Token(args) => with_router(&global, async |router| {
            token::token(&router, args, out).await
        }),
        Verb::Up(args) => start::start(Purpose::Up, &global, args, out),
        Verb::Version => shell::version(&global, out),
        Verb::Wait(args) => with_router(&global, async |router| {
            show::wait(&router, &args, out).await
        }),
    }
}

fn place(global: &Global) -> Result<Place, Problem> {
    Place::new(global, &config::read_file(global)?)
}

fn with_router(global: &Global, verb: impl AsyncFnOnce(Client) -> Outcome) -> Outcome {
    let place = place(global)?;
    block_on(verb(Client::new(&place.socket))).map_err(|problem| with_last_words(problem, &place))
}

/// Where no router runs, the one that did may have said why it ended.
fn with_last_words(problem: Problem, place: &Place) -> Problem {
    if problem.code != Code::DaemonNotRunning {
        return problem;
    }
    match launch::last_words(&place.state_dir) {
        Some(words) => {
            let why = format!("{}; the last one ended with {words}", problem.why);
            problem.why(why)
        }
        None => problem,
    }
}

/// Hears Ctrl-C: for verbs that end by it as they are meant to.
fn interrupt() -> Result<Signal, Problem> {
    signal(SignalKind::interrupt()).map_err(|error| {
        Problem::new(Code::Internal, "the command cannot listen for Ctrl-C").why(error.to_string())
    })
}

/// Runs a verb's I/O on this thread.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Problem::new(Code::Internal, "the command cannot start").why(error.to_string())
        })?
        .block_on(work)
}
