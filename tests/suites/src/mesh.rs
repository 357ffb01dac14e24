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
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;
use weft_lab::traffic::{PingTest, ping};
use weft_lab::{Container, Daemon, Host, Lab, Link, Underlay, Weft, wait_for, wait_until};
use weft_types::MacAddr;

/// How long anything may take that has no bound of its own: builds without optimising run many at a time.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The device that `weft attach` makes in a container.
const DEVICE: &str = "weft0";

/// Hosts on one switch, and the routers that run there.
#[derive(Debug)]
pub struct Mesh {
    nodes: Vec<Node>,
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
        let lab = Lab::new(name);
        let underlay = lab.underlay("net").unwrap();
        let nodes = (0..hosts)
            .map(|at| {
                let host = lab.host(&format!("h{at}")).unwrap();
                Node {
                    daemon: None,
                    weft: Some(Weft::new(program, &host).unwrap()),
                    link: underlay.join(&host).unwrap(),
                    container: lab.container(&format!("c{at}")).unwrap(),
                    host,
                    inside: None,
                }
            })
            .collect();
        Self {
            nodes,
            token: String::new(),
            underlay,
            lab,
        }
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
        let first = self.nodes[0].link.v4().to_string();
        let name = format!("n{at}");
        let args = match at {
            0 => vec!["up", "--name", &name],
            _ => vec!["join", &first, "--token", &self.token, "--name", &name],
        };
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
        for from in self.running() {
            for to in self.running().filter(|&to| to != from) {
                assert!(
                    wait_until(PATIENCE, || self.pings(from, to)).is_some(),
                    "c{from} does not reach c{to}:\n{}\n{}",
                    self.nodes[from].output(),
                    self.nodes[to].output()
                );
            }
        }
    }

    /// Sends one echo request from one container to another.
    pub fn pings(&self, from: usize, to: usize) -> bool {
        let test = PingTest {
            timeout: Duration::from_millis(200),
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
