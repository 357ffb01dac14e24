//! Looks into the configuration.

use clap::Subcommand;

use crate::config::{self, Config, Purpose, RouterArgs};
use crate::context::Context;
use crate::output::Outcome;

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
    let (name, port) = (config.nickname, config.port);
    context
        .out
        .confirm(&serde_json::json!({ "ok": true }), |_| {
            format!("the configuration is sound: {name} on port {port}")
        })
}
