//! Remembers which settings were said for this command, by flag or by variable: what a router that runs cannot take is
//! refused by these names, not passed over.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::args::{Global, RouterArgs};

/// Flags, as they are written, without the dashes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Said(BTreeSet<String>);

impl Said {
    /// Looks which ones there are. What is dialled, and what admits, is no setting.
    pub(crate) fn new(global: &Global, args: &RouterArgs) -> Self {
        let said = [
            ("address", args.address.is_some()),
            ("advertise", !args.advertise.is_empty()),
            ("bridge", args.bridge.is_some()),
            ("listen", args.listen.is_some()),
            ("log", args.log.is_some()),
            ("log-format", args.log_format.is_some()),
            ("mtu", args.mtu.is_some()),
            ("name", args.name.is_some()),
            ("port", args.port.is_some()),
            ("range", args.range.is_some()),
            ("state-dir", global.state_dir.is_some()),
            ("status-listen", args.status_listen.is_some()),
        ];
        let said = said.into_iter().filter(|(_, there)| *there);
        Self(said.map(|(name, _)| name.to_owned()).collect())
    }

    /// Whether this one was said.
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.0.contains(flag)
    }

    /// All that were said.
    pub(crate) fn flags(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}
