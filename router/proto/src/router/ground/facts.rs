//! What one part knows and another asks for: the member carries it between them.

use weft_types::NodeId;

use crate::letter::WayReply;

/// The way that frames for a member leave by.
#[derive(Clone, Debug)]
pub(crate) struct OwnWay {
    /// It has answered probes of its own.
    pub(crate) is_proved: bool,
    /// What is told of it; its request number is whoever asked's to fill in.
    pub(crate) way: WayReply,
}

/// Who asks for an address by which connection, and for which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) node: NodeId,
    pub(crate) wanted: Option<ipnet::IpNet>,
}
