//! Makes, lists and revokes join tokens.

use std::time::Duration;

use weft_api::Done;
use weft_api::status::not_joined;
use weft_api::tokens::{
    CREATE, LIST, REVOKE, TokenAnswer, TokenRequest, TokenRevokeRequest, TokenStatus,
};
use weft_router_proto::io::Command;
use weft_router_proto::status as core;
use weft_types::{Code, Problem, TokenId};

use super::handle::Api;
use super::routes::Routes;
use crate::ask::Ask;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .on(LIST, |api| async move { api.tokens().await })
        .on_request(CREATE, |api, request: TokenRequest| async move {
            api.create_token(&request).await
        })
        .on_request(REVOKE, |api, request: TokenRevokeRequest| async move {
            api.revoke_token(&request.token).await
        })
}

impl Api {
    /// Tokens, without their secrets.
    pub async fn tokens(&self) -> Result<Vec<TokenStatus>, Problem> {
        let tokens = self.known_tokens().await?.into_iter();
        Ok(tokens.map(assemble).collect())
    }

    /// Makes one.
    pub async fn create_token(&self, request: &TokenRequest) -> Result<TokenAnswer, Problem> {
        let ttl = Duration::from_secs(request.ttl_seconds);
        let text = self.ask(Ask::token(request.reusable, ttl)).await?;
        Ok(TokenAnswer {
            token: text.reveal().to_owned(),
        })
    }

    /// Makes one worthless, which is named by its id or the beginning of it.
    pub async fn revoke_token(&self, name: &str) -> Result<Done, Problem> {
        let tokens = self.known_tokens().await?;
        let token = find(&tokens, name)?;
        self.ask(Ask::order(Command::TokenRevoke { token })).await?;
        Ok(Done {})
    }

    async fn known_tokens(&self) -> Result<Vec<core::TokenStatus>, Problem> {
        let core = self.report().await?.core;
        core.mesh.map(|_| core.tokens).ok_or_else(not_joined)
    }
}

fn find(tokens: &[core::TokenStatus], name: &str) -> Result<TokenId, Problem> {
    let mut found = tokens
        .iter()
        .filter(|token| token.id.to_string().starts_with(name));
    match (found.next(), found.next()) {
        (Some(token), None) => Ok(token.id),
        (Some(_), Some(_)) | (None, _) => Err(Problem::new(
            Code::Usage,
            format!("{name:?} names no single token of this node"),
        )
        .fix("See which there are: weft token list")),
    }
}

fn assemble(token: core::TokenStatus) -> TokenStatus {
    TokenStatus {
        id: token.id,
        reusable: token.reusable,
        state: token.state.to_owned(),
        expires_in_seconds: token.expires_in.map(|left| left.as_secs()),
        used_by: token.used_by,
    }
}
