//! The laws of plans and patches, on random tables and a model of what the kernel does with a step.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use weft_types::{MacAddr, PortFlag, PortFlags, Segment};

use crate::diff::{Step, diff};
use crate::plan::{container_flags, sleeve_flags};
use crate::tables::{Bridge, Devices, Families, Observed, ObservedFdb, Port, Power, Tables};

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
        }
        Step::RemoveAddress(net) => assert!(tables.addresses.remove(&net)),
        Step::RemoveFdb { mac, port } => assert_eq!(tables.fdb.remove(&mac), Some(port)),
        Step::RemoveNeighbour(address) => {
            assert!(tables.neighbours.remove(&address).is_some());
        }
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
    (macs(), 1280..1282_u32, power()).prop_map(|(mac, mtu, power)| Bridge {
        mac: Some(mac),
        mtu,
        power,
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
    let port = (1280..1282_u32, power(), proptest::option::of(flags()))
        .prop_map(|(mtu, power, flags)| Port { mtu, power, flags });
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
            tables.fdb = fdb;
            for (name, port) in &mut tables.ports {
                port.power = Power::On;
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
