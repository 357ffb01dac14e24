//! Serves the shell: completion, help, manual, version.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use weft_api::Client;
use weft_types::{Code, ExitCode, Problem};

use crate::complete;
use crate::context::{Context, block_on};
use crate::manual;
use crate::output::{Outcome, Output};
use crate::usage;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print a shell's completion script
    Completion(CompletionArgs),
    /// Print the help of a verb, or what verbs there are
    Help {
        /// The verb
        #[arg(value_name = "VERB")]
        path: Vec<String>,
    },
    /// Print the manual page
    Man(ManArgs),
    /// Print the release
    Version,
}

/// Of `completion`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Of `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write a page per verb into this directory instead
    #[arg(long, env = "WEFT_MAN_DIR", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

impl Verb {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Completion(args) => completion(&args),
            Self::Help { path } => help(&path, context),
            Self::Man(args) => man(&args, context),
            Self::Version => version(context),
        }
    }
}

/// Prints a shell's completion script.
fn completion(args: &CompletionArgs) -> Outcome {
    Output::plain(&String::from_utf8_lossy(&complete::script(args.shell)?));
    Ok(ExitCode::Ok)
}

/// Prints the help of a verb, or what verbs there are.
fn help(path: &[String], context: &Context) -> Outcome {
    let verb = path.iter().map(String::as_str);
    let help = usage::help_of(verb, (context.grammar)()).ok_or_else(|| {
        let what = format!("there is no verb \"{}\"", path.join(" "));
        Problem::new(Code::Usage, what).fix("See which there are: weft help")
    })?;
    Output::plain(&help);
    Ok(ExitCode::Ok)
}

/// Prints the manual page, or writes a page per verb.
fn man(args: &ManArgs, context: &Context) -> Outcome {
    let mut grammar = (context.grammar)();
    let written = match &args.dir {
        Some(directory) => manual::write_all(grammar, directory),
        None => {
            grammar.build();
            manual::page(&grammar).map(|page| Output::plain(&String::from_utf8_lossy(&page)))
        }
    };
    written.map_err(|error| {
        Problem::new(Code::Usage, "the manual cannot be written").why(error.to_string())
    })?;
    Ok(ExitCode::Ok)
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    /// The router's; null where none answers.
    router: Option<String>,
}

/// Prints the release of this command, and of the router where one answers.
fn version(context: &Context) -> Outcome {
    let socket = context.place()?.socket;
    let status = block_on(async { Client::new(socket).status().await });
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        router: status.ok().map(|status| status.version),
    };
    context.out.answer(&version, Version::text)
}

impl Version {
    fn text(&self) -> String {
        match &self.router {
            Some(router) => format!("weft {}\nrouter {router}", self.version),
            None => format!("weft {}", self.version),
        }
    }
}
