//! Makes a router of what was saved, or begins a mesh, or enters one.
//!
//! The boot counter is saved first, and whatever else comes with it in the same save: nothing is done before it is durable.

use std::time::Instant;

use ipnet::IpNet;
use weft_types::{Boot, BootId, Code, Problem, Replica};

use super::config::{Intent, RouterConfig};
use super::ground::identity::{GENESIS, boot_change};
use super::ground::mesh::{Mesh, local, membership_changes};
use super::ground::saves::Part;
use super::ground::{Ground, Settings, targets};
use super::joiner::{Admitted, Joiner};
use super::member::{Arrival, Member, Parts};
use super::parts::addresses::AddressBook;
use super::parts::admission::Admission;
use super::parts::endpoints::Endpoints;
use super::parts::pings::Pings;
use super::parts::presence::Presence;
use super::parts::roster::Roster;
use super::parts::sessions::DataSessions;
use super::parts::tokens::Tokens;
use super::parts::traces::Traces;
use super::parts::transit::Transit;
use super::parts::ways::Ways;
use super::saved::{damaged, last_boot, node_change};
use super::{Life, Router};
use crate::crypto::Crypto;
use crate::dialer::Dialer;
use crate::genesis::{Genesis, SignedGenesis};
use crate::io::Target;
use crate::membership::{Admit, MembershipDelta, Record, Role};
use crate::store::{Change, Saved, Table};

impl Router {
    /// Wakes a router: reads what was saved, draws a boot id. Fails on damaged or contradicting state.
    ///
    /// # Errors
    ///
    /// [`Code::StateDamaged`]; [`Code::OtherMesh`] for a token of another mesh than the saved one;
    /// [`Code::Configuration`] for a range or address that no mesh can have.
    pub fn new(
        config: RouterConfig,
        saved: &Saved,
        mut crypto: Box<dyn Crypto>,
        now: Instant,
    ) -> Result<Self, Problem> {
        let boot = Boot {
            counter: last_boot(saved)? + 1,
            id: BootId::new(crypto.array()),
        };
        let (settings, targets, intent) = apart(config, now);
        let mut changes = vec![boot_change(boot.counter), node_change(settings.keys.node())];
        let resumed = resume(&settings, boot, saved, now)?;
        let life = match (resumed, intent) {
            (Some(member), Intent::Join { token, .. }) if token.mesh != member.mesh.id => {
                return Err(other_mesh(&member.mesh));
            }
            (Some(member), _) => Life::Member(Box::new(member)),
            (None, Intent::Join { token, address }) => {
                Life::Joining(Box::new(Joiner::new(token, address, &targets)))
            }
            (None, Intent::Resume) => Life::Outside,
            (None, intent @ Intent::Create { .. }) => {
                let (member, begun) = create(intent, &settings, boot, &mut *crypto, now)?;
                changes.extend(begun);
                Life::Member(Box::new(member))
            }
        };
        changes.extend(targets.iter().map(targets::remember));
        let dialer = dialer(&settings, targets, saved, &life, now);
        let mut ground = Ground::new(settings, boot, dialer, crypto, now);
        let ticket = ground.save_for(Part::Arrival, changes);
        Ok(Self::starting(ground, ticket, life))
    }
}

fn apart(config: RouterConfig, now: Instant) -> (Settings, Vec<Target>, Intent) {
    let RouterConfig {
        keys,
        nickname,
        port,
        advertise,
        targets,
        intent,
        features,
        release,
        wall_clock,
    } = config;
    let settings = Settings {
        keys,
        nickname,
        port,
        advertise,
        features,
        release,
        wall_clock: (wall_clock, now),
    };
    (settings, targets, intent)
}

/// Whom to dial: what a person named today, what is remembered, and where a single-use token was made.
fn dialer(
    settings: &Settings,
    named: Vec<Target>,
    saved: &Saved,
    life: &Life,
    now: Instant,
) -> Dialer {
    let mut dialer = Dialer::new(settings.keys.node());
    let issuer = match life {
        Life::Joining(joiner) => joiner.issuer.clone(),
        Life::Halted | Life::Member(_) | Life::Outside | Life::Starting(_) => Vec::new(),
    };
    let targets = named.into_iter().chain(targets::remembered(saved));
    for target in targets.chain(issuer) {
        dialer.add_target(target, now);
    }
    dialer
}

/// The mesh that was saved, if one was.
fn resume(
    settings: &Settings,
    boot: Boot,
    saved: &Saved,
    now: Instant,
) -> Result<Option<Member>, Problem> {
    let Some(genesis) = saved.value(Table::Node, GENESIS) else {
        return Ok(None);
    };
    let genesis = SignedGenesis::decode(genesis).map_err(|_| damaged("the mesh's genesis"))?;
    let mut mesh = Mesh::new(settings, boot, genesis);
    mesh.load_membership(saved, now).map_err(damaged)?;
    let mut member = Member::new(settings, boot, mesh, saved, now).map_err(damaged)?;
    member.parts.handle_membership(&mut member.mesh, now);
    member.mesh.load_peers(saved, now);
    if member.mesh.membership.member(member.mesh.ourself).is_none() {
        return Err(Problem::new(
            Code::NotAMember,
            "this node left its mesh, or was removed from it",
        )
        .fix("Run `weft reset --force`, then join with a new token"));
    }
    Ok(Some(member))
}

/// A mesh of one.
fn create(
    intent: Intent,
    settings: &Settings,
    boot: Boot,
    crypto: &mut dyn Crypto,
    now: Instant,
) -> Result<(Member, Vec<Change>), Problem> {
    let (genesis, address) = begin_genesis(intent, settings, crypto)?;
    let mesh = Mesh::new(settings, boot, genesis);
    let member = Member::new(settings, boot, mesh, &Saved::default(), now);
    let mut member = member.map_err(damaged)?;
    let Member { mesh, parts } = &mut member;
    let node = mesh.ourself;
    let assigned = parts.addresses.assign(node, address, &Default::default());
    let (addresses, bound) = assigned.map_err(unfit)?;
    let admit = Admit {
        node,
        noise_key: settings.keys.noise().public(),
        nickname: settings.nickname.clone(),
        addresses,
        role: Role::Admin,
        token: None,
    };
    let record = mesh.membership.append(Record::Admit(admit), &settings.keys);
    let record = record.map_err(|error| {
        Problem::new(
            Code::Internal,
            format!("a creator cannot admit itself: {error}"),
        )
    })?;
    parts.handle_membership(mesh, now);
    let mut changes = vec![genesis_change(&mesh.genesis)];
    changes.extend(bound);
    changes.extend(membership_changes(std::slice::from_ref(&record)));
    let key = settings.keys.signing();
    changes.extend(parts.tokens.create_door_key(key, &mesh.id, crypto));
    Ok((member, changes))
}

fn begin_genesis(
    intent: Intent,
    settings: &Settings,
    crypto: &mut dyn Crypto,
) -> Result<(SignedGenesis, Option<IpNet>), Problem> {
    let Intent::Create {
        name,
        range,
        mtu,
        address,
    } = intent
    else {
        return Err(Problem::new(Code::Internal, "nobody asked for a mesh"));
    };
    let genesis = Genesis::create(name, range, mtu, &settings.keys, crypto);
    let genesis = genesis.map_err(|error| {
        Problem::new(
            Code::Configuration,
            format!("no mesh can be like that: {error}"),
        )
    })?;
    Ok((genesis, address))
}

impl Member {
    /// Puts the parts together, each with what it saved.
    fn new(
        settings: &Settings,
        boot: Boot,
        mesh: Mesh,
        saved: &Saved,
        now: Instant,
    ) -> Result<Self, &'static str> {
        let parts = Parts {
            addresses: AddressBook::new(mesh.ourself, mesh.genesis.genesis(), saved),
            admission: Admission::default(),
            arrival: None,
            endpoints: Endpoints::load(mesh.ourself, saved)?,
            pings: Pings::default(),
            presence: Presence::default(),
            roster: Roster::default(),
            sessions: DataSessions::new(local(settings, boot, mesh.id)),
            tokens: Tokens::load(saved, settings.wall_clock, now)?,
            traces: Traces::default(),
            transit: Transit::default(),
            ways: Ways::default(),
        };
        Ok(Self { mesh, parts })
    }

    /// What a welcome makes of a joiner: all of it goes to the disk in one save. `None` if we are no member by it.
    pub(crate) fn admitted(
        admitted: Admitted,
        issuer: Vec<Target>,
        ground: &mut Ground,
        now: Instant,
    ) -> Option<Self> {
        let Admitted {
            conn,
            genesis,
            welcome,
        } = admitted;
        let mut mesh = Mesh::new(&ground.settings, ground.boot, genesis);
        let records = welcome.logs.records().to_vec();
        mesh.membership
            .merge(MembershipDelta::new(records.clone()), now);
        mesh.membership.member(mesh.ourself)?;
        let nothing = Saved::default();
        let member = Self::new(&ground.settings, ground.boot, mesh, &nothing, now);
        let mut member = member.ok()?;
        let Self { mesh, parts } = &mut member;
        let mut changes = vec![genesis_change(&mesh.genesis)];
        changes.extend(membership_changes(&records));
        for door in welcome.door_keys {
            let news = parts
                .tokens
                .receive_door_key(door, &mesh.membership, &mesh.id);
            changes.extend(news.into_iter().flatten());
        }
        for secret in welcome.tokens {
            changes.extend(parts.tokens.receive(secret, &mesh.membership, now));
        }
        parts.handle_membership(mesh, now);
        let records = mesh.sift_records(welcome.records);
        changes.extend(mesh.peer_changes(&records));
        let ticket = ground.save_for(Part::Arrival, changes);
        parts.arrival = Some(Arrival {
            ticket,
            conn,
            issuer,
            records,
        });
        Some(member)
    }
}

/// What a saved genesis looks like.
fn genesis_change(genesis: &SignedGenesis) -> Change {
    Change::Put {
        table: Table::Node,
        key: GENESIS.to_vec(),
        value: genesis.encode(),
    }
}

fn other_mesh(mesh: &Mesh) -> Problem {
    let name = &mesh.genesis.genesis().name;
    Problem::new(
        Code::OtherMesh,
        format!("this node is in mesh \"{name}\" already, and the token is for another one"),
    )
    .fix("Leave that mesh first: `weft leave`, or `weft reset --force` if its members are gone")
}

fn unfit(code: Code) -> Problem {
    Problem::new(
        code,
        format!("this address cannot be had: {}", code.title()),
    )
}
