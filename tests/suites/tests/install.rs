//! What the README tells an operator to type, typed: installed, started at boot, and on many hosts.

use std::path::Path;
use std::process::{Command, Stdio};

use weft_lab::{requires_program, requires_root, requires_weft};

#[test]
fn the_commands_of_the_readme_make_one_mesh_of_three_hosts_that_survives_a_power_failure() {
    let binary = requires_weft!();
    requires_root!();
    for program in ["bash", "ip", "strip", "systemctl", "unshare"] {
        requires_program!(program);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/try");

    let tried = Command::new(script)
        .arg(binary)
        .stdin(Stdio::null())
        .output()
        .unwrap();

    let (said, how) = (
        String::from_utf8_lossy(&tried.stdout),
        String::from_utf8_lossy(&tried.stderr),
    );
    assert!(tried.status.success(), "{said}{how}");
    assert!(
        said.starts_with("three hosts, one mesh, before and after a power failure")
            && said.trim_end().ends_with("with 3 members"),
        "{said}{how}"
    );
}
