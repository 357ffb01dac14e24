//! Says what a reboot leaves of a router that was started by hand, and how to have it back.

use std::path::Path;

/// Where units lie.
const UNITS: [&str; 4] = [
    "etc/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// The unit, by its name.
const UNIT: &str = "weft.service";

/// Where the unit lies once it was enabled.
const ENABLED: &str = "etc/systemd/system/multi-user.target.wants/weft.service";

/// What a person should know of the next reboot; nothing where the unit sees to it. `usual` is whether the router's state
/// is where the unit looks for it.
pub(crate) fn hint(root: &Path, usual: bool) -> Option<String> {
    if usual && root.join(ENABLED).symlink_metadata().is_ok() {
        return None;
    }
    let lies_in = |folder: &str| root.join(folder).join(UNIT).exists();
    let start = if usual && UNITS.into_iter().any(lies_in) {
        "at boot:     sudo systemctl enable weft"
    } else {
        "after boot:  sudo weft up"
    };
    Some(format!(
        "{start}  (mesh, keys and address survive a reboot, the router does not)"
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_unit_is_named_where_it_lies_and_nothing_where_it_is_enabled() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let begins = |usual, text: &str| hint(root, usual).unwrap().starts_with(text);

        assert!(begins(true, "after boot:  sudo weft up"));
        fs::create_dir_all(root.join(UNITS[1])).unwrap();
        fs::write(root.join(UNITS[1]).join(UNIT), "").unwrap();
        assert!(begins(true, "at boot:     sudo systemctl enable weft"));
        assert!(begins(false, "after boot:  sudo weft up"));
        fs::create_dir_all(root.join(ENABLED).parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/nowhere", root.join(ENABLED)).unwrap();
        assert_eq!(hint(root, true), None);
        assert!(begins(false, "after boot:  sudo weft up"));
    }
}
