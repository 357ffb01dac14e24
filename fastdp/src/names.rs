//! Names the devices that one router makes.

use weft_fastdp_proto::tables::PORT_PREFIX;
use weft_types::MacAddr;

/// The note on bridges of ours, by which a later start, or a reset, knows them.
pub(crate) const BRIDGE_ALIAS: &str = "weft mesh";

/// How a container's end of its veth pair is called unless told otherwise.
pub const CONTAINER_DEVICE: &str = "weft0";

/// The names of a router's devices. Routers in one network namespace need different ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNames {
    /// The bridge: the host's own device on the mesh.
    pub bridge: String,
    /// The sleeve's port on it.
    pub tap: String,
}

impl DeviceNames {
    /// What the bridge is called before it is marked as ours.
    pub(crate) fn unborn(&self) -> String {
        format!("{}-new", self.bridge)
    }
}

impl Default for DeviceNames {
    fn default() -> Self {
        Self {
            bridge: "weft".into(),
            tap: "weft-tap".into(),
        }
    }
}

/// Names the host's end of the veth pair of the container that has this address. As long as a name may be, but one.
pub fn port_name(mac: MacAddr) -> String {
    let digits: String = mac.to_string().split(':').collect();
    format!("{PORT_PREFIX}{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_s_name_is_unique_and_fits() {
        let name = port_name(MacAddr::new([2, 0xab, 0, 0, 0, 1]));

        assert_eq!(name, "wv02ab00000001");
        assert!(name.len() <= 15); // IFNAMSIZ without the terminator
    }
}
