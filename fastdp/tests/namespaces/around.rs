//! What others do around the mesh's tables: mended where it is the mesh's own, told where it is theirs.

use std::process::Command;
use std::time::Duration;

use weft_fastdp_proto::plan::CONTAINER_GROUPS;
use weft_kernel::netlink::Request;
use weft_lab::requires_program;
use weft_types::{Code, Problem};

use super::host::{CONTAINER, PATIENCE, Stage, on_stage, remote, snapshot};

/// Types a command of this host's, in the namespace of the calling thread.
fn run(command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    let status = Command::new(words[0]).args(&words[1..]).status().unwrap();
    assert!(status.success(), "{command}");
}

/// Waits until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let reach = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let reached = tokio::time::timeout(PATIENCE, reach).await;
    assert!(reached.is_ok(), "{what}");
}

impl Stage {
    /// Waits for a problem that is told.
    async fn told(&self, code: Code) -> Problem {
        let mut problems = self.problems.clone();
        let is = |problem: &&Problem| problem.code == code;
        let told = problems.wait_for(|all| all.iter().any(|it| is(&it)));
        let told = tokio::time::timeout(PATIENCE, told).await;
        let all = told.expect("it is told").unwrap();
        all.iter().find(is).cloned().unwrap()
    }

    /// Waits until a problem is told no more.
    async fn forgotten(&self, code: Code) {
        let mut problems = self.problems.clone();
        let gone = problems.wait_for(|all| all.iter().all(|problem| problem.code != code));
        let gone = tokio::time::timeout(PATIENCE, gone).await;
        gone.expect("it is told no more").unwrap();
    }

    async fn is_bridge_as_made(&self) -> bool {
        let bridge = self.netlink.link("weft").await.unwrap();
        bridge.is_some_and(|bridge| bridge.as_made)
    }

    async fn has_route(&self, net: &str) -> bool {
        let bridge = self.netlink.link("weft").await.unwrap().unwrap().index;
        let routes = self.netlink.routes().await.unwrap();
        let mut here = routes.iter().filter(|route| route.link == Some(bridge));
        here.any(|route| route.net == net.parse().unwrap())
    }
}

#[test]
fn a_bridge_that_works_otherwise_is_set_right() {
    requires_program!("ip");
    on_stage(async |stage| {
        stage.settle(snapshot([remote()])).await;
        assert!(stage.is_bridge_as_made().await);

        for change in [
            "stp_state 1",
            "mcast_snooping 0",
            "forward_delay 400 stp_state 1",
        ] {
            run(&format!("ip link set weft type bridge {change}"));
            until(change, async || stage.is_bridge_as_made().await).await;
        }
        let bridge = stage.netlink.link("weft").await.unwrap().unwrap();
        assert!(bridge.as_made);
    });
}

#[test]
fn a_container_joins_so_many_groups_and_no_more() {
    on_stage(async |stage| {
        let [(_netns, attached)] = stage.attach([CONTAINER]).await;
        let limit = async || {
            let port = stage.netlink.link(&attached.port).await.unwrap();
            port.unwrap().max_groups
        };
        if limit().await.is_none() {
            return weft_lab::skip::skip(module_path!(), "needs Linux 6.3 to limit groups");
        }
        assert_eq!(limit().await, Some(CONTAINER_GROUPS));

        // Somebody lifts it.
        let port = stage.netlink.link(&attached.port).await.unwrap().unwrap();
        let lift = Request::set_max_groups(port.index, 0);
        stage.netlink.change(lift).await.unwrap();

        until("limited again", async || {
            limit().await == Some(CONTAINER_GROUPS)
        })
        .await;
    });
}

#[test]
fn a_route_of_the_mesh_that_is_deleted_comes_back() {
    requires_program!("ip");
    on_stage(async |stage| {
        stage.settle(snapshot([remote()])).await;

        for net in ["10.32.0.0/12", "fd00::/64"] {
            until("there", async || stage.has_route(net).await).await;
            run(&format!("ip route del {net} dev weft"));
            until("there again", async || stage.has_route(net).await).await;
        }
    });
}

#[test]
fn a_network_that_comes_later_within_the_mesh_s_range_is_told_until_it_goes() {
    requires_program!("ip");
    on_stage(async |stage| {
        stage.settle(snapshot([remote()])).await;
        run("ip link add later type bridge");
        run("ip link set later up");

        // By its address, and by a route.
        for (make, unmake) in [
            (
                "ip address add 10.40.0.1/16 dev later",
                "ip address del 10.40.0.1/16 dev later",
            ),
            (
                "ip route add 10.40.0.0/16 dev later",
                "ip route del 10.40.0.0/16 dev later",
            ),
        ] {
            run(make);
            let told = stage.told(Code::RangeOverlap).await;
            assert!(
                told.what.contains("10.40.0.0/16") && told.fix.contains("later"),
                "{told}"
            );
            run(unmake);
            stage.forgotten(Code::RangeOverlap).await;
        }
    });
}

#[test]
fn ipv6_that_is_switched_off_is_told_by_its_name_and_nothing_else_is() {
    requires_program!("ip");
    on_stage(async |stage| {
        stage.settle(snapshot([remote()])).await;
        let before = stage.problems.borrow().clone();
        let switch = |value: &str| {
            std::fs::write("/proc/sys/net/ipv6/conf/weft/disable_ipv6", value).unwrap();
        };

        switch("1");
        let told = stage.told(Code::KernelFeatureMissing).await;
        let all = stage.problems.borrow().clone();
        assert!(told.what.contains("IPv6 is switched off on weft"), "{told}");
        let news: Vec<_> = all.iter().filter(|it| !before.contains(it)).collect();
        assert_eq!(news, [&told]);

        switch("0");
        stage.forgotten(Code::KernelFeatureMissing).await;
    });
}

#[test]
fn a_filter_that_drops_what_the_bridge_passes_on_is_told_with_its_cure() {
    requires_program!("nft");
    on_stage(async |stage| {
        if std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables").is_err() {
            return weft_lab::skip::skip(module_path!(), "needs br_netfilter");
        }
        stage.settle(snapshot([remote()])).await;
        run("nft add table ip filter");
        run(
            "nft add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }",
        );

        let told = stage.told(Code::BridgeFiltered).await;
        assert!(told.what.contains("ip filter FORWARD"), "{told}");
        assert!(
            told.fix
                .contains("iptables -I FORWARD -i weft -o weft -j ACCEPT"),
            "{told}"
        );

        // A rule that names another device is no cure; the one of the advice is.
        run("nft add rule ip filter FORWARD iifname weftling accept");
        run("nft add rule ip filter FORWARD iifname weft oifname weft accept");
        stage.forgotten(Code::BridgeFiltered).await;
        run("nft flush chain ip filter FORWARD");
        stage.told(Code::BridgeFiltered).await;
        std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0").unwrap();
        stage.forgotten(Code::BridgeFiltered).await;
    });
}
