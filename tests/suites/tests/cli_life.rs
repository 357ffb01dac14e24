//! The life of a router under its commands: resumed, stopped, reset, looked at, and what it must never give away.

#![expect(clippy::print_stdout, reason = "the harness shows what was measured")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use weft_lab::bar::{Bar, hold};
use weft_lab::traffic::{self, PingTest};
use weft_lab::{Container, Match, requires_root, requires_weft, wait_until};
use weft_suites::schema;
use weft_suites::site::{Mounts, Node, Site};

const LIMIT: Duration = Duration::from_secs(30);

/// How many containers one host is given at once, unless `WEFT_CROWD` says so: 1000 take some minutes.
const CROWD: usize = 40;

/// How long a `weft status` of a host with a crowd may take.
const STATUS: Bar<Duration> = Bar::new("weft status", Duration::from_millis(100));

/// What a router with two peers may hold.
const MEMORY: u64 = 40 << 20;

/// Three members of one mesh; the first made it.
fn three(name: &str, binary: std::path::PathBuf) -> (Site, [Node; 3]) {
    let site = Site::new(name, binary);
    let nodes = ["a", "b", "c"].map(|name| site.node(name));
    let [a, rest @ ..] = &nodes;
    a.run(&["up", "--name", "a"]).expect_code(0);
    let token = a.token(&["--reusable"]);
    for (node, nick) in rest.iter().zip(["b", "c"]) {
        node.run(&["join", &a.address(), "--token", &token, "--name", nick])
            .expect_code(0);
    }
    for node in &nodes {
        node.run(&["wait", "--for", "peers=2"]).expect_code(0);
        node.run(&["wait", "--for", "encrypted"]).expect_code(0);
    }
    (site, nodes)
}

#[test]
fn every_reading_command_answers_as_its_schema_says() {
    let binary = requires_weft!();
    requires_root!();
    let (site, [a, b, _c]) = three("schema", binary);
    a.run(&["connect", "192.0.2.99"]).expect_code(4);
    a.token(&[]);
    let inside = site.lab.container("inside").unwrap();
    let attach = ["attach", "--address", "10.32.200.1/12", inside.full_name()];
    a.run(&attach).expect_code(0);
    let conforms = |said: &str, name: &str| {
        let schema = schema::load(name);
        let mut values = 0;
        for line in said.lines() {
            let value: Value = serde_json::from_str(line).unwrap();
            assert_eq!(
                schema::faults(&schema, &value),
                Vec::<String>::new(),
                "{said}"
            );
            values += 1;
        }
        assert!(values > 0, "{said}");
    };

    for (words, name) in [
        (&["status"][..], "status.json"),
        (&["status", "connections"], "connections.json"),
        (&["status", "containers"], "containers.json"),
        (&["status", "peers"], "peers.json"),
        (&["status", "targets"], "targets.json"),
        (&["status", "wire"], "wire.json"),
        (&["peers"], "peers.json"),
        (&["ping", "b"], "ping.json"),
        (&["trace", "b"], "trace.json"),
        (&["token", "list"], "tokens.json"),
        (&["token", "create"], "token.json"),
        (&["events"], "event.json"),
    ] {
        let said = a.run(&[words, &["-o", "json"]].concat());
        assert!(matches!(said.code, Some(0 | 4)), "{said}");
        conforms(&said.out, name);
    }
    // The last line of several pings sums them up.
    let pings = a.run(&["ping", "b", "-c", "2", "-o", "json"]);
    let (answers, summary) = pings.out.trim().rsplit_once('\n').unwrap();
    conforms(answers, "ping.json");
    conforms(summary, "ping-summary.json");
    let summed: Value = serde_json::from_str(summary).unwrap();
    assert_eq!(
        (pings.code, &summed["received"]),
        (Some(0), &Value::from(2))
    );
    // The first two commands, where they do something and where there is nothing to do.
    let (fresh, newcomer) = (site.node("fresh"), site.node("newcomer"));
    for _ in 0..2 {
        let up = fresh.run(&["up", "-o", "json"]).expect_code(0);
        conforms(&up.out, "up.json");
    }
    let (to, token) = (fresh.address(), fresh.token(&["--reusable"]));
    for _ in 0..2 {
        let join = ["join", &to, "--token", &token, "-o", "json"];
        let joined = newcomer.run(&join).expect_code(0);
        conforms(&joined.out, "join.json");
    }
    // The whole report is the status too.
    let report = b.run(&["report"]).expect_code(0).json();
    assert_eq!(
        schema::faults(&schema::load("status.json"), &report),
        Vec::<String>::new()
    );
}

#[test]
fn a_running_mesh_answers_what_is_asked() {
    let binary = requires_weft!();
    requires_root!();
    let (_site, [a, b, c]) = three("ask", binary);

    let said = b
        .run(&["report", "-f", "{{.node.nickname}} {{.mesh.members}}"])
        .expect_code(0);
    assert_eq!(said.out.trim(), "b 3");
    let to_c = a.run(&["ping", "c", "-o", "json"]).expect_code(0).json();
    assert_eq!(to_c["nickname"], "c");
    let address = to_c["addresses"][0]
        .as_str()
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    a.run(&["ping", &address]).expect_code(0);
    let id = to_c["node"].as_str().unwrap();
    a.run(&["ping", &id[..12]]).expect_code(0);
    a.run(&["report", "-f", "{{.nonsense}}"])
        .expect_problem(2, "WFT-002");
    // The hosts reach each other as hosts do.
    let target: IpAddr = address.parse().unwrap();
    let reaches = || {
        let report = traffic::ping(a.host.netns(), target, PingTest::default());
        report.unwrap().lost() == 0
    };
    assert!(wait_until(LIMIT, reaches).is_some());

    // Events come as they happen.
    let mut command = a.weft.command(&["events", "-f", "-o", "json"]);
    command.stdout(Stdio::piped());
    let mut follower = a.host.netns().spawn(&mut command).unwrap().unwrap();
    let pipe = follower.stdout.take().unwrap();
    let (heard, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if heard.send(line).is_err() {
                break;
            }
        }
    });
    let id = c.status()["node"]["id"].as_str().unwrap().to_owned();
    // Nobody says when it begins to listen, so there is something to hear until it has heard.
    let named = (0..5).any(|_| {
        c.run(&["down"]).expect_code(0);
        a.run(&["wait", "--for", "peers=1"]).expect_code(0);
        c.run(&["up"]).expect_code(0);
        a.run(&["wait", "--for", "peers=2"]).expect_code(0);
        wait_until(LIMIT / 5, || {
            lines.try_iter().any(|line| line.contains(&id))
        })
        .is_some()
    });
    assert!(named, "nothing was heard of {id}");
    follower.kill().unwrap();
    follower.wait().unwrap();
    reader.join().unwrap();
}

#[test]
fn a_router_with_two_peers_stays_small() {
    let binary = requires_weft!();
    requires_root!();
    let (_site, nodes) = three("memory", binary);

    for node in &nodes {
        let held = node.resident_memory();
        println!(
            "{} holds {:.1} MiB",
            node.host.name(),
            held as f64 / f64::from(1 << 20)
        );
        assert!(held <= MEMORY, "{held} bytes");
    }
}

#[test]
fn no_secret_is_where_others_look() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("secret", binary);
    let (a, b) = (site.node("a"), site.node("b"));
    let up = a
        .run(&["up", "-o", "json", "--log", "trace"])
        .expect_code(0)
        .json();
    let token = up["join"]["token"].as_str().unwrap().to_owned();
    b.run(&["join", &a.address(), "--token", &token, "--log", "trace"])
        .expect_code(0);
    let reusable = a.token(&["--reusable"]);

    for node in [&a, &b] {
        let process = Path::new("/proc").join(node.process().to_string());
        let key = fs::read(node.weft.state_dir().join("node.key")).unwrap();
        let status = node.run(&["status", "-o", "json"]).out;
        let places = [
            ("its arguments", fs::read(process.join("cmdline")).unwrap()),
            (
                "its environment",
                fs::read(process.join("environ")).unwrap(),
            ),
            (
                "its log",
                fs::read(node.weft.state_dir().join("weft.log")).unwrap(),
            ),
            ("its status", status.into_bytes()),
            ("its report", node.run(&["report"]).out.into_bytes()),
            (
                "its tokens",
                node.run(&["token", "list", "-o", "json"]).out.into_bytes(),
            ),
            (
                "its events",
                node.run(&["events", "-o", "json"]).out.into_bytes(),
            ),
        ];
        assert!(places[2].1.len() > 1000, "the log says nothing at all");
        for (place, bytes) in &places {
            // The end of a token is its secret's; a part of it would be enough to guess from.
            for secret in [&token, &reusable] {
                let tail = &secret[secret.len() - 40..secret.len() - 16];
                assert!(!holds(bytes, tail.as_bytes()), "a token is in {place}");
                assert!(
                    !holds(bytes, &secret.as_bytes()[60..84]),
                    "a token is in {place}"
                );
            }
            for part in key.chunks_exact(16) {
                let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
                let list = format!("{part:?}");
                assert!(!holds(bytes, part), "a key is in {place}");
                let public = place != &"its arguments" && is_public(node, &hex);
                assert!(
                    public || !holds(bytes, hex.as_bytes()),
                    "a key is in {place}"
                );
                assert!(
                    !holds(bytes, list.trim_matches(['[', ']']).as_bytes()),
                    "a key is in {place}"
                );
            }
        }
    }
    let mode = fs::metadata(a.weft.state_dir().join("node.key")).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777,
        0o600
    );
}

/// Whether this is a part of the node's name, which everybody may know.
fn is_public(node: &Node, hex: &str) -> bool {
    node.status()["node"]["id"].as_str().unwrap().contains(hex)
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_second_up_finds_the_first() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("second", binary);
    let a = site.node("a");
    a.create();
    let process = a.process();

    let said = a.run(&["up"]).expect_code(0);
    assert!(said.out.contains("runs already"), "{said}");
    // One with the same state and another socket is refused by the lock.
    let socket = a.weft.folder().join("other.sock");
    let words = [
        "up",
        "--socket",
        socket.to_str().unwrap(),
        "--port",
        "7000",
        "--bridge",
        "other",
    ];
    let words = [&words[..], &["--status-listen", "off"]].concat();
    a.run(&words).expect_problem(11, "WFT-004");

    assert_eq!(a.process(), process);
    assert!(!a.devices().iter().any(|device| device.starts_with("other")));
}

#[test]
fn a_stop_is_a_pause_and_containers_go_on_after_it() {
    let binary = requires_weft!();
    requires_root!();
    let (site, [a, b, _c]) = three("pause", binary);
    let at_a = site.lab.container("ca").unwrap();
    let at_b = site.lab.container("cb").unwrap();
    let near = site.lab.container("cc").unwrap();
    for (node, container, address) in [
        (&a, &at_a, "10.32.200.1/12"),
        (&a, &near, "10.32.200.3/12"),
        (&b, &at_b, "10.32.200.2/12"),
    ] {
        node.run(&["attach", "--address", address, container.full_name()])
            .expect_code(0);
    }
    let reaches = |last: u8| {
        let target = IpAddr::from([10, 32, 200, last]);
        let report = traffic::ping(at_a.netns(), target, PingTest::default()).unwrap();
        report.lost() == 0
    };
    assert!(
        wait_until(LIMIT, || reaches(2)).is_some(),
        "no way to the other host: {:#}",
        a.status()
    );
    let before = a.status();

    a.run(&["down"]).expect_code(0);
    // One lost echo proves nothing on a busy machine; none that comes back within the limit does.
    assert!(
        wait_until(LIMIT, || reaches(3)).is_some(),
        "containers of one host need no router; the host has {:?}",
        a.devices()
    );
    a.run(&["up"]).expect_code(0);
    a.run(&["wait", "--for", "peers=2"]).expect_code(0);

    assert!(
        wait_until(LIMIT, || reaches(2)).is_some(),
        "no way to the other host after the pause: {:#}",
        a.status()
    );
    let after = a.status();
    for place in ["/node/id", "/node/nickname", "/node/addresses", "/mesh/id"] {
        assert_eq!(before.pointer(place), after.pointer(place), "{place}");
    }
}

#[test]
fn a_crowd_of_containers_comes_ends_and_comes_again() {
    let binary = requires_weft!();
    requires_root!();
    let crowd = std::env::var("WEFT_CROWD").map_or(CROWD, |text| text.parse().unwrap());
    let site = Site::new("crowd", binary);
    let (a, b) = (site.node("a"), site.node("b"));
    let token = a.create();
    b.join(&a, &token).expect_code(0);

    for round in ["first", "again"] {
        let begun = Instant::now();
        let containers: Vec<Container> = (0..crowd)
            .map(|at| {
                let container = site.lab.container(&format!("{round}{at}")).unwrap();
                let address = format!("10.32.{}.{}/12", 200 + at / 250, at % 250 + 1);
                let words = ["attach", "--address", &address, container.full_name()];
                a.run(&words).expect_code(0);
                container
            })
            .collect();
        let attached = begun.elapsed();
        let told = wait_until(LIMIT, || known(&b) == crowd);
        assert!(told.is_some(), "{} known: {:#}", known(&b), b.status());
        for node in [&a, &b] {
            hold(STATUS, (0..20).map(|_| node.run(&["status"]).took));
        }
        // They end as containers do, without a word.
        drop(containers);
        let ended = wait_until(LIMIT, || known(&b) == 0);

        println!(
            "{round}: {crowd} attached in {attached:?}, known {told:?} later, gone after {ended:?}"
        );
        assert!(ended.is_some(), "{} known: {:#}", known(&b), b.status());
    }
}

/// Counts the crowd of another host, as this host's kernel knows it.
fn known(node: &Node) -> usize {
    let words = ["neighbour", "show", "dev", "weft", "nud", "permanent"];
    let said = node.host.output("ip", &words).unwrap();
    let said = String::from_utf8_lossy(&said.stdout);
    said.lines()
        .filter(|line| line.starts_with("10.32.20"))
        .count()
}

#[test]
fn a_resumed_router_is_connecting_until_a_dial_has_failed() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("resumed", binary);
    let (a, b) = (site.node("a"), site.node("b"));
    let token = a.create();
    b.join(&a, &token).expect_code(0);
    b.run(&["down"]).expect_code(0);
    // A dial is neither answered nor refused, so it takes its time to fail.
    b.link.block(Match::TcpPort(6783)).unwrap();

    b.run(&["up"]).expect_code(0);
    let young = b.run(&["status", "-o", "json"]).expect_code(0).json();
    let failed = || b.run(&["status"]).code == Some(4);
    assert!(wait_until(LIMIT, failed).is_some(), "{:#}", b.status());
    let old = b.status();
    b.link.heal().unwrap();
    b.run(&["wait", "--for", "peers=1"]).expect_code(0);

    assert_eq!(young["peers"][0]["state"], "connecting");
    assert_eq!(young["problems"], serde_json::json!([]));
    assert_eq!(old["problems"][0]["code"], "WFT-061", "{old:#}");
    b.run(&["status"]).expect_code(0);
}

#[test]
fn a_stop_a_moment_after_an_attach_leaves_the_container_its_place() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("moment", binary);
    let a = site.node("a");

    // Whether the router has seen the port by then is a matter of milliseconds, so more than one try.
    for number in 1..=4 {
        let container = site.lab.container(&format!("c{number}")).unwrap();
        a.run(&["up"]).expect_code(0);
        a.run(&[
            "attach",
            "--address",
            &format!("10.32.200.{number}/12"),
            container.full_name(),
        ])
        .expect_code(0);
        a.run(&["down"]).expect_code(0);

        assert!(a.devices().contains(&"weft".to_owned()), "round {number}");
        assert!(
            container.mac("weft0").unwrap().is_some(),
            "round {number}: the container has lost its device"
        );
        a.run(&["reset", "--force"]).expect_code(0);
    }
}

#[test]
fn a_mesh_is_not_gone_on_with_beside_another_use_of_its_range() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("beside", binary);
    let a = site.node("a");
    a.create();
    a.run(&["down"]).expect_code(0);
    let address = |verb| ["address", verb, "10.40.0.1/16", "dev", "eth0"];

    a.host.output("ip", &address("add")).unwrap();
    let refused = a.run(&["up"]).expect_code(11);
    a.host.output("ip", &address("del")).unwrap();

    assert!(refused.err.contains("WFT-042"), "{refused}");
    a.run(&["up"]).expect_code(0);
    // While it runs it is told, and nothing is stopped.
    a.host.output("ip", &address("add")).unwrap();
    let told = || a.status()["problems"][0]["code"] == "WFT-042";
    assert!(wait_until(LIMIT, told).is_some(), "{:#}", a.status());
}

#[test]
fn a_reset_leaves_nothing() {
    let binary = requires_weft!();
    requires_root!();
    let (_site, [a, b, c]) = three("reset", binary);
    let snapshot = |node: &Node| {
        let read = |path: &str| {
            fs::read_to_string(format!("/proc/thread-self/net/{path}")).unwrap_or_default()
        };
        let lines = |text: String| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        let seen = || {
            (
                lines(read("route")),
                lines(read("arp")),
                read("packet").lines().count(),
            )
        };
        (node.host.run(seen).unwrap(), node.devices())
    };

    // With the mesh told, with the mesh unreachable, and with no router at all.
    b.run(&["reset"]).expect_code(0);
    let told = wait_until(LIMIT, || a.status()["mesh"]["members"] == 2);
    assert!(told.is_some(), "{:#}", a.status());
    c.link.cut().unwrap();
    c.run(&["reset", "--force"]).expect_code(0);
    let pid = nix::unistd::Pid::from_raw(a.process());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(wait_until(LIMIT, || a.host.processes().unwrap().is_empty()).is_some());
    assert!(a.devices().contains(&"weft".to_owned()));
    a.run(&["reset", "--force"]).expect_code(0);

    for node in [&a, &b, &c] {
        node.assert_untouched();
        let ((routes, neighbours, sockets), _) = snapshot(node);
        assert!(
            routes.iter().all(|line| !line.contains("weft")),
            "{routes:?}"
        );
        assert!(
            neighbours.iter().all(|line| !line.contains("weft")),
            "{neighbours:?}"
        );
        assert_eq!(sockets, 1, "packet sockets are left");
        let files: Vec<_> = fs::read_dir(node.weft.folder()).unwrap().collect();
        assert!(files.is_empty(), "{files:?}");
    }
    a.create();
    assert_eq!(a.status()["mesh"]["members"], 1);
}

#[test]
fn a_disk_that_fills_later_loses_nothing() {
    let binary = requires_weft!();
    requires_root!();
    let site = Site::new("later", binary);
    let (a, b) = (site.node("a"), site.node("b"));
    let state = a.weft.state_dir();
    let disk = Mounts::with_small_disk(&state, 8 << 20);
    a.run_within(&disk, &["up"]).expect_code(0);
    let first = a.token(&[]);
    let identity = a.status()["node"]["id"].clone();
    let filler = state.join("filler");
    disk.run(|| {
        let mut file = fs::File::create(&filler).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 1024]).is_ok() {}
    });

    // As many as fit into what the file of the state holds already, then none, and each time it is said.
    let mut made = vec![first];
    let refused = (0..2000).find_map(|_| {
        let said = a.run(&["token", "create"]);
        match said.code {
            Some(0) => {
                made.push(said.out.trim().to_owned());
                None
            }
            _ => Some(said),
        }
    });
    refused
        .expect("the disk is full")
        .expect_problem(13, "WFT-014");
    assert_eq!(a.status()["node"]["id"], identity);
    disk.run(|| fs::remove_file(&filler)).unwrap();
    made.push(a.token(&[]));
    a.run(&["down"]).expect_code(0);
    a.run_within(&disk, &["up"]).expect_code(0);

    assert_eq!(a.status()["node"]["id"], identity);
    let listed = a
        .run(&["token", "list", "-o", "json"])
        .expect_code(0)
        .json();
    // Those made, and the one of the join line.
    assert_eq!(listed.as_array().unwrap().len(), made.len() + 1, "{listed}");
    b.join(&a, &made[0]).expect_code(0);
}
