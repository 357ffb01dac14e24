//! What an attach costs in a mesh of 24 nodes with 1 000 endpoints each, on its own host and on the others: printed by
//! `cargo test --release -p weft-fastdp --test scale -- --ignored --nocapture`.

#![expect(
    clippy::print_stderr,
    reason = "what was measured is what this is run for"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails its test"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use weft_fastdp::follow::follow;
use weft_fastdp::host::Host;
use weft_fastdp::names::DeviceNames;
use weft_fastdp_proto::plan::Plan;
use weft_fastdp_proto::tables::{Devices, Families};
use weft_kernel::netlink::Netlink;
use weft_kernel::tap::TapOptions;
use weft_lab::in_namespace;
use weft_router_proto::crypto::{Secret32, SigningKey};
use weft_router_proto::endpoints::{Announcement, LocalEndpoints, View};
use weft_router_proto::gossip::registers::{ENDPOINTS, RegisterDelta, Registers};
use weft_router_proto::snapshot::{Endpoints, Snapshot};
use weft_router_proto::switch::ForwardingTable;
use weft_types::{Boot, BootId, MacAddr, MeshId, Mtu, NodeId, Replica as _, Segment};

const NODES: u8 = 24;
const CONTAINERS: u16 = 1000;
const ATTACHES: u16 = 100;
const MESH: MeshId = MeshId::new([7; 32]);
const BOOT: Boot = Boot {
    counter: 1,
    id: BootId::new([1; 8]),
};

/// One owner of endpoints, and what it announces.
struct Owner {
    key: SigningKey,
    number: u8,
    local: LocalEndpoints,
    registers: Registers,
}

impl Owner {
    fn new(number: u8) -> Self {
        let key = SigningKey::from_seed(Secret32::new([number + 1; 32]));
        let mut owner = Self {
            local: LocalEndpoints::new(key.node()),
            registers: Registers::new(MESH, key.node(), BOOT),
            key,
            number,
        };
        let host = [IpAddr::from([10, 32, 250, number + 1]).into()];
        owner.local.host(owner.mac(0), &host).unwrap();
        for n in 1..=CONTAINERS {
            owner.attach(n);
        }
        for slot in 0..256 {
            owner.announce(slot);
        }
        owner
    }

    fn mac(&self, n: u16) -> MacAddr {
        let mixed =
            (u64::from(self.number) << 16 | u64::from(n)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let [_, _, bytes @ ..] = mixed.to_be_bytes();
        MacAddr::local(bytes)
    }

    fn attach(&mut self, n: u16) -> u16 {
        let [high, low] = n.to_be_bytes();
        let v4 = IpAddr::from([10, 32 + self.number / 8, (self.number % 8) << 4 | high, low]);
        let v6 = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, u16::from(self.number), n]);
        let addresses = [v4.into(), v6.into()];
        let mac = self.mac(n);
        self.local.check(mac, &addresses, None).unwrap();
        self.local
            .attach(mac, &addresses, "wv".to_owned(), None)
            .unwrap()
    }

    fn announce(&mut self, slot: u16) -> Option<RegisterDelta> {
        if self.local.is_empty(slot) {
            return None;
        }
        self.registers
            .write(ENDPOINTS, slot, self.local.body(slot), &self.key)
    }
}

/// What one host makes of what it hears.
struct Receiver {
    node: NodeId,
    registers: Registers,
    view: View,
}

impl Receiver {
    fn read(&mut self, owner: NodeId) {
        let registers = self.registers.owned(owner, ENDPOINTS);
        let announced = registers.map(|signed| Announcement {
            slot: signed.register().slot,
            hash: signed.hash(),
            body: &signed.register().body,
        });
        self.view.set_owner(owner, announced);
    }

    fn snapshot(&mut self, generation: u64) -> Arc<Snapshot> {
        Arc::new(snapshot(self.node, generation, self.view.settle()))
    }
}

fn snapshot(node: NodeId, generation: u64, endpoints: Endpoints) -> Snapshot {
    Snapshot {
        generation,
        node,
        mtu: Mtu::MESH,
        ranges: vec![
            "10.32.0.0/12".parse().unwrap(),
            "fd00::/64".parse().unwrap(),
        ],
        host_addresses: vec!["10.32.250.1/12".parse().unwrap()],
        peers: Vec::new(),
        endpoints,
    }
}

fn devices() -> Arc<Devices> {
    Arc::new(Devices {
        segment: Segment::DEFAULT,
        bridge: "weft".into(),
        tap: "weft-tap".into(),
        ports: ["weft-tap".to_owned()].into(),
        own: [].into(),
        families: Families::Both,
    })
}

/// The medians of what was taken down under each name.
#[derive(Default)]
struct Times(Vec<(&'static str, Vec<Duration>)>);

impl Times {
    fn take<T>(&mut self, name: &'static str, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = work();
        let took = begun.elapsed();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, all)) => all.push(took),
            None => self.0.push((name, vec![took])),
        }
        done
    }

    fn print(&mut self, title: &str) -> Duration {
        eprintln!("{title}");
        let mut sum = Duration::ZERO;
        for (name, all) in &mut self.0 {
            all.sort_unstable();
            let median = all[all.len() / 2];
            sum += median;
            eprintln!(
                "  {name:<28} {median:>12.1?}   worst {:.1?}",
                all[all.len() - 1]
            );
        }
        eprintln!("  {:<28} {sum:>12.1?}", "together");
        sum
    }
}

/// Everybody, what the first of them hears, and what all have.
fn mesh() -> (Vec<Owner>, Receiver) {
    let owners: Vec<Owner> = (0..NODES).map(Owner::new).collect();
    let node = owners[0].key.node();
    let mut registers = Registers::new(MESH, node, BOOT);
    registers.set_members(owners.iter().map(|owner| owner.key.node()));
    let mut view = View::default();
    view.set_local(&owners[0].local);
    let mut receiver = Receiver {
        node,
        registers,
        view,
    };
    for owner in &owners[1..] {
        receiver
            .registers
            .merge(owner.registers.snapshot(), Instant::now());
        receiver.read(owner.key.node());
    }
    (owners, receiver)
}

/// Attaches on the last host; gives what the receiver forwards by after each.
fn attach_elsewhere(
    owners: &mut [Owner],
    receiver: &mut Receiver,
    times: [&mut Times; 2],
) -> Vec<Arc<Snapshot>> {
    let [there, here] = times;
    let owner = owners.last_mut().unwrap();
    let who = owner.key.node();
    let first = receiver.snapshot(1);
    let mut table = ForwardingTable::compile(&first);
    let mut plan = Plan::new(Arc::clone(&first), devices());
    let mut all = vec![first];
    for n in 1..=ATTACHES {
        let slot = there.take("check and take in", || owner.attach(CONTAINERS + n));
        let news = there.take("sign the bucket", || owner.announce(slot).unwrap());
        let now = Instant::now();
        here.take("verify and merge", || receiver.registers.merge(news, now))
            .unwrap();
        here.take("read the bucket", || receiver.read(who));
        here.take("assigned", || receiver.view.set_assigned(BTreeMap::new()));
        let snapshot = here.take("settle, snapshot", || receiver.snapshot(u64::from(n) + 1));
        let same = here.take("compare", || {
            snapshot.endpoints == all[all.len() - 1].endpoints
        });
        assert!(!same);
        table = here.take("forwarding table", || table.follow(&snapshot));
        let patch = here.take("plan", || {
            plan.follow(&snapshot, &devices(), &BTreeMap::new(), &[].into())
        });
        let _ = black_box(patch);
        all.push(snapshot);
    }
    all
}

#[test]
#[ignore = "measures; see the head of this file"]
fn an_attach_in_a_large_mesh() {
    let (mut owners, mut receiver) = mesh();
    let (mut there, mut here) = (Times::default(), Times::default());
    let snapshots = attach_elsewhere(&mut owners, &mut receiver, [&mut there, &mut here]);
    eprintln!("{} endpoints", snapshots[0].endpoints.len());
    there.print("an attach, on its own host, beside what others do");
    here.print("an attach, on another host");

    let mut whole = Times::default();
    let last = snapshots.last().unwrap();
    whole.take("table compiled anew", || ForwardingTable::compile(last));
    whole.take("planned anew", || Plan::new(Arc::clone(last), devices()));
    whole.print("for comparison");
    look_up(last);
    follow_in_the_kernel(&snapshots);
}

/// How long the look-ups of one frame take: over all addresses in turn, and over a few.
fn look_up(snapshot: &Snapshot) {
    const ROUNDS: usize = 2_000_000;
    let table = ForwardingTable::compile(snapshot);
    let all: Vec<(MacAddr, IpAddr)> = snapshot
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.mac, endpoint.addresses[0]))
        .collect();
    for (name, count) in [("8 addresses", 8), ("all addresses", all.len())] {
        let begun = Instant::now();
        for n in 0..ROUNDS {
            let (mac, address) = all[n.wrapping_mul(7919) % count];
            black_box(table.mac_owner(Segment::DEFAULT, mac));
            black_box(table.address_owner(Segment::DEFAULT, address));
        }
        let each = begun.elapsed() / u32::try_from(ROUNDS).unwrap();
        eprintln!("  MAC and address looked up, {name}: {each:?}");
    }
}

/// Lets a follower do it in a namespace, and counts how often it asks the kernel.
fn follow_in_the_kernel(snapshots: &[Arc<Snapshot>]) {
    in_namespace(async || follow_all(snapshots).await);
}

async fn follow_all(snapshots: &[Arc<Snapshot>]) {
    let names = DeviceNames::default();
    let (host, _tap) = Host::open(&names, TapOptions::default()).await.unwrap();
    let (sender, follower) = watch::channel(None);
    let (report, _problems) = watch::channel(Vec::new());
    let following = host.clone();
    tokio::spawn(async move { follow(&following, follower, report).await });
    let (first, later) = snapshots.split_first().unwrap();
    let begun = Instant::now();
    sender.send_replace(Some(Arc::clone(first)));
    quiet(&host).await;
    eprintln!(
        "  kernel filled in {:.1?}, {} round trips",
        begun.elapsed(),
        host.round_trips()
    );

    let mut asked = Vec::new();
    for snapshot in later {
        let before = host.round_trips();
        sender.send_replace(Some(Arc::clone(snapshot)));
        tokio::time::sleep(Duration::from_millis(150)).await;
        asked.push(host.round_trips() - before);
    }
    let netlink = Netlink::connect().unwrap();
    let bridge = netlink.link("weft").await.unwrap().unwrap();
    let entries = netlink.fdb(bridge.index).await.unwrap().len();
    let neighbours = netlink.neighbours(bridge.index).await.unwrap().len();
    eprintln!("  {entries} FDB entries, {neighbours} neighbours");
    let most = asked.iter().max().unwrap();
    let all: u64 = asked.iter().sum();
    eprintln!(
        "  netlink round trips of {} attaches: {all}, at most {most} for one",
        asked.len()
    );
    assert!(*most <= 2, "{asked:?}");
}

/// Waits until the kernel has not been asked for a second.
async fn quiet(host: &Host) {
    let mut before = host.round_trips();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let after = host.round_trips();
        if after == before {
            return;
        }
        before = after;
    }
}
