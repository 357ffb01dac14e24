//! The weft command and daemon.
//!
//! ```text
//!   argv, WEFT_*, weft.toml ──▶ cli ──▶ config ──▶ launch ──JSON on a pipe──▶ daemon (the same program, detached)
//!                                 └────▶ commands ──HTTP on the Unix socket────▶ daemon
//! ```
//!
//! Every failure is a [`weft_types::Problem`]: one line on standard error, in words or as JSON, and the exit code of its
//! code. What succeeded goes to standard output, through [`output::Output`] alone.

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
mod saved;
mod secret;
mod state_dir;
mod token;
mod turn;
mod usage;
mod word;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::cli::Cli;
use crate::output::Output;

fn main() -> ExitCode {
    complete::answer(Cli::command);
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let words: Vec<_> = std::env::args_os().collect();
            return usage::explain(&error, &words, Cli::command());
        }
    };
    let out = Output::new(cli.global.output, cli.global.quiet);
    match cli.run() {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(problem) => {
            out.problem(&problem);
            ExitCode::from(problem.code.exit() as u8)
        }
    }
}
