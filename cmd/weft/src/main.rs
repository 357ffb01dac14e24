//! The weft command and daemon.
//!
//! ```text
//!   argv, WEFT_*, weft.toml ──▶ cli ──▶ config ──▶ launch ──JSON on a pipe──▶ daemon (the same program, detached)
//!                                 └────▶ commands ──HTTP on the Unix socket────▶ daemon
//! ```
//!
//! Every failure is a [`weft_types::Problem`]: one line on standard error, and the exit code of its code. What
//! succeeded goes to standard output, through [`output::Output`] alone.

mod cli;
mod commands;
mod complete;
mod config;
mod context;
mod daemon;
#[cfg(feature = "demo")]
mod demo;
mod fault;
mod host;
mod launch;
mod machine;
mod manual;
mod output;
mod reboot;
mod render;
mod secret;
mod state_dir;
mod word;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use weft_types::Code;

use crate::cli::Cli;
use crate::output::Output;

fn main() -> ExitCode {
    complete::answer(Cli::command);
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    match cli.run() {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(problem) => {
            Output::problem(&problem);
            ExitCode::from(problem.code.exit() as u8)
        }
    }
}

/// Shows help, or what was wrong with the command line.
fn explain(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        Output::plain(&error.render().ansi().to_string());
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    Output::complaint(&format!("{}: {}", Code::Usage, text.trim_end()));
    ExitCode::from(Code::Usage.exit() as u8)
}
