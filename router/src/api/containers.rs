//! Is told of containers on ports of this host, and tells of them.

use weft_api::Done;
use weft_api::containers::{ATTACH, AttachRequest, ContainerStatus, DETACH, DetachRequest};
use weft_router_proto::io::Command;
use weft_router_proto::status as core;
use weft_types::{MacAddr, Problem};

use super::handle::Api;
use super::routes::Routes;
use crate::ask::Ask;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .on_request(
            ATTACH,
            |api, request| async move { api.attach(request).await },
        )
        .on_request(DETACH, |api, request: DetachRequest| async move {
            api.detach(request.mac).await
        })
}

impl Api {
    /// A container was put on a port of ours.
    pub async fn attach(&self, request: AttachRequest) -> Result<Done, Problem> {
        let AttachRequest {
            mac,
            addresses,
            port,
        } = request;
        let attach = Command::Attach {
            mac,
            addresses,
            port,
        };
        self.ask(Ask::order(attach)).await?;
        Ok(Done {})
    }

    /// A container is gone.
    pub async fn detach(&self, mac: MacAddr) -> Result<Done, Problem> {
        self.ask(Ask::order(Command::Detach { mac })).await?;
        Ok(Done {})
    }
}

/// What is told of a container.
pub(super) fn assemble(container: core::ContainerStatus) -> ContainerStatus {
    let core::ContainerStatus {
        mac,
        addresses,
        port,
    } = container;
    ContainerStatus {
        mac,
        addresses,
        port,
    }
}
