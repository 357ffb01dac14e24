//! Says what the lab was doing when the kernel refused.

use std::io;

use weft_kernel::netns::NetNsError;

/// Why a part of the lab could not be built.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A system call failed.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What the lab was doing.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A request to the kernel's network configuration was refused.
    #[error("cannot {doing}: {source}")]
    Link {
        /// What the lab was doing.
        doing: String,
        /// The kernel's answer.
        source: Box<rtnetlink::Error>,
    },
    /// A namespace could not be made or entered.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
}

impl LabError {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    pub(crate) fn link(doing: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Link {
            doing,
            source: Box::new(source),
        }
    }
}
