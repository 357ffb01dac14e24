//! Puts containers on the mesh, and takes them off.
//!
//! The router never enters another namespace; this command does, and tells the router what it made.

use std::path::Path;

use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde::Serialize;
use weft_api::Client;
use weft_api::containers::{AttachRequest, DetachRequest};
use weft_api::status::not_joined;
use weft_fastdp::attach::{self as fastdp, Attachment};
use weft_fastdp::names::CONTAINER_DEVICE;
use weft_fastdp::target::Target;
use weft_kernel::netns::NAMED;
use weft_types::{ExitCode, MacAddr};

use super::engine;
use crate::config::{self, Place};
use crate::context::{Context, block_on};
use crate::output::{Outcome, Output};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Put a container on the mesh
    Attach(AttachArgs),
    /// Take a container off the mesh
    Detach(DetachArgs),
}

/// Of `attach`.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// The container's address on the mesh, with the prefix length of the range
    #[arg(
        long = "address",
        env = "WEFT_ADDRESS",
        value_name = "CIDR",
        required = true,
        value_delimiter = ','
    )]
    pub(crate) addresses: Vec<IpNet>,
    /// The device's name inside the container
    #[arg(
        long,
        env = "WEFT_INTERFACE",
        value_name = "NAME",
        default_value = CONTAINER_DEVICE
    )]
    pub(crate) interface: String,
    /// The router's bridge, where its name was chosen [default: weft]
    #[arg(long, env = "WEFT_BRIDGE", value_name = "NAME")]
    pub(crate) bridge: Option<String>,
    /// The container: a Docker or Podman name, a named namespace, a process id, or a path
    pub(crate) target: String,
}

/// Of `detach`.
#[derive(Debug, Args)]
pub(crate) struct DetachArgs {
    /// The device's name inside the container
    #[arg(
        long,
        env = "WEFT_INTERFACE",
        value_name = "NAME",
        default_value = CONTAINER_DEVICE
    )]
    pub(crate) interface: String,
    /// The container, as it was attached
    pub(crate) target: String,
}

impl Verb {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let out = context.out;
        match self {
            Self::Attach(args) => {
                let place = context.place()?;
                block_on(attach(&place, args, out))
            }
            Self::Detach(args) => {
                context.with_router(async |router| detach(&router, args, out).await)
            }
        }
    }
}

#[derive(Serialize)]
struct Done {
    mac: MacAddr,
    interface: String,
    port: Option<String>,
}

/// Puts a container on the mesh. If the router refuses, what was made is taken away again.
async fn attach(place: &Place, args: AttachArgs, out: Output) -> Outcome {
    let router = Client::new(&place.socket);
    let bridge = args.bridge.as_ref().unwrap_or(&place.bridge);
    config::check_bridge(bridge)?;
    let status = router.status().await?;
    if status.mesh.is_none() {
        return Err(not_joined());
    }
    let attachment = Attachment {
        target: find(&args.target).await,
        bridge: bridge.clone(),
        device: args.interface.clone(),
        mac: None,
        addresses: args.addresses.clone(),
    };
    let made = fastdp::attach(&attachment).await?;
    let request = AttachRequest {
        mac: made.mac,
        addresses: args.addresses.clone(),
        port: made.port.clone(),
    };
    if let Err(problem) = router.attach(&request).await {
        let _ = fastdp::detach(&attachment.target, &args.interface).await;
        return Err(problem);
    }
    for problem in &made.problems {
        Output::problem(problem);
    }
    let done = Done {
        mac: made.mac,
        interface: args.interface,
        port: Some(made.port),
    };
    out.confirm(&done, |done| {
        let list: Vec<String> = args.addresses.iter().map(ToString::to_string).collect();
        format!(
            "{} is on the mesh as {} ({})",
            args.target,
            list.join(", "),
            done.interface
        )
    })?;
    Ok(ExitCode::Ok)
}

/// Takes a container off the mesh.
async fn detach(router: &Client, args: DetachArgs, out: Output) -> Outcome {
    let mac = fastdp::detach(&find(&args.target).await, &args.interface).await?;
    router.detach(&DetachRequest { mac }).await?;
    let done = Done {
        mac,
        interface: args.interface,
        port: None,
    };
    out.confirm(&done, |_| format!("{} is off the mesh", args.target))?;
    Ok(ExitCode::Ok)
}

/// Finds what is meant: a container's name is its engine's to know, unless a named namespace is called so.
async fn find(text: &str) -> Target {
    let Ok(target) = text.parse();
    let Target::Name(name) = &target else {
        return target;
    };
    if Path::new(NAMED).join(name).exists() {
        return target;
    }
    engine::process(name).await.map_or(target, Target::Pid)
}
