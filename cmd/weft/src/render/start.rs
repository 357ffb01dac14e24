//! Says how a start went.

use std::net::{IpAddr, SocketAddr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use weft_api::ping::PingAnswer;
use weft_api::status::Status;
use weft_router::resolve::DEFAULT_PORT;
use weft_types::{Code, Nickname, PathKind, Problem};

use super::{nothing, rtt};
use crate::config::Config;
use crate::output::clean;
use crate::secret::Secret;

/// What `weft up -o json` prints.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Started<'a> {
    /// Whether a mesh was begun.
    created: bool,
    /// How the next host joins; null where no mesh was begun.
    join: Option<Invitation<'a>>,
    /// How things stand.
    #[schemars(schema_with = "of_status")]
    status: &'a Status,
}

/// How the next host joins.
#[derive(Serialize, JsonSchema)]
struct Invitation<'a> {
    /// Where this host is reached, as far as it can tell.
    host: Option<String>,
    /// Admits one host, for 15 minutes.
    token: &'a str,
}

impl<'a> Started<'a> {
    /// `known` are addresses at which others likely reach this host, the likeliest first.
    pub(crate) fn new(
        status: &'a Status,
        created: bool,
        token: Option<&'a Secret>,
        known: &[IpAddr],
    ) -> Self {
        let join = token.map(|token| Invitation {
            host: plausible(&status.node.advertised, known).map(target),
            token: token.reveal(),
        });
        Self {
            created,
            join,
            status,
        }
    }

    pub(crate) fn text(&self, config: &Config) -> String {
        let Some(mesh) = &self.status.mesh else {
            let hosts = config.peers.join(", ");
            return format!(
                "the router is ready and in no mesh yet: it waits for {hosts}. Wait with it: weft wait --for joined"
            );
        };
        let verb = if self.created { "created" } else { "resumed" };
        let (mesh, node) = (clean(mesh.name.as_str()), own_name(self.status));
        let renamed = renamed(self.status, &config.nickname);
        let join = self.join.as_ref().map(Invitation::line).unwrap_or_default();
        format!("mesh \"{mesh}\" {verb}, this node is {node}{renamed}{join}")
    }
}

impl Invitation<'_> {
    fn line(&self) -> String {
        let (host, token) = (self.host.as_deref().unwrap_or("THIS-HOST"), self.token);
        format!(
            "\nadd a host:  sudo weft join {host} --token {token}  (one use, 15 minutes; more: weft token create)"
        )
    }
}

/// What `weft join -o json` prints.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Joined<'a> {
    /// The probe that proved it.
    #[schemars(schema_with = "of_ping")]
    verified: &'a PingAnswer,
    /// From the start of the router; null where it ran already.
    seconds: Option<f64>,
    /// What this node wished to be called.
    #[serde(skip)]
    wish: Option<&'a Nickname>,
    /// How things stand.
    #[schemars(schema_with = "of_status")]
    status: &'a Status,
}

/// What `weft status` prints has a schema of its own.
fn of_status(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "$ref": "status.json" })
}

/// So has what `weft ping` prints.
fn of_ping(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "$ref": "ping.json" })
}

impl<'a> Joined<'a> {
    pub(crate) const fn new(
        status: &'a Status,
        verified: &'a PingAnswer,
        seconds: Option<f64>,
    ) -> Self {
        Self {
            verified,
            seconds,
            wish: None,
            status,
        }
    }

    /// Says so where this node is called otherwise than it wished.
    pub(crate) const fn who_wished(self, name: &'a Nickname) -> Self {
        Self {
            wish: Some(name),
            ..self
        }
    }

    pub(crate) fn text(&self) -> String {
        let renamed = self.wish.map(|name| renamed(self.status, name));
        let renamed = renamed.unwrap_or_default();
        format!("{}{renamed}\n{}", self.membership(), self.proof())
    }

    /// What this node is in, and as whom.
    fn membership(&self) -> String {
        let mesh = self.status.mesh.as_ref();
        let mesh = clean(mesh.map_or("?", |mesh| mesh.name.as_str()));
        let node = own_name(self.status);
        match self.seconds {
            Some(seconds) => format!("joined \"{mesh}\" as {node} in {seconds:.1} s"),
            None => format!("in \"{mesh}\" already, as {node}"),
        }
    }

    /// What has passed, to whom, and how.
    fn proof(&self) -> String {
        let (mesh, ping) = (self.status.mesh.as_ref(), self.verified);
        let address = ping.addresses.first().map(|net| net.addr().to_string());
        let sealed = match mesh {
            Some(mesh) if mesh.encrypted => "encrypted",
            Some(_) | None => "NOT encrypted",
        };
        format!(
            "{}  {}  {}  {}  {} bytes verified both ways, {sealed}",
            clean(ping.nickname.as_str()),
            address.unwrap_or_else(nothing),
            ping.path.map_or("-", PathKind::name),
            rtt(ping.rtt_ms),
            mesh.map_or(ping.bytes, |mesh| mesh.mtu),
        )
    }
}

/// What a join over control connections has to tell.
pub(crate) fn slow(ping: &PingAnswer, port: u16) -> Problem {
    let peer = clean(ping.nickname.as_str());
    let what = format!("no datagram passes between this host and {peer}");
    Problem::new(Code::HeartbeatsByTcp, what).why("TCP works and UDP does not, so frames travel over TCP: encrypted as always, and slowly")
    .fix(format!(
        "Let UDP port {port} through, in both directions, on both hosts and between them; frames take that way by themselves"
    ))
}

fn own_name(status: &Status) -> String {
    let name = clean(status.node.nickname.as_str());
    match status.node.addresses.first() {
        Some(address) => format!("{name} ({})", address.addr()),
        None => name,
    }
}

/// What there is to say where another member has the name that this node was to have.
fn renamed(status: &Status, wish: &Nickname) -> String {
    if &status.node.nickname == wish {
        return String::new();
    }
    let name = clean(status.node.nickname.as_str());
    format!(
        "\nthe name {} is another member's, so this node is called {name}; --name chooses another",
        clean(wish.as_str())
    )
}

/// The address another host most likely reaches this one at: one that is known, or a public one, then a private one, IPv4
/// first since it is shorter to type.
fn plausible(advertised: &[SocketAddr], known: &[IpAddr]) -> Option<SocketAddr> {
    let places = advertised.iter().copied();
    let places = places.filter(|address| !is_local(address.ip()));
    places.min_by_key(|address| {
        let known = known.iter().position(|known| *known == address.ip());
        let guess = match address.ip() {
            IpAddr::V4(v4) if !v4.is_private() => 0,
            IpAddr::V4(_) => 1,
            IpAddr::V6(v6) if !v6.is_unique_local() => 2,
            IpAddr::V6(_) => 3,
        };
        (known.unwrap_or(usize::MAX), guess)
    })
}

fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}

/// As it is typed: without the usual port.
fn target(address: SocketAddr) -> String {
    if address.port() == DEFAULT_PORT {
        address.ip().to_string()
    } else {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use schemars::schema_for;

    use super::*;
    use crate::config::parsed;
    use crate::render::status::sample;

    #[test]
    fn the_schema_of_what_only_commands_say_is_as_reviewed() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema");
        for (name, schema) in [
            ("up", schema_for!(Started<'_>)),
            ("join", schema_for!(Joined<'_>)),
        ] {
            let path = directory.join(format!("{name}.json"));
            let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
            if std::env::var_os("UPDATE").is_some() {
                fs::write(&path, &text).unwrap();
            }
            let reviewed = fs::read_to_string(&path).unwrap_or_default();

            assert!(
                text == reviewed,
                "{} differs; if that is meant: UPDATE=1 cargo test -p weft schema",
                path.display()
            );
        }
    }

    #[test]
    fn the_join_line_names_the_most_plausible_address() {
        let pick = |list: &[&str]| {
            let list: Vec<SocketAddr> = list.iter().map(|text| text.parse().unwrap()).collect();
            plausible(&list, &[]).map(target)
        };

        assert_eq!(
            pick(&[
                "127.0.0.1:6783",
                "10.0.0.1:6783",
                "203.0.113.7:6783",
                "[2001:db8::1]:6783"
            ]),
            Some("203.0.113.7".to_owned())
        );
        assert_eq!(
            pick(&["[2001:db8::1]:6783", "10.0.0.1:7000"]),
            Some("10.0.0.1:7000".to_owned())
        );
        assert_eq!(
            pick(&["[fd00::1]:6783", "[2001:db8::1]:6783"]),
            Some("2001:db8::1".to_owned())
        );
        assert_eq!(pick(&["127.0.0.1:6783", "[fe80::1]:6783"]), None);
    }

    #[test]
    fn an_address_that_others_reach_goes_before_any_that_only_looks_so() {
        let list: Vec<SocketAddr> = ["203.0.113.7:6783", "192.168.1.5:6783", "10.0.3.1:6783"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        let known: Vec<IpAddr> = ["198.51.100.1", "192.168.1.5", "10.0.3.1"]
            .map(|text| text.parse().unwrap())
            .to_vec();

        let named = plausible(&list, &known).map(target);

        assert_eq!(named, Some("192.168.1.5".to_owned()));
    }

    #[test]
    fn a_node_whose_name_was_taken_is_told_its_own() {
        let mut status = sample();
        status.node.nickname = "b-2".parse().unwrap();
        let config = parsed("weft up --name b", "").unwrap();

        let up = Started::new(&status, false, None, &[]).text(&config);

        assert_eq!(
            up,
            "mesh \"amber-otter\" resumed, this node is b-2 (10.32.0.2)\n\
             the name b is another member's, so this node is called b-2; --name chooses another"
        );
    }

    #[test]
    fn the_first_two_commands_print_as_promised() {
        let status = sample();
        let token = Secret::new("wft1-k7".to_owned());
        let ping: PingAnswer = serde_json::from_value(serde_json::json!({
            "node": "02".repeat(32), "nickname": "a", "addresses": ["10.32.0.1/12"], "path": "sleeve", "rtt_ms": 0.84, "bytes": 1364
        }))
        .unwrap();
        let config = parsed("weft up --name b", "").unwrap();

        let up = Started::new(&status, true, Some(&token), &[]).text(&config);
        let join = Joined::new(&status, &ping, Some(0.42)).text();

        assert_eq!(
            up,
            "mesh \"amber-otter\" created, this node is b (10.32.0.2)\n\
             add a host:  sudo weft join 192.0.2.2 --token wft1-k7  (one use, 15 minutes; more: weft token create)"
        );
        assert_eq!(
            join,
            "joined \"amber-otter\" as b (10.32.0.2) in 0.4 s\n\
             a  10.32.0.1  sleeve  0.8 ms  1350 bytes verified both ways, encrypted"
        );
    }
}
