//! Links that come and go as fast as a loose plug does are those two hosts' trouble, and nobody else's.
//!
//! `WEFT_FLAP_SECONDS=60` does it for that long; continuous integration does it for ten seconds.

#![expect(clippy::print_stdout, reason = "a test says what it measured")]

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use weft_lab::{requires_root, requires_weft};
use weft_suites::flow::{Flow, Mark, Pace};
use weft_suites::mesh::{Mesh, PATIENCE, is_direct};

/// Ten links.
const HOSTS: usize = 5;

/// A fifth of them, with a host that has both.
const FLAPPING: [(usize, usize); 2] = [(0, 1), (1, 2)];

/// How long a link is there, and how long it is gone then: a hundred flaps a minute.
const HALF: Duration = Duration::from_millis(300);

/// How soon after the last flap everything is as if there had been none.
const SETTLED: Duration = Duration::from_secs(2);

/// How soon a link that has flapped is trusted again: many answers in a row, a quarter of a second apart.
const TRUSTED: Duration = Duration::from_secs(10);

/// Light, as there are many.
const PACE: Pace = Pace {
    per_second: 50,
    size: 200,
};

/// What the kernels and threads of a busy machine may lose of a flow: one datagram in five hundred.
const NOISE: usize = 500;

/// How long it is done.
fn length() -> Duration {
    let wanted = std::env::var("WEFT_FLAP_SECONDS").ok();
    Duration::from_secs(wanted.and_then(|text| text.parse().ok()).unwrap_or(10))
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..HOSTS).flat_map(|from| (from + 1..HOSTS).map(move |to| (from, to)))
}

fn flaps((a, b): (usize, usize)) -> bool {
    FLAPPING.contains(&(a, b)) || FLAPPING.contains(&(b, a))
}

/// Talk from one to the other, and what both say of the path.
struct Talk {
    from: usize,
    to: usize,
    flow: Flow,
}

impl Talk {
    /// Which paths were chosen so far, and why. When is told by a clock of days, which is not exact.
    fn switches(&self, mesh: &Mesh) -> [Vec<[Value; 3]>; 2] {
        let told = |switch: Value| ["path", "via", "reason"].map(|name| switch[name].clone());
        [(self.from, self.to), (self.to, self.from)].map(|(at, of)| {
            let switches = mesh.switches(at, of).into_iter();
            switches.map(told).collect()
        })
    }

    /// Says whether no more of it is lost than by the noise of a machine.
    fn is_whole(&self, since: Mark, until: Mark) -> bool {
        self.flow.lost(since, until) <= self.flow.sent(since, until).div_ceil(NOISE)
    }
}

/// Cuts and heals the two links in turn, for so long; returns how often.
fn flap(mesh: &Mesh, length: Duration) -> usize {
    let start = Instant::now();
    let mut flaps = 0;
    while start.elapsed() < length {
        for gone in [true, false] {
            for (a, b) in FLAPPING {
                let [a, b] = [a, b].map(|at| &mesh.node(at).link);
                let outcome = if gone { a.cut_off(b) } else { a.reunite(b) };
                outcome.expect("a rule");
            }
            flaps += usize::from(gone);
            // By the clock: what the rules take is no rest for the links.
            let due = HALF * u32::try_from(2 * flaps - usize::from(gone)).expect("not so many");
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }
    flaps
}

#[test]
fn links_that_flap_disturb_no_other_link_and_settle_in_two_seconds() {
    requires_root!();
    let program = requires_weft!();
    let mesh = Mesh::up_shaped("flaps", &program, HOSTS, &[]);
    let talks: Vec<Talk> = pairs()
        .map(|(from, to)| Talk {
            from,
            to,
            flow: Flow::start(&mesh, from, to, PACE),
        })
        .collect();
    for talk in &talks {
        mesh.await_view(talk.from, talk.to, PATIENCE, is_direct);
        talk.flow.more(100);
    }
    let (flapping, steady): (Vec<&Talk>, Vec<&Talk>) =
        talks.iter().partition(|talk| flaps((talk.from, talk.to)));
    let before: Vec<(Mark, [Vec<[Value; 3]>; 2])> = steady
        .iter()
        .map(|talk| (talk.flow.mark(), talk.switches(&mesh)))
        .collect();

    let flaps = flap(&mesh, length());
    let ended = Instant::now();

    let over: Vec<Mark> = steady.iter().map(|talk| talk.flow.mark()).collect();
    thread::sleep(SETTLED.saturating_sub(ended.elapsed()));
    let settled: Vec<Mark> = talks.iter().map(|talk| talk.flow.mark()).collect();
    let mut lost = (0, 0);
    let mut silent = Duration::ZERO;
    for ((talk, (since, switches)), &until) in steady.iter().zip(&before).zip(&over) {
        let (from, to, flow) = (talk.from, talk.to, &talk.flow);
        lost.0 += flow.lost(*since, until);
        lost.1 += flow.sent(*since, until);
        silent = silent.max(flow.gap(*since, until));
        assert!(
            talk.is_whole(*since, until),
            "from n{from} to n{to}: lost {} of {}",
            flow.lost(*since, until),
            flow.sent(*since, until)
        );
        assert_eq!(talk.switches(&mesh), *switches, "from n{from} to n{to}");
    }
    println!(
        "{flaps} flaps; the others lost {} of {} and were silent for {silent:?}",
        lost.0, lost.1
    );
    assert!(flaps >= usize::try_from(length().as_secs()).expect("short") * 3 / 2);

    // Settled: everybody is connected, and nothing is lost, on the links that have flapped neither.
    for at in 0..HOSTS {
        let connected = mesh.node(at).status().expect("a status")["mesh"]["connected"].clone();
        assert_eq!(connected, HOSTS - 1, "n{at}");
    }
    for talk in &talks {
        talk.flow.more(100);
    }
    let end: Vec<Mark> = talks.iter().map(|talk| talk.flow.mark()).collect();
    for talk in &talks {
        // What was under way at that moment has time to arrive.
        talk.flow.more(20);
    }
    for ((talk, &since), &until) in talks.iter().zip(&settled).zip(&end) {
        assert!(
            talk.is_whole(since, until),
            "settled, from n{} to n{}: lost {} of {}; {:?}",
            talk.from,
            talk.to,
            talk.flow.lost(since, until),
            talk.flow.sent(since, until),
            talk.switches(&mesh)
        );
    }
    for talk in flapping {
        mesh.await_view(talk.from, talk.to, TRUSTED, is_direct);
    }
    let trusted = ended.elapsed();
    println!("all paths are direct again {trusted:?} after the last flap");
}
