use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use weft_router_proto::io::{DataPlane, Pong, Ticket};
use weft_router_proto::status::PathKind;
use weft_router_proto::store::Table;
use weft_types::{Mtu, Nickname, NodeId};

use super::verify::LATE;
use super::*;
use crate::api::Traffic;
use crate::ask::Ask;
use crate::persist::Store;
use crate::tcp;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A core whose answer to each input is a function of the test.
struct Scripted<F> {
    answer: F,
    outputs: VecDeque<Output>,
}

impl<F: FnMut(Input) -> Vec<Output> + Send> Core for Scripted<F> {
    fn handle_input(&mut self, input: Input, _: Instant) {
        let outputs = (self.answer)(input);
        self.outputs.extend(outputs);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn status(&self, _: Instant) -> RouterStatus {
        status::tests::alone()
    }
}

/// Packet workers that write down what they are told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl DataPath for Told {
    fn apply(&mut self, command: DataPlane) {
        self.0.lock().unwrap().push(format!("{command:?}"));
    }

    fn forward_by(&mut self, snapshot: Arc<Snapshot>) {
        let generation = snapshot.generation;
        self.0.lock().unwrap().push(format!("forward {generation}"));
    }

    fn send_link(&mut self, to: SocketAddr, _: Vec<u8>) {
        self.0.lock().unwrap().push(format!("link {to}"));
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }
}

struct Harness {
    directory: tempfile::TempDir,
    told: Told,
    workers: mpsc::Sender<Report>,
    api: mpsc::Sender<ApiRequest>,
    problems: watch::Sender<Vec<Problem>>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    progress: watch::Receiver<Progress>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
    port: u16,
}

impl Harness {
    /// Starts a hub; `first` is what the core says of itself.
    fn start(
        first: Vec<Output>,
        answer: impl FnMut(Input) -> Vec<Output> + Send + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(directory.path()).unwrap();
        let (writer, saved) = Writer::start(store).unwrap();
        let (listeners, port) = tcp::bind(&[Ipv4Addr::LOCALHOST.into()], 0).unwrap();
        let (tcp, tcp_events) = Tcp::start(listeners);
        let told = Told::default();
        let (side, side_inputs) = mpsc::channel(SIDE_QUEUE);
        let (workers, worker_inputs) = mpsc::channel(1024);
        let (api, requests) = mpsc::channel(api::QUEUE);
        let (problems, met) = watch::channel(Vec::new());
        let (snapshot_sender, snapshots) = watch::channel(None);
        let (progress_sender, progress) = watch::channel(Progress::default());
        let (stop, stopped) = oneshot::channel();
        let core = Scripted {
            answer,
            outputs: first.into(),
        };
        let effects = Effects {
            tcp,
            writer,
            data: Box::new(told.clone()),
            checks: Arc::new(|_| Ok(())),
            side,
            events: broadcast::channel(EVENT_QUEUE).0,
            snapshots: snapshot_sender,
            progress: progress_sender,
        };
        let sources = Sources {
            tcp: tcp_events,
            saved,
            workers: worker_inputs,
            side: side_inputs,
            api: requests,
            problems: met,
            stop: stopped,
        };
        let task = tokio::spawn(Hub::new(core, effects).run(sources));
        Self {
            directory,
            told,
            workers,
            api,
            problems,
            snapshots,
            progress,
            stop,
            task,
            port,
        }
    }

    /// Starts a hub with one link, which is being pinged: every ping is told of, and fails by [`Self::fail_ping_after`].
    async fn pinging() -> (Self, mpsc::Receiver<RequestId>) {
        let (sent, mut pings) = mpsc::channel(8);
        let mut under_way = None;
        let harness = Self::start(vec![link_up()], move |input| {
            if let Input::Command { id, .. } = input {
                sent.try_send(id).unwrap();
                under_way = Some(id);
                return Vec::new();
            }
            let reply = Reply::Failed(problem());
            let failed = under_way.take().map(|id| Output::Reply { id, reply });
            failed.into_iter().collect()
        });
        pings.recv().await.unwrap();
        (harness, pings)
    }

    /// Lets the ping under way fail when so much time has passed.
    async fn fail_ping_after(&mut self, pause: Duration) {
        tokio::time::advance(pause).await;
        self.progress.mark_unchanged();
        // Whatever is no command makes it fail.
        let peer = node(1);
        let report = Report::SessionWanted { peer };
        self.workers.send(report).await.unwrap();
        let told = tokio::time::timeout(PATIENCE, self.progress.changed()).await;
        assert!(matches!(told, Ok(Ok(()))), "the ping does not fail");
        assert_eq!(self.progress.borrow().verified, Some(Err(problem())));
    }

    async fn status(&self) -> api::Report {
        let (answer, report) = oneshot::channel();
        self.api.send(ApiRequest::Status { answer }).await.unwrap();
        report.await.unwrap()
    }

    async fn ask<A: Send + 'static>(&self, ask: Ask<A>) -> Result<A, Problem> {
        let (command, waiter, answer) = ask.begin();
        let request = ApiRequest::Command { command, waiter };
        self.api.send(request).await.unwrap();
        answer.await.unwrap()
    }
}

fn node(n: u8) -> NodeId {
    NodeId::new([n; 32])
}

fn nickname() -> Nickname {
    Nickname::new("b").unwrap()
}

fn problem() -> Problem {
    Problem::new(Code::UdpBlocked, "UDP does not pass")
}

fn link_up() -> Output {
    Output::Event(Event::LinkUp {
        node: node(1),
        nickname: nickname(),
        endpoint: "192.0.2.1:6783".parse().unwrap(),
    })
}

fn put(ticket: u64) -> Output {
    Output::Save {
        ticket: Ticket(ticket),
        changes: vec![weft_router_proto::store::Change::Put {
            table: Table::Node,
            key: ticket.to_be_bytes().to_vec(),
            value: Vec::new(),
        }],
    }
}

/// Answers commands with "done", and nothing else with anything.
fn obliging(input: Input) -> Vec<Output> {
    let Input::Command { id, .. } = input else {
        return Vec::new();
    };
    let reply = Reply::Done;
    vec![Output::Reply { id, reply }]
}

#[tokio::test]
async fn what_the_core_saves_is_confirmed_and_on_disk() {
    let (confirmed, mut seen) = mpsc::channel(8);
    let harness = Harness::start(vec![put(1), put(2)], move |input| {
        if let Input::Saved { ticket } = input {
            confirmed.try_send(ticket).unwrap();
        }
        Vec::new()
    });

    assert_eq!(seen.recv().await, Some(Ticket(1)));
    assert_eq!(seen.recv().await, Some(Ticket(2)));
    drop(harness.stop);
    harness.task.await.unwrap();

    let (_, saved) = Store::open(harness.directory.path()).unwrap();
    assert_eq!(saved.table(Table::Node).count(), 2);
    assert_eq!(harness.progress.borrow().ended, Some(Ok(())));
}

#[tokio::test]
async fn a_core_that_halts_saves_first_and_says_why() {
    let harness = Harness::start(vec![put(1), Output::Halt(problem())], obliging);

    harness.task.await.unwrap();

    let (_, saved) = Store::open(harness.directory.path()).unwrap();
    assert_eq!(saved.table(Table::Node).count(), 1);
    assert_eq!(harness.progress.borrow().ended, Some(Err(problem())));
}

#[tokio::test]
async fn the_last_words_reach_the_peer_before_the_hub_ends() {
    use tokio::io::AsyncReadExt;
    let harness = Harness::start(Vec::new(), |input| {
        let Input::Accepted { conn, .. } = input else {
            return Vec::new();
        };
        let bytes = vec![7; 100_000];
        vec![
            Output::Authenticated { conn },
            Output::Send { conn, bytes },
            Output::Halt(problem()),
        ]
    });

    let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, harness.port))
        .await
        .unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    drop(stream);

    assert_eq!(heard.len(), 100_000);
    harness.task.await.unwrap();
}

#[tokio::test]
async fn the_first_link_is_tried_with_a_full_size_frame() {
    let mut harness = Harness::start(vec![link_up(), link_up()], |input| {
        let Input::Command { id, command } = input else {
            return Vec::new();
        };
        assert_eq!(command, Command::Ping { node: node(1) });
        let rtt = Duration::from_millis(3);
        let reply = pong(rtt);
        vec![Output::Reply { id, reply }]
    });

    let progress = harness
        .progress
        .wait_for(|progress| progress.verified.is_some())
        .await
        .unwrap()
        .clone();

    let verified = progress.verified.unwrap().unwrap();
    assert_eq!((verified.node, verified.pong.size), (node(1), 1364));
}

#[tokio::test]
async fn a_link_that_fails_the_ping_is_followed_by_another_try() {
    let mut pings = 0;
    let mut harness = Harness::start(vec![link_up()], move |input| {
        let Input::Command { id, .. } = input else {
            return Vec::new();
        };
        pings += 1;
        let (reply, next) = if pings == 1 {
            (Reply::Failed(problem()), Some(link_up()))
        } else {
            let rtt = Duration::ZERO;
            (pong(rtt), None)
        };
        [Some(Output::Reply { id, reply }), next]
            .into_iter()
            .flatten()
            .collect()
    });

    let verified = harness
        .progress
        .wait_for(|progress| matches!(progress.verified, Some(Ok(_))))
        .await;

    assert!(verified.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_is_lost_is_sent_again_without_another_link() {
    let (mut harness, mut pings) = Harness::pinging().await;

    for _ in 0..3 {
        harness.fail_ping_after(LATE).await;

        let again = tokio::time::timeout(PATIENCE, pings.recv()).await;
        assert!(again.is_ok(), "the ping is not sent again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_has_nowhere_to_go_waits_for_another_link() {
    let (mut harness, mut pings) = Harness::pinging().await;

    harness
        .fail_ping_after(LATE - Duration::from_millis(1))
        .await;

    let again = tokio::time::timeout(PATIENCE, pings.recv()).await;
    assert!(again.is_err(), "the ping is sent again");
}

#[tokio::test]
async fn every_command_gets_its_own_answer() {
    let mut held = Vec::new();
    let harness = Harness::start(Vec::new(), move |input| {
        if let Input::Command { id, command } = input {
            held.push((id, command));
        }
        if held.len() < 2 {
            return Vec::new();
        }
        // The last first.
        let answers = held.drain(..).rev().map(|(id, command)| {
            let reply = if command == Command::Leave {
                Reply::Done
            } else {
                Reply::Failed(problem())
            };
            Output::Reply { id, reply }
        });
        answers.collect()
    });

    let (left, pinged) = tokio::join!(
        harness.ask(Ask::order(Command::Leave)),
        harness.ask(Ask::ping(node(1))),
    );

    assert_eq!(left, Ok(()));
    assert_eq!(pinged, Err(problem()));
}

#[tokio::test]
async fn status_waits_for_a_handful_of_turns_however_busy_the_mesh_is() {
    let turns = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&turns);
    let harness = Harness::start(Vec::new(), move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Vec::new()
    });
    let flood = harness.workers.clone();
    let flooding = tokio::spawn(async move {
        let peer = node(1);
        while flood.send(Report::SessionWanted { peer }).await.is_ok() {}
    });

    let mut most = 0;
    for _ in 0..50 {
        let (answer, report) = oneshot::channel();
        harness
            .api
            .send(ApiRequest::Status { answer })
            .await
            .unwrap();
        let before = turns.load(Ordering::Relaxed);
        report.await.unwrap();
        most = most.max(turns.load(Ordering::Relaxed) - before);
    }

    // The queue alone holds a thousand: whoever waited for all of them would wait longer than this. A turn of this
    // runtime is up to 128 inputs (tokio's budget), of which a few go by before the answer's reader is scheduled.
    assert!(most < 512, "{most} turns");
    flooding.abort();
}

#[tokio::test]
async fn a_snapshot_reaches_workers_and_planner() {
    let snapshot = Snapshot {
        generation: 5,
        node: node(0),
        mtu: Mtu::MESH,
        ranges: Vec::new(),
        host_addresses: Vec::new(),
        peers: Vec::new(),
        endpoints: weft_router_proto::snapshot::Endpoints::default(),
    };
    let to = "192.0.2.1:6783".parse().unwrap();
    let bytes = vec![1];
    let mut harness = Harness::start(
        vec![
            Output::SendDatagram { to, bytes },
            Output::Snapshot(Arc::new(snapshot)),
        ],
        obliging,
    );

    harness
        .progress
        .wait_for(|progress| progress.ready)
        .await
        .unwrap();

    let generation = harness.snapshots.borrow().as_ref().unwrap().generation;
    assert_eq!(generation, 5);
    let told = harness.told.0.lock().unwrap().clone();
    assert_eq!(told, ["link 192.0.2.1:6783", "forward 5"]);
}

#[tokio::test]
async fn what_others_on_this_host_met_is_part_of_the_status() {
    let harness = Harness::start(Vec::new(), obliging);

    harness.problems.send_replace(vec![problem()]);

    assert_eq!(harness.status().await.core.problems, [problem()]);
}

#[tokio::test]
async fn look_ups_checks_and_dials_come_back_as_inputs() {
    let conn = ConnId {
        dialled: true,
        number: 1,
    };
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap();
    let (came, mut inputs) = mpsc::channel(8);
    let target = Target("192.0.2.9".into());
    let _harness = Harness::start(
        vec![
            Output::Resolve { target },
            Output::Connect { conn, to: nowhere },
        ],
        move |input| {
            came.try_send(format!("{input:?}")).unwrap();
            Vec::new()
        },
    );

    let mut all = [inputs.recv().await.unwrap(), inputs.recv().await.unwrap()];
    all.sort();

    assert!(all[0].starts_with("ConnectFailed"), "{all:?}");
    assert!(all[1].contains("192.0.2.9:6783"), "{all:?}");
}

fn pong(rtt: Duration) -> Reply {
    Reply::Pong(Pong {
        rtt,
        size: 1364,
        lost: 0,
        path: PathKind::Sleeve,
        via: None,
        loss: 0.0,
        mtu: None,
    })
}
