//! The demo that is left up: it stands without the process that made it, its hints can be pasted, and it goes when told.

#![cfg(feature = "demo")]
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::process::{Command, Output};

use weft_lab::{Lab, requires_program, requires_root};

fn demo(flag: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(["demo", flag])
        // As from a shell of root, where there may be no sudo.
        .env_remove("SUDO_UID")
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Takes it down, whatever the test finds.
struct Down;

impl Drop for Down {
    fn drop(&mut self) {
        demo("--down");
    }
}

#[test]
fn a_demo_that_is_kept_stays_until_it_is_taken_down() {
    requires_root!();
    requires_program!("nsenter");
    requires_program!("ping");
    let _down = Down;

    let guide = said(&demo("--keep"));
    // As another demo or a test does.
    Lab::sweep();
    let hints = guide.lines().filter_map(|line| line.strip_prefix("  /"));
    let hints: Vec<String> = hints.map(|line| format!("/{line}")).collect();
    let pasted = |line: &str| Command::new("sh").args(["-c", line]).output().unwrap();

    let [status, ping, down] = hints.as_slice() else {
        panic!("{guide}");
    };
    let status = said(&pasted(status));
    assert!(status.contains("peers 2/2 connected"), "{status}");
    let answer = pasted(ping);
    assert!(answer.status.success(), "{}", said(&answer));
    let container = guide.lines().find(|line| line.contains(" ping -c 3 "));
    let answer = pasted(container.unwrap());
    assert!(answer.status.success(), "{guide}{}", said(&answer));

    let gone = said(&pasted(down));
    assert!(gone.contains("the demo is down"), "{gone}");
    assert_eq!(Lab::kept_folders(), Vec::<std::path::PathBuf>::new());
    assert!(said(&pasted(down)).contains("no demo is up"));
}
