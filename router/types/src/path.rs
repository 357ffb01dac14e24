//! Says in a word how a member is reached, and why that changed: the same words in the core, the API, tables and metrics.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// By what a peer's frames travel.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// Inside the control connection: the last resort.
    Control,
    /// Through another member.
    Relay,
    /// The userspace transport.
    Sleeve,
}

impl PathKind {
    /// Every one, in order.
    pub const ALL: [Self; 3] = [Self::Control, Self::Relay, Self::Sleeve];

    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Relay => "relay",
            Self::Sleeve => "sleeve",
        }
    }
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How things stand with a peer.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// A link to it is up, or its frames travel through another member.
    Connected,
    /// It is being dialled.
    Connecting,
    /// Nobody reaches it.
    Down,
    /// Others reach it, this node does not.
    Indirect,
}

impl PeerState {
    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Connecting => "connecting",
            Self::Down => "down",
            Self::Indirect => "indirect",
        }
    }
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why frames take another way, in a word.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SwitchKind {
    /// The way taken is better, and answers.
    Better,
    /// There was none before.
    First,
    /// The way left is known no more.
    Gone,
    /// The way left lost frames, or held them back.
    Lossy,
    /// The way left does not answer.
    Silent,
    /// The way left takes much longer.
    Slow,
}

impl SwitchKind {
    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::First => "first",
            Self::Gone => "gone",
            Self::Lossy => "lossy",
            Self::Silent => "silent",
            Self::Slow => "slow",
        }
    }
}

impl fmt::Display for SwitchKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
