//! Whole routers without TAP devices, over loopback: they join, resume, notice each other's end, and keep floods out.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use weft_api::events::{Event, EventKind};
use weft_lab::bar::{Bar, hold, rounds};
use weft_router::api::Report;
use weft_router::ask::Ask;
use weft_router::config::Config;
use weft_router::hub::Checks;
use weft_router::{Running, start};
use weft_router_proto::genesis::Genesis;
use weft_router_proto::io::{Target, TokenText};
use weft_router_proto::router::Intent;
use weft_router_proto::status::PeerState;
use weft_router_proto::token::Token;
use weft_types::{Code, Mtu, Nickname, Problem};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Far more than anything here takes: a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

fn config(directory: &Path, name: &str, intent: Intent, targets: &[u16]) -> Config {
    Config {
        nickname: Nickname::new(name).unwrap(),
        intent,
        targets: targets
            .iter()
            .map(|port| Target(format!("127.0.0.1:{port}")))
            .collect(),
        port: 0,
        listen: vec![LOCALHOST],
        advertise: Vec::new(),
        state_dir: directory.join("state"),
        socket: directory.join("weft.sock"),
        status: None,
        release: "0.0.0".into(),
        settings: BTreeMap::new(),
    }
}

/// Starts a router on a host without addresses, but for the one it listens on.
async fn try_start(config: Config, checks: Arc<Checks>) -> Result<Running, Problem> {
    let (_, addresses) = watch::channel(Vec::new());
    start(config, None, checks, addresses).await
}

async fn started(config: Config, checks: Arc<Checks>) -> Running {
    try_start(config, checks).await.unwrap()
}

fn create() -> Intent {
    Intent::Create {
        name: None,
        range: Genesis::DEFAULT_RANGE,
        mtu: Mtu::MESH,
        address: None,
    }
}

fn join(token: &TokenText) -> Intent {
    Intent::Join {
        token: Token::parse(token.reveal()).unwrap(),
        address: None,
    }
}

/// A router and the directory it lives in.
struct Host {
    directory: tempfile::TempDir,
    router: Running,
}

impl Host {
    async fn start(name: &str, intent: Intent, targets: &[u16]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path(), name, intent, targets);
        let router = started(config, Arc::new(|_| Ok(()))).await;
        Self { directory, router }
    }

    async fn creator() -> Self {
        let mut host = Self::start("a", create(), &[]).await;
        host.joined().await;
        host
    }

    async fn joiner(name: &str, creator: &Self) -> Self {
        let token = creator.token().await;
        Self::start(name, join(&token), &[creator.router.port]).await
    }

    async fn joined(&mut self) {
        let joined = self
            .router
            .progress
            .wait_for(|progress| progress.joined.is_some());
        tokio::time::timeout(PATIENCE, joined)
            .await
            .expect("joined in time")
            .unwrap();
    }

    async fn ended(self) -> Result<(), Problem> {
        tokio::time::timeout(PATIENCE, self.router.ended())
            .await
            .expect("ended in time")
    }

    async fn token(&self) -> TokenText {
        let token = Ask::token(false, Duration::from_secs(900));
        self.router.api.ask(token).await.unwrap()
    }

    async fn status(&self) -> Report {
        self.router.api.report().await.unwrap()
    }

    /// Waits until a link to so many members is up.
    async fn connected(&self, peers: usize) {
        let mut events = self.router.api.listen();
        let connected = async {
            loop {
                let status = self.status().await.core;
                let up = |peer: &&_| {
                    let peer: &weft_router_proto::status::PeerStatus = peer;
                    peer.state == PeerState::Connected
                };
                if status.peers.iter().filter(up).count() == peers {
                    return;
                }
                let _ = events.recv().await;
            }
        };
        tokio::time::timeout(PATIENCE, connected)
            .await
            .expect("connected in time");
    }

    /// Waits for an event and tells how long it took.
    async fn event(&self, wanted: impl Fn(&EventKind) -> bool) -> Duration {
        let begun = Instant::now();
        let mut events = self.router.api.listen();
        let found = async {
            while let Ok(Event { kind, .. }) = events.recv().await {
                if wanted(&kind) {
                    return;
                }
            }
            panic!("the router ended");
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .expect("an event in time");
        begun.elapsed()
    }
}

#[tokio::test]
async fn two_routers_join_and_see_each_other() {
    let a = Host::creator().await;
    let mut b = Host::joiner("b", &a).await;

    b.joined().await;
    tokio::join!(a.connected(1), b.connected(1));

    let (of_a, of_b) = (a.status().await.core, b.status().await.core);
    let (mesh_a, mesh_b) = (of_a.mesh.unwrap(), of_b.mesh.unwrap());
    assert_eq!(mesh_a.id, mesh_b.id);
    assert_eq!((mesh_a.members, mesh_b.members), (2, 2));
    assert_eq!(of_a.peers[0].id, b.router.node);
    assert_ne!(of_a.node.addresses, of_b.node.addresses);
    let snapshot = b.router.snapshots.borrow().clone().unwrap();
    assert_eq!(snapshot.peers.len(), 1);
}

#[tokio::test]
async fn a_router_that_ends_is_missed_at_once_and_comes_back_by_itself() {
    let a = Host::creator().await;
    let b = Host::joiner("b", &a).await;
    tokio::join!(a.connected(1), b.connected(1));

    let node = b.router.node;
    let Host {
        directory,
        mut router,
    } = b;
    let mut took = Vec::new();
    for _ in 0..rounds() {
        let down = a.event(|kind| matches!(kind, EventKind::LinkDown { .. }));
        let (noticed, ended) = tokio::join!(down, router.shutdown());
        ended.unwrap();
        took.push(noticed);

        let resumed = config(directory.path(), "b", Intent::Resume, &[]);
        router = started(resumed, Arc::new(|_| Ok(()))).await;
        assert_eq!(router.node, node);
        a.connected(1).await;
    }
    hold(Bar::new("missed", Duration::from_millis(1500)), took);
    router.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_used_token_is_named() {
    let a = Host::creator().await;
    let token = a.token().await;
    let mut b = Host::start("b", join(&token), &[a.router.port]).await;
    b.joined().await;

    let c = Host::start("c", join(&token), &[a.router.port]).await;

    assert_eq!(c.ended().await.unwrap_err().code, Code::TokenUsed);
}

#[tokio::test]
async fn a_machine_that_does_not_fit_the_mesh_spends_no_token() {
    let a = Host::creator().await;
    let token = a.token().await;
    let directory = tempfile::tempdir().unwrap();
    let overlap = || Problem::new(Code::RangeOverlap, "the range overlaps a route");

    let unfit = config(directory.path(), "b", join(&token), &[a.router.port]);
    let router = started(unfit, Arc::new(move |_| Err(overlap()))).await;
    let verdict = tokio::time::timeout(PATIENCE, router.ended())
        .await
        .unwrap();
    assert_eq!(verdict.unwrap_err().code, Code::RangeOverlap);

    let mut b = Host::start("b", join(&token), &[a.router.port]).await;
    b.joined().await;
}

#[tokio::test]
async fn a_closed_port_is_named_while_the_router_goes_on_trying() {
    let a = Host::creator().await;
    let token = a.token().await;
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap();

    let mut b = Host::start("b", join(&token), &[nowhere.port()]).await;
    let failed = b
        .router
        .progress
        .wait_for(|progress| progress.failure.is_some());
    let problem = tokio::time::timeout(PATIENCE, failed)
        .await
        .unwrap()
        .unwrap()
        .failure
        .clone();

    assert_eq!(problem.unwrap().code, Code::ConnectionRefused);
}

#[tokio::test]
async fn one_state_directory_serves_one_router() {
    let a = Host::creator().await;

    let second = config(a.directory.path(), "a", Intent::Resume, &[]);
    let refused = try_start(second, Arc::new(|_| Ok(()))).await.err();

    assert_eq!(refused.unwrap().code, Code::DaemonRunning);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let a = Host::creator().await;
    let directory = tempfile::tempdir().unwrap();

    let mut second = config(directory.path(), "b", create(), &[]);
    second.port = a.router.port;
    let refused = try_start(second, Arc::new(|_| Ok(()))).await.err();

    assert_eq!(refused.unwrap().code, Code::PortInUse);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_connections_keeps_no_joiner_out() {
    let a = Host::creator().await;
    let to = SocketAddr::from((LOCALHOST, a.router.port));
    // From eight other addresses of this host, as fast as they come, each left open and silent.
    let floods: Vec<_> = (2..10)
        .map(|n| {
            tokio::spawn(async move {
                let mut open = std::collections::VecDeque::new();
                loop {
                    let socket = tokio::net::TcpSocket::new_v4().unwrap();
                    socket.bind(SocketAddr::from(([127, 0, 0, n], 0))).unwrap();
                    if let Ok(stream) = socket.connect(to).await {
                        open.push_back(stream);
                    }
                    if open.len() > 50 {
                        open.pop_front();
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        })
        .collect();

    let mut took = Vec::new();
    for number in 0..rounds() {
        let token = a.token().await;
        let begun = Instant::now();
        let name = format!("b{number}");
        let mut b = Host::start(&name, join(&token), &[a.router.port]).await;
        b.joined().await;
        took.push(begun.elapsed());
    }

    let bar = Bar::new("joined beside a flood", Duration::from_secs(1));
    hold(bar, took);
    for flood in floods {
        flood.abort();
    }
}
