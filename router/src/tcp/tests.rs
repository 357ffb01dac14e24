use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use weft_router_proto::io::ConnectError;

use super::*;

struct Harness {
    tcp: Tcp,
    events: mpsc::Receiver<TcpEvent>,
    to: SocketAddr,
}

impl Harness {
    fn start() -> Self {
        let (listeners, port) = bind(&[Ipv4Addr::LOCALHOST.into()], 0).unwrap();
        let (tcp, events) = Tcp::start(listeners);
        Self {
            tcp,
            events,
            to: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        }
    }

    /// Takes in events until one brings inputs.
    async fn next(&mut self) -> Vec<Input> {
        loop {
            let event = self.events.recv().await.unwrap();
            let inputs = self.tcp.absorb(event);
            if !inputs.is_empty() {
                return inputs;
            }
        }
    }

    async fn accept(&mut self) -> (ConnId, TcpStream) {
        let stream = TcpStream::connect(self.to).await.unwrap();
        let [Input::Accepted { conn, .. }] = self.next().await[..] else {
            panic!("nobody was accepted");
        };
        (conn, stream)
    }
}

const fn dialled(number: u64) -> ConnId {
    ConnId {
        dialled: true,
        number,
    }
}

#[tokio::test]
async fn bytes_arrive_and_are_reported_sent() {
    let mut here = Harness::start();
    let (conn, mut there) = here.accept().await;

    there.write_all(b"ping").await.unwrap();
    assert!(matches!(&here.next().await[..], [Input::Received { bytes, .. }] if bytes == b"ping"));
    assert!(here.tcp.send(conn, b"pong".to_vec()).is_none());

    let mut answer = [0; 4];
    there.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"pong");
    assert!(matches!(
        here.next().await[..],
        [Input::Sent { bytes: 4, .. }]
    ));
    drop(there);
    assert!(matches!(here.next().await[..], [Input::Closed { .. }]));
}

#[tokio::test]
async fn the_last_words_arrive_before_the_end() {
    let mut here = Harness::start();
    let (conn, mut there) = here.accept().await;
    there.write_all(&[7; 1000]).await.unwrap(); // unread at this end: would be a reset

    here.tcp.send(conn, vec![1; 300_000]);
    assert!(here.tcp.close(conn).is_none());
    let mut all = Vec::new();
    let reading = async {
        there.read_to_end(&mut all).await.unwrap();
        drop(there);
    };
    let (inputs, ()) = tokio::join!(here.next(), reading);

    assert_eq!(all.len(), 300_000);
    assert!(matches!(inputs[..], [Input::Closed { .. }]));
}

#[tokio::test]
async fn a_silent_close_says_nothing_and_is_over_at_once() {
    let mut here = Harness::start();
    let (conn, mut there) = here.accept().await;

    assert!(matches!(here.tcp.close(conn), Some(Input::Closed { .. })));

    let mut all = Vec::new();
    assert_eq!(there.read_to_end(&mut all).await.unwrap(), 0);
    assert_eq!(here.tcp.strangers.len(), 0);
}

#[tokio::test]
async fn a_ninth_connection_pushes_out_the_first_of_its_source() {
    let mut here = Harness::start();
    let mut streams = Vec::new();
    for _ in 0..strangers::PER_SOURCE {
        streams.push(here.accept().await);
    }

    let _ninth = TcpStream::connect(here.to).await.unwrap();
    let inputs = here.next().await;

    let (first, stream) = &mut streams[0];
    assert!(
        matches!(inputs[..], [Input::Closed { conn }, Input::Accepted { .. }] if conn == *first)
    );
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(here.tcp.counters().evicted, 1);
}

#[tokio::test]
async fn a_flood_does_not_keep_a_member_out() {
    let mut here = Harness::start();
    let (member, mut there) = {
        // Another source: all of 127/8 is ours.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
        let stream = socket.connect(here.to).await.unwrap();
        let [Input::Accepted { conn, .. }] = here.next().await[..] else {
            panic!("nobody was accepted");
        };
        (conn, stream)
    };

    let to = here.to;
    let flood = tokio::spawn(async move {
        let mut open = std::collections::VecDeque::new();
        for _ in 0..2000 {
            open.push_back(TcpStream::connect(to).await.unwrap());
            if open.len() > 100 {
                open.pop_front();
            }
        }
    });
    for _ in 0..1000 {
        for input in here.next().await {
            assert!(!matches!(input, Input::Closed { conn } if conn == member));
        }
        assert!(here.tcp.connections.len() <= strangers::PER_SOURCE + 1);
    }
    there.write_all(b"still here").await.unwrap();
    let heard = loop {
        let inputs = here.next().await;
        if inputs
            .iter()
            .any(|input| matches!(input, Input::Received { conn, .. } if *conn == member))
        {
            break true;
        }
    };

    assert!(heard);
    flood.abort();
}

#[tokio::test]
async fn a_peer_that_reads_nothing_is_let_go_of() {
    let mut here = Harness::start();
    let (conn, _there) = here.accept().await;

    let ended = (0..40).find_map(|_| here.tcp.send(conn, vec![0; 1 << 20]));

    assert!(matches!(ended, Some(Input::Closed { .. })));
    assert_eq!(here.tcp.counters().overflowed, 1);
}

#[tokio::test]
async fn a_busy_hub_slows_its_peers_down() {
    let mut here = Harness::start();
    let (conn, mut there) = here.accept().await;
    here.tcp.trust(conn);

    let sending = tokio::spawn(async move {
        let _ = there.write_all(&vec![0; 64 << 20]).await;
    });
    // The event is held, and its credit with it: no second one follows.
    let held = here.events.recv().await;
    let second = tokio::time::timeout(Duration::from_millis(50), here.events.recv()).await;

    assert!(matches!(held, Some(TcpEvent::Received { ref bytes, .. }) if bytes.len() <= 64 << 10));
    assert!(second.is_err());
    sending.abort();
}

#[tokio::test]
async fn a_dial_succeeds_or_says_why() {
    let mut here = Harness::start();
    here.tcp.connect(dialled(1), here.to);
    let mut inputs = here.next().await;
    inputs.extend(here.next().await);
    assert!(
        inputs
            .iter()
            .any(|input| matches!(input, Input::Connected { conn } if *conn == dialled(1)))
    );
    assert!(
        inputs
            .iter()
            .any(|input| matches!(input, Input::Accepted { .. }))
    );

    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap();
    here.tcp.connect(dialled(2), closed);
    let refused = here.next().await;
    assert!(matches!(
        refused[..],
        [Input::ConnectFailed {
            why: ConnectError::Refused,
            ..
        }]
    ));

    here.tcp.connect(dialled(3), "240.0.0.1:1".parse().unwrap());
    assert!(matches!(
        here.tcp.close(dialled(3)),
        Some(Input::Closed { .. })
    ));
}
