//! The router itself, as a process and as a member: how it is ended.

use weft_types::Problem;

use crate::{Client, Done, Route};

/// Leaves the mesh for good.
pub const LEAVE: Route<(), Done> = Route::post("/v1/leave");
/// Stops the router.
pub const SHUTDOWN: Route<(), Done> = Route::post("/v1/shutdown");

impl Client {
    /// Leaves the mesh for good.
    pub async fn leave(&self) -> Result<Done, Problem> {
        self.ask(LEAVE).await
    }

    /// Stops the router; it is going when this returns, and gone a moment later.
    pub async fn shutdown(&self) -> Result<Done, Problem> {
        self.ask(SHUTDOWN).await
    }
}
