//! Opens one connection, or says why it cannot be opened.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use weft_router_proto::io::{ConnId, ConnectError};

use super::event::TcpEvent;
use super::listen::segment;

/// Two lost SYNs are made up for (RFC 6298: 1 s, then 2 s later), and a person still waits.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn run(conn: ConnId, to: SocketAddr, events: mpsc::Sender<TcpEvent>) {
    let event = match tokio::time::timeout(LIMIT, connect(to)).await {
        Ok(Ok(stream)) => TcpEvent::Connected { conn, stream },
        Ok(Err(error)) => TcpEvent::ConnectFailed {
            conn,
            why: reason(&error),
        },
        Err(_) => TcpEvent::ConnectFailed {
            conn,
            why: ConnectError::TimedOut,
        },
    };
    let _ = events.send(event).await;
}

fn socket(to: SocketAddr) -> io::Result<TcpSocket> {
    match to {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
}

async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(to)?;
    SockRef::from(&socket).set_tcp_mss(segment(to))?;
    socket.connect(to).await
}

/// Reads what the system says. What is neither an answer nor silence lies in our own network settings.
fn reason(error: &io::Error) -> ConnectError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the system's open list: every other word means that nothing could be sent"
    )]
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => ConnectError::Refused,
        io::ErrorKind::TimedOut => ConnectError::TimedOut,
        _ => ConnectError::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_s_words_become_ours() {
        let why = |number| reason(&io::Error::from_raw_os_error(number));

        assert_eq!(why(111), ConnectError::Refused); // ECONNREFUSED
        assert_eq!(why(110), ConnectError::TimedOut); // ETIMEDOUT
        assert_eq!(why(113), ConnectError::Unreachable); // EHOSTUNREACH
        assert_eq!(why(101), ConnectError::Unreachable); // ENETUNREACH
        assert_eq!(why(13), ConnectError::Unreachable); // EACCES
        assert_eq!(why(1), ConnectError::Unreachable); // EPERM
    }
}
