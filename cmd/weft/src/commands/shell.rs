//! Serves the shell: completion, manual, version, configuration check.

use clap::CommandFactory;
use serde::Serialize;
use weft_api::Client;
use weft_types::{Code, ExitCode, Problem};

use super::{Outcome, block_on, place};
use crate::args::{Cli, CompletionArgs, ConfigVerb, Global, ManArgs};
use crate::config::{self, Config, Purpose};
use crate::output::Output;

/// Prints a shell's completion script.
pub(super) fn completion(args: &CompletionArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "weft", &mut script);
    Output::plain(&String::from_utf8_lossy(&script));
    Ok(ExitCode::Ok)
}

/// Prints the manual page, or writes a page per verb.
pub(super) fn man(args: &ManArgs) -> Outcome {
    let failed = |error: std::io::Error| {
        Problem::new(Code::Usage, "the manual cannot be written").why(error.to_string())
    };
    match &args.dir {
        Some(directory) => {
            std::fs::create_dir_all(directory).map_err(failed)?;
            clap_mangen::generate_to(Cli::command(), directory).map_err(failed)?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut page)
                .map_err(failed)?;
            Output::plain(&String::from_utf8_lossy(&page));
        }
    }
    Ok(ExitCode::Ok)
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    /// The router's; null where none answers.
    router: Option<String>,
}

/// Prints the release of this command, and of the router where one answers.
pub(super) fn version(global: &Global, out: Output) -> Outcome {
    let socket = place(global)?.socket;
    let router = block_on(async { Client::new(socket).status().await })
        .ok()
        .map(|status| status.version);
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        router,
    };
    out.answer(&version, |version| match &version.router {
        Some(router) => format!("weft {}\nrouter {router}", version.version),
        None => format!("weft {}", version.version),
    })?;
    Ok(ExitCode::Ok)
}

/// Reads the configuration as `up` does.
pub(super) fn config(verb: ConfigVerb, global: &Global, out: Output) -> Outcome {
    match verb {
        ConfigVerb::Check(args) => {
            let file = config::read_file(global)?;
            let config = Config::new(Purpose::Up, global, *args, file)?;
            out.confirm(&serde_json::json!({ "ok": true }), |_| {
                format!(
                    "the configuration is sound: {} on port {}",
                    config.nickname, config.port
                )
            })?;
            Ok(ExitCode::Ok)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_a_script_and_the_manual_a_page() {
        for shell in [
            clap_complete::Shell::Bash,
            clap_complete::Shell::Fish,
            clap_complete::Shell::Zsh,
        ] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "weft", &mut script);
            assert!(
                String::from_utf8(script).unwrap().contains("token"),
                "{shell}"
            );
        }
        let directory = tempfile::tempdir().unwrap();
        clap_mangen::generate_to(Cli::command(), directory.path()).unwrap();
        assert!(directory.path().join("weft-join.1").exists());
    }
}
