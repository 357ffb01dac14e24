//! The daemon: a router, the host's devices, and the ties between them and to whoever started it.
//!
//! ```text
//!   config ──▶ host: bridge, TAP ──▶ router ──snapshots──▶ host: kernel tables
//!                                      │
//!                                      └── progress ──▶ Progress ──▶ the command that waits, or systemd
//! ```
//!
//! **Failure policy.** A start that fails is undone: connections closed, devices put away, the problem reported, and the
//! same command may be given again. What fails later is in the status and the log, and the daemon goes on.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;
use weft_api::ping::PingAnswer;
use weft_api::status::Status;
use weft_api::tokens::TokenRequest;
use weft_fastdp::check;
use weft_router::Running;
use weft_router::api::Api;
use weft_router::progress::{Membership, Progress as Reached, Verified};
use weft_router_proto::io::Target;
use weft_router_proto::router::Intent;
use weft_types::{Code, ExitCode, Problem};

use crate::args::LogFormat;
use crate::commands::{Outcome, tell};
use crate::config::{Config, Purpose};
use crate::host::{self, Host};
use crate::output::Output;
use crate::progress::Progress;
use crate::secret::Secret;
use crate::{launch, machine};

/// How long a router gets to read its state and decide where frames go. A slow disk syncs in less.
const READY: Duration = Duration::from_secs(15);
/// How long a join gets: two dials of 5 s, a creator that is asked for 3 s, and a probe of 5 s.
const JOIN: Duration = Duration::from_secs(30);
/// How long `up HOST` waits for the mesh before it says that it goes on waiting.
const PATIENCE: Duration = Duration::from_secs(3);
/// What other hosts and addresses get after the first has failed: four round trips over half the earth.
const OTHERS: Duration = Duration::from_millis(1500);
/// What it gets where nothing came back in time. A third of all packets lost fails one search for a neighbour in eight, and
/// a handshake now and then.
const LOSSY: Duration = Duration::from_secs(15);
/// What takes longer to fail was not refused.
const SILENCE: Duration = Duration::from_secs(1);
/// What other links get after the first was lost before anything had passed over it: in a moment there are more.
const OTHER_LINKS: Duration = Duration::from_secs(8);
/// How long the token of the join line is good.
const INVITATION: Duration = Duration::from_secs(15 * 60);

/// Two: the hub, and a second one so that a slow answer to a person delays no heartbeat. Frames have threads of their own.
const THREADS: usize = 2;

/// Runs as the daemon that [`launch`] starts: configuration on standard input, progress on standard output.
pub(crate) fn detached() -> Outcome {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(
            Problem::new(Code::Usage, "this verb is the daemon's own").fix("Write: sudo weft up")
        );
    }
    let config: Config = serde_json::from_reader(stdin.lock()).map_err(|error| {
        Problem::new(Code::Usage, "the daemon was given no configuration").why(error.to_string())
    })?;
    // Fails where this process leads a group already: then it is apart from the terminal, too.
    let _ = nix::unistd::setsid();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    log_to_stderr(&config)?;
    run(config, |word| {
        let mut pipe = std::io::stdout().lock();
        serde_json::to_writer(&mut pipe, word)?;
        pipe.write_all(b"\n")?;
        pipe.flush()?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        nix::unistd::dup2_stdin(null.as_fd())?;
        nix::unistd::dup2_stdout(null.as_fd())?;
        Ok(())
    })
}

/// Runs in the foreground, as under systemd. A token is not printed: this output may be a journal.
pub(crate) fn foreground(config: Config, out: Output) -> Outcome {
    machine::check(&config)?;
    launch::prepare_state_dir(&config.state_dir)?;
    log_to_stderr(&config)?;
    let said = config.clone();
    run(config, move |word| {
        if !matches!(word, Progress::Failed { .. }) {
            // A confirmation that cannot be printed stops nothing.
            let _ = tell(&said, word, out);
        }
        Ok(())
    })
}

fn log_to_stderr(config: &Config) -> Result<(), Problem> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| {
        Problem::new(
            Code::Configuration,
            format!("{:?} says not what to log", config.log),
        )
        .why(error.to_string())
        .fix("Write a level: error, warn, info, debug or trace")
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Json => builder.json().init(),
        // The journal knows the time.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            builder.without_time().init()
        }
        LogFormat::Text => builder.init(),
    }
    Ok(())
}

/// Runs a router until it is stopped. `report` is called once, with how the start went; an error of it means that
/// whoever waited has gone.
fn run(config: Config, report: impl FnOnce(&Progress) -> std::io::Result<()>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("weft-hub")
        .enable_all()
        .build()
        .map_err(|error| {
            Problem::new(Code::Internal, "the daemon cannot start").why(error.to_string())
        })?;
    runtime.block_on(async {
        match start(config).await {
            Ok((daemon, word)) => {
                let heard = report(&word);
                drop(word);
                daemon.serve(heard.is_ok()).await
            }
            Err(problem) => {
                tracing::error!(code = %problem.code, %problem, "the router did not start");
                let _ = report(&Progress::Failed {
                    problem: problem.clone(),
                });
                Err(problem)
            }
        }
    })
}

struct Daemon {
    running: Running,
    host: Host,
    signals: Signals,
}

async fn start(config: Config) -> Result<(Daemon, Progress), Problem> {
    let begun = Instant::now();
    let signals = Signals::new()?;
    let created =
        config.peers.is_empty() && config.token.is_none() && !machine::has_mesh(&config.state_dir)?;
    let settings = settings(&config)?;
    if created {
        check::ranges(&host::names(&config.bridge), &[config.range.into()]).await?;
    }
    let (mut host, tap) = Host::open(&config.bridge).await?;
    // Before it is a member: a node that is killed the moment it is one starts again under its name.
    let called = launch::saved_name(&config.state_dir);
    launch::save_name(&config.state_dir, Some(&config.nickname));
    let running = match weft_router::start(settings, Some(tap), host.checks()).await {
        Ok(running) => running,
        Err(problem) => {
            launch::save_name(&config.state_dir, called.as_ref());
            host.undo().await;
            return Err(problem);
        }
    };
    host.follow(&running);
    let mut daemon = Daemon {
        running,
        host,
        signals,
    };
    match daemon.settle(&config, created, begun).await {
        Ok(word) => Ok((daemon, word)),
        Err(problem) => {
            let Daemon { running, host, .. } = daemon;
            // What was only tried must not be remembered: the next command may name other hosts, or none.
            if running.progress.borrow().joined.is_none() {
                launch::save_name(&config.state_dir, called.as_ref());
                if !config.peers.is_empty() {
                    let _ = running.api.forget(config.peers).await;
                }
            }
            let _ = running.shutdown().await;
            host.undo().await;
            Err(problem)
        }
    }
}

/// Says to the router what was said to the command.
fn settings(config: &Config) -> Result<weft_router::config::Config, Problem> {
    let intent = match &config.token {
        Some(token) => Intent::Join {
            token: machine::parse_token(token)?,
            address: config.address,
        },
        None if config.peers.is_empty() => Intent::Create {
            name: None,
            range: config.range,
            mtu: config.mtu,
            address: config.address,
        },
        None => Intent::Resume,
    };
    Ok(weft_router::config::Config {
        nickname: config.nickname.clone(),
        intent,
        targets: config.peers.iter().cloned().map(Target).collect(),
        port: config.port,
        listen: config.listen.into_iter().collect(),
        advertise: config.advertise.clone(),
        state_dir: config.state_dir.clone(),
        socket: config.socket.clone(),
        status: config.status_listen,
        release: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

impl Daemon {
    /// Waits until the router is where the command wants it.
    async fn settle(
        &mut self,
        config: &Config,
        created: bool,
        begun: Instant,
    ) -> Result<Progress, Problem> {
        let progress = self.running.progress.clone();
        let wait = async {
            match config.purpose {
                Purpose::Join => {
                    let verified = joined(progress, config).await?;
                    let seconds = begun.elapsed().as_secs_f64();
                    let status = self.running.api.status().await?;
                    let ping = proven(&status, &verified)?;
                    Ok(Progress::Verified {
                        status,
                        ping,
                        seconds,
                    })
                }
                Purpose::Up => {
                    ready(progress, config).await?;
                    let status = self.running.api.status().await?;
                    let token = match status.mesh {
                        Some(_) if created && !config.foreground => {
                            Some(invite(&self.running.api).await?)
                        }
                        Some(_) | None => None,
                    };
                    Ok(Progress::Ready {
                        status,
                        created,
                        token,
                    })
                }
            }
        };
        tokio::select! {
            word = wait => word,
            name = self.signals.stop() => Err(
                Problem::new(Code::Internal, format!("{name} came before the router was ready")),
            ),
        }
    }

    /// Serves until told to stop, or the router ends. Told by a signal, as by a service manager that may start it again
    /// at once, it leaves the devices as they are.
    async fn serve(mut self, wanted: bool) -> Outcome {
        let mut progress = self.running.progress.clone();
        let mut again = false;
        if wanted {
            // Fails where there is no systemd: then nobody wants to know.
            let _ = sd_notify::notify(&[NotifyState::Ready]);
            tokio::select! {
                _ = progress.wait_for(|reached| reached.ended.is_some()) => {}
                name = self.signals.stop() => {
                    tracing::info!(signal = name, "stopping");
                    again = true;
                }
                () = watchdog(&self.running.api) => {}
            }
        } else {
            tracing::warn!("the command that started the router has gone, so it stops");
        }
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
        let ended = self.running.shutdown().await;
        match (wanted, again) {
            (true, true) => self.host.leave_standing(),
            (true, false) => self.host.close().await,
            (false, _) => self.host.undo().await,
        }
        ended.map(|()| ExitCode::Ok)
    }
}

/// The ping that has proved the join, in the words of the API.
fn proven(status: &Status, verified: &Verified) -> Result<PingAnswer, Problem> {
    let peer = status.find_peer(&verified.node.to_string())?;
    let mut ping = weft_router::api::ping_answer(status, peer, &verified.pong, &[]);
    // The probe may have waited for its session, which the peer's round trip has not.
    ping.rtt_ms = peer.rtt_ms.map_or(ping.rtt_ms, |rtt| rtt.min(ping.rtt_ms));
    Ok(ping)
}

/// Makes a token for the next host.
async fn invite(api: &Api) -> Result<Secret, Problem> {
    let request = TokenRequest {
        reusable: false,
        ttl_seconds: INVITATION.as_secs(),
    };
    Ok(Secret::new(api.create_token(&request).await?.token))
}

/// Waits until forwarding is decided; for a mesh of others, a moment only.
async fn ready(mut progress: watch::Receiver<Reached>, config: &Config) -> Result<(), Problem> {
    let waits_for_others = config.token.is_some() || !config.peers.is_empty();
    let limit = if waits_for_others { PATIENCE } else { READY };
    let reached = tokio::time::timeout(
        limit,
        progress.wait_for(|reached| {
            reached.ended.is_some() || (reached.ready && reached.joined.is_some())
        }),
    )
    .await;
    match reached {
        Ok(Ok(reached)) => match &reached.ended {
            Some(verdict) => Err(ended(verdict)),
            None => Ok(()),
        },
        Ok(Err(_)) => Err(vanished()),
        Err(_) if waits_for_others => Ok(()),
        Err(_) => Err(Problem::new(
            Code::StartTimedOut,
            format!(
                "the router did not become ready within {} s",
                READY.as_secs()
            ),
        )
        .fix(format!(
            "Look into its log: {}",
            config.state_dir.join(launch::LOG).display()
        ))),
    }
}

/// Waits until a peer is reached and a full-size sealed probe went there and back.
async fn joined(
    mut progress: watch::Receiver<Reached>,
    config: &Config,
) -> Result<Verified, Problem> {
    let begun = tokio::time::Instant::now();
    let deadline = begun + JOIN;
    let mut give_up = deadline;
    let mut failure: Option<Problem> = None;
    let mut unproven = false;
    loop {
        let reached = progress.borrow_and_update().clone();
        if let Some(verdict) = &reached.ended {
            return Err(ended(verdict));
        }
        match reached.verified {
            Some(Ok(verified)) => return Ok(verified),
            Some(Err(problem)) if !unproven => {
                give_up = deadline.min(tokio::time::Instant::now() + OTHER_LINKS);
                (unproven, failure) = (true, Some(problem));
            }
            Some(Err(problem)) => failure = Some(problem),
            None => {}
        }
        if unproven {
            // A member by now: nothing but a link that carries is waited for.
        } else if reached.joined.is_some() {
            // Admitted: what failed before was another way in.
            give_up = deadline;
            failure = None;
        } else if let Some(problem) = reached.failure {
            if is_final(problem.code) {
                return Err(problem);
            }
            if failure.is_none() {
                let silent = begun.elapsed() >= SILENCE;
                let more = if silent { LOSSY } else { OTHERS };
                give_up = give_up.min(tokio::time::Instant::now() + more);
            }
            failure = Some(most_telling(failure, problem, config));
        }
        match tokio::time::timeout_at(give_up, progress.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(vanished()),
            Err(_) => {
                let joined = progress.borrow().joined.clone();
                return Err(failure.unwrap_or_else(|| too_late(joined.as_ref(), config)));
            }
        }
    }
}

/// Whether no other host or address would change it. The rest says something about one way into the mesh only, and there
/// may be several: hosts given, addresses of a name, addresses in the token.
const fn is_final(code: Code) -> bool {
    !matches!(
        code,
        Code::ClosedSilently
            | Code::ConnectionRefused
            | Code::Filtered
            | Code::NameUnknown
            | Code::NoRoute
            | Code::NotAnIntroducer
            | Code::TokenNotAccepted
    )
}

/// Of two failures the one about a host that a person named: the addresses in a token are nothing they know of.
fn most_telling(earlier: Option<Problem>, later: Problem, config: &Config) -> Problem {
    let named = |problem: &Problem| {
        config
            .peers
            .iter()
            .any(|peer| problem.to_string().contains(peer))
    };
    match earlier {
        Some(earlier) if named(&earlier) || !named(&later) => earlier,
        Some(_) | None => later,
    }
}

fn too_late(joined: Option<&Membership>, config: &Config) -> Problem {
    let hosts = config.peers.join(", ");
    let problem = match joined {
        Some(joined) => Problem::new(
            Code::PeerUnreachable,
            format!(
                "this node is a member of \"{}\", and reaches none of {hosts}",
                joined.mesh
            ),
        ),
        None => Problem::new(
            Code::StartTimedOut,
            format!("{hosts} did not finish the join"),
        ),
    };
    problem
        .why(format!("{} s passed", JOIN.as_secs()))
        .fix("Run the same command again; look at the other side with: weft status, weft events")
}

fn ended(verdict: &Result<(), Problem>) -> Problem {
    match verdict {
        Ok(()) => Problem::new(Code::Internal, "the router was stopped before it was ready"),
        Err(problem) => problem.clone(),
    }
}

fn vanished() -> Problem {
    Problem::new(Code::Internal, "the router ended in a panic")
}

/// Tells systemd that the hub answers, twice per interval. Never returns.
async fn watchdog(api: &Api) {
    let Some(interval) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut ticks = tokio::time::interval(interval / 2);
    loop {
        ticks.tick().await;
        match api.status().await {
            Ok(_) => drop(sd_notify::notify(&[NotifyState::Watchdog])),
            Err(problem) => {
                tracing::warn!(code = %problem.code, %problem, "the hub does not answer")
            }
        }
    }
}

/// The signals a daemon heeds.
struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Problem> {
        let on = |kind| {
            signal(kind).map_err(|error| {
                Problem::new(Code::Internal, "signals cannot be received").why(error.to_string())
            })
        };
        Ok(Self {
            hangup: on(SignalKind::hangup())?,
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
        })
    }

    /// Waits for one that means stop, and names it.
    async fn stop(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.hangup.recv() => {
                    tracing::info!("SIGHUP: the configuration is read at start; restart to apply it");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Args {
        #[command(flatten)]
        global: crate::args::Global,
        #[command(flatten)]
        router: crate::args::RouterArgs,
    }

    fn config() -> Config {
        let args = Args::parse_from(["weft", "192.0.2.1", "--name", "b", "--token", "wft1-x"]);
        let file = crate::config::File::default();
        Config::new(Purpose::Join, &args.global, args.router, file).expect("a configuration")
    }

    fn lost() -> Problem {
        Problem::new(Code::PeerUnreachable, "a does not answer")
    }

    fn verified() -> Verified {
        Verified {
            node: weft_types::NodeId::new([1; 32]),
            nickname: "c".parse().expect("a name"),
            pong: weft_router_proto::io::Pong {
                rtt: Duration::from_millis(1),
                size: 1392,
                lost: 0,
                path: weft_router_proto::status::PathKind::Sleeve,
                via: None,
                loss: 0.0,
                mtu: None,
            },
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_link_that_is_lost_is_not_the_end_of_a_join() {
        let (hub, progress) = watch::channel(Reached::default());
        let config = config();
        let waiting = tokio::spawn(async move { joined(progress, &config).await });

        hub.send_modify(|reached| reached.verified = Some(Err(lost())));
        tokio::time::sleep(OTHER_LINKS / 2).await;
        assert!(!waiting.is_finished());
        hub.send_modify(|reached| reached.verified = Some(Ok(verified())));

        assert_eq!(waiting.await.expect("no panic"), Ok(verified()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_was_silent_is_tried_for_longer_than_one_that_refused() {
        for (seconds, patience) in [(0, OTHERS), (3, LOSSY)] {
            let (hub, progress) = watch::channel(Reached::default());
            let config = config();
            let begun = tokio::time::Instant::now();
            let waiting = tokio::spawn(async move { joined(progress, &config).await });
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            let problem = Problem::new(Code::NoRoute, "there is no route to 192.0.2.1");
            hub.send_modify(|reached| reached.failure = Some(problem.clone()));

            let verdict = waiting.await.expect("no panic");

            assert_eq!(verdict, Err(problem));
            assert_eq!(
                begun.elapsed().as_secs(),
                (Duration::from_secs(seconds) + patience).as_secs()
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_mesh_that_carries_nothing_is_said_to() {
        let (hub, progress) = watch::channel(Reached::default());
        let config = config();
        let begun = tokio::time::Instant::now();
        hub.send_modify(|reached| reached.verified = Some(Err(lost())));

        let verdict = joined(progress, &config).await;

        assert_eq!(verdict, Err(lost()));
        assert_eq!(begun.elapsed().as_secs(), OTHER_LINKS.as_secs());
    }
}
