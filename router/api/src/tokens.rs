//! Join tokens: made, listed, revoked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weft_types::{NodeId, Problem, TokenId};

use crate::{Client, Done, Route};

/// Lists them, without their secrets.
pub const LIST: Route<(), Vec<TokenStatus>> = Route::get("/v1/tokens");
/// Makes one.
pub const CREATE: Route<TokenRequest, TokenAnswer> = Route::post("/v1/tokens");
/// Makes one worthless.
pub const REVOKE: Route<TokenRevokeRequest, Done> = Route::post("/v1/tokens/revoke");

/// `POST /v1/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Admits more than one node.
    pub reusable: bool,
    /// How long it lives.
    pub ttl_seconds: u64,
}

/// A new token: secret, and shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenAnswer {
    /// As it is handed to a joiner.
    pub token: String,
}

/// A token, without its secret: `GET /v1/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenStatus {
    /// Which.
    #[schemars(with = "String")]
    pub id: TokenId,
    /// Admits more than one node.
    pub reusable: bool,
    /// `live`, `used`, `expired`, `voiding` (until that is saved) or `voided`.
    pub state: String,
    /// What is left of its life.
    pub expires_in_seconds: Option<u64>,
    /// Who joined with it (single use).
    #[schemars(with = "Option<String>")]
    pub used_by: Option<NodeId>,
}

/// `POST /v1/tokens/revoke`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRevokeRequest {
    /// The token's id, or the beginning of it.
    pub token: String,
}

impl Client {
    /// Tokens, without their secrets.
    pub async fn tokens(&self) -> Result<Vec<TokenStatus>, Problem> {
        self.ask(LIST).await
    }

    /// Makes a token.
    pub async fn create_token(&self, request: &TokenRequest) -> Result<TokenAnswer, Problem> {
        self.request(CREATE, request).await
    }

    /// Voids a token.
    pub async fn revoke_token(&self, token: &str) -> Result<Done, Problem> {
        let token = token.to_owned();
        self.request(REVOKE, &TokenRevokeRequest { token }).await
    }
}
