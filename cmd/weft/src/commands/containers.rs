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
use weft_fastdp::attach::{self as fastdp, Attached, Attachment};
use weft_fastdp::names::CONTAINER_DEVICE;
use weft_fastdp::target::Target;
use weft_kernel::netns::NAMED;
use weft_types::{MacAddr, Problem};

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
    Detach(Inside),
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
    /// The router's bridge, where its name was chosen [default: weft]
    #[arg(long, env = "WEFT_BRIDGE", value_name = "NAME")]
    pub(crate) bridge: Option<String>,
    #[command(flatten)]
    pub(crate) inside: Inside,
}

/// Which device of which container.
#[derive(Debug, Args)]
pub(crate) struct Inside {
    /// The device's name inside the container
    #[arg(
        long,
        env = "WEFT_INTERFACE",
        value_name = "NAME",
        default_value = CONTAINER_DEVICE
    )]
    pub(crate) interface: String,
    /// The container: a Docker or Podman name, a named namespace, a process id, or a path
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
    if router.status().await?.mesh.is_none() {
        return Err(not_joined());
    }
    let Inside { interface, target } = args.inside;
    let attachment = Attachment {
        target: find(&target).await,
        bridge: bridge.clone(),
        device: interface,
        mac: None,
        addresses: args.addresses,
    };
    let made = make(&router, &attachment).await?;
    for problem in &made.problems {
        Output::problem(problem);
    }
    let done = Done {
        mac: made.mac,
        interface: attachment.device,
        port: Some(made.port),
    };
    let addresses = list(&attachment.addresses);
    out.confirm(&done, |done| {
        format!(
            "{target} is on the mesh as {addresses} ({})",
            done.interface
        )
    })
}

/// Makes the port and tells the router of it.
async fn make(router: &Client, attachment: &Attachment) -> Result<Attached, Problem> {
    let made = fastdp::attach(attachment).await?;
    let request = AttachRequest {
        mac: made.mac,
        addresses: attachment.addresses.clone(),
        port: made.port.clone(),
    };
    if let Err(problem) = router.attach(&request).await {
        let _ = fastdp::detach(&attachment.target, &attachment.device).await;
        return Err(problem);
    }
    Ok(made)
}

fn list(addresses: &[IpNet]) -> String {
    let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    list.join(", ")
}

/// Takes a container off the mesh.
async fn detach(router: &Client, inside: Inside, out: Output) -> Outcome {
    let Inside { interface, target } = inside;
    let mac = fastdp::detach(&find(&target).await, &interface).await?;
    router.detach(&DetachRequest { mac }).await?;
    let done = Done {
        mac,
        interface,
        port: None,
    };
    out.confirm(&done, |_| format!("{target} is off the mesh"))
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
