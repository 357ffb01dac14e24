//! Puts into words why the demo cannot go on.

use weft_kernel::netns::UserNamespaceError;
use weft_lab::LabError;
use weft_types::{Code, Problem};

/// Says what the stage could not do.
pub(super) fn failed(error: &LabError) -> Problem {
    Problem::new(Code::Internal, "the demo cannot be set up on this machine").why(error.to_string())
}

/// Says why this user has no namespaces to play in.
pub(super) fn forbidden(error: &UserNamespaceError) -> Problem {
    let what = "the demo needs network namespaces, and this user may not make any";
    Problem::new(Code::Privilege, what)
        .why(error.to_string())
        .fix("Run it as root: sudo weft demo")
}
