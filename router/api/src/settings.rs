//! What the router was told at its start: read by a command that wants something else of it.

use std::collections::BTreeMap;

use weft_types::Problem;

use crate::{Client, Route};

/// Says what the router was told at its start.
pub const SETTINGS: Route<(), Settings> = Route::get("/v1/settings");

/// By the name of its flag, as it is written there. No secret is among it.
pub type Settings = BTreeMap<String, String>;

impl Client {
    /// What the router was told at its start.
    pub async fn settings(&self) -> Result<Settings, Problem> {
        self.ask(SETTINGS).await
    }
}
