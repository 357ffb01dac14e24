//! Containers on ports of this host: a part of the status, and how the router is told when one comes and when one goes.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weft_types::{MacAddr, Problem};

use crate::{Client, Done, Route};

/// Tells of a container.
pub const ATTACH: Route<AttachRequest, Done> = Route::post("/v1/attach");
/// Tells that a container is gone.
pub const DETACH: Route<DetachRequest, Done> = Route::post("/v1/detach");

/// A container on a port of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerStatus {
    /// Its Ethernet address.
    #[schemars(with = "String")]
    pub mac: MacAddr,
    /// Its addresses on the mesh.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpAddr>,
    /// The host's end of its veth pair.
    pub port: String,
}

/// `POST /v1/attach`: a container was put on a port of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// The container's Ethernet address.
    #[schemars(with = "String")]
    pub mac: MacAddr,
    /// Its addresses, with the prefix length of their network.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// The host's end of its veth pair.
    pub port: String,
}

/// `POST /v1/detach`: a container is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DetachRequest {
    /// The container's Ethernet address.
    #[schemars(with = "String")]
    pub mac: MacAddr,
}

impl Client {
    /// Tells of a container.
    pub async fn attach(&self, request: &AttachRequest) -> Result<Done, Problem> {
        self.request(ATTACH, request).await
    }

    /// Tells that a container is gone.
    pub async fn detach(&self, request: &DetachRequest) -> Result<Done, Problem> {
        self.request(DETACH, request).await
    }
}
