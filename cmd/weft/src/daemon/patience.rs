//! Waits until a router is where a command wants it, and says how long that may take.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use weft_router::progress::{Membership, Progress, Verified};
use weft_types::{Code, Outlook, Problem};

use crate::config::Config;
use crate::state_dir;

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

/// Waits until forwarding is decided; for a mesh of others, a moment only.
pub(super) async fn ready(
    mut progress: watch::Receiver<Progress>,
    config: &Config,
) -> Result<(), Problem> {
    let waits_for_others = config.token.is_some() || !config.peers.is_empty();
    let limit = if waits_for_others { PATIENCE } else { READY };
    let settled = progress
        .wait_for(|reached| reached.ended.is_some() || (reached.ready && reached.joined.is_some()));
    match tokio::time::timeout(limit, settled).await {
        Ok(Ok(reached)) => match &reached.ended {
            Some(verdict) => Err(ended(verdict)),
            None => Ok(()),
        },
        Ok(Err(_)) => Err(vanished()),
        Err(_) if waits_for_others => Ok(()),
        Err(_) => Err(not_ready(config)),
    }
}

fn not_ready(config: &Config) -> Problem {
    let limit = READY.as_secs();
    let what = format!("the router did not become ready within {limit} s");
    Problem::new(Code::StartTimedOut, what).fix(state_dir::look_into_log(&config.state_dir))
}

/// Waits until a peer is reached and a full-size sealed probe went there and back.
pub(super) async fn joined(
    mut progress: watch::Receiver<Progress>,
    config: &Config,
) -> Result<Verified, Problem> {
    let mut patience = Patience::new();
    loop {
        let reached = progress.borrow_and_update().clone();
        if let Some(verdict) = patience.consider(reached) {
            return verdict;
        }
        match tokio::time::timeout_at(patience.give_up, progress.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(vanished()),
            Err(_) => {
                let joined = progress.borrow().joined.clone();
                let failure = patience.failure;
                return Err(failure.unwrap_or_else(|| too_late(joined.as_ref(), config)));
            }
        }
    }
}

/// How long a join goes on after what has failed so far.
struct Patience {
    begun: Instant,
    give_up: Instant,
    /// The first failure: of the hosts that a person named, since the core tells of no others.
    failure: Option<Problem>,
    /// A member, over whose links nothing has passed yet.
    unproven: bool,
}

impl Patience {
    fn new() -> Self {
        let begun = Instant::now();
        Self {
            begun,
            give_up: begun + JOIN,
            failure: None,
            unproven: false,
        }
    }

    /// Looks how far the router has come: how the join came out, if that is known.
    fn consider(&mut self, reached: Progress) -> Option<Result<Verified, Problem>> {
        if let Some(verdict) = &reached.ended {
            return Some(Err(ended(verdict)));
        }
        match reached.verified {
            Some(Ok(verified)) => return Some(Ok(verified)),
            Some(Err(problem)) => self.lost(problem),
            None => {}
        }
        match reached.failure {
            // A member by now: nothing but a link that carries is waited for.
            _ if self.unproven => None,
            _ if reached.joined.is_some() => {
                // Admitted: what failed before was another way in.
                self.give_up = self.begun + JOIN;
                self.failure = None;
                None
            }
            Some(problem) if problem.code.outlook() != Outlook::Elsewhere => Some(Err(problem)),
            Some(problem) => {
                self.failed(problem);
                None
            }
            None => None,
        }
    }

    /// A full-size probe did not come back.
    fn lost(&mut self, problem: Problem) {
        if !self.unproven {
            self.give_up = (self.begun + JOIN).min(Instant::now() + OTHER_LINKS);
        }
        self.unproven = true;
        self.failure = Some(problem);
    }

    /// One way into the mesh leads nowhere.
    fn failed(&mut self, problem: Problem) {
        if self.failure.is_some() {
            return;
        }
        // A name that nobody knows does not come to be known by asking again.
        let silent = self.begun.elapsed() >= SILENCE && problem.code != Code::NameUnknown;
        let more = if silent { LOSSY } else { OTHERS };
        self.give_up = self.give_up.min(Instant::now() + more);
        self.failure = Some(problem);
    }
}

fn too_late(joined: Option<&Membership>, config: &Config) -> Problem {
    let hosts = config.peers.join(", ");
    let (code, what) = match joined {
        Some(Membership { mesh, .. }) => (
            Code::PeerUnreachable,
            format!("this node is a member of \"{mesh}\", and reaches none of {hosts}"),
        ),
        None => (
            Code::StartTimedOut,
            format!("{hosts} did not finish the join"),
        ),
    };
    Problem::new(code, what)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        crate::config::parsed("weft join 192.0.2.1 --name b --token wft1-x", "")
            .expect("a configuration")
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
                path: weft_types::PathKind::Sleeve,
                via: None,
                loss: 0.0,
                mtu: None,
            },
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_link_that_is_lost_is_not_the_end_of_a_join() {
        let (hub, progress) = watch::channel(Progress::default());
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
        for (code, seconds, patience) in [
            (Code::NoRoute, 0, OTHERS),
            (Code::NoRoute, 3, LOSSY),
            (Code::NameUnknown, 3, OTHERS),
        ] {
            let (hub, progress) = watch::channel(Progress::default());
            let config = config();
            let begun = Instant::now();
            let waiting = tokio::spawn(async move { joined(progress, &config).await });
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            let problem = Problem::new(code, "192.0.2.1 leads nowhere");
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
        let (hub, progress) = watch::channel(Progress::default());
        let config = config();
        let begun = Instant::now();
        hub.send_modify(|reached| reached.verified = Some(Err(lost())));

        let verdict = joined(progress, &config).await;

        assert_eq!(verdict, Err(lost()));
        assert_eq!(begun.elapsed().as_secs(), OTHER_LINKS.as_secs());
    }
}
