//! Looks into the configuration.

use clap::Subcommand;
use weft_types::Code;

use crate::config::{self, Config, Purpose, RouterArgs};
use crate::context::Context;
use crate::output::Outcome;
use crate::{saved, token};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Look into the configuration
    #[command(subcommand)]
    Config(ConfigVerb),
}

/// Of `config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Read the configuration as `up` does, and say what is wrong with it
    Check(Box<RouterArgs>),
}

impl Verb {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let Self::Config(ConfigVerb::Check(args)) = self;
        check(*args, context)
    }
}

/// Reads the configuration as `up` does.
fn check(args: RouterArgs, context: &Context) -> Outcome {
    let file = config::read_file(&context.global)?;
    let config = Config::new(Purpose::Up, &context.global, args, file)?;
    config.token.as_ref().map(token::parse).transpose()?;
    match saved::refuse_unfit_settings(&config) {
        // A router that runs has the state, and is a member.
        Err(problem) if problem.code != Code::DaemonRunning => return Err(problem),
        Ok(()) | Err(_) => {}
    }
    let (name, port) = (config.nickname, config.port);
    context
        .out
        .confirm(&serde_json::json!({ "ok": true }), |_| {
            format!("the configuration is sound: {name} on port {port}")
        })
}
