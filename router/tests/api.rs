//! The local API from end to end: a client, both sockets, and a hub that knows its lines.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc, oneshot};
use weft_api::Client;
use weft_api::events::{Event, EventKind};
use weft_api::tokens::TokenRequest;
use weft_router::api::server::{Server, ServerConfig};
use weft_router::api::{ApiRequest, Carried, HubEnds, QUEUE, Report, Traffic, stamped};
use weft_router::worker::PeerTraffic;
use weft_router_proto::io::{Command, Hop, Pong, Reply, TokenText};
use weft_router_proto::session::Cipher;
use weft_router_proto::status::{
    MeshStatus, NodeStatus, PathKind, PeerState, PeerStatus, RouterStatus, SwitchKind,
    SwitchStatus, Switching, TokenStatus, TransitStatus,
};
use weft_types::{Code, MeshId, Mtu, Nickname, NodeId, Problem, TokenId, WireCounters};

#[tokio::test]
async fn a_status_holds_what_core_and_workers_know() {
    let api = Api::start().await;

    let status = api.client().status().await.unwrap();

    assert_eq!(status.version, "0.0.0-test");
    let mesh = status.mesh.as_ref().unwrap();
    assert_eq!((mesh.members, mesh.connected, mesh.mtu), (3, 1, 1350));
    assert_eq!(status.wire.cipher, "chacha20-poly1305");
    assert_eq!(status.wire.counters.replay_drops, 3);
    assert_eq!(status.wire.counters.bad_payloads, 6);
    let peer = &status.peers[1];
    assert_eq!((peer.tx_bytes, peer.rx_bytes), (70, 80));
    assert_eq!(peer.rx_forged, 5);
    assert_eq!(peer.rtt_ms, Some(0.8));
    assert_eq!(peer.mtu, Some(1500));
}

#[tokio::test]
async fn a_connection_tells_its_own_switches_and_when_they_were() {
    let api = Api::start().await;

    let status = api.client().status().await.unwrap();

    // Each has its own, whether there is a link to it or not.
    let names: Vec<_> = status
        .connections
        .iter()
        .map(|one| one.nickname.as_str())
        .collect();
    assert_eq!(names, ["athens", "berlin", "bern"]);
    assert_eq!(status.connections[0].path, None);
    assert!(status.connections[1].switches.is_empty());
    let relayed = &status.connections[2];
    assert_eq!(relayed.state, PeerState::Indirect);
    assert_eq!(relayed.path, Some(PathKind::Relay));
    assert_eq!(relayed.via, Some(node(2)));
    let switch = &relayed.switches[0];
    assert_eq!(switch.time, "2026-01-01T00:00:00.123Z");
    assert_eq!(switch.via, Some(node(2)));
}

#[tokio::test]
async fn a_node_is_pinged_by_nickname_address_or_beginning() {
    let api = Api::start().await;

    for name in ["berlin", "10.32.0.2", "0202"] {
        let answer = api.client().ping(name).await.unwrap();
        assert_eq!(answer.node, node(2), "{name}");
        assert_eq!(answer.bytes, 1364);
    }
    let ambiguous = api.client().ping("be").await.unwrap_err();
    let unknown = api.client().ping("paris").await.unwrap_err();
    let itself = api.client().ping("amsterdam").await.unwrap_err();

    assert_eq!(ambiguous.code, Code::AmbiguousNode);
    assert_eq!(unknown.code, Code::UnknownNode);
    assert!(itself.why.contains("this node itself"));
}

#[tokio::test]
async fn a_ping_says_by_what_way_it_went() {
    let api = Api::start().await;

    let straight = api.client().ping("berlin").await.unwrap();
    let relayed = api.client().ping("bern").await.unwrap();

    assert_eq!((straight.hops, straight.relays), (Some(1), vec![]));
    assert_eq!((straight.loss, straight.mtu), (0.25, Some(1444)));
    assert_eq!((straight.lost, relayed.lost), (2, 2));
    assert_eq!((relayed.hops, relayed.via), (Some(3), Some(node(2))));
    let relays = relayed.relays.iter();
    let relays: Vec<_> = relays.map(|relay| relay.nickname.as_str()).collect();
    assert_eq!(relays, ["berlin", node(9).short().as_str()]);
}

#[tokio::test]
async fn only_what_can_be_a_host_is_dialled() {
    let api = Api::start().await;
    let connect = async |target: &str| api.client().connect(vec![target.to_owned()]).await;

    assert!(connect("a.example:7000").await.is_ok());
    for target in ["a b", "", "192.0.2.256", "a:0"] {
        let problem = connect(target).await.unwrap_err();
        assert_eq!(problem.code, Code::Usage, "{target:?}");
    }
}

#[tokio::test]
async fn a_refusal_of_the_core_arrives_word_for_word() {
    let api = Api::start().await;

    let problem = api
        .client()
        .forget(vec!["nowhere".to_owned()])
        .await
        .unwrap_err();

    assert_eq!(problem, refusal());
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked() {
    let api = Api::start().await;
    let request = TokenRequest {
        reusable: false,
        ttl_seconds: 900,
    };

    let made = api.client().create_token(&request).await.unwrap();
    let listed = api.client().tokens().await.unwrap();
    let revoked = api.client().revoke_token("0707").await;
    let unknown = api.client().revoke_token("99").await.unwrap_err();

    assert_eq!(made.token, "wft1-secret");
    assert_eq!(listed.len(), 1);
    assert!(revoked.is_ok());
    assert_eq!(unknown.code, Code::Usage);
}

#[tokio::test]
async fn events_come_in_order_and_end_with_the_router() {
    let api = Api::start().await;
    let mut events = api.client().events().await.unwrap();

    for kind in [
        EventKind::SessionUp {
            node: node(2),
            nickname: None,
        },
        EventKind::Stopping { problem: None },
    ] {
        api.events
            .send(stamped(kind, SystemTime::UNIX_EPOCH))
            .unwrap();
    }

    let first = events.next().await.unwrap().unwrap();
    assert_eq!(
        first.kind,
        EventKind::SessionUp {
            node: node(2),
            nickname: None,
        }
    );
    assert_eq!(first.time, "1970-01-01T00:00:00.000Z");
    let last = events.next().await.unwrap().unwrap();
    assert_eq!(last.kind, EventKind::Stopping { problem: None });
    assert_eq!(events.next().await.unwrap(), None);
}

#[tokio::test]
async fn who_comes_late_sees_the_last_events() {
    let api = Api::start().await;
    let mut live = api.client().events().await.unwrap();
    for number in 0..80 {
        let kind = EventKind::Missed { events: number };
        api.events
            .send(stamped(kind, SystemTime::UNIX_EPOCH))
            .unwrap();
        live.next().await.unwrap(); // gives the keeper its turn
    }

    let recent = api.client().recent_events().await.unwrap();

    assert_eq!(recent.len(), 64);
    assert_eq!(
        recent.last().unwrap().kind,
        EventKind::Missed { events: 79 }
    );
}

#[tokio::test]
async fn the_router_is_known_by_its_process() {
    let api = Api::start().await;

    let process = api.client().process().await.unwrap();

    assert_eq!(process, Some(std::process::id()));
}

#[tokio::test]
async fn without_a_router_the_cure_is_named() {
    let directory = tempfile::tempdir().unwrap();

    let problem = Client::new(directory.path().join("none.sock"))
        .status()
        .await
        .unwrap_err();

    assert_eq!(problem.code, Code::DaemonNotRunning);
    assert!(problem.fix.contains("sudo weft up"));
}

#[tokio::test]
async fn a_router_that_hangs_is_told_from_one_that_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weft.sock");
    let _deaf = tokio::net::UnixListener::bind(&path).unwrap();

    let problem = Client::new(&path)
        .timeout(Duration::from_millis(20))
        .status()
        .await
        .unwrap_err();

    assert_eq!(problem.code, Code::DaemonNotRunning);
    assert!(problem.what.contains("does not answer"));
}

#[tokio::test]
async fn the_tcp_side_reads_and_never_writes() {
    let api = Api::start().await;

    let status = api.http("GET /status HTTP/1.1\r\nHost: localhost").await;
    let metrics = api
        .http("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:6782")
        .await;
    let open = api
        .http("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text")
        .await;
    let health = api.http("GET /healthz HTTP/1.1\r\nHost: localhost").await;
    let foreign = api.http("GET /status HTTP/1.1\r\nHost: evil.example").await;
    let nameless = api.http("GET /status HTTP/1.0").await;
    let steering = api
        .http("POST /v1/shutdown HTTP/1.1\r\nHost: localhost")
        .await;
    let post = api.http("POST /status HTTP/1.1\r\nHost: localhost").await;

    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    assert!(!status.to_lowercase().contains("access-control"));
    assert!(
        metrics.contains("weft_tx_bytes_total{peer=\"berlin\"} 70"),
        "{metrics}"
    );
    for line in [
        "weft_path_switches_total{from=\"sleeve\",to=\"relay\",reason=\"silent\"} 4",
        "weft_peers{path=\"sleeve\"} 1",
        "weft_peers{path=\"relay\"} 1",
        "weft_peers{path=\"control\"} 0",
        "weft_peers{path=\"none\"} 1",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert!(
        metrics.contains("weft_relayed_bytes_total{from=\"berlin\",to=\"bern\"} 6000"),
        "{metrics}"
    );
    assert!(
        metrics.contains("weft_rx_forged_frames_total{peer=\"berlin\"} 5"),
        "{metrics}"
    );
    assert!(metrics.contains("weft_replay_drop_total 3"), "{metrics}");
    assert!(metrics.contains("weft_bad_payloads_total 6"), "{metrics}");
    assert!(
        metrics.contains("weft_peer_up{peer=\"berlin\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("weft_build_info{version=\"0.0.0-test\"} 1"),
        "{metrics}"
    );
    assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
    assert!(open.contains("application/openmetrics-text"), "{open}");
    assert!(open.contains("# EOF"), "{open}");
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    assert!(health.ends_with("ok\n"), "{health}");
    assert!(foreign.starts_with("HTTP/1.1 421"), "{foreign}");
    assert!(nameless.starts_with("HTTP/1.0 421"), "{nameless}");
    assert!(steering.starts_with("HTTP/1.1 404"), "{steering}");
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
}

#[tokio::test]
async fn a_shutdown_is_answered_and_the_socket_goes() {
    let api = Api::start().await;
    let client = api.client();

    client.shutdown().await.unwrap();
    let Api {
        directory, served, ..
    } = api;
    served.await.unwrap();

    assert!(!directory.path().join("weft.sock").exists());
}

/// A served API over a hub of canned answers.
struct Api {
    directory: tempfile::TempDir,
    tcp: SocketAddr,
    events: broadcast::Sender<Event>,
    served: tokio::task::JoinHandle<()>,
}

impl Api {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::bind(ServerConfig {
            socket: directory.path().join("weft.sock"),
            status: Some((Ipv4Addr::LOCALHOST, 0).into()),
            version: "0.0.0-test".to_owned(),
            settings: [("port".to_owned(), "6783".to_owned())].into(),
        })
        .await
        .unwrap();
        let tcp = server.status_address().unwrap();
        let (requests, inbox) = mpsc::channel(QUEUE);
        let (events, _) = broadcast::channel(16);
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(hub(inbox, stop));
        let api = server.api(HubEnds {
            requests,
            events: events.clone(),
        });
        let served = tokio::spawn(server.serve(api, async {
            let _ = stopped.await;
        }));
        Self {
            directory,
            tcp,
            events,
            served,
        }
    }

    fn socket(&self) -> &Path {
        self.directory.path()
    }

    fn client(&self) -> Client {
        Client::new(self.socket().join("weft.sock"))
    }

    async fn http(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(self.tcp).await.unwrap();
        let request = format!("{head}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

async fn hub(mut inbox: mpsc::Receiver<ApiRequest>, stop: oneshot::Sender<()>) {
    while let Some(request) = inbox.recv().await {
        match request {
            ApiRequest::Command { command, waiter } => {
                waiter.reply(canned(command));
            }
            ApiRequest::Shutdown { answer } => {
                let _ = answer.send(());
                let _ = stop.send(());
                return;
            }
            ApiRequest::Status { answer } => {
                let _ = answer.send(report());
            }
        }
    }
}

/// What the core says to a command.
fn canned(command: Command) -> Reply {
    if let Command::Ping { node: to } = command {
        return Reply::Pong(pong(to));
    }
    if let Command::Trace { node: to } = command {
        return Reply::Trace(way(to));
    }
    if let Command::TokenCreate { .. } = command {
        return Reply::Token(TokenText::new("wft1-secret".to_owned()));
    }
    if let Command::Forget { .. } = command {
        return Reply::Failed(refusal());
    }
    Reply::Done
}

/// Bern is reached over Berlin, and from there over somebody whom nobody here knows.
fn way(to: NodeId) -> Vec<Hop> {
    let stops = [node(1), node(2), node(9), to];
    let hop = |from, to| Hop {
        from,
        to,
        path: Some(PathKind::Relay),
        rtt: None,
        loss: 0.0,
        mtu: None,
    };
    let pairs = stops.iter().zip(&stops[1..]);
    pairs.map(|(&from, &to)| hop(from, to)).collect()
}

fn pong(to: NodeId) -> Pong {
    let via = (to == node(3)).then_some(node(2));
    Pong {
        rtt: Duration::from_micros(700),
        size: 1364,
        lost: 2,
        path: via.map_or(PathKind::Sleeve, |_| PathKind::Relay),
        via,
        loss: 0.25,
        mtu: Some(1444),
    }
}

fn refusal() -> Problem {
    Problem::new(Code::Usage, "nowhere is no target")
        .why("it was never given")
        .fix("See which there are: weft status targets")
}

fn node(number: u8) -> NodeId {
    NodeId::new([number; 32])
}

/// What the clock showed when a way changed.
fn moment_by_clock() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_600_123)
}

fn report() -> Report {
    let peer = |number: u8, name: &str| PeerStatus {
        id: node(number),
        nickname: Nickname::new(name).unwrap(),
        addresses: vec![format!("10.32.0.{number}/12").parse().unwrap()],
        state: PeerState::Connected,
        path: Some(PathKind::Sleeve),
        via: None,
        mtu: Some(1500),
        switches: Vec::new(),
        endpoint: Some("192.0.2.2:6783".parse().unwrap()),
        rtt: Some(Duration::from_micros(800)),
        loss: 0.0,
        since: Duration::from_secs(60),
        reason: String::new(),
        cipher: Some(Cipher::ChaCha20Poly1305),
    };
    let mut traffic = Traffic::default();
    traffic.peers.insert(
        node(2),
        PeerTraffic {
            tx_bytes: 70,
            rx_bytes: 80,
            rx_forged: 5,
            ..PeerTraffic::default()
        },
    );
    let carried = Carried {
        datagrams: 5,
        bytes: 6000,
    };
    traffic.relayed.insert((node(2), node(3)), carried);
    let silent = Switching {
        from: PathKind::Sleeve,
        to: PathKind::Relay,
        why: SwitchKind::Silent,
    };
    let moment = Instant::now();
    let mut down = peer(4, "athens");
    down.state = PeerState::Down;
    down.path = None;
    let mut relayed = peer(3, "bern");
    relayed.state = PeerState::Indirect;
    relayed.path = Some(PathKind::Relay);
    relayed.via = Some(node(2));
    relayed.switches.push(SwitchStatus {
        at: moment,
        path: PathKind::Relay,
        via: Some(node(2)),
        reason: "192.0.2.3:6783 does not answer".to_owned(),
    });
    Report {
        core: RouterStatus {
            mesh: Some(MeshStatus {
                name: Nickname::new("amber-otter").unwrap(),
                id: MeshId::new([9; 32]),
                encrypted: true,
                members: 3,
                mtu: Mtu::MESH,
                ranges: vec!["10.32.0.0/12".parse().unwrap()],
            }),
            node: NodeStatus {
                id: node(1),
                nickname: Nickname::new("amsterdam").unwrap(),
                addresses: vec!["10.32.0.1/12".parse().unwrap()],
                uptime: Duration::from_secs(5),
                advertised: vec![],
            },
            peers: vec![down, peer(2, "berlin"), relayed],
            targets: vec![],
            containers: vec![],
            tokens: vec![TokenStatus {
                id: TokenId::new([7; 16]),
                reusable: true,
                state: "live",
                expires_in: Some(Duration::from_secs(900)),
                used_by: None,
            }],
            problems: vec![],
            counters: WireCounters {
                bad_payloads: 6,
                replay_drops: 3,
                ..WireCounters::default()
            },
            ciphers: BTreeSet::new(),
            transit: TransitStatus::default(),
            switches: [(silent, 4)].into(),
        },
        traffic,
        times: [(node(3), [(moment, moment_by_clock())].into())].into(),
    }
}

#[test]
fn a_peer_state_is_one_word() {
    assert_eq!(
        serde_json::to_string(&PeerState::Connected).unwrap(),
        "\"connected\""
    );
}
