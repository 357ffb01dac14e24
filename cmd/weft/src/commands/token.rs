//! Makes, lists and revokes join tokens.

use weft_api::Client;
use weft_api::Done;
use weft_api::tokens::TokenRequest;
use weft_types::ExitCode;

use super::Outcome;
use crate::args::TokenVerb;
use crate::output::Output;
use crate::render;

/// Does what was said about tokens. A new one is printed alone, so that `$(weft token create)` is a token.
pub(super) async fn token(router: &Client, verb: TokenVerb, out: Output) -> Outcome {
    match verb {
        TokenVerb::Create { reusable, ttl } => {
            let request = TokenRequest {
                reusable,
                ttl_seconds: ttl.as_secs(),
            };
            let made = router.create_token(&request).await?;
            out.answer(&made, |made| made.token.clone())?;
        }
        TokenVerb::List => out.answer(&router.tokens().await?, |tokens| render::tokens(tokens))?,
        TokenVerb::Revoke { id } => {
            router.revoke_token(&id).await?;
            out.confirm(&Done {}, |_| {
                format!("token {id} admits nobody from here on")
            })?;
        }
    }
    Ok(ExitCode::Ok)
}
