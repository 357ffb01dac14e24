//! What the manual says beside the grammar.

use weft_types::ExitCode;

/// What a command ends with.
pub(super) const EXITS: [(ExitCode, &str); 14] = [
    (ExitCode::Ok, "all is well"),
    (ExitCode::Internal, "a fault of weft's own"),
    (ExitCode::Usage, "the command line makes no sense"),
    (ExitCode::NotRunning, "no router runs"),
    (ExitCode::Degraded, "it works, and something is wrong"),
    (ExitCode::NotJoined, "this node is in no mesh"),
    (
        ExitCode::Refused,
        "refused: not authenticated, or not allowed",
    ),
    (
        ExitCode::Unreachable,
        "a peer, port or path does not answer",
    ),
    (ExitCode::TimedOut, "`wait` waited long enough"),
    (ExitCode::Configuration, "the configuration is wrong"),
    (ExitCode::Privilege, "more privilege is needed"),
    (
        ExitCode::Conflict,
        "a conflict: name, address, range, port, identity, mesh",
    ),
    (ExitCode::Version, "another version"),
    (ExitCode::Machine, "the machine lacks something"),
];

/// What is where.
pub(super) const FILES: [(&str, &str); 5] = [
    (
        "/etc/weft/weft.toml",
        "The configuration, where there is one; weft-config-check(1) looks it over.",
    ),
    (
        "/run/weft/weft.sock",
        "The router's socket: for root, the router's user, and the group of the socket.",
    ),
    (
        "/var/lib/weft/",
        "Keys and state. A copy of it on another machine is a clone: leave it out of images.",
    ),
    (
        "/var/lib/weft/weft.log",
        "The log, where no journal takes it.",
    ),
    (
        "/usr/lib/systemd/system/weft.service",
        "Starts the router at boot.",
    ),
];

/// What is done with a verb: what for, and the line.
pub(super) fn examples(page: &str) -> &'static [(&'static str, &'static str)] {
    let found = EXAMPLES.iter().find(|(of, _)| *of == page);
    found.map_or(&[], |(_, lines)| lines)
}

type Examples = &'static [(&'static str, &'static str)];

const EXAMPLES: &[(&str, Examples)] = &[
    (
        "weft",
        &[
            ("Begin a mesh on the first host", "sudo weft up"),
            (
                "Join it from the second, with the line that the first has printed",
                "sudo weft join 203.0.113.7 --token wft1-…",
            ),
            ("See how things stand", "weft status"),
        ],
    ),
    (
        "weft-attach",
        &[(
            "Put a Docker container on the mesh",
            "sudo weft attach --address 10.32.1.7/12 web",
        )],
    ),
    (
        "weft-completion",
        &[("For this shell and all that follow", "weft completion bash")],
    ),
    ("weft-config", &[("Before a restart", "weft config check")]),
    (
        "weft-config-check",
        &[(
            "Look over a file before it is put in place",
            "weft config check --config ./weft.toml",
        )],
    ),
    (
        "weft-connect",
        &[(
            "Dial one more host, from here on and after every start",
            "sudo weft connect 203.0.113.8",
        )],
    ),
    (
        "weft-demo",
        &[
            (
                "Three hosts on this machine, for half a minute",
                "sudo weft demo",
            ),
            ("Three hosts to look around in", "sudo weft demo --keep"),
            ("Until they are taken down", "sudo weft demo --down"),
        ],
    ),
    (
        "weft-detach",
        &[("Take a container off the mesh", "sudo weft detach web")],
    ),
    (
        "weft-down",
        &[(
            "Stop the router; its state and its mesh stay",
            "sudo weft down",
        )],
    ),
    (
        "weft-events",
        &[
            ("What happened lately", "weft events"),
            ("What happens, for a program", "weft events -f -o json"),
        ],
    ),
    (
        "weft-explain",
        &[(
            "What an error means, and what to do",
            "weft explain WFT-031",
        )],
    ),
    (
        "weft-forget",
        &[("Dial a host no more", "sudo weft forget 203.0.113.8")],
    ),
    (
        "weft-join",
        &[
            (
                "Join with the line that weft up has printed",
                "sudo weft join 203.0.113.7 --token wft1-…",
            ),
            (
                "Keep the token out of the process list",
                "sudo weft join 203.0.113.7 --token-file /etc/weft/token",
            ),
        ],
    ),
    (
        "weft-leave",
        &[(
            "Leave for good, before a machine is given away",
            "sudo weft leave",
        )],
    ),
    (
        "weft-man",
        &[(
            "Write all pages",
            "weft man --dir /usr/local/share/man/man1",
        )],
    ),
    ("weft-peers", &[("Who else there is", "weft peers")]),
    (
        "weft-ping",
        &[
            ("By what path, how long, and how large", "weft ping web-2"),
            ("Ten times, and a summary", "weft ping web-2 -c 10"),
        ],
    ),
    (
        "weft-report",
        &[(
            "The addresses of this node",
            "weft report -f {{.node.addresses}}",
        )],
    ),
    (
        "weft-reset",
        &[("Leave, and remove everything", "sudo weft reset")],
    ),
    (
        "weft-retry",
        &[("After an outage, without waiting", "sudo weft retry")],
    ),
    (
        "weft-status",
        &[
            ("Everything on one screen", "weft status"),
            (
                "By what path each member is reached, and why",
                "weft status connections",
            ),
        ],
    ),
    (
        "weft-token",
        &[("Admit one more host", "sudo weft token create")],
    ),
    (
        "weft-token-create",
        &[
            ("Admit one host within 15 minutes", "sudo weft token create"),
            (
                "Admit any number of hosts for a day",
                "sudo weft token create --reusable --ttl 1d",
            ),
        ],
    ),
    (
        "weft-token-list",
        &[(
            "Which tokens are good, and how long",
            "sudo weft token list",
        )],
    ),
    (
        "weft-token-revoke",
        &[("Make one worthless", "sudo weft token revoke 0a1b2c3d")],
    ),
    ("weft-trace", &[("From relay to relay", "weft trace web-2")]),
    (
        "weft-up",
        &[
            (
                "Begin a mesh, or go on with the one this host is in",
                "sudo weft up",
            ),
            (
                "Begin one where the usual range is in use",
                "sudo weft up --range 172.28.0.0/14",
            ),
        ],
    ),
    (
        "weft-version",
        &[("Of this command and of the router", "weft version")],
    ),
    (
        "weft-wait",
        &[
            (
                "In a script, after a start",
                "weft wait --for ready --timeout 10s",
            ),
            ("Until three others are reached", "weft wait --for peers=3"),
        ],
    ),
];

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::Cli;
    use crate::manual::{name, page, visible, write_all};

    #[test]
    fn every_page_has_its_sections_and_an_example_that_can_be_typed() {
        let mut grammar = Cli::command();
        grammar.build();
        let mut commands = vec![&grammar];
        let mut pages = 0;
        while let Some(command) = commands.pop() {
            commands.extend(visible(command));
            let text = String::from_utf8(page(command).unwrap()).unwrap();
            for section in [
                "NAME",
                "SYNOPSIS",
                "ENVIRONMENT",
                "EXAMPLES",
                "FILES",
                "EXIT STATUS",
            ] {
                let heading = section.replace(' ', "\" \"");
                let headings = [
                    format!(".SH {section}"),
                    format!(".SH \"{section}\""),
                    format!(".SH \"{heading}\""),
                ];
                assert!(
                    headings.iter().any(|one| text.contains(one)),
                    "{}: {section}",
                    name(command)
                );
            }
            assert!(!examples(&name(command)).is_empty(), "{}", name(command));
            for (_, line) in examples(&name(command)) {
                let words = line.trim_start_matches("sudo ").split(' ');
                assert!(Cli::try_parse_from(words).is_ok(), "{line}");
            }
            pages += 1;
        }
        assert!(pages > 25);
    }

    #[test]
    fn no_example_is_of_a_verb_that_is_gone() {
        let directory = tempfile::tempdir().unwrap();

        write_all(Cli::command(), directory.path()).unwrap();

        for (of, _) in EXAMPLES {
            let optional = cfg!(not(feature = "demo")) && *of == "weft-demo";
            let written = directory.path().join(format!("{of}.1")).exists();
            assert!(written || optional, "{of}");
        }
    }

    #[test]
    fn exit_codes_are_told_as_in_the_documentation() {
        let docs = include_str!("../../../../docs/cli.md");
        for (exit, what) in EXITS {
            let cells = format!("| {} | {what} |", exit as u8);
            assert!(docs.contains(&cells), "{cells}");
        }
    }
}
