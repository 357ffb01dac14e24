//! One way left for another, and why.

use std::time::Instant;

use super::path::Via;

/// Why another way is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// There was none before.
    First,
    /// The one before does not answer.
    Silent(Via),
    /// The one before is known no more: a link went down, an address changed, a member left.
    Gone(Via),
    /// The one before lost this share of the frames, or held them back.
    Lossy(Via, f64),
    /// The one before takes much longer.
    Slow(Via),
    /// This one is better, and answers.
    Better,
}

/// One way was left for another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Switch {
    /// When.
    pub at: Instant,
    /// Which was left.
    pub from: Option<Via>,
    /// Which is taken.
    pub to: Via,
    /// Why.
    pub reason: Reason,
}
