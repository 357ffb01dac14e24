//! The laws of plans and patches, on random tables and a model of what the kernel does with a step.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use weft_router_proto::snapshot::{Endpoint, EndpointKind, Snapshot};
use weft_types::{MacAddr, Mtu, NodeId, PortFlag, PortFlags, Segment};

use crate::diff::{Step, diff};
use crate::plan::{CONTAINER_GROUPS, Plan, container_flags, sleeve_flags};
use crate::tables::{
    Bridge, Devices, Families, Manner, Observed, ObservedFdb, Port, Power, Tables,
};

const PORTS: [&str; 3] = ["weft-tap", "wv1", "wv2"];

/// What the kernel makes of a step.
fn apply(tables: &mut Tables, step: Step) {
    match step {
        Step::AddAddress(net) => {
            assert!(
                tables.bridge.power == Power::On,
                "an address on a dead bridge"
            );
            tables.addresses.insert(net);
        }
        Step::Enslave(port) => {
            let port = tables.ports.get_mut(&port).unwrap();
            // A fresh port floods, learns and is not locked, and this kernel does not know how to suppress.
            let fresh = |flag: &PortFlag| (*flag, *flag == PortFlag::Learning);
            let known = sleeve_flags().into_keys().filter(|f| knows(*f));
            port.flags = Some(known.map(|flag| fresh(&flag)).collect());
            port.max_groups = Some(0);
        }
        Step::RemoveAddress(net) => assert!(tables.addresses.remove(&net)),
        Step::RemoveFdb { mac, port } => assert_eq!(tables.fdb.remove(&mac), Some(port)),
        Step::RemoveNeighbour(address) => {
            assert!(tables.neighbours.remove(&address).is_some());
        }
        Step::ResetBridge => tables.bridge.manner = Manner::AsMade,
        Step::SetBridgeMac(mac) => {
            tables.bridge.mac = Some(mac);
            tables.neighbours.clear();
        }
        Step::SetBridgeMtu(mtu) => tables.bridge.mtu = mtu,
        Step::SetFdb { mac, port } => {
            assert!(
                tables.ports[&port].flags.is_some(),
                "an entry to what is no port"
            );
            tables.fdb.insert(mac, port);
        }
        Step::SetNeighbour { address, mac } => {
            tables.neighbours.insert(address, mac);
        }
        Step::SetPortFlags { port, flags } => {
            let port = tables.ports.get_mut(&port).unwrap();
            let had = port.flags.as_mut().expect("switches of what is no port");
            had.extend(flags.into_iter().filter(|(flag, _)| knows(*flag)));
        }
        Step::SetPortGroups { port, limit } => {
            let port = tables.ports.get_mut(&port).unwrap();
            assert!(port.flags.is_some(), "groups of what is no port");
            port.max_groups = Some(limit);
        }
        Step::SetPortMtu { port, mtu } => tables.ports.get_mut(&port).unwrap().mtu = mtu,
        Step::StartBridge => {
            tables.bridge.power = Power::On;
            tables.neighbours.clear();
        }
        Step::StartPort(port) => {
            let port = tables.ports.get_mut(&port).unwrap();
            assert!(port.flags.is_some(), "switched on before it is set up");
            port.power = Power::On;
        }
    }
}

/// The kernel of this model has no locked ports.
fn knows(flag: PortFlag) -> bool {
    flag != PortFlag::Locked
}

fn macs() -> impl Strategy<Value = MacAddr> {
    (0..6_u8).prop_map(|last| MacAddr::new([2, 0, 0, 0, 0, last]))
}

fn addresses() -> impl Strategy<Value = IpAddr> {
    (0..6_u8).prop_map(|last| IpAddr::from([10, 32, 0, last]))
}

fn nets() -> impl Strategy<Value = IpNet> {
    addresses().prop_map(|address| IpNet::new(address, 12).unwrap())
}

fn ports() -> impl Strategy<Value = String> {
    proptest::sample::select(&PORTS[..]).prop_map(String::from)
}

fn power() -> impl Strategy<Value = Power> {
    any::<bool>().prop_map(|on| if on { Power::On } else { Power::Off })
}

fn bridge() -> impl Strategy<Value = Bridge> {
    (macs(), 1280..1282_u32, power(), any::<bool>()).prop_map(|(mac, mtu, power, made)| Bridge {
        mac: Some(mac),
        mtu,
        power,
        manner: if made {
            Manner::AsMade
        } else {
            Manner::Changed
        },
    })
}

fn flags() -> impl Strategy<Value = PortFlags> {
    let known: Vec<_> = container_flags()
        .into_keys()
        .filter(|f| knows(*f))
        .collect();
    vec(any::<bool>(), known.len()).prop_map(move |on| known.iter().copied().zip(on).collect())
}

/// What a kernel may have: everything, anyhow.
fn had() -> impl Strategy<Value = Tables> {
    let flags = proptest::option::of((flags(), 0..65_u32));
    let port = (1280..1282_u32, power(), flags).prop_map(|(mtu, power, as_port)| Port {
        mtu,
        power,
        max_groups: as_port.as_ref().map(|(_, limit)| *limit),
        flags: as_port.map(|(flags, _)| flags),
    });
    (
        bridge(),
        btree_set(nets(), 0..4),
        vec(port, PORTS.len()),
        btree_map(macs(), ports(), 0..5),
        btree_map(addresses(), macs(), 0..5),
    )
        .prop_map(|(bridge, addresses, made, fdb, neighbours)| {
            let ports: BTreeMap<_, _> = PORTS.map(String::from).into_iter().zip(made).collect();
            // What is no port has no entries, and what is off has no neighbours and no addresses.
            let fdb = fdb
                .into_iter()
                .filter(|(_, port)| ports[port].flags.is_some())
                .collect();
            let on = bridge.power == Power::On;
            Tables {
                addresses: if on { addresses } else { BTreeSet::new() },
                neighbours: if on { neighbours } else { BTreeMap::new() },
                bridge,
                ports,
                fdb,
            }
        })
}

/// What a plan may ask for: all ports set up, everything on.
fn wanted() -> impl Strategy<Value = Tables> {
    had().prop_flat_map(|tables| {
        btree_map(macs(), ports(), 0..5).prop_map(move |fdb| {
            let mut tables = tables.clone();
            tables.bridge.power = Power::On;
            tables.bridge.manner = Manner::AsMade;
            tables.fdb = fdb;
            for (name, port) in &mut tables.ports {
                port.power = Power::On;
                port.max_groups = Some(if *name == PORTS[0] {
                    0
                } else {
                    CONTAINER_GROUPS
                });
                port.flags = Some(if *name == PORTS[0] {
                    sleeve_flags()
                } else {
                    container_flags()
                });
            }
            tables
        })
    })
}

/// What the model's kernel can have of it.
fn possible(mut tables: Tables) -> Tables {
    for port in tables.ports.values_mut() {
        if let Some(flags) = &mut port.flags {
            flags.retain(|flag, _| knows(*flag));
        }
    }
    tables
}

/// What the mesh and this host's devices may be at one moment.
#[derive(Clone, Debug)]
struct Moment {
    snapshot: Arc<Snapshot>,
    devices: Arc<Devices>,
}

const OURS: NodeId = NodeId::new([1; 32]);
const THEIRS: NodeId = NodeId::new([2; 32]);

fn endpoints() -> impl Strategy<Value = Endpoint> {
    let kind = prop_oneof![
        1 => Just(None),
        8 => ports().prop_map(Some),
    ];
    let addresses = vec(addresses(), 0..3);
    (macs(), addresses, any::<bool>(), kind, 0..8_u32).prop_map(
        |(mac, addresses, ours, port, segment)| Endpoint {
            segment: Segment::new(u32::from(segment == 0)).unwrap(),
            mac,
            addresses,
            owner: if ours { OURS } else { THEIRS },
            kind: match port {
                Some(port) => EndpointKind::Attached {
                    port: if ours { port } else { String::new() },
                },
                None => EndpointKind::Host,
            },
            metadata: None,
        },
    )
}

fn moments() -> impl Strategy<Value = Moment> {
    let host = prop_oneof![9 => Just(1_u8), 1 => Just(2)];
    let ports = vec(prop_oneof![3 => Just(true), 1 => Just(false)], PORTS.len());
    let own = btree_set(macs(), 0..2);
    (vec(endpoints(), 0..8), host, ports, own).prop_map(|(endpoints, host, there, own)| {
        let snapshot = Snapshot {
            generation: 1,
            node: OURS,
            mtu: Mtu::MESH,
            ranges: Vec::new(),
            host_addresses: vec![IpNet::new([10, 32, 0, host].into(), 12).unwrap()],
            peers: Vec::new(),
            endpoints: endpoints.into_iter().collect(),
        };
        let ports = PORTS.iter().zip(there).filter(|(_, there)| *there);
        let devices = Devices {
            segment: Segment::DEFAULT,
            bridge: "weft".into(),
            tap: PORTS[0].into(),
            ports: ports.map(|(name, _)| (*name).to_owned()).collect(),
            own,
            families: Families::Both,
        };
        Moment {
            snapshot: Arc::new(snapshot),
            devices: Arc::new(devices),
        }
    })
}

/// A kernel whose bridge was made a moment ago.
fn had_nothing() -> Tables {
    Tables {
        bridge: Bridge {
            mac: Some(MacAddr::new([2, 0, 0, 0, 0, 99])),
            mtu: 1500,
            power: Power::On,
            manner: Manner::AsMade,
        },
        addresses: BTreeSet::new(),
        ports: BTreeMap::new(),
        fdb: BTreeMap::new(),
        neighbours: BTreeMap::new(),
    }
}

/// What becomes of a kernel when its ports are others: entries go with their port, and a port that appears is off.
fn with_ports(kernel: &mut Tables, devices: &Devices) {
    kernel.ports.retain(|name, _| devices.ports.contains(name));
    kernel.fdb.retain(|_, port| devices.ports.contains(port));
    for name in &devices.ports {
        let fresh = Port {
            mtu: 1500,
            power: Power::Off,
            flags: None,
            max_groups: None,
        };
        kernel.ports.entry(name.clone()).or_insert(fresh);
    }
}

/// As the driver does: what is to be removed and is gone is removed.
fn do_steps(kernel: &mut Tables, steps: Vec<Step>) {
    for step in steps {
        let gone = |mac: &MacAddr| !kernel.fdb.contains_key(mac);
        if !matches!(&step, Step::RemoveFdb { mac, .. } if gone(mac)) {
            apply(kernel, step);
        }
    }
}

fn foreign() -> impl Strategy<Value = Vec<ObservedFdb>> {
    let port = proptest::sample::select(&["weft", "eth0", "weft-tap", "wv1", "docker7"][..]);
    let entry = (macs(), port, any::<bool>()).prop_map(|(mac, port, sticky)| ObservedFdb {
        mac,
        port: port.into(),
        sticky,
    });
    vec(entry, 0..10)
}

proptest! {
    #[test]
    fn a_patch_leads_from_one_to_the_other_and_the_next_is_empty(have in had(), want in wanted()) {
        let mut tables = have.clone();

        for step in diff(&have, &want).steps {
            apply(&mut tables, step);
        }

        prop_assert_eq!(&tables, &possible(want.clone()));
        prop_assert!(diff(&tables, &want).is_empty());
    }

    #[test]
    fn a_patch_that_was_cut_short_is_completed_by_the_next(have in had(), want in wanted(), cut in 0..20_usize) {
        let mut tables = have.clone();
        for step in diff(&have, &want).steps.into_iter().take(cut) {
            apply(&mut tables, step);
        }

        for step in diff(&tables.clone(), &want).steps {
            apply(&mut tables, step);
        }

        prop_assert_eq!(tables, possible(want));
    }

    #[test]
    fn a_plan_that_follows_is_one_that_is_made_anew_and_leads_the_kernel_there(
        moments in vec(moments(), 1..8),
    ) {
        let first = &moments[0];
        let mut kernel = had_nothing();
        let mut plan = Plan::new(Arc::clone(&first.snapshot), Arc::clone(&first.devices));
        let mut known = false;
        for Moment { snapshot, devices } in moments {
            with_ports(&mut kernel, &devices);
            let seen = devices.ports.clone();
            let followed = plan.follow(&snapshot, &devices, &kernel.ports, &seen);
            let steps = match followed.filter(|_| known) {
                Some(patch) => patch.steps,
                None => {
                    plan = Plan::new(Arc::clone(&snapshot), Arc::clone(&devices));
                    diff(&kernel, plan.tables()).steps
                }
            };
            known = true;
            do_steps(&mut kernel, steps);

            let anew = Plan::new(snapshot, devices);
            prop_assert_eq!(plan.tables(), anew.tables());
            let want = possible(plan.tables().clone());
            prop_assert_eq!(&kernel.fdb, &want.fdb);
            prop_assert_eq!(&kernel.neighbours, &want.neighbours);
            prop_assert_eq!(&kernel.addresses, &want.addresses);
            for (name, port) in &want.ports {
                prop_assert_eq!(kernel.ports.get(name), Some(port));
            }
        }
    }

    #[test]
    fn entries_that_are_not_ours_are_never_touched(fdb in foreign(), have in had(), want in wanted()) {
        let devices = Devices {
            segment: Segment::DEFAULT,
            bridge: "weft".into(),
            tap: "weft-tap".into(),
            ports: PORTS.map(String::from).into(),
            own: BTreeSet::new(),
            families: Families::Both,
        };
        let observed = Observed {
            bridge: have.bridge.clone(),
            addresses: vec!["fe80::1/64".parse().unwrap(), "10.32.0.1/12".parse().unwrap()],
            ports: have.ports.clone(),
            fdb: fdb.clone(),
            neighbours: Vec::new(),
        };

        for step in diff(&observed.ours(&devices, &want), &want).steps {
            if let Step::RemoveFdb { mac, port } = &step {
                let mut ours = fdb.iter().filter(|entry| entry.sticky && entry.port == devices.tap);
                prop_assert!(ours.any(|entry| entry.mac == *mac && entry.port == *port));
            }
            if let Step::RemoveAddress(net) = step {
                prop_assert!(net.addr().is_ipv4());
            }
        }
    }
}
