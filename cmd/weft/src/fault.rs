//! Says in one way what nobody expected: a fault of weft's own, or of a system that gives no more than an error.

use std::fmt::Display;

use weft_types::{Code, Problem};

/// Makes an error the reason why something did not work: `work().map_err(broken("the daemon cannot start"))`.
pub(crate) fn broken<E: Display>(what: &'static str) -> impl Fn(E) -> Problem {
    move |error| Problem::new(Code::Internal, what).why(error.to_string())
}
