//! Wakes a router: what was saved, what was asked for, and the boot counter between them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use weft_types::{Boot, BootId, Code, MacAddr, NodeId, Problem};

use super::admission::Joining;
use super::mesh::Mesh;
use super::{After, Intent, Life, Router, RouterConfig, Settings};
use crate::crypto::{Crypto, sha256};
use crate::dialer::Dialer;
use crate::genesis::{Genesis, SignedGenesis};
use crate::io::{Event, Output, Target};
use crate::membership::{Admit, DoorKey, Record, Role};
use crate::session::IndexAllocator;
use crate::store::{Change, Saved, Table};

const BOOT: &[u8] = b"boot";
const GENESIS: &[u8] = b"genesis";
/// Targets are saved as keys of the node table behind this prefix.
const TARGET: &[u8] = b"target:";

/// What a saved boot counter looks like.
pub(super) fn boot_change(counter: u64) -> Change {
    Change::Put {
        table: Table::Node,
        key: BOOT.to_vec(),
        value: counter.to_be_bytes().to_vec(),
    }
}

/// What a saved genesis looks like.
pub(super) fn genesis_change(genesis: &SignedGenesis) -> Change {
    Change::Put {
        table: Table::Node,
        key: GENESIS.to_vec(),
        value: genesis.encode(),
    }
}

/// A target to be remembered, or forgotten.
pub(super) fn target_change(target: &Target, keep: bool) -> Change {
    let key = [TARGET, target.0.as_bytes()].concat();
    if keep {
        return Change::Put {
            table: Table::Node,
            key,
            value: Vec::new(),
        };
    }
    Change::Delete {
        table: Table::Node,
        key,
    }
}

/// The Ethernet address of a node's bridge: made from its identity, so that it is the same after every restart.
pub(super) fn host_mac(node: NodeId) -> MacAddr {
    let [a, b, c, d, e, f, ..] = sha256(&[&b"weft-bridge"[..], node.as_bytes()].concat());
    MacAddr::local([a, b, c, d, e, f])
}

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
        let RouterConfig {
            keys,
            nickname,
            port,
            advertise,
            targets,
            intent,
            features,
            release,
        } = config;
        let node = keys.node();
        let last = saved
            .value(Table::Node, BOOT)
            .map(counter)
            .transpose()?
            .unwrap_or_default();
        let boot = Boot {
            counter: last + 1,
            id: BootId::new(crypto.array()),
        };
        let settings = Settings {
            keys,
            nickname,
            port,
            advertise,
            features,
            release,
        };

        let mut changes = vec![boot_change(boot.counter)];
        let mut joining = None;
        let mut mesh = resume(&settings, boot, saved, now)?;
        match (intent, &mesh) {
            (Intent::Join { token, .. }, Some(mesh)) if token.mesh != mesh.id => {
                return Err(other_mesh(mesh));
            }
            (
                Intent::Create {
                    name,
                    range,
                    mtu,
                    address,
                },
                None,
            ) => {
                let genesis = Genesis::create(name, range, mtu, &settings.keys, &mut *crypto)
                    .map_err(|error| {
                        Problem::new(
                            Code::Configuration,
                            format!("no mesh can be like that: {error}"),
                        )
                    })?;
                let (begun, begun_changes) =
                    create(&settings, boot, genesis, address, &mut *crypto, now)?;
                changes.extend(begun_changes);
                mesh = Some(begun);
            }
            (Intent::Join { token, address }, None) => {
                joining = Some(Joining::new(token, address, &targets))
            }
            (Intent::Create { .. } | Intent::Join { .. } | Intent::Resume, _) => {}
        }

        let mut dialer = Dialer::new(node);
        let remembered = saved
            .table(Table::Node)
            .filter_map(|(key, _)| key.strip_prefix(TARGET));
        let remembered = remembered
            .filter_map(|text| std::str::from_utf8(text).ok())
            .map(|text| Target(text.to_owned()));
        for target in targets.iter().cloned().chain(remembered) {
            dialer.add_target(target, now);
        }
        changes.extend(targets.iter().map(|target| target_change(target, true)));
        if let Some(joining) = &joining {
            for target in &joining.issuer {
                dialer.add_target(target.clone(), now);
            }
        }

        let mut router = Self {
            settings,
            crypto,
            started: now,
            boot,
            stepped: None,
            clone_seen: None,
            switches: BTreeMap::new(),
            life: Life::Starting(VecDeque::new()),
            outputs: VecDeque::new(),
            saves: BTreeMap::new(),
            tickets: 0,
            conns: BTreeMap::new(),
            dialer,
            indices: IndexAllocator::default(),
            local_addresses: Vec::new(),
            joining,
            mesh,
            not_saved: None,
            refused_as_clone: None,
        };
        router.save(changes, After::Awake);
        Ok(router)
    }

    /// The boot counter is durable: begin.
    pub(super) fn begin(&mut self, now: Instant) {
        if self.mesh.is_some() {
            self.ask_for_own_log(now);
            self.begin_as_member(now);
            self.dialer.hurry(now);
        }
    }

    /// What a member does first, after a start or a join.
    pub(super) fn begin_as_member(&mut self, now: Instant) {
        self.announce_boot(now);
        let Some(mesh) = &mut self.mesh else { return };
        mesh.dirty.everything();
        let genesis = mesh.genesis.genesis();
        let (name, mtu, addresses) = (genesis.name.clone(), genesis.mtu, mesh.own_addresses());
        self.outputs.push_back(Output::Event(Event::Joined {
            mesh: name,
            addresses,
            mtu,
        }));
    }
}

fn counter(value: &[u8]) -> Result<u64, Problem> {
    value
        .try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| damaged("the boot counter"))
}

fn damaged(what: &str) -> Problem {
    Problem::new(
        Code::StateDamaged,
        format!("{what} in the state directory cannot be read"),
    )
    .fix("Restore the state directory from a backup, or run `weft reset --force` and join again")
}

fn other_mesh(mesh: &Mesh) -> Problem {
    let name = &mesh.genesis.genesis().name;
    Problem::new(
        Code::OtherMesh,
        format!("this node is in mesh \"{name}\" already, and the token is for another one"),
    )
    .fix("Leave that mesh first: `weft leave`, or `weft reset --force` if its members are gone")
}

/// The mesh that was saved, if one was.
fn resume(
    settings: &Settings,
    boot: Boot,
    saved: &Saved,
    now: Instant,
) -> Result<Option<Mesh>, Problem> {
    let Some(genesis) = saved.value(Table::Node, GENESIS) else {
        return Ok(None);
    };
    let genesis = SignedGenesis::decode(genesis).map_err(|_| damaged("the mesh's genesis"))?;
    let mut mesh = Mesh::new(settings, boot, genesis);
    mesh.load(settings, saved, now).map_err(damaged)?;
    if mesh.membership.member(settings.keys.node()).is_none() {
        return Err(Problem::new(
            Code::NotAMember,
            "this node left its mesh, or was removed from it",
        )
        .fix("Run `weft reset --force`, then join with a new token"));
    }
    Ok(Some(mesh))
}

/// A mesh of one.
fn create(
    settings: &Settings,
    boot: Boot,
    genesis: SignedGenesis,
    address: Option<ipnet::IpNet>,
    crypto: &mut dyn Crypto,
    now: Instant,
) -> Result<(Mesh, Vec<Change>), Problem> {
    let mut mesh = Mesh::new(settings, boot, genesis);
    let node = settings.keys.node();
    let unfit = |code: Code| {
        Problem::new(
            code,
            format!("this address cannot be had: {}", code.title()),
        )
    };
    let assigned = mesh
        .addresses
        .as_mut()
        .map(|addresses| addresses.assign(node, address, &std::collections::BTreeSet::new()))
        .transpose()
        .map_err(unfit)?;
    let (addresses, bound) = assigned.unwrap_or_default();
    let admit = Admit {
        node,
        noise_key: settings.keys.noise().public(),
        nickname: settings.nickname.clone(),
        addresses,
        role: Role::Admin,
        token: None,
    };
    let record = mesh
        .membership
        .append(Record::Admit(admit), &settings.keys)
        .map_err(|error| {
            Problem::new(
                Code::Internal,
                format!("a creator cannot admit itself: {error}"),
            )
        })?;
    mesh.members_changed(node, now);
    let mut changes = vec![genesis_change(&mesh.genesis)];
    changes.extend(bound);
    changes.extend(super::mesh::membership_changes(std::slice::from_ref(
        &record,
    )));
    changes.push(mesh.add_door_key(DoorKey::generate(1, crypto)));
    Ok((mesh, changes))
}
