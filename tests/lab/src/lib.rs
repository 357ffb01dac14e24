//! Network-namespace hosts: links, shaper, address translators, capture, traffic. Cleans up on drop.
//!
//! ```no_run
//! use weft_lab::{Lab, Match, Profile};
//!
//! # fn main() -> Result<(), weft_lab::LabError> {
//! let lab = Lab::new("doc");
//! let underlay = lab.underlay("net")?;
//! let (a, b) = (lab.host("a")?, lab.host("b")?);
//! let (at_a, at_b) = (underlay.join(&a)?, underlay.join(&b)?);
//! at_a.shape(Profile { loss: 0.01, ..Profile::default() })?;
//! at_b.block(Match::UdpPort(6783))?;
//! # Ok(())
//! # }
//! ```
//!
//! Everything is made through the kernel's interfaces: no program has to be installed. What needs root is skipped
//! without it by [`requires_root!`]. **Invariant.** A value that goes out of scope, also by panic, takes what it made
//! along; what a killed process leaves is removed by [`Lab::sweep`].

pub mod bar;
mod capture;
mod error;
mod host;
mod inside;
mod lab;
mod lan;
mod nat;
pub mod net;
pub mod packet;
pub mod shaper;
pub mod skip;
pub mod traffic;
mod underlay;
mod wait;
pub mod weft;

pub use capture::{Capture, Captured, Datagram, Recording};
pub use error::LabError;
pub use host::{Container, Host};
pub use lab::Lab;
pub use lan::Lan;
pub use nat::{Kind as NatKind, NatCounters, NatProfile};
pub use shaper::{Counters, Harm, Match, MtuLimit, Profile, Reorder, Way};
pub use skip::{in_namespace, namespace};
pub use underlay::{Family, Link, Underlay};
pub use wait::{wait_for, wait_until};
pub use weft::{Daemon, Weft};
