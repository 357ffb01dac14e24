//! One connection: a task that reads and writes until either ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tracing::debug;
use weft_router_proto::io::ConnId;

use super::event::TcpEvent;

/// A connection that owes more than this is closed: four of the largest messages.
pub(super) const UNSENT_MAX: usize = 4 << 20;
/// How much is read at once from a peer.
const CHUNK: usize = 64 << 10;
/// How much is read at once from a stranger: a first handshake message fits, and 256 strangers make half a MiB.
const STRANGER_CHUNK: usize = 2 << 10;
/// How much is written before it is reported.
const REPORT: usize = 64 << 10;
/// Bytes that nobody acknowledges for so long end the connection (RFC 5482), whatever the retransmission timer says.
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a closed connection waits for the other end to take the last bytes.
const LINGER: Duration = Duration::from_secs(1);
/// How long a closed connection has for writing what is queued.
const FLUSH: Duration = Duration::from_secs(5);

/// The hub's end of a connection. Dropping it ends the connection at once.
pub(super) struct Connection {
    /// `None` once it is closing.
    outbox: Option<mpsc::UnboundedSender<Vec<u8>>>,
    shared: Arc<Shared>,
    wrote: bool,
    task: AbortHandle,
}

#[derive(Default)]
struct Shared {
    /// Queued and not yet with the kernel.
    unsent: AtomicUsize,
    trusted: AtomicBool,
}

impl Shared {
    /// How much is read at once.
    fn chunk(&self) -> usize {
        if self.trusted.load(Ordering::Relaxed) {
            CHUNK
        } else {
            STRANGER_CHUNK
        }
    }
}

impl Connection {
    pub(super) fn start(
        conn: ConnId,
        stream: TcpStream,
        events: mpsc::Sender<TcpEvent>,
        trusted: bool,
    ) -> Self {
        prepare(&stream);
        // Unbounded in messages, bounded in bytes by `send`, the only place that adds to it.
        let (outbox, queue) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::default());
        shared.trusted.store(trusted, Ordering::Relaxed);
        let task = tokio::spawn(run(conn, stream, queue, events, Arc::clone(&shared)));
        Self {
            outbox: Some(outbox),
            shared,
            wrote: false,
            task: task.abort_handle(),
        }
    }

    /// Whether it has not been closed from this end.
    pub(super) fn is_open(&self) -> bool {
        self.outbox.is_some()
    }

    pub(super) fn trust(&self) {
        self.shared.trusted.store(true, Ordering::Relaxed);
    }

    /// Queues bytes; `false` if that is more than a connection may owe.
    pub(super) fn send(&mut self, bytes: Vec<u8>) -> bool {
        let Some(outbox) = &self.outbox else {
            return true; // closing: nothing may follow the last words
        };
        self.wrote = true;
        let unsent = self.shared.unsent.fetch_add(bytes.len(), Ordering::Relaxed);
        // A send to a task that has ended is lost; its `Ended` is on the way.
        let _ = outbox.send(bytes);
        unsent < UNSENT_MAX
    }

    /// Lets the writer finish; `false` where nothing was ever sent, so that there is nothing to wait for.
    pub(super) fn close(&mut self) -> bool {
        self.outbox = None;
        self.wrote
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sets what an error here cannot make wrong, only slower: so errors are told and forgotten.
fn prepare(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let set = stream
        .set_nodelay(true)
        .and_then(|()| socket.set_tcp_user_timeout(Some(USER_TIMEOUT)))
        // Few and small messages: where much is lost, waits that double are longer than anybody's patience.
        .and_then(|()| socket.set_tcp_thin_linear_timeouts(true));
    if let Err(error) = set {
        debug!(%error, "socket option refused");
    }
}

async fn run(
    conn: ConnId,
    mut stream: TcpStream,
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    events: mpsc::Sender<TcpEvent>,
    shared: Arc<Shared>,
) {
    let (reader, mut writer) = stream.split();
    let why = tokio::select! {
        why = read(conn, &reader, &events, &shared) => why,
        why = write(conn, &mut writer, &mut queue, &events, &shared) => why,
    };
    if let Err(error) = why {
        debug!(?conn, %error, "connection failed");
    }
    drop(stream);
    let _ = events.send(TcpEvent::Ended { conn }).await;
}

/// Reads until the other end is done, one chunk under way at a time.
async fn read(
    conn: ConnId,
    reader: &ReadHalf<'_>,
    events: &mpsc::Sender<TcpEvent>,
    shared: &Shared,
) -> io::Result<()> {
    let credits = Arc::new(Semaphore::new(1));
    loop {
        let Ok(credit) = Arc::clone(&credits).acquire_owned().await else {
            return Ok(()); // never closed
        };
        reader.readable().await?;
        let mut bytes = Vec::with_capacity(shared.chunk());
        match reader.try_read_buf(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(_) => {
                bytes.shrink_to_fit();
                let event = TcpEvent::Received {
                    conn,
                    bytes,
                    credit,
                };
                if events.send(event).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes until the hub closes, then lets the other end take it all in.
async fn write(
    conn: ConnId,
    writer: &mut WriteHalf<'_>,
    queue: &mut mpsc::UnboundedReceiver<Vec<u8>>,
    events: &mpsc::Sender<TcpEvent>,
    shared: &Shared,
) -> io::Result<()> {
    let mut unreported = 0;
    while let Some(first) = queue.recv().await {
        let bytes = gather(first, queue);
        write_out(writer, &bytes, queue.is_closed()).await?;
        shared.unsent.fetch_sub(bytes.len(), Ordering::Relaxed);
        unreported += bytes.len();
        if unreported >= REPORT || queue.is_empty() {
            let bytes = std::mem::take(&mut unreported);
            let _ = events.send(TcpEvent::Sent { conn, bytes }).await;
        }
    }
    writer.shutdown().await?;
    // Closing with unread bytes would reset the connection and take back what was sent; so the reader reads on, and
    // usually sees the other end close first.
    tokio::time::sleep(LINGER).await;
    Ok(())
}

/// Hands bytes to the kernel. Once closed, the hub waits for nothing but the end: a peer that reads nothing does not get the
/// user timeout then.
async fn write_out(writer: &mut WriteHalf<'_>, bytes: &[u8], closed: bool) -> io::Result<()> {
    let written = writer.write_all(bytes);
    if closed {
        return tokio::time::timeout(FLUSH, written).await?;
    }
    written.await
}

/// Joins small messages that wait together into one write.
fn gather(mut bytes: Vec<u8>, queue: &mut mpsc::UnboundedReceiver<Vec<u8>>) -> Vec<u8> {
    while bytes.len() < REPORT
        && let Ok(next) = queue.try_recv()
    {
        bytes.extend_from_slice(&next);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::strangers::TOTAL;
    use super::*;

    #[tokio::test]
    async fn a_full_house_of_strangers_fits_in_a_megabyte() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let stream = TcpStream::connect(to).await.unwrap();
        let (_outbox, queue) = mpsc::unbounded_channel();
        let (events, _receiver) = mpsc::channel(1);
        let conn = ConnId {
            dialled: false,
            number: 0,
        };

        let task = run(conn, stream, queue, events, Arc::default());

        assert!((size_of_val(&task) + STRANGER_CHUNK) * TOTAL < 1 << 20);
    }
}
