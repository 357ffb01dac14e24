//! Traffic between namespaces, made and judged in this process: no program has to be installed.
//!
//! Every function opens its sockets inside the namespaces it is given and works on them from outside. All of them end:
//! each has a time limit, and silence is a result rather than an error.

mod group;
mod ping;
mod tcp;
mod udp;

pub use group::{GroupTest, group_receipts};
pub use ping::{PingReport, PingTest, ping};
pub use tcp::{Throughput, TransferError, tcp_throughput, tcp_transfer};
pub use udp::{UdpReport, UdpTest, udp_copies, udp_stream};
