//! Says to a person what went wrong: what happened, to what, and what to do next.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Code;

/// One thing that is wrong, in words. The code is what programs match on; the words are free to improve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `WFT-nnn`; its page is `docs/errors/WFT-nnn.md`.
    #[schemars(with = "String")]
    pub code: Code,
    /// What happened, and to what: one sentence without a full stop.
    pub what: String,
    /// The evidence: what was seen. Empty where the first sentence says it all.
    pub why: String,
    /// What to do, ready to be copied where it is a command.
    pub fix: String,
}

impl Problem {
    /// Names a problem; [`Self::why`] and [`Self::fix`] follow.
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self {
            code,
            what: what.into(),
            why: String::new(),
            fix: String::new(),
        }
    }

    /// Adds the evidence.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// Adds the cure.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.what)?;
        if !self.why.is_empty() {
            write!(f, " ({})", self.why)?;
        }
        if !self.fix.is_empty() {
            write!(f, ". {}", self.fix)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
