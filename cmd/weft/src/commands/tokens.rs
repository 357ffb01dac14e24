//! Makes, lists and revokes join tokens.

use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Subcommand};
use weft_api::Client;
use weft_api::tokens::{TokenRequest, TokenStatus};

use crate::context::Context;
use crate::output::{Outcome, Output, clean};
use crate::render::{age, finish, nothing, table};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make, list and revoke join tokens
    #[command(subcommand)]
    Token(TokenVerb),
}

/// Of `token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Make one and print it, alone
    Create {
        /// Admits any number of nodes
        #[arg(long, env = "WEFT_REUSABLE", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
        reusable: bool,
        /// How long it is good
        #[arg(long, env = "WEFT_TTL", value_name = "DURATION", default_value = "15m", value_parser = humantime::parse_duration)]
        ttl: Duration,
    },
    /// Show them, without their secrets
    List,
    /// Make one worthless
    Revoke {
        /// Its id, or the beginning of it
        id: String,
    },
}

impl Verb {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let out = context.out;
        let Self::Token(verb) = self;
        context.with_router(async |router| token(&router, verb, out).await)
    }
}

/// Does what was said about tokens. A new one is printed alone, so that `$(weft token create)` is a token.
async fn token(router: &Client, verb: TokenVerb, out: Output) -> Outcome {
    match verb {
        TokenVerb::Create { reusable, ttl } => create(router, reusable, ttl, out).await,
        TokenVerb::List => out.answer(&router.tokens().await?, |tokens| list(tokens)),
        TokenVerb::Revoke { id } => {
            router.revoke_token(&id).await?;
            out.done(format!("token {id} admits nobody from here on"))
        }
    }
}

async fn create(router: &Client, reusable: bool, ttl: Duration, out: Output) -> Outcome {
    let ttl_seconds = ttl.as_secs();
    let request = TokenRequest {
        reusable,
        ttl_seconds,
    };
    let made = router.create_token(&request).await?;
    out.answer(&made, |made| made.token.clone())
}

/// Tokens, one a line.
fn list(tokens: &[TokenStatus]) -> String {
    if tokens.is_empty() {
        return "no tokens".to_owned();
    }
    let mut table = table(&["TOKEN", "USE", "STATE", "LEFT", "USED BY"]);
    for token in tokens {
        table.add_row(vec![
            token.id.short(),
            if token.reusable { "many" } else { "once" }.to_owned(),
            clean(&token.state),
            token
                .expires_in_seconds
                .map_or_else(nothing, |left| age(Duration::from_secs(left))),
            token.used_by.map_or_else(nothing, |node| node.short()),
        ]);
    }
    finish(&table)
}
