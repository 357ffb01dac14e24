//! Names what must outlast the process: a flat map of byte strings that the driver keeps in one transactional file.
//!
//! The core never reads back what it wrote: it is given everything once, at start, and says from then on what changed.
//! Changes of one [`Change`] batch become durable together or not at all.

use std::collections::BTreeMap;

/// The parts of the store; one table each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Addresses handed out by the creator: node → address.
    Addresses,
    /// Keys that open the door, newest last.
    DoorKeys,
    /// Endpoints attached on this host.
    Endpoints,
    /// Membership records: signer ‖ number → signed bytes.
    Membership,
    /// Single values: genesis, boot counter, targets.
    Node,
    /// Others' node records, so that a restarted node knows where to dial.
    Peers,
    /// Tokens issued here or received, spent ones included.
    Tokens,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 7] = [
        Self::Addresses,
        Self::DoorKeys,
        Self::Endpoints,
        Self::Membership,
        Self::Node,
        Self::Peers,
        Self::Tokens,
    ];

    /// Its name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Addresses => "addresses",
            Self::DoorKeys => "door_keys",
            Self::Endpoints => "endpoints",
            Self::Membership => "membership",
            Self::Node => "node",
            Self::Peers => "peers",
            Self::Tokens => "tokens",
        }
    }
}

/// One change of the store.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// Forget a key; nothing happens if there is none.
    Delete {
        /// Where.
        table: Table,
        /// Which.
        key: Vec<u8>,
    },
    /// Write a value, replacing an older one.
    Put {
        /// Where.
        table: Table,
        /// Which.
        key: Vec<u8>,
        /// What. May be secret: never shown.
        value: Vec<u8>,
    },
}

impl Change {
    /// What it changes: a later change of the same place takes the place of an earlier one.
    pub fn place(&self) -> (Table, &[u8]) {
        match self {
            Self::Delete { table, key } | Self::Put { table, key, .. } => (*table, key),
        }
    }
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Delete { table, key } => {
                write!(f, "delete {}[{} bytes]", table.name(), key.len())
            }
            Self::Put { table, key, value } => {
                write!(
                    f,
                    "put {}[{} bytes] = [{} bytes]",
                    table.name(),
                    key.len(),
                    value.len()
                )
            }
        }
    }
}

/// Everything that was saved, as the core is given it at start.
#[derive(Clone, Default)]
pub struct Saved {
    tables: BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Saved {
    /// Applies a change, as the driver's file does: also how a test keeps a disk.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Delete { table, key } => {
                self.tables.entry(table).or_default().remove(&key);
            }
            Change::Put { table, key, value } => {
                self.tables.entry(table).or_default().insert(key, value);
            }
        }
    }

    /// One value.
    pub fn value(&self, table: Table, key: &[u8]) -> Option<&[u8]> {
        self.tables.get(&table)?.get(key).map(Vec::as_slice)
    }

    /// All of a table, in order of keys.
    pub fn table(&self, table: Table) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.tables
            .get(&table)
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.as_slice(), value.as_slice()))
    }
}
