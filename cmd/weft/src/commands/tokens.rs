//! Makes, lists and revokes join tokens.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Subcommand};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::fstat;
use weft_api::Client;
use weft_api::tokens::{TokenAnswer, TokenRequest, TokenStatus};
use weft_router_proto::token::Token;
use weft_types::{Code, Problem};

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
    if leads_nowhere(std::io::stdout()) {
        return Err(nowhere());
    }
    let ttl_seconds = ttl.as_secs();
    let request = TokenRequest {
        reusable,
        ttl_seconds,
    };
    let made = router.create_token(&request).await?;
    match out.hand_over(&made, |made| made.token.clone()) {
        Err(unwritten) => Err(take_back(router, &made, unwritten).await),
        given => given,
    }
}

/// Whether standard output was closed: the runtime of the language has put /dev/null in its place, open both ways. Whoever
/// wants nothing of what is printed opens it for writing.
fn leads_nowhere(output: impl AsFd) -> bool {
    let Ok(flags) = fcntl(&output, FcntlArg::F_GETFL) else {
        return true;
    };
    let both_ways = OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE == OFlag::O_RDWR;
    let null = fs::metadata("/dev/null").map(|null| null.rdev());
    let device = fstat(&output).map(|output| output.st_rdev);
    both_ways && matches!((null, device), (Ok(null), Ok(device)) if null == device)
}

fn nowhere() -> Problem {
    let what = "standard output is closed, so nobody would see the token";
    Problem::new(Code::Usage, what).fix("No token was made; run the command where it can print")
}

/// A token that nobody has seen is none: made worthless, so that nothing is left that admits.
async fn take_back(router: &Client, made: &TokenAnswer, unwritten: Problem) -> Problem {
    let revoked = match Token::parse(&made.token) {
        Ok(token) => router.revoke_token(&token.id.to_string()).await.is_ok(),
        Err(_) => false,
    };
    unwritten.fix(if revoked {
        "The token was revoked, since nobody has seen it; make another where it can be printed"
    } else {
        "A token that nobody has seen is good until its time is over: weft token list, weft token revoke ID"
    })
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
