//! A host: a network namespace with a name, and what can be done inside.

use std::ffi::OsStr;
use std::io;
use std::net::IpAddr;
use std::process::{Command, Output, Stdio};

use weft_kernel::netns::NetNs;
use weft_types::MacAddr;

use crate::inside::{inside, kill_inside};
use crate::{LabError, net};

/// A machine of the lab. Dropping it kills what still runs inside and removes the namespace.
#[derive(Debug)]
pub struct Host {
    name: String,
    full_name: String,
    netns: NetNs,
}

/// A host that is nobody's peer: it gets its network by `weft attach`.
pub type Container = Host;

impl Host {
    pub(crate) fn create(name: &str, full_name: &str) -> Result<Self, LabError> {
        let netns = NetNs::create_named(full_name)?;
        let host = Self {
            name: name.to_owned(),
            full_name: full_name.to_owned(),
            netns,
        };
        net::prepare(&host.netns)?;
        Ok(host)
    }

    /// Returns the short name that the lab was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the name by which `ip netns exec` and `weft attach` know it.
    pub fn full_name(&self) -> &str {
        &self.full_name
    }

    /// Returns the namespace.
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// Runs a closure inside; see [`NetNs::run`].
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        Ok(self.netns.run(work)?)
    }

    /// Runs a program inside to its end, and returns what it printed.
    pub fn output<S: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        args: &[S],
    ) -> Result<Output, LabError> {
        let program = program.as_ref();
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null());
        self.run(|| command.output())?.map_err(LabError::io(format!(
            "run {} in {}",
            program.display(),
            self.name
        )))
    }

    /// Sets a switch of this host's network stack, such as `net.ipv4.ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), LabError> {
        net::sysctl(&self.netns, key, value)
    }

    /// Sends everything that has no better way through `gateway`.
    pub fn route_through(&self, gateway: IpAddr) -> Result<(), LabError> {
        net::default_route(&self.netns, gateway)
    }

    /// Returns the hardware address of a device, if there is such a device.
    pub fn mac(&self, device: &str) -> Result<Option<MacAddr>, LabError> {
        let found = self.run(|| {
            let mut entries = nix::ifaddrs::getifaddrs()?;
            Ok(entries.find_map(|entry| {
                let address = entry.address.filter(|_| entry.interface_name == device)?;
                address.as_link_addr()?.addr()
            }))
        })?;
        found
            .map(|bytes| bytes.map(MacAddr::new))
            .map_err(|errno: nix::Error| LabError::io(format!("look at {device}"))(errno.into()))
    }

    /// Lists the processes that run inside.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        inside(&self.netns)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        kill_inside(&self.netns);
    }
}
