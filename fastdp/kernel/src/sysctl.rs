//! Sets what a device does by files below `/proc/sys/net`: the settings that netlink does not carry.
//!
//! The files are those of the calling thread's network namespace.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A setting of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// Believe router advertisements (RFC 4861 §6.3.4).
    AcceptRouterAdvertisements,
    /// Check IPv6 addresses for duplicates (RFC 4862 §5.4).
    DuplicateAddressDetection,
    /// Have nothing to do with IPv6.
    Ipv6Disabled,
}

impl Setting {
    const fn file(self) -> &'static str {
        match self {
            Self::AcceptRouterAdvertisements => "accept_ra",
            Self::DuplicateAddressDetection => "accept_dad",
            Self::Ipv6Disabled => "disable_ipv6",
        }
    }
}

/// Switches a setting of a device off. Done where the kernel, or this host, has no IPv6.
pub fn switch_off(link: &str, setting: Setting) -> io::Result<()> {
    let path = path(link, setting)?;
    // Reading first: where `/proc/sys` is read-only, as in containers, the right value may stand there already.
    match fs::read_to_string(&path) {
        Ok(text) if text.trim() == "0" => Ok(()),
        Ok(_) => fs::write(&path, "0"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether a setting of a device is on. It is off where the kernel, or this host, has no IPv6.
pub fn is_on(link: &str, setting: Setting) -> bool {
    let read = path(link, setting).and_then(fs::read_to_string);
    read.is_ok_and(|text| text.trim() != "0")
}

fn path(link: &str, setting: Setting) -> io::Result<PathBuf> {
    if link.is_empty() || link == "." || link == ".." || link.contains('/') {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    Ok(Path::new("/proc/sys/net/ipv6/conf")
        .join(link)
        .join(setting.file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for name in ["", "..", "../all", "a/b"] {
            assert!(path(name, Setting::AcceptRouterAdvertisements).is_err());
        }
    }
}
