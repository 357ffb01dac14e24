//! The host's devices, as the daemon and the verbs use them: the bridge, the TAP, and containers on them.

use ipnet::IpNet;
use weft_types::{MacAddr, Mtu, Problem};

/// Removes every device of a bridge's family, and the bridge.
pub(crate) async fn remove(bridge: &str) -> Result<(), Problem> {
    let _ = bridge;
    Ok(())
}

/// What was made for a container.
pub(crate) struct Attached {
    /// The container's Ethernet address.
    pub(crate) mac: MacAddr,
    /// The host's end.
    pub(crate) port: String,
}

/// Puts a device into a container's namespace, on a port of the bridge.
pub(crate) async fn attach(
    bridge: &str,
    namespace: &std::path::Path,
    interface: &str,
    addresses: &[IpNet],
    mtu: Mtu,
) -> Result<Attached, Problem> {
    let _ = (bridge, namespace, interface, addresses, mtu);
    Err(Problem::new(weft_types::Code::Internal, "not yet"))
}

/// Takes it out again.
pub(crate) async fn detach(
    namespace: &std::path::Path,
    interface: &str,
) -> Result<MacAddr, Problem> {
    let _ = (namespace, interface);
    Err(Problem::new(weft_types::Code::Internal, "not yet"))
}
