//! Builds the three hosts and works them by weft's own command line.

use std::path::Path;
use std::process::Output as Finished;
use std::time::Instant;

use ipnet::IpNet;
use serde_json::Value;
use weft_lab::{Container, Host, Lab, LabError, Link, Underlay, Weft};
use weft_types::{Code, Problem};

use super::figures::{Attached, Join};
use super::problem::failed;

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

/// The device that `weft attach` makes in a container.
const DEVICE: &str = weft_fastdp::names::CONTAINER_DEVICE;

/// Where containers' addresses begin in the mesh's range, clear of those that hosts are given.
const CONTAINERS: u32 = 200 << 8;

/// Three hosts on one switch. Dropping it stops the routers and removes everything.
pub(super) struct Stage {
    // In this order: routers' folders, then cables, then namespaces with what runs inside.
    nodes: Vec<Node>,
    // The switch goes last; it is the far end of every cable.
    _underlay: Underlay,
    prefix_len: u8,
    token: Option<String>,
}

/// One host of the stage, with its router and its container.
pub(super) struct Node {
    pub(super) weft: Weft,
    pub(super) link: Link,
    pub(super) container: Container,
    pub(super) host: Host,
    /// The container's address on the mesh.
    pub(super) inside: Option<IpNet>,
}

impl Stage {
    /// Makes the hosts, their cables and the containers, and starts nothing.
    pub(super) fn build(lab: &Lab) -> Result<Self, LabError> {
        let underlay = lab.underlay("switch")?;
        let program = std::env::current_exe().map_err(|source| LabError::Io {
            doing: "find this program".to_owned(),
            source,
        })?;
        let nodes = NAMES.iter();
        let nodes = nodes.map(|name| Node::build(lab, &underlay, &program, name));
        let nodes = nodes.collect::<Result<_, _>>()?;
        Ok(Self {
            nodes,
            _underlay: underlay,
            prefix_len: 0,
            token: None,
        })
    }

    /// Returns how many hosts there are.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Returns a host.
    pub(super) fn node(&self, at: usize) -> &Node {
        &self.nodes[at]
    }

    /// Puts a host on the mesh, as a user would: the first begins it, each other joins the first by a token.
    pub(super) fn join(&mut self, at: usize) -> Result<Join, Problem> {
        let name = NAMES[at];
        let target = self.nodes[0].link.v4().to_string();
        let token = self.token_for(at)?;
        let (args, command) = match &token {
            None => (vec!["up", "--name", name], "weft up".to_owned()),
            Some(token) => (
                vec!["join", &target, "--token", token, "--name", name],
                format!("weft join {target} --token …"),
            ),
        };

        let start = Instant::now();
        let answer = self.nodes[at].json(name, &args)?;
        let seconds = start.elapsed().as_secs_f64();

        self.token = answer["join"]["token"].as_str().map(str::to_owned);
        let addresses = &answer["status"]["node"]["addresses"];
        let address: IpNet = addresses[0]
            .as_str()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| odd(name, &args, "has no address on the mesh"))?;
        self.prefix_len = address.prefix_len();
        self.nodes[at].inside = container_address(address, at);
        Ok(Join {
            host: name.to_owned(),
            command,
            address: address.addr().to_string(),
            seconds,
            verified_bytes: answer["verified"]["bytes"].as_u64(),
        })
    }

    /// What admits a host; the first needs nothing. What `up` printed admits one host; each further one gets a token of its
    /// own.
    fn token_for(&mut self, at: usize) -> Result<Option<String>, Problem> {
        if at == 0 {
            return Ok(None);
        }
        match self.token.take() {
            Some(token) => Ok(Some(token)),
            None => self.nodes[0].text(NAMES[0], &["token", "create"]).map(Some),
        }
    }

    /// Puts the container of every host on the mesh.
    pub(super) fn attach_containers(&mut self) -> Result<Attached, Problem> {
        let start = Instant::now();
        let mut addresses = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let address = node
                .inside
                .ok_or_else(|| odd(NAMES[at], &["attach"], "has a range without room"))?;
            node.json(
                NAMES[at],
                &[
                    "attach",
                    "--address",
                    &address.to_string(),
                    node.container.full_name(),
                ],
            )?;
            addresses.push(address.addr().to_string());
        }
        let seconds = start.elapsed().as_secs_f64() / crate::demo::figures::float(self.nodes.len());
        Ok(Attached { addresses, seconds })
    }

    /// Asks a router how things stand.
    pub(super) fn status(&self, at: usize) -> Result<Value, Problem> {
        self.nodes[at].json(NAMES[at], &["status"])
    }

    /// Returns the length of the mesh's prefix.
    pub(super) fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Makes it such that it needs this process no more.
    pub(super) fn let_stand(&self) -> Result<(), LabError> {
        self.nodes
            .iter()
            .try_for_each(|node| node.link.remove_shaper())
    }
}

impl Node {
    fn build(lab: &Lab, underlay: &Underlay, program: &Path, name: &str) -> Result<Self, LabError> {
        let host = lab.host(name)?;
        Ok(Self {
            link: underlay.join(&host)?,
            container: lab.container(&format!("{name}-container"))?,
            weft: Weft::new(program, &host)?,
            host,
            inside: None,
        })
    }

    /// Returns the container's address on the mesh.
    pub(super) fn address(&self) -> Result<std::net::IpAddr, Problem> {
        self.inside
            .map(|net| net.addr())
            .ok_or_else(|| Problem::new(Code::Internal, "a container of the demo has no address"))
    }

    /// Returns the hardware address of the container's device.
    pub(super) fn mac(&self) -> Result<Option<weft_types::MacAddr>, Problem> {
        self.container.mac(DEVICE).map_err(|error| failed(&error))
    }

    fn json(&self, name: &str, args: &[&str]) -> Result<Value, Problem> {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        let text = self.text(name, &args)?;
        // One value per line; the last one is the outcome.
        serde_json::from_str(text.lines().last().unwrap_or("null"))
            .map_err(|error| odd(name, &args, "did not answer in JSON").why(error.to_string()))
    }

    fn text(&self, name: &str, args: &[&str]) -> Result<String, Problem> {
        let finished = self.weft.run(args).map_err(|error| failed(&error))?;
        if !finished.status.success() {
            return Err(complaint(name, args, &finished));
        }
        Ok(String::from_utf8_lossy(&finished.stdout).trim().to_owned())
    }
}

/// Chooses a container's address by the host's place in the row, if the mesh is large enough.
fn container_address(host: IpNet, at: usize) -> Option<IpNet> {
    let IpNet::V4(host) = host else {
        return None;
    };
    let offset = CONTAINERS + u32::try_from(at).ok()? + 1;
    let address = std::net::Ipv4Addr::from(u32::from(host.network()).checked_add(offset)?);
    let fits = host.trunc().contains(&address) && address != host.broadcast();
    fits.then(|| IpNet::new(address.into(), host.prefix_len()).ok())
        .flatten()
}

/// Makes a command's complaint this demo's problem, with the code the command gave it.
fn complaint(name: &str, args: &[&str], finished: &Finished) -> Problem {
    let said = String::from_utf8_lossy(&finished.stderr).trim().to_owned();
    let code = said
        .split_once("WFT-")
        .and_then(|(_, rest)| rest.get(..3)?.parse().ok())
        .and_then(Code::from_number)
        .unwrap_or(Code::Internal);
    let verb = args.first().copied().unwrap_or_default();
    let why = if said.is_empty() {
        finished.status.to_string()
    } else {
        said
    };
    Problem::new(code, format!("weft {verb} failed on {name}")).why(why)
}

fn odd(name: &str, args: &[&str], what: &str) -> Problem {
    let verb = args.first().copied().unwrap_or_default();
    Problem::new(
        Code::Internal,
        format!("the demo's host {name} {what} (weft {verb})"),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn containers_get_addresses_clear_of_the_hosts() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();

        assert_eq!(
            container_address(net("10.32.0.1/12"), 0),
            Some(net("10.32.200.1/12"))
        );
        assert_eq!(
            container_address(net("10.32.0.3/12"), 2),
            Some(net("10.32.200.3/12"))
        );
        assert_eq!(container_address(net("10.32.0.1/24"), 0), None);
    }

    #[test]
    fn a_failing_command_passes_its_code_on() {
        let finished = |stderr: &str| Finished {
            status: ExitStatus::from_raw(13 << 8),
            stdout: Vec::new(),
            stderr: stderr.as_bytes().to_vec(),
        };

        let known = complaint(
            "beta",
            &["join", "x"],
            &finished("WFT-011: this machine has no TUN/TAP device\n"),
        );
        let silent = complaint("beta", &["join"], &finished(""));

        assert_eq!(known.code, Code::NoTun);
        assert_eq!(known.what, "weft join failed on beta");
        assert!(known.why.contains("no TUN/TAP device"));
        assert_eq!(silent.code, Code::Internal);
        assert!(silent.why.contains("13"));
    }
}
