//! Skips what cannot run here, and says so in a line that continuous integration counts.

use weft_kernel::netns::{NetNs, NetNsError};

use crate::net;

/// Returns from the test, and says why, unless it may make network namespaces.
#[macro_export]
macro_rules! requires_root {
    () => {
        if $crate::skip::without_root(module_path!()) {
            return;
        }
    };
}

/// Returns from the test, and says why, unless a program is installed.
#[macro_export]
macro_rules! requires_program {
    ($program:expr) => {
        if $crate::skip::without_program(module_path!(), $program) {
            return;
        }
    };
}

/// Gives the path of the `weft` program, or returns from the test, and says why, if it is not built.
#[macro_export]
macro_rules! requires_weft {
    () => {
        match $crate::weft::binary() {
            Some(path) => path,
            None => {
                $crate::skip::skip(
                    module_path!(),
                    "needs the weft program: cargo build -p weft, or WEFT_BIN",
                );
                return;
            }
        }
    };
}

/// Says that a test is skipped, in a line that begins with `skipped: `.
pub fn skip(test: &str, reason: &str) {
    #[expect(
        clippy::print_stdout,
        reason = "the test harness shows it, and continuous integration counts such lines"
    )]
    {
        println!("skipped: {reason} ({test})");
    }
}

/// Makes a namespace for a test of a single crate, ready as [`net::prepare`] says; `None`, and a word about it, where none
/// can be made.
pub fn namespace() -> Option<NetNs> {
    // The test harness names the thread of a test after it.
    if without_root(std::thread::current().name().unwrap_or_default()) {
        return None;
    }
    let namespace = NetNs::create().expect("a namespace, as a moment ago");
    net::prepare(&namespace).expect("a loopback device");
    Some(namespace)
}

/// Runs the work of a test in a namespace of its own, which holds nothing but a loopback device that is down. Where none can
/// be made the test is skipped, and says so. A panic of `work` fails the test.
pub fn in_namespace<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send) {
    // The test harness names the thread of a test after it.
    if without_root(std::thread::current().name().unwrap_or_default()) {
        return;
    }
    let namespace = NetNs::create().expect("a namespace, as a moment ago");
    namespace.block_on(work).expect("a namespace of ours");
}

/// Says that a test is skipped if this process may not make namespaces.
pub fn without_root(test: &str) -> bool {
    match NetNs::create() {
        Ok(_) => false,
        Err(NetNsError::Create(error)) => {
            skip(test, &format!("needs root for network namespaces: {error}"));
            true
        }
        // Anything else is a fault that the test should meet.
        Err(_) => false,
    }
}

/// Says that a test is skipped if a program is not on the path.
pub fn without_program(test: &str, program: &str) -> bool {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    });
    if !found {
        skip(test, &format!("needs the program {program}"));
    }
    !found
}
