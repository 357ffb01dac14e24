//! The vocabulary of weft: identities, addresses, codes, and the contract of what is gossiped.
//!
//! Floor 0 of the house. Everything here is a value; nothing here does anything. Every type checks its bytes once, in
//! its constructor, and is trusted from then on. `Display` is the operator's spelling, `FromStr` reads exactly that,
//! and `Debug` equals it, so one thing has one name in logs, tables and failed assertions.

mod boot;
mod code;
mod counters;
mod id;
mod mac;
mod mtu;
mod nickname;
mod path;
mod port_flag;
mod problem;
mod replica;
mod segment;

pub use boot::{Boot, BootId, Version};
pub use code::{Code, ExitCode, Outlook};
pub use counters::{Counter, WireCounters};
pub use id::{MeshId, NodeId, ParseIdError, TokenId};
pub use mac::{MacAddr, ParseMacError};
pub use mtu::Mtu;
pub use nickname::{Nickname, NicknameError};
pub use path::{PathKind, PeerState, SwitchKind};
pub use port_flag::{PortFlag, PortFlags};
pub use problem::Problem;
pub use replica::{Delta, Replica};
pub use segment::Segment;
