//! Builds a mesh of real routers, each on a host of its own with a container on it, as a person would by the command line.
//!
//! ```text
//!   host 0: weft up            host 1: weft join 192.0.2.1 --token …      host n …
//!    └ container c0             └ container c1                             └ container cn
//! ```
//!
//! Helpers of tests: what should succeed and does not panics, with what the program said.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;
use weft_lab::traffic::{PingTest, ping, tcp_transfer};
use weft_lab::{Container, Daemon, Host, Lab, Lan, Link, Underlay, Weft, wait_for, wait_until};
use weft_types::MacAddr;

/// How long anything may take that has no bound of its own: builds without optimising run many at a time.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until no other test of this program holds it: what is measured must not be disturbed.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says whether frames go straight from one host to the other, by what a router says of a peer.
pub fn is_direct(view: &Value) -> bool {
    view["path"] == "sleeve" && view["via"].is_null()
}

/// The device that `weft attach` makes in a container.
const DEVICE: &str = "weft0";

/// Hosts on one switch, and the routers that run there.
#[derive(Debug)]
pub struct Mesh {
    nodes: Vec<Node>,
    program: PathBuf,
    token: String,
    // The switch goes last; it is the far end of every cable.
    underlay: Underlay,
    lab: Lab,
}

/// One host with its router and its container.
#[derive(Debug)]
pub struct Node {
    /// The router; none before it was started.
    daemon: Option<Daemon>,
    weft: Option<Weft>,
    /// Its place in the underlay.
    pub link: Link,
    /// Its container.
    pub container: Container,
    /// The host.
    pub host: Host,
    inside: Option<IpNet>,
}

impl Mesh {
    /// Makes the hosts and starts nothing.
    pub fn build(name: &str, program: &Path, hosts: usize) -> Self {
        Self::build_on(name, program, hosts, |lab| lab.underlay("net").unwrap())
    }

    /// Makes the hosts on a switch of another kind, and starts nothing.
    pub fn build_on(
        name: &str,
        program: &Path,
        hosts: usize,
        underlay: impl FnOnce(&Lab) -> Underlay,
    ) -> Self {
        let lab = Lab::new(name);
        let underlay = underlay(&lab);
        let mut mesh = Self {
            nodes: Vec::new(),
            program: program.to_owned(),
            token: String::new(),
            underlay,
            lab,
        };
        for _ in 0..hosts {
            mesh.add(None);
        }
        mesh
    }

    /// Adds a host, on the switch or in a private network, and starts nothing. Returns its number.
    pub fn add(&mut self, lan: Option<&Lan>) -> usize {
        let at = self.nodes.len();
        let host = self.lab.host(&format!("h{at}")).unwrap();
        let link = match lan {
            Some(lan) => lan.join(&host),
            None => self.underlay.join(&host),
        };
        self.nodes.push(Node {
            daemon: None,
            weft: Some(Weft::new(&self.program, &host).unwrap()),
            link: link.unwrap(),
            container: self.lab.container(&format!("c{at}")).unwrap(),
            host,
            inside: None,
        });
        at
    }

    /// Makes a mesh with a shaper in every cable, so that a later rule disturbs nothing by itself, and with some pairs of
    /// hosts cut off from each other from the beginning. Each host joins the first one before it that it can reach.
    pub fn up_shaped(name: &str, program: &Path, hosts: usize, apart: &[(usize, usize)]) -> Self {
        let mut mesh = Self::build(name, program, hosts);
        for node in &mesh.nodes {
            node.link.insert_shaper().unwrap();
        }
        for &(a, b) in apart {
            mesh.nodes[a].link.cut_off(&mesh.nodes[b].link).unwrap();
        }
        let meets = |a, b| !apart.contains(&(a, b)) && !apart.contains(&(b, a));
        for at in 0..hosts {
            let by = (0..at).find(|&by| meets(at, by)).unwrap_or(0);
            if by > 0 {
                // It asks the creator for an address, and must know the way.
                mesh.await_view(by, 0, PATIENCE, |view| {
                    view["state"] != "down" && !view.is_null()
                });
            }
            mesh.start_by(at, by);
        }
        for at in 0..hosts {
            mesh.attach(at);
        }
        mesh.converse();
        mesh
    }

    /// Makes a mesh in which every container reaches every other.
    pub fn up(name: &str, program: &Path, hosts: usize) -> Self {
        let mut mesh = Self::build(name, program, hosts);
        for at in 0..hosts {
            mesh.start(at);
        }
        for at in 0..hosts {
            mesh.attach(at);
        }
        mesh.settle();
        mesh
    }

    /// Starts a router: the first begins the mesh, each other joins the first. Returns once it is a member.
    pub fn start(&mut self, at: usize) {
        self.start_by(at, 0);
    }

    /// Starts a router that joins the one of another host.
    pub fn start_by(&mut self, at: usize, by: usize) {
        self.start_with(at, by, &[]);
    }

    /// The same with more flags.
    pub fn start_with(&mut self, at: usize, by: usize, flags: &[&str]) {
        let introducer = self.nodes[by].link.name().to_string();
        let name = format!("n{at}");
        let mut args = match at {
            0 => vec!["up", "--name", &name],
            _ => vec!["join", &introducer, "--token", &self.token, "--name", &name],
        };
        args.extend(flags);
        let weft = self.nodes[at].weft.take().unwrap();
        let daemon = Daemon::start(weft, &args).unwrap();
        self.nodes[at].daemon = Some(daemon);
        self.await_status(at, |status| !status["mesh"].is_null());
        if at == 0 {
            self.token = self.nodes[0].say(&["token", "create", "--reusable"]);
        }
    }

    /// Puts a host's container on the mesh.
    pub fn attach(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let status = node.status().unwrap();
        let host: IpNet = status["node"]["addresses"]
            .as_array()
            .unwrap()
            .iter()
            .find_map(|net| net.as_str()?.parse().ok().filter(is_v4))
            .unwrap();
        let IpNet::V4(range) = host.trunc() else {
            unreachable!("an IPv4 range was looked for");
        };
        // Clear of the addresses that hosts are given.
        let address = u32::from(range.network()) + (200 << 8) + u32::try_from(at).unwrap() + 1;
        let net = IpNet::new(Ipv4Addr::from(address).into(), host.prefix_len()).unwrap();
        node.say(&[
            "attach",
            "--address",
            &net.to_string(),
            node.container.full_name(),
        ]);
        node.inside = Some(net);
    }

    /// Waits until every router says that it is connected to every other, and every container is answered by all others.
    pub fn settle(&self) {
        let others = self.running().count() - 1;
        for at in self.running() {
            self.await_status(at, |status| status["mesh"]["connected"] == others);
        }
        self.converse();
    }

    /// Waits until every container is answered by all others.
    pub fn converse(&self) {
        self.converse_within(Duration::from_millis(200));
    }

    /// Waits until every container is answered by all others, each time within so long.
    pub fn converse_within(&self, round_trip: Duration) {
        for from in self.running() {
            for to in self.running().filter(|&to| to != from) {
                assert!(
                    wait_until(PATIENCE, || self.pings_within(from, to, round_trip)).is_some(),
                    "c{from} does not reach c{to}:\n{}\n{}",
                    self.nodes[from].output(),
                    self.nodes[to].output()
                );
            }
        }
    }

    /// Sends 100 kB between every two containers, over one connection each way, and compares each byte.
    pub fn exchange_everything(&self) {
        for from in self.running() {
            for to in self.running().filter(|&to| to != from) {
                let inside = |at: usize| self.nodes[at].container.netns();
                tcp_transfer(inside(from), inside(to), self.socket(to), 100_000)
                    .unwrap_or_else(|error| panic!("from c{from} to c{to}: {error}"));
            }
        }
    }

    /// Sends one echo request from one container to another.
    pub fn pings(&self, from: usize, to: usize) -> bool {
        self.pings_within(from, to, Duration::from_millis(200))
    }

    fn pings_within(&self, from: usize, to: usize, timeout: Duration) -> bool {
        let test = PingTest {
            timeout,
            ..PingTest::default()
        };
        let report = ping(self.nodes[from].container.netns(), self.address(to), test);
        report.unwrap().answered() == 1
    }

    /// Waits until a router reports what is wanted, and returns the report.
    pub fn await_status(&self, at: usize, wanted: impl Fn(&Value) -> bool) -> Value {
        let node = &self.nodes[at];
        let mut last = None;
        let found = wait_for(PATIENCE, || {
            last = node.status();
            last.clone().filter(&wanted)
        });
        let Some((_, status)) = found else {
            panic!("n{at} came to {last:?}\n{}", node.output());
        };
        status
    }

    /// Returns a node.
    pub fn node(&self, at: usize) -> &Node {
        &self.nodes[at]
    }

    /// Returns a router's guard.
    pub fn daemon(&mut self, at: usize) -> &mut Daemon {
        self.nodes[at].daemon.as_mut().unwrap()
    }

    /// Returns the address of a container on the mesh.
    pub fn address(&self, at: usize) -> IpAddr {
        self.nodes[at].inside.unwrap().addr()
    }

    /// Returns a container's network on the mesh.
    pub fn network(&self, at: usize) -> IpNet {
        self.nodes[at].inside.unwrap()
    }

    /// Returns the hardware address of a container.
    pub fn mac(&self, at: usize) -> MacAddr {
        self.nodes[at].container.mac(DEVICE).unwrap().unwrap()
    }

    /// Returns a container's place for a server; the kernel picks the port.
    pub fn socket(&self, at: usize) -> SocketAddr {
        SocketAddr::new(self.address(at), 0)
    }

    /// Returns the reusable token of the mesh.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Returns where hosts come from.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Returns the identity of a node.
    pub fn id(&self, at: usize) -> String {
        let status = self.nodes[at].status().unwrap();
        status["node"]["id"].as_str().unwrap().to_owned()
    }

    /// Returns what a router says of another one.
    pub fn view(&self, at: usize, of: usize) -> Value {
        let status = self.nodes[at].status().unwrap();
        let nickname = format!("n{of}");
        let peers = status["peers"].as_array().unwrap();
        let found = peers.iter().find(|peer| peer["nickname"] == nickname);
        found.cloned().unwrap_or(Value::Null)
    }

    /// Returns how often a router has chosen another path to a peer, as its status tells.
    pub fn switches(&self, at: usize, of: usize) -> Vec<Value> {
        let status = self.nodes[at].status().unwrap();
        let nickname = format!("n{of}");
        let connections = status["connections"].as_array().unwrap();
        let found = connections.iter().find(|one| one["nickname"] == nickname);
        let switches = found.and_then(|one| one["switches"].as_array());
        switches.cloned().unwrap_or_default()
    }

    /// Waits until a router says of another one what is wanted. Returns what it says, and how long that took.
    #[track_caller]
    pub fn await_view(
        &self,
        at: usize,
        of: usize,
        patience: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> (Duration, Value) {
        let mut last = Value::Null;
        let found = wait_for(patience, || {
            last = self.view(at, of);
            wanted(&last).then(|| last.clone())
        });
        found.unwrap_or_else(|| {
            panic!(
                "after {patience:?} n{at} says of n{of}: {last}\n{}",
                self.nodes[at].output()
            )
        })
    }

    /// Returns the switch beneath.
    pub fn underlay(&self) -> &Underlay {
        &self.underlay
    }

    /// Makes a host that is on the underlay and not in the mesh.
    pub fn stranger(&self, name: &str) -> (Host, Link) {
        let host = self.lab.host(name).unwrap();
        let link = self.underlay.join(&host).unwrap();
        (host, link)
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|&at| self.nodes[at].daemon.is_some())
    }
}

impl Node {
    /// Asks the router how things stand; none while it does not answer.
    pub fn status(&self) -> Option<Value> {
        let output = self.program().run(&["status", "-o", "json"]).unwrap();
        // A mesh that lacks something is told by the exit code too.
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Returns what the router says of a peer's state.
    pub fn peer_state(&self, nickname: &str) -> Option<String> {
        let status = self.status()?;
        let peers = status["peers"].as_array()?;
        let peer = peers.iter().find(|peer| peer["nickname"] == nickname)?;
        Some(peer["state"].as_str()?.to_owned())
    }

    /// Returns how many datagrams the router refused: what was replayed, and what nobody sealed.
    pub fn refused(&self) -> (u64, u64) {
        let status = self.status().unwrap();
        let count = |name: &str| status["wire"][name].as_u64().unwrap();
        (count("replay_drops"), count("auth_drops"))
    }

    /// Runs a command that must succeed and returns what it printed.
    pub fn say(&self, args: &[&str]) -> String {
        let output = self.program().run(args).unwrap();
        assert!(
            output.status.success(),
            "weft {args:?}: {}\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.output()
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Returns the program on this host.
    pub fn program(&self) -> &Weft {
        self.daemon
            .as_ref()
            .map(Daemon::weft)
            .or(self.weft.as_ref())
            .unwrap()
    }

    /// Returns everything the router printed.
    pub fn output(&self) -> String {
        let log = self.program().state_dir().join("weft.log");
        let printed = self.daemon.as_ref().map(Daemon::output).unwrap_or_default();
        printed + &fs::read_to_string(log).unwrap_or_default()
    }
}

fn is_v4(net: &IpNet) -> bool {
    net.addr().is_ipv4()
}
