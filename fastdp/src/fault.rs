//! Says to people what the kernel refused.

use std::io;

use weft_kernel::netlink::NetlinkError;
use weft_types::{Code, Problem};

/// The kernel refused `what`, an act in words: "create the bridge weft".
pub(crate) fn refused(what: &str, error: NetlinkError) -> Problem {
    match error {
        NetlinkError::Denied => unprivileged(what),
        NetlinkError::Unsupported => {
            Problem::new(Code::KernelFeature, format!("the kernel cannot {what}"))
                .why(error.to_string())
                .fix("Load the module or use a kernel that has bridge, veth and tun")
        }
        NetlinkError::Exists | NetlinkError::Busy => {
            Problem::new(Code::DeviceInUse, format!("cannot {what}")).why(error.to_string())
        }
        NetlinkError::Closed
        | NetlinkError::Invalid
        | NetlinkError::NoDevice
        | NetlinkError::NotFound
        | NetlinkError::Refused(_)
        | NetlinkError::TimedOut
        | NetlinkError::Unsettled => {
            Problem::new(Code::Internal, format!("cannot {what}")).why(error.to_string())
        }
    }
}

/// The system refused `what`.
pub(crate) fn failed(what: &str, error: &io::Error) -> Problem {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return unprivileged(what);
    }
    Problem::new(Code::Internal, format!("cannot {what}")).why(error.to_string())
}

pub(crate) fn unprivileged(what: &str) -> Problem {
    Problem::new(Code::Privilege, format!("this process may not {what}"))
        .why("CAP_NET_ADMIN is missing")
        .fix("Run it as root, or give the service CAP_NET_ADMIN and CAP_NET_RAW")
}

pub(crate) fn no_tun(error: &io::Error) -> Problem {
    Problem::new(Code::NoTun, "this machine has no TUN/TAP device")
        .why(format!("/dev/net/tun: {error}"))
        .fix("modprobe tun; in a container, pass the device: --device /dev/net/tun")
}

/// A container could make itself this host's default router.
pub(crate) fn gullible(bridge: &str, error: &io::Error) -> Problem {
    Problem::new(
        Code::KernelFeatureMissing,
        format!("router advertisements cannot be switched off on {bridge}"),
    )
    .why(format!("/proc/sys/net/ipv6/conf/{bridge}/accept_ra: {error}"))
    .fix(format!(
        "Let the service write /proc/sys/net, or set it by hand: sysctl net.ipv6.conf.{bridge}.accept_ra=0"
    ))
}

pub(crate) fn lacking(feature: &str) -> Problem {
    let problem = Problem::new(
        Code::KernelFeatureMissing,
        format!("the kernel has no {feature}"),
    );
    problem.fix("Everything works; a later kernel keeps containers better apart")
}
