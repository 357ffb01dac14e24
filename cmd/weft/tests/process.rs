//! The program as a process: what it prints where, and what it ends with, without a router.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the program with a socket and state of its own.
fn weft(directory: &Path, line: &str) -> Output {
    command(directory, line).output().unwrap()
}

fn command(directory: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WEFT_") {
            command.env_remove(name);
        }
    }
    command
        .args(line.split_whitespace())
        .env("WEFT_SOCKET", directory.join("weft.sock"))
        .env("WEFT_STATE_DIR", directory.join("state"))
        .stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn every_mistake_ends_with_its_code_and_one_line_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("broken.toml");
    fs::write(&broken, "port = 6783\nprot = 1\n").unwrap();
    let broken = broken.display();

    for (line, exit, begins) in [
        ("status", 3, "WFT-003: no weft router is running ("),
        (
            "peers -o json",
            3,
            "{\"code\":\"WFT-003\",\"what\":\"no weft router is running\",",
        ),
        (
            "peers -o json --all",
            2,
            "{\"code\":\"WFT-002\",\"what\":\"unexpected argument '--all' found\",",
        ),
        ("ping b", 3, "WFT-003: "),
        ("token create", 3, "WFT-003: "),
        (
            "nonsense",
            2,
            "WFT-002: unrecognized subcommand 'nonsense'. See: weft --help\n",
        ),
        (
            "token create --reusble",
            2,
            "WFT-002: unexpected argument '--reusble' found (a similar argument exists: '--reusable'). See: weft token create --help\n",
        ),
        (
            "help tokens",
            2,
            "WFT-002: there is no verb \"tokens\". See which there are: weft help\n",
        ),
        ("up --port x", 2, "WFT-002: invalid value 'x'"),
        ("join 192.0.2.1", 2, "WFT-002: join needs a token. "),
        ("join --token wft1-x", 2, "WFT-002: join needs a host"),
        (
            "up --mtu 100",
            9,
            "WFT-018: a mesh cannot have an MTU of 100. ",
        ),
        ("join 192.0.2.1 --token junk", 6, "WFT-030: "),
        (
            "up 192.0.2.1",
            5,
            "WFT-005: this node is in no mesh, and 192.0.2.1 admits nobody",
        ),
        (
            "wait --for ready --timeout 50ms",
            8,
            "WFT-006: ready did not come true within 50ms (",
        ),
        (
            &format!("config check --config {broken}"),
            9,
            &format!("WFT-018: {broken}, line 2, column 1 is wrong (unknown field `prot`"),
        ),
        ("config check --config /nonexistent.toml", 9, "WFT-018: "),
    ] {
        let output = weft(directory.path(), line);
        let complaint = text(&output.stderr);

        assert_eq!(output.status.code(), Some(exit), "{line}: {complaint}");
        assert!(complaint.starts_with(begins), "{line}: {complaint}");
        assert_eq!(text(&output.stdout), "", "{line}");
        assert_eq!(complaint.lines().count(), 1, "{line}: {complaint}");
    }
    assert!(
        !directory.path().join("state").exists(),
        "a mistake makes no files"
    );
}

#[test]
fn what_needs_no_router_works_without() {
    let directory = tempfile::tempdir().unwrap();

    for (line, prints) in [
        ("--help", "Start with: sudo weft up"),
        ("join --help", "--token-file"),
        ("", "Start with: sudo weft up"),
        ("token", "Make one worthless"),
        ("down", "no router runs here"),
        ("help", "Start with: sudo weft up"),
        ("help token create", "--reusable"),
        ("--version", env!("CARGO_PKG_VERSION")),
        ("version", env!("CARGO_PKG_VERSION")),
        ("version -o json", "\"router\":null"),
        ("completion bash", "WEFT_COMPLETE=\"bash\""),
        ("explain 31", "WFT-031: the token is not accepted here"),
        ("explain WFT-031 -o json", "\"exit_code\":6"),
        ("man", ".TH weft 1"),
        ("config check --name x", "sound: x on port 6783"),
    ] {
        let output = weft(directory.path(), line);

        assert_eq!(
            output.status.code(),
            Some(0),
            "{line}: {}",
            text(&output.stderr)
        );
        assert!(
            text(&output.stdout).contains(prints),
            "{line}: {}",
            text(&output.stdout)
        );
    }
    assert_eq!(text(&weft(directory.path(), "config check -q").stdout), "");
}

/// What the package puts into /etc/weft: as it is, and with each of its examples in force.
#[test]
fn the_example_of_the_configuration_is_sound() {
    let directory = tempfile::tempdir().unwrap();
    let example = include_str!("../../../deploy/weft.toml");
    let mut settings = 0;
    let in_force: Vec<&str> = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            // The one that needs a token on this machine.
            Some(setting) if setting.starts_with("token-file") => line,
            Some(setting) if !setting.starts_with(' ') => {
                settings += 1;
                setting
            }
            Some(_) | None => line,
        })
        .collect();

    for (name, text) in [("as-is", example), ("in-force", &in_force.join("\n"))] {
        let file = directory.path().join(name);
        fs::write(&file, text).unwrap();
        let line = format!("config check --config {}", file.display());
        let output = weft(directory.path(), &line);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{name}: {complaint}");
    }
    assert_eq!(settings, 11);
}

#[test]
fn a_flag_wins_over_its_variable_and_a_variable_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("weft.toml");
    fs::write(&file, "name = \"file\"\nport = 7001\n").unwrap();
    let check = |line: &str, port: &str| {
        let output = command(directory.path(), line)
            .env("WEFT_CONFIG", &file)
            .env("WEFT_PORT", port)
            .output()
            .unwrap();
        text(&output.stdout)
    };

    let filed = command(directory.path(), "config check")
        .env("WEFT_CONFIG", &file)
        .output()
        .unwrap();
    assert!(text(&filed.stdout).contains("file on port 7001"));
    assert!(check("config check", "7002").contains("file on port 7002"));
    assert!(check("config check --port 7003", "7002").contains("file on port 7003"));
}

#[test]
fn a_token_is_read_from_a_pipe_or_a_file_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "wft1-topsecret\n").unwrap();

    let mut child = command(directory.path(), "join 192.0.2.1 --token -")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"wft1-topsecret\n")
        .unwrap();
    let piped = child.wait_with_output().unwrap();
    let filed = weft(
        directory.path(),
        &format!("join 192.0.2.1 --token-file {}", file.display()),
    );
    let said = weft(directory.path(), "join 192.0.2.1 --token wft1-topsecret");
    let misplaced = weft(directory.path(), "join 192.0.2.1 wft1-topsecret");

    for output in [piped, filed, said] {
        assert_eq!(output.status.code(), Some(6));
        assert!(
            !text(&output.stderr).contains("topsecret"),
            "{}",
            text(&output.stderr)
        );
    }
    assert_eq!(misplaced.status.code(), Some(2));
    assert!(!text(&misplaced.stderr).contains("topsecret"));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = command(directory.path(), "completion zsh")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());

    let output = child.wait_with_output().unwrap();

    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn an_output_that_takes_nothing_is_told() {
    let directory = tempfile::tempdir().unwrap();

    for line in [
        "completion zsh",
        "version",
        "version -o json",
        "help join",
        "",
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = command(directory.path(), line)
            .stdout(full)
            .output()
            .unwrap();
        let complaint = text(&output.stderr);

        assert_eq!(output.status.code(), Some(1), "{line}: {complaint}");
        assert!(
            complaint.contains("could not be written to standard output")
                && complaint.contains("No space left on device"),
            "{line}: {complaint}"
        );
    }
}

#[test]
fn reset_touches_no_files_of_others() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::write(state.join("thesis.tex"), "").unwrap();

    let output = weft(directory.path(), "reset --force");

    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(state.join("thesis.tex").exists());
}
