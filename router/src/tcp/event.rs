//! What the tasks of connections, dials and listeners tell the hub.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use weft_router_proto::io::{ConnId, ConnectError};

/// Something happened on a connection.
pub(crate) enum TcpEvent {
    Accepted {
        stream: TcpStream,
        from: SocketAddr,
    },
    Connected {
        conn: ConnId,
        stream: TcpStream,
    },
    ConnectFailed {
        conn: ConnId,
        why: ConnectError,
    },
    Ended {
        conn: ConnId,
    },
    Received {
        conn: ConnId,
        bytes: Vec<u8>,
        /// Dropped when the bytes have been taken in: then the reader goes on.
        credit: OwnedSemaphorePermit,
    },
    Sent {
        conn: ConnId,
        bytes: usize,
    },
}
