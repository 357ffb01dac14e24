//! Ends the router: its membership, or its process.

use weft_api::Done;
use weft_api::process::{LEAVE, SHUTDOWN};
use weft_router_proto::io::Command;
use weft_types::Problem;

use super::handle::Api;
use super::routes::Routes;
use crate::ask::Ask;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .on(LEAVE, |api| async move { api.leave().await })
        .on(SHUTDOWN, |api| async move {
            api.shutdown().await?;
            Ok(Done {})
        })
}

impl Api {
    /// Leaves the mesh for good.
    pub async fn leave(&self) -> Result<Done, Problem> {
        self.ask(Ask::order(Command::Leave)).await?;
        Ok(Done {})
    }
}
