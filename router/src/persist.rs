//! Keeps what must outlast the process: one transactional file, written in order by one thread.
//!
//! ```text
//!   hub ── save(ticket, changes) ──▶ queue ──▶ thread ── one transaction, fsync ──▶ weft.redb
//!    ▲                                            │
//!    └────────── Saved / SaveFailed ◀─────────────┘
//! ```
//!
//! Batches that wait while a transaction is being written share the next one: a slow disk costs latency, not a queue.
//! Their order is kept, and what failed goes with what comes next: what is found after a crash is always a prefix of what
//! was asked for.
//! **Invariant.** A state directory belongs to one process: `lock` in it is held (`flock`) as long as the process
//! lives, so the kernel lets go of it whatever happens.
//! **Failure policy.** A failed transaction changes nothing and is reported for every batch in it; the changes are owed, and
//! tried again every `AGAIN` until they are durable, which is reported too. The file is opened anew before each attempt,
//! since an error leaves the handle unusable; a full disk that is emptied needs no restart.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError,
    WriteTransaction,
};
use tokio::sync::mpsc;
use tracing::{info, warn};
use weft_router_proto::io::{Input, Ticket};
use weft_router_proto::store::{Change, Saved, Table};
use weft_types::{Code, Problem};

use crate::private::{self, io_problem};

/// The file's name in the state directory.
pub const FILE: &str = "weft.redb";
/// The name of what tells a second process that the directory is in use.
pub const LOCK: &str = "lock";

/// The layout of the tables. 1: door keys were not signed, which nobody can make up for but their maker.
const FORMAT: u64 = 2;
const FORMAT_TABLE: TableDefinition<'_, &str, u64> = TableDefinition::new("format");
const FORMAT_KEY: &str = "version";

/// The whole state of a mesh of 24 is a few hundred KiB; redb would take up to a GiB by default.
const CACHE: usize = 1 << 20;
/// Answers that wait for the hub.
const RESULTS: usize = 1024;
/// When something that could not be written is tried again, if nothing else is written before.
const AGAIN: Duration = Duration::from_secs(2);

/// How long a process that is about to end may hold the directory, before another is told that it runs.
const PATIENCE: Duration = Duration::from_millis(500);

/// The open state of one node. Whoever has it owns the directory.
pub struct Store {
    path: PathBuf,
    /// `None` after an error, until the next attempt.
    database: Option<Database>,
    _lock: File,
}

impl Store {
    /// Opens the state in `directory`, which is made if it is missing, and reads all of it.
    ///
    /// Fails where another process has it ([`Code::DaemonRunning`]), where it cannot be used
    /// ([`Code::StateDirectory`], [`Code::DiskFull`]), read ([`Code::StateDamaged`]) or understood
    /// ([`Code::StateVersion`]).
    pub fn open(directory: &Path) -> Result<(Self, Saved), Problem> {
        private::directory(directory)?;
        let lock = lock(directory)?;
        let path = directory.join(FILE);
        if !path.exists() {
            create(directory, &path).map_err(|fault| fault.problem(&path))?;
        }
        let database = open(&path).map_err(|fault| fault.problem(&path))?;
        let saved = load(&database).map_err(|fault| fault.problem(&path))?;
        let store = Self {
            path,
            database: Some(database),
            _lock: lock,
        };
        Ok((store, saved))
    }

    /// Makes changes durable: all of them, in order, or none.
    pub fn commit<'a>(
        &mut self,
        changes: impl IntoIterator<Item = &'a Change>,
    ) -> Result<(), Problem> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open(&self.path).map_err(|fault| fault.problem(&self.path))?,
        };
        write(&database, changes).map_err(|fault| fault.problem(&self.path))?;
        self.database = Some(database);
        Ok(())
    }
}

/// The thread that writes.
pub struct Writer {
    desk: Arc<Desk>,
    thread: JoinHandle<()>,
}

/// Where the hub puts what is to be written, and the thread finds it.
#[derive(Default)]
struct Desk {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

/// What is to be written next: of each key its last value, so what waits is never more than the state itself.
#[derive(Default)]
struct Waiting {
    tickets: Vec<Ticket>,
    changes: Changes,
    closed: bool,
}

type Changes = BTreeMap<(Table, Vec<u8>), Change>;

impl Writer {
    /// Starts it. What becomes of each batch comes out of the receiver, in order: [`Input::Saved`] or
    /// [`Input::SaveFailed`], and after the latter [`Input::Saved`] when it could be written at last.
    pub fn start(store: Store) -> io::Result<(Self, mpsc::Receiver<Input>)> {
        let desk = Arc::<Desk>::default();
        let (done, results) = mpsc::channel(RESULTS);
        let theirs = Arc::clone(&desk);
        let thread = std::thread::Builder::new()
            .name("weft-state".into())
            .spawn(move || Clerk::new(store, done).run(&theirs))?;
        Ok((Self { desk, thread }, results))
    }

    /// Queues a batch.
    pub fn save(&self, ticket: Ticket, changes: Vec<Change>) {
        let mut waiting = self.desk.lock();
        waiting.tickets.push(ticket);
        waiting.changes.extend(changes.into_iter().map(placed));
        self.desk.more.notify_one();
    }

    /// Waits until everything that was queued is durable, or cannot be, and lets go of the directory.
    pub fn finish(self) {
        self.desk.lock().closed = true;
        self.desk.more.notify_one();
        if self.thread.join().is_err() {
            warn!("the thread that saves state ended in a panic");
        }
    }
}

fn placed(change: Change) -> ((Table, Vec<u8>), Change) {
    let (table, key) = change.place();
    ((table, key.to_vec()), change)
}

impl Desk {
    /// Nothing is left half done by who panicked with it.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to write, or until something that is owed is to be tried again. `None` at the end.
    fn next(&self, owed: bool) -> Option<Waiting> {
        let idle = |waiting: &mut Waiting| waiting.tickets.is_empty() && !waiting.closed;
        let waiting = self.lock();
        let mut waiting = if owed {
            let woken = self.more.wait_timeout_while(waiting, AGAIN, idle);
            woken.unwrap_or_else(PoisonError::into_inner).0
        } else {
            let woken = self.more.wait_while(waiting, idle);
            woken.unwrap_or_else(PoisonError::into_inner)
        };
        let ended = waiting.closed && waiting.tickets.is_empty();
        let closed = waiting.closed;
        let next = std::mem::take(&mut *waiting);
        waiting.closed = closed;
        (!ended).then_some(next)
    }
}

/// Who writes, and knows what could not be written yet.
struct Clerk {
    store: Store,
    done: mpsc::Sender<Input>,
    owed: Changes,
    /// Batches that were told to have failed.
    failed: Vec<Ticket>,
}

impl Clerk {
    const fn new(store: Store, done: mpsc::Sender<Input>) -> Self {
        Self {
            store,
            done,
            owed: Changes::new(),
            failed: Vec::new(),
        }
    }

    fn run(mut self, desk: &Desk) {
        while let Some(next) = desk.next(!self.failed.is_empty()) {
            self.owed.extend(next.changes);
            match self.write() {
                Ok(()) => self.written(next.tickets),
                Err(problem) => self.failed(next.tickets, &problem),
            }
        }
        if !self.failed.is_empty() {
            warn!(
                batches = self.failed.len(),
                "the last changes are not saved"
            );
        }
    }

    fn write(&mut self) -> Result<(), Problem> {
        let Self { store, owed, .. } = self;
        // A panic in what writes leaves no handle behind: the file is opened anew, as after an error.
        let wrote = catch_unwind(AssertUnwindSafe(|| store.commit(owed.values())));
        wrote.unwrap_or_else(|_| {
            Err(Problem::new(Code::NotSaved, "changes could not be saved")
                .why("the database failed in a way of its own; the log says more"))
        })
    }

    fn written(&mut self, tickets: Vec<Ticket>) {
        self.owed.clear();
        if !self.failed.is_empty() {
            info!("what could not be saved is saved");
        }
        for ticket in std::mem::take(&mut self.failed).into_iter().chain(tickets) {
            self.tell(Input::Saved { ticket });
        }
    }

    fn failed(&mut self, tickets: Vec<Ticket>, problem: &Problem) {
        warn!(code = %problem.code, "{problem}");
        for &ticket in &tickets {
            let problem = problem.clone();
            self.tell(Input::SaveFailed { ticket, problem });
        }
        self.failed.extend(tickets);
    }

    /// The hub is gone when the router stops: what was queued is written all the same.
    fn tell(&self, input: Input) {
        let _ = self.done.blocking_send(input);
    }
}

/// Why the file cannot be used.
enum Fault {
    Damaged(String),
    Io(io::Error),
    Locked,
    Newer(u64),
    Older(u64),
}

impl Fault {
    fn problem(self, path: &Path) -> Problem {
        let shown = path.display();
        match self {
            Self::Damaged(why) => {
                Problem::new(Code::StateDamaged, format!("the saved state in {shown} cannot be read"))
                    .why(why)
                    .fix("Restore it from a backup made while weft was stopped, or give this node a fresh identity: weft reset --force, then weft join")
            }
            Self::Io(error) => io_problem(path, &error),
            Self::Locked => running(path),
            Self::Newer(format) => Problem::new(
                Code::StateVersion,
                format!("the saved state in {shown} was written by a later weft"),
            )
            .why(format!("it has format {format}, this release knows up to {FORMAT}"))
            .fix("Install that release again, or use another directory with --state-dir"),
            Self::Older(format) => Problem::new(
                Code::StateVersion,
                format!("the saved state in {shown} was written by an earlier weft"),
            )
            .why(format!("it has format {format}, this release reads {FORMAT}"))
            .fix("Install that release again, or give this node a fresh identity: weft reset --force, then weft join"),
        }
    }
}

impl From<redb::Error> for Fault {
    fn from(error: redb::Error) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "another crate's open list: what is not named here is damage"
        )]
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::Locked,
            // What is no redb file at all is reported as invalid data.
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                Self::Damaged(error.to_string())
            }
            redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Damaged("the file ends early".into())
            }
            redb::Error::Io(error) => Self::Io(error),
            other => Self::Damaged(other.to_string()),
        }
    }
}

macro_rules! fault_from {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for Fault {
            fn from(error: redb::$error) -> Self {
                redb::Error::from(error).into()
            }
        })*
    };
}

fault_from!(CommitError, DatabaseError, StorageError, TransactionError);

impl From<TableError> for Fault {
    fn from(error: TableError) -> Self {
        redb::Error::from(error).into()
    }
}

fn running(path: &Path) -> Problem {
    let directory = path.parent().unwrap_or(path).display();
    Problem::new(
        Code::DaemonRunning,
        format!("a weft router runs with {directory} already"),
    )
    .fix("Ask it: weft status. Stop it: weft down. A second router on one machine needs its own --state-dir, --socket and --port")
}

fn lock(directory: &Path) -> Result<File, Problem> {
    let path = directory.join(LOCK);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    let file = private::open(&path, &mut options).map_err(|error| io_problem(&path, &error))?;
    let patience = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < patience => {
                // The kernel tells of a lock that is free only who blocks for it without end.
                std::thread::sleep(PATIENCE / 10);
            }
            Err(TryLockError::WouldBlock) => return Err(running(&path)),
            Err(TryLockError::Error(error)) => return Err(io_problem(&path, &error)),
        }
    }
}

/// Makes an empty file under a name of its own first: a crash in between leaves no half of one under the real name.
fn create(directory: &Path, path: &Path) -> Result<(), Fault> {
    let temporary = directory.join(format!("{FILE}.new"));
    new_file(&temporary).map_err(Fault::Io)?;
    let database = builder().create(&temporary)?;
    write(&database, [])?;
    drop(database);
    std::fs::rename(&temporary, path).map_err(Fault::Io)?;
    sync_directory(directory).map_err(Fault::Io)?;
    info!(path = %path.display(), "state file made");
    Ok(())
}

/// Makes an empty file for this user only, in the place of one that a crash has left.
pub(crate) fn new_file(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

/// Makes a rename in `directory` durable.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    // Reads the whole of a small file, so that damage is named at start and not met later.
    builder.set_check_integrity_on_open(true);
    builder
}

fn open(path: &Path) -> Result<Database, Fault> {
    private::open(path, OpenOptions::new().read(true)).map_err(Fault::Io)?;
    Ok(builder().open(path)?)
}

fn load(database: &Database) -> Result<Saved, Fault> {
    let transaction = database.begin_read()?;
    let format = transaction
        .open_table(FORMAT_TABLE)?
        .get(FORMAT_KEY)?
        .map_or(0, |value| value.value());
    if format > FORMAT {
        return Err(Fault::Newer(format));
    }
    // 0 is a file that nothing was written to yet.
    if (1..FORMAT).contains(&format) {
        return Err(Fault::Older(format));
    }
    let mut saved = Saved::default();
    for table in Table::ALL {
        load_table(&transaction, table, &mut saved)?;
    }
    Ok(saved)
}

/// One that nothing was ever written to does not exist.
fn load_table(from: &ReadTransaction, table: Table, saved: &mut Saved) -> Result<(), Fault> {
    let rows = match from.open_table(definition(table)) {
        Ok(rows) => rows,
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for row in rows.iter()? {
        let (key, value) = row?;
        saved.apply(Change::Put {
            table,
            key: key.value().to_vec(),
            value: value.value().to_vec(),
        });
    }
    Ok(())
}

fn write<'a>(
    database: &Database,
    changes: impl IntoIterator<Item = &'a Change>,
) -> Result<(), Fault> {
    let transaction = database.begin_write()?;
    transaction
        .open_table(FORMAT_TABLE)?
        .insert(FORMAT_KEY, FORMAT)?;
    for change in changes {
        write_one(&transaction, change)?;
    }
    // Durable on return: redb's default is `Durability::Immediate`.
    transaction.commit()?;
    Ok(())
}

fn write_one(to: &WriteTransaction, change: &Change) -> Result<(), Fault> {
    match change {
        Change::Delete { table, key } => {
            to.open_table(definition(*table))?.remove(key.as_slice())?;
        }
        Change::Put { table, key, value } => {
            to.open_table(definition(*table))?
                .insert(key.as_slice(), value.as_slice())?;
        }
    }
    Ok(())
}

const fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    use super::*;

    fn put(key: u64) -> Change {
        Change::Put {
            table: Table::Tokens,
            key: key.to_be_bytes().to_vec(),
            value: vec![0x5a; 300],
        }
    }

    fn counter(value: u64) -> Change {
        Change::Put {
            table: Table::Node,
            key: b"counter".to_vec(),
            value: value.to_be_bytes().to_vec(),
        }
    }

    fn open(directory: &Path) -> (Store, Saved) {
        Store::open(directory).unwrap()
    }

    fn refused(directory: &Path) -> Problem {
        Store::open(directory).map(|_| ()).unwrap_err()
    }

    #[test]
    fn what_was_saved_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("weft");
        let (mut store, saved) = open(&state);
        assert_eq!(saved.value(Table::Node, b"counter"), None);

        store.commit(&[counter(1), put(1), put(2)]).unwrap();
        store
            .commit(&[Change::Delete {
                table: Table::Tokens,
                key: 1u64.to_be_bytes().to_vec(),
            }])
            .unwrap();
        drop(store);
        let (_store, saved) = open(&state);

        assert_eq!(
            saved.value(Table::Node, b"counter"),
            Some(1u64.to_be_bytes().as_slice())
        );
        assert_eq!(saved.table(Table::Tokens).count(), 1);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state), 0o700);
        assert_eq!(mode(&state.join(FILE)), 0o600);
    }

    #[test]
    fn batches_are_answered_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open(directory.path());
        let (writer, mut results) = Writer::start(store).unwrap();

        for ticket in 0..100 {
            writer.save(Ticket(ticket), vec![counter(ticket), put(ticket)]);
        }
        writer.finish();

        for expected in 0..100 {
            let Some(Input::Saved { ticket }) = results.blocking_recv() else {
                panic!("batch {expected} was not saved");
            };
            assert_eq!(ticket, Ticket(expected));
        }
        let (_store, saved) = open(directory.path());
        assert_eq!(saved.table(Table::Tokens).count(), 100);
    }

    #[test]
    fn a_second_process_is_told_so() {
        let directory = tempfile::tempdir().unwrap();
        let _first = open(directory.path());

        assert_eq!(refused(directory.path()).code, Code::DaemonRunning);
    }

    #[test]
    fn damage_is_named_wherever_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let (mut store, _) = open(directory.path());
        store
            .commit(&(0..500).map(put).collect::<Vec<_>>())
            .unwrap();
        drop(store);
        let whole = std::fs::read(&path).unwrap();

        std::fs::write(&path, b"not a database").unwrap();
        assert_eq!(refused(directory.path()).code, Code::StateDamaged);
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(refused(directory.path()).code, Code::StateDamaged);
        let mut scratched = whole.clone();
        let page = whole.windows(300).position(|at| at == [0x5a; 300]).unwrap();
        scratched[page] ^= 1;
        std::fs::write(&path, scratched).unwrap();
        assert_eq!(refused(directory.path()).code, Code::StateDamaged);
        std::fs::write(&path, whole).unwrap();
        assert!(Store::open(directory.path()).is_ok());
    }

    #[test]
    fn a_format_of_another_release_is_refused() {
        for format in [FORMAT - 1, FORMAT + 1] {
            let directory = tempfile::tempdir().unwrap();
            let (store, _) = open(directory.path());
            let database = store.database.as_ref().unwrap();
            let transaction = database.begin_write().unwrap();
            transaction
                .open_table(FORMAT_TABLE)
                .unwrap()
                .insert(FORMAT_KEY, format)
                .unwrap();
            transaction.commit().unwrap();
            drop(store);

            assert_eq!(refused(directory.path()).code, Code::StateVersion);
        }
    }

    #[test]
    fn an_error_is_survived_without_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, _) = open(directory.path());

        store.database = None; // as an error leaves it
        store.commit(&[put(7)]).unwrap();
        drop(store);

        assert_eq!(open(directory.path()).1.table(Table::Tokens).count(), 1);
    }

    /// Gives `test` a disk of 4 MiB. Needs root; where it is missing the test says so and is skipped.
    fn with_a_small_disk(test: impl FnOnce(&Path) + Send + 'static) {
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};

        // A thread with mounts of its own: they go away with it.
        let skipped = std::thread::spawn(|| {
            let directory = tempfile::tempdir().unwrap();
            let none: Option<&str> = None;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            let mounted = unshare(CloneFlags::CLONE_NEWNS)
                .and_then(|()| mount(none, "/", none, private, none))
                .and_then(|()| {
                    let size = Some("size=4m");
                    mount(
                        none,
                        directory.path(),
                        Some("tmpfs"),
                        MsFlags::empty(),
                        size,
                    )
                });
            if let Err(error) = mounted {
                return Some(error);
            }
            test(directory.path());
            None
        });
        if let Some(error) = skipped.join().unwrap() {
            writeln!(io::stderr(), "skipped: no mount without root ({error})").unwrap();
        }
    }

    #[test]
    fn a_full_disk_is_named_and_survived() {
        with_a_small_disk(|disk| {
            let filler = disk.join("filler");
            let (mut store, _) = open(&disk.join("state"));
            store.commit(&[put(1)]).unwrap();
            // The file has room of its own for a while: so the disk is filled, and then the file grows.
            let _ = std::fs::write(&filler, vec![0; 8 << 20]);

            let large = |key: u64| Change::Put {
                table: Table::Peers,
                key: key.to_be_bytes().to_vec(),
                value: vec![0x5a; 64 << 10],
            };
            let failed =
                (0..100).find_map(|key| store.commit(&[large(key)]).err().map(|e| (key, e)));
            let (written, problem) = failed.expect("the disk is full");
            assert_eq!(problem.code, Code::DiskFull);
            std::fs::remove_file(&filler).unwrap();
            store.commit(&[put(2)]).unwrap();
            drop(store);

            let (_store, saved) = open(&disk.join("state"));
            assert_eq!(saved.table(Table::Tokens).count(), 2);
            assert_eq!(saved.table(Table::Peers).count() as u64, written);
        });
    }

    #[test]
    fn what_failed_on_a_full_disk_is_made_up_for_without_another_change() {
        with_a_small_disk(|disk| {
            let filler = disk.join("filler");
            let (store, _) = open(&disk.join("state"));
            let (writer, mut results) = Writer::start(store).unwrap();
            let _ = std::fs::write(&filler, vec![0; 8 << 20]);

            let large = |key: u64| Change::Put {
                table: Table::Peers,
                key: key.to_be_bytes().to_vec(),
                value: vec![0x5a; 64 << 10],
            };
            let failed = (0..100).find(|&key| {
                writer.save(Ticket(key), vec![large(key)]);
                matches!(results.blocking_recv(), Some(Input::SaveFailed { .. }))
            });
            let failed = failed.expect("the disk is full");
            std::fs::remove_file(&filler).unwrap();
            let told = results.blocking_recv();
            writer.finish();

            assert!(matches!(told, Some(Input::Saved { ticket: Ticket(key) }) if key == failed));
            let (_store, saved) = open(&disk.join("state"));
            assert_eq!(saved.table(Table::Peers).count() as u64, failed + 1);
        });
    }

    #[test]
    fn a_disk_that_was_full_from_the_start_leaves_nothing_behind() {
        with_a_small_disk(|disk| {
            let filler = disk.join("filler");
            let _ = std::fs::write(&filler, vec![0; 8 << 20]);

            let problem = refused(&disk.join("state"));
            assert_eq!(problem.code, Code::DiskFull);
            std::fs::remove_file(&filler).unwrap();

            assert!(Store::open(&disk.join("state")).is_ok());
        });
    }

    /// Not a test by itself: what [`what_is_left_by_a_kill_is_a_prefix`] kills.
    #[test]
    fn child_that_saves_until_it_is_killed() {
        let Some(directory) = std::env::var_os("WEFT_TEST_PERSIST") else {
            return;
        };
        let (store, saved) = open(Path::new(&directory));
        let first = check_prefix(&saved) + 1;
        let (writer, mut results) = Writer::start(store).unwrap();
        let mut out = io::stdout();
        let mut unconfirmed = 0;
        for n in first.. {
            unconfirmed += 1;
            // Bursts, so that batches share transactions.
            writer.save(Ticket(n), vec![put(n), put(n | 1 << 63), counter(n)]);
            if n % 8 == 0 {
                for _ in 0..std::mem::take(&mut unconfirmed) {
                    if let Some(Input::Saved { ticket }) = results.blocking_recv() {
                        writeln!(out, "saved {}", ticket.0).unwrap();
                        out.flush().unwrap();
                    }
                }
            }
        }
    }

    /// Returns the number of the last batch, having checked that all of it and of those before it is there.
    fn check_prefix(saved: &Saved) -> u64 {
        let last = saved.value(Table::Node, b"counter").map_or(0, |bytes| {
            u64::from_be_bytes(bytes.try_into().expect("8 bytes"))
        });
        let keys: Vec<u64> = saved
            .table(Table::Tokens)
            .map(|(key, _)| u64::from_be_bytes(key.try_into().expect("8 bytes")))
            .collect();
        let expected = (1..=last).chain((1..=last).map(|n| n | 1 << 63));
        assert!(
            keys.into_iter().eq(expected),
            "not a prefix of {last} batches"
        );
        last
    }

    #[test]
    fn what_is_left_by_a_kill_is_a_prefix() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let mut confirmed = 0;
        // The number of confirmations waited for before each kill: from "while it is being made" to "in full swing".
        for lines in [
            0, 0, 0, 1, 0, 2, 3, 5, 8, 13, 21, 34, 1, 0, 55, 7, 2, 1, 40, 3,
        ] {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "--nocapture",
                    "persist::tests::child_that_saves_until_it_is_killed",
                ])
                .env("WEFT_TEST_PERSIST", &state)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let out = BufReader::new(child.stdout.take().unwrap());
            let saved =
                |line: io::Result<String>| line.ok()?.rsplit_once("saved ")?.1.parse::<u64>().ok();
            confirmed = out
                .lines()
                .filter_map(saved)
                .take(lines)
                .last()
                .unwrap_or(confirmed);
            child.kill().unwrap();
            child.wait().unwrap();

            let (_store, found) = open(&state);
            let last = check_prefix(&found);
            assert!(
                last >= confirmed,
                "batch {confirmed} was confirmed, {last} is the last"
            );
            confirmed = last;
        }
        assert!(confirmed > 100);
    }
}
