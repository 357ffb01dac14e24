//! Puts containers on the mesh, and takes them off.
//!
//! The router never enters another namespace; this command does, and tells the router what it made.

use std::collections::BTreeSet;
use std::path::Path;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde::Serialize;
use weft_api::Client;
use weft_api::containers::{AttachRequest, ContainerStatus, DetachRequest};
use weft_api::status::not_joined;
use weft_fastdp::attach::{self as fastdp, Attached, Attachment};
use weft_fastdp::names::CONTAINER_DEVICE;
use weft_fastdp::target::Target;
use weft_kernel::netns::NAMED;
use weft_router_proto::addresses::refuse_unfit;
use weft_types::{Code, MacAddr, Problem};

use super::engine;
use crate::config::{self, Place};
use crate::context::{Context, block_on};
use crate::output::{Outcome, Output, clean};
use crate::render::{finish, table};

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
        default_value = CONTAINER_DEVICE,
        value_parser = device_name
    )]
    pub(crate) interface: String,
    /// The container: a Docker or Podman name, a named namespace, a process id, or a path
    #[arg(value_parser = NonEmptyStringValueParser::new())]
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

/// What the kernel takes as the name of a device.
fn device_name(text: &str) -> Result<String, &'static str> {
    let legal = config::is_device_name(text, config::MAX_DEVICE);
    let name = legal.then(|| text.to_owned());
    name.ok_or("a device's name has 1 to 15 characters, no white space, no slash, no colon")
}

/// Puts a container on the mesh, or finds it there. If the router refuses, what was made is taken away again.
async fn attach(place: &Place, args: AttachArgs, out: Output) -> Outcome {
    let router = Client::new(&place.socket);
    let bridge = args.bridge.as_ref().unwrap_or(&place.bridge);
    config::check_bridge(bridge)?;
    let mesh = router.status().await?.mesh.ok_or_else(not_joined)?;
    let addresses = once_each(args.addresses);
    for address in &addresses {
        refuse_unfit(*address, &mesh.ranges)?;
    }
    let Inside { interface, target } = args.inside;
    let attachment = Attachment {
        target: find(&target).await?,
        bridge: bridge.clone(),
        device: interface,
        mac: None,
        addresses,
    };
    let (made, already) = put(&router, &attachment).await?;
    for problem in &made.problems {
        out.problem(problem);
    }
    let done = Done {
        mac: made.mac,
        interface: attachment.device,
        port: Some(made.port),
    };
    let addresses = list(&attachment.addresses);
    out.confirm(&done, |done| {
        format!(
            "{target} is on the mesh{already} as {addresses} ({})",
            done.interface
        )
    })
}

/// The addresses, in the order in which they were said.
fn once_each(addresses: Vec<IpNet>) -> Vec<IpNet> {
    let mut seen = BTreeSet::new();
    let mut addresses = addresses;
    addresses.retain(|net| seen.insert(*net));
    addresses
}

/// Makes the container's port and tells the router of it. One that is there as it was asked for is told of again, as a
/// router that was killed in between may not know it.
async fn put(
    router: &Client,
    attachment: &Attachment,
) -> Result<(Attached, &'static str), Problem> {
    let Some((there, addresses)) = fastdp::find(attachment).await? else {
        let made = fastdp::attach(attachment).await?;
        if let Err(problem) = tell(router, attachment, &made).await {
            let _ = fastdp::detach(&attachment.target, &attachment.device).await;
            return Err(problem);
        }
        return Ok((made, ""));
    };
    let set = |nets: &[IpNet]| nets.iter().copied().collect::<BTreeSet<_>>();
    if set(&addresses) != set(&attachment.addresses) {
        return Err(attached_as(attachment, &addresses));
    }
    tell(router, attachment, &there).await?;
    Ok((there, " already"))
}

async fn tell(router: &Client, attachment: &Attachment, made: &Attached) -> Result<(), Problem> {
    let request = AttachRequest {
        mac: made.mac,
        addresses: attachment.addresses.clone(),
        port: made.port.clone(),
    };
    router.attach(&request).await?;
    Ok(())
}

fn attached_as(attachment: &Attachment, addresses: &[IpNet]) -> Problem {
    let Attachment { target, device, .. } = attachment;
    let addresses = list(addresses);
    let what = format!("{target} is on the mesh already, as {addresses} ({device})");
    let fix = format!(
        "Take it off first: sudo weft detach {target} --interface {device}. For a second device: --interface NAME"
    );
    Problem::new(Code::AttachTarget, what).fix(fix)
}

fn list(addresses: &[IpNet]) -> String {
    let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    list.join(", ")
}

/// Takes a container off the mesh.
async fn detach(router: &Client, inside: Inside, out: Output) -> Outcome {
    let Inside { interface, target } = inside;
    let mac = fastdp::detach(&find(&target).await?, &interface).await?;
    router.detach(&DetachRequest { mac }).await?;
    let done = Done {
        mac,
        interface,
        port: None,
    };
    out.confirm(&done, |_| format!("{target} is off the mesh"))
}

/// Finds what is meant: a container's name is its engine's to know, unless a named namespace is called so.
async fn find(text: &str) -> Result<Target, Problem> {
    let Ok(target) = text.parse();
    let Target::Name(name) = &target else {
        return Ok(target);
    };
    if Path::new(NAMED).join(name).exists() {
        return Ok(target);
    }
    let process = engine::process(name).await;
    process
        .map(Target::Pid)
        .map_err(|said| unknown(name, &said))
}

fn unknown(name: &str, engines: &str) -> Problem {
    let what = format!("there is no container {name}");
    Problem::new(Code::AttachTarget, what)
        .why(format!("{NAMED}/{name} does not exist; {engines}"))
        .fix("Name a running container, a namespace of `ip netns list`, a process by its number, or a path such as /proc/PID/ns/net")
}

/// Containers of this host, one a line.
pub(super) fn table_of(containers: &[ContainerStatus]) -> String {
    if containers.is_empty() {
        return "no container of this host is on the mesh".to_owned();
    }
    let mut table = table(&["ADDRESS", "MAC", "PORT"]);
    for container in containers {
        let addresses: Vec<String> = container
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        table.add_row(vec![
            addresses.join(", "),
            container.mac.to_string(),
            clean(&container.port),
        ]);
    }
    finish(&table)
}
