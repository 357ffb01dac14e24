//! Shows the other members.

use std::time::SystemTime;

use clap::Subcommand;
use weft_api::Client;

use crate::context::Context;
use crate::output::{Outcome, Output};
use crate::render::members;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the other members
    Peers,
}

impl Verb {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let out = context.out;
        let Self::Peers = self;
        context.with_router(async |router| peers(&router, out).await)
    }
}

/// Shows the other members.
async fn peers(router: &Client, out: Output) -> Outcome {
    let status = router.status().await?;
    let now = SystemTime::now();
    out.answer(&status.peers, |peers| members::peers(peers, now))
}
