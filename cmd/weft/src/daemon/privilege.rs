//! Leaves a router started by hand no more privilege than the unit leaves it.

use std::io;

use nix::unistd::{Gid, geteuid, getgroups, setgroups};
use weft_kernel::privilege::{self, Capability};

use crate::config::Config;

/// Descriptors that a router can use: far fewer, but for a flood of strangers.
const DESCRIPTORS: u64 = 65_536;

/// Gives up what a router does not need, while there is one thread still. What cannot be given up is told, and no reason
/// not to start: who forbids that has shut the router in already.
pub(super) fn give_up(config: &Config) {
    if let Some(gid) = weft_router::api::socket_group() {
        tell(
            join_group(Gid::from_raw(gid)),
            "the socket's group is not joined",
        );
    }
    tell(
        privilege::keep_only(&needed(config)),
        "privileges are not given up",
    );
    tell(
        privilege::hide_memory(),
        "the router's memory may be looked into",
    );
    tell(
        privilege::raise_descriptors(DESCRIPTORS).map(drop),
        "the limit of open files is not raised",
    );
}

fn tell(done: io::Result<()>, what: &str) {
    if let Err(error) = done {
        tracing::warn!(%error, "{what}");
    }
}

fn needed(config: &Config) -> Vec<Capability> {
    let status = config.status_listen.map_or(u16::MAX, |at| at.port());
    let mut needed = vec![Capability::NetAdmin, Capability::NetRaw];
    if config.port < 1024 || status < 1024 {
        needed.push(Capability::NetBindService);
    }
    needed
}

/// Without CAP_CHOWN a file is given only to groups that the process is in.
fn join_group(group: Gid) -> io::Result<()> {
    let mut groups = getgroups()?;
    if !geteuid().is_root() || groups.contains(&group) {
        return Ok(());
    }
    groups.push(group);
    Ok(setgroups(&groups)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_to_a_low_port_is_kept_only_for_one() {
        let needed = |text: &str| {
            needed(&crate::config::parsed(text, "").expect("a configuration"))
                .contains(&Capability::NetBindService)
        };

        assert!(!needed("weft up"));
        assert!(needed("weft up --port 443"));
        assert!(needed("weft up --status-listen 127.0.0.1:80"));
    }
}
