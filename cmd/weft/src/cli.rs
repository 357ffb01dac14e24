//! The whole command line: the verbs of every noun together. What a verb takes and does stands in the file of its noun.
//!
//! Every flag has a twin in the environment, `WEFT_` and its name; the flag wins.

use clap::{CommandFactory, Parser, Subcommand};

use crate::commands::{
    config, containers, events, explain, peers, ping, report, shell, start, status, stop, targets,
    tokens, trace, wait,
};
use crate::config::Global;
use crate::context::Context;
use crate::daemon;
#[cfg(feature = "demo")]
use crate::demo;
use crate::output::{Outcome, Output};

/// What was said.
#[derive(Debug, Parser)]
#[command(
    name = "weft",
    version,
    about = "One encrypted network for containers and hosts, wherever they run",
    after_help = "Start with: sudo weft up",
    propagate_version = true,
    disable_help_subcommand = true,
    next_display_order = None,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// What every verb knows.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do, by noun.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    #[command(flatten)]
    Config(config::Verb),
    #[command(flatten)]
    Containers(containers::Verb),
    /// The daemon itself, as `up` starts it
    #[command(hide = true)]
    Daemon,
    /// Show it all on this machine: three hosts in namespaces, joined, measured, and searched for clear text
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    #[command(flatten)]
    Events(events::Verb),
    #[command(flatten)]
    Explain(explain::Verb),
    #[command(flatten)]
    Peers(peers::Verb),
    #[command(flatten)]
    Ping(ping::Verb),
    #[command(flatten)]
    Report(report::Verb),
    #[command(flatten)]
    Shell(shell::Verb),
    #[command(flatten)]
    Start(start::Verb),
    #[command(flatten)]
    Status(status::Verb),
    #[command(flatten)]
    Stop(stop::Verb),
    #[command(flatten)]
    Targets(targets::Verb),
    #[command(flatten)]
    Tokens(tokens::Verb),
    #[command(flatten)]
    Trace(trace::Verb),
    #[command(flatten)]
    Wait(wait::Verb),
}

impl Cli {
    /// Does it.
    pub(crate) fn run(self) -> Outcome {
        let context = Context {
            out: Output::new(self.global.output, self.global.quiet),
            global: self.global,
            grammar: Self::command,
        };
        self.verb.run(&context)
    }
}

impl Verb {
    fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Config(verb) => verb.run(context),
            Self::Containers(verb) => verb.run(context),
            Self::Daemon => daemon::detached(),
            #[cfg(feature = "demo")]
            Self::Demo(args) => demo::run(&args, context.out),
            Self::Events(verb) => verb.run(context),
            Self::Explain(verb) => verb.run(context),
            Self::Peers(verb) => verb.run(context),
            Self::Ping(verb) => verb.run(context),
            Self::Report(verb) => verb.run(context),
            Self::Shell(verb) => verb.run(context),
            Self::Start(verb) => verb.run(context),
            Self::Status(verb) => verb.run(context),
            Self::Stop(verb) => verb.run(context),
            Self::Targets(verb) => verb.run(context),
            Self::Tokens(verb) => verb.run(context),
            Self::Trace(verb) => verb.run(context),
            Self::Wait(verb) => verb.run(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_twin_in_the_environment() {
        let mut command = Cli::command();
        command.build();
        let mut commands = vec![&command];
        let mut checked = 0;
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands());
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long() else { continue };
                if matches!(long, "help" | "version") {
                    continue;
                }
                let twin = format!("WEFT_{}", long.to_uppercase().replace('-', "_"));
                let twin = if long == "dir" {
                    "WEFT_MAN_DIR".to_owned()
                } else {
                    twin
                };
                assert_eq!(
                    arg.get_env().and_then(|name| name.to_str()),
                    Some(twin.as_str()),
                    "{} --{long}",
                    command.get_name()
                );
                checked += 1;
            }
        }
        assert!(checked > 30);
    }

    #[test]
    fn every_verb_and_flag_is_documented() {
        let docs = include_str!("../../../docs/cli.md");
        let mut command = Cli::command();
        command.build();
        let mut commands = vec![(String::new(), &command)];
        while let Some((path, command)) = commands.pop() {
            for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
                let path = format!("{path} {}", verb.get_name());
                let leaf = verb.get_subcommands().next().is_none();
                assert!(
                    !leaf || docs.contains(&format!("`{}", path.trim())),
                    "{path}"
                );
                commands.push((path, verb));
            }
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long() else { continue };
                if matches!(long, "help" | "version") {
                    continue;
                }
                let twin = arg.get_env().and_then(|name| name.to_str()).unwrap();
                assert!(docs.contains(&format!("--{long}")), "{path} --{long}");
                assert!(docs.contains(twin), "{twin}");
            }
        }
    }

    #[test]
    fn every_line_of_the_contract_is_understood() {
        for line in [
            "up",
            "up 192.0.2.1 host:7000 --name a --range 10.99.0.0/16 --address 10.99.0.1/16 --port 7000 --listen 192.0.2.9 --advertise 203.0.113.1 --advertise 203.0.113.2:1 --mtu 1400 --token-file f --state-dir d --socket s --foreground",
            "launch",
            "join 192.0.2.1 --token wft1-x",
            "join 192.0.2.1 [2001:db8::1]:6783 --token - -q",
            "down",
            "stop",
            "reset --force",
            "connect a b:1",
            "forget a",
            "leave",
            "status",
            "status connections",
            "status peers -o json",
            "status targets",
            "status wire",
            "peers",
            "ping b",
            "trace b",
            "events -f",
            "explain WFT-031",
            "report -f {{.node.nickname}}",
            "wait --for ready",
            "wait --for peers=3 --timeout 2s",
            "wait --for encrypted",
            "token create --reusable --ttl 1h",
            "token list",
            "token revoke 0a",
            "attach --address 10.32.1.7/12 web",
            "detach web",
            "version",
            "completion bash",
            "completion zsh",
            "completion fish",
            "help",
            "help token create",
            "man",
            #[cfg(feature = "demo")]
            "demo --keep",
            #[cfg(feature = "demo")]
            "demo --down",
            "config check",
        ] {
            let words = std::iter::once("weft").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "",
            "uq",
            "up --port 0",
            "up --port 65536",
            "up --range 10.0.0.0/33",
            "up --name \u{1b}[31m",
            "up --token a --token-file b",
            "connect",
            "ping",
            "wait",
            "wait --for peers=x",
            "wait --for joined --timeout soon",
            "attach web",
            "token",
            "token create --ttl 15",
            "status dns",
            "down --force",
        ] {
            let words =
                std::iter::once("weft").chain(line.split(' ').filter(|word| !word.is_empty()));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }

    #[test]
    fn a_token_on_the_command_line_is_not_shown_by_debug() {
        let cli = Cli::try_parse_from(["weft", "join", "a", "--token", "wft1-topsecret"]).unwrap();

        assert!(!format!("{cli:?}").contains("topsecret"));
    }

    #[test]
    fn every_shell_gets_a_script_that_asks_this_program() {
        for shell in [
            clap_complete::Shell::Bash,
            clap_complete::Shell::Fish,
            clap_complete::Shell::Zsh,
        ] {
            let script = String::from_utf8(crate::complete::script(shell).unwrap()).unwrap();

            assert!(script.contains("WEFT_COMPLETE"), "{shell}: {script}");
        }
    }
}
