//! Finds the way to every node, and who passes a broadcast on to whom.
//!
//! ```text
//!   links that both ends claim ──▶ Graph ──▶ tree by breadth first, rooted anywhere ──▶ next hop, hops, children
//! ```
//!
//! Nodes are visited in order of their ids, so every node that knows the same links computes the same tree for a root:
//! each hands a broadcast to its children in that tree, and it reaches everybody once. On a complete graph the tree is a
//! star. While views differ a broadcast may miss somebody or come twice; the digests of [`crate::gossip`] see to the first,
//! and a second time is no news.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use weft_types::NodeId;

/// Links, each known at both of its ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    neighbours: BTreeMap<NodeId, BTreeSet<NodeId>>,
}

/// The shortest ways from one node to all others that it reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    root: NodeId,
    /// Of every reached node but the root: the node before it on the way from the root, and how many hops it takes.
    reached: BTreeMap<NodeId, (NodeId, u32)>,
}

impl Graph {
    /// Keeps the links that both ends claim.
    pub fn mutual(claims: &BTreeMap<NodeId, BTreeSet<NodeId>>) -> Self {
        let claimed = |from: NodeId, to: &NodeId| {
            *to != from && claims.get(to).is_some_and(|back| back.contains(&from))
        };
        let neighbours = claims
            .iter()
            .map(|(&node, links)| {
                let mutual = links.iter().copied().filter(|to| claimed(node, to));
                (node, mutual.collect())
            })
            .collect();
        Self { neighbours }
    }

    /// Makes `up` the links of one node, whatever was claimed: it knows best about its own.
    #[must_use]
    pub fn with_links_of(mut self, node: NodeId, up: &BTreeSet<NodeId>) -> Self {
        for links in self.neighbours.values_mut() {
            links.remove(&node);
        }
        for &peer in up.iter().filter(|&&peer| peer != node) {
            self.neighbours.entry(peer).or_default().insert(node);
        }
        let own = up.iter().copied().filter(|&peer| peer != node).collect();
        self.neighbours.insert(node, own);
        self
    }

    /// Whether two nodes are linked.
    pub fn is_linked(&self, a: NodeId, b: NodeId) -> bool {
        self.neighbours
            .get(&a)
            .is_some_and(|links| links.contains(&b))
    }

    /// The shortest ways from `root`; of equally short ones, that over the smallest nodes seen from the root.
    pub fn tree(&self, root: NodeId) -> Tree {
        let mut reached = BTreeMap::new();
        let mut queue = VecDeque::from([(root, 0)]);
        while let Some((node, hops)) = queue.pop_front() {
            for &next in self.neighbours.get(&node).into_iter().flatten() {
                if next != root && !reached.contains_key(&next) {
                    reached.insert(next, (node, hops + 1));
                    queue.push_back((next, hops + 1));
                }
            }
        }
        Tree { root, reached }
    }

    /// To whom `node` passes on a broadcast that began at `root`.
    pub fn broadcast_children(&self, root: NodeId, node: NodeId) -> Vec<NodeId> {
        self.tree(root).children(node).collect()
    }
}

impl Tree {
    /// How many links lie between the root and a node; `None` where there is no way.
    pub fn hops(&self, to: NodeId) -> Option<u32> {
        if to == self.root {
            return Some(0);
        }
        self.reached.get(&to).map(|&(_, hops)| hops)
    }

    /// The neighbour of the root on the way to another node.
    pub fn next_hop(&self, to: NodeId) -> Option<NodeId> {
        let mut node = to;
        loop {
            let &(before, _) = self.reached.get(&node)?;
            if before == self.root {
                return Some(node);
            }
            node = before;
        }
    }

    /// Who comes right behind `node` on the ways from the root.
    pub fn children(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        self.reached
            .iter()
            .filter(move |(_, (before, _))| *before == node)
            .map(|(&child, _)| child)
    }

    /// Every other node that the root reaches, by id.
    pub fn reached(&self) -> impl Iterator<Item = NodeId> {
        self.reached.keys().copied()
    }
}

/// One node's view of all ways.
#[derive(Clone, Debug)]
pub struct Routes {
    ourself: NodeId,
    up: BTreeSet<NodeId>,
    /// What everybody can know: the broadcast trees are made of it.
    agreed: Graph,
    ways: Tree,
}

/// A way to another node by a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Detour {
    /// How many links lie between the neighbour and the node.
    pub hops: u32,
    /// The neighbour.
    pub by: NodeId,
}

impl Routes {
    /// Takes what everybody claims, and which links of `ourself` are up.
    pub fn new(
        ourself: NodeId,
        claims: &BTreeMap<NodeId, BTreeSet<NodeId>>,
        up: BTreeSet<NodeId>,
    ) -> Self {
        let agreed = Graph::mutual(claims);
        let ways = agreed.clone().with_links_of(ourself, &up).tree(ourself);
        Self {
            ourself,
            up,
            agreed,
            ways,
        }
    }

    /// The neighbour on the way to another node.
    pub fn next_hop(&self, to: NodeId) -> Option<NodeId> {
        self.ways.next_hop(to)
    }

    /// How many links lie between us and another node.
    pub fn hops(&self, to: NodeId) -> Option<u32> {
        self.ways.hops(to)
    }

    /// Every other node that can be reached, by id.
    pub fn reached(&self) -> impl Iterator<Item = NodeId> {
        self.ways.reached()
    }

    /// The neighbours that reach another node without us within so many hops, nearest first; of equally near ones the
    /// smallest. The node itself is none of them.
    pub fn detours(&self, to: NodeId, most: u32) -> Vec<Detour> {
        let without_us = self
            .agreed
            .clone()
            .with_links_of(self.ourself, &BTreeSet::new());
        let tree = without_us.tree(to);
        let others = self.up.iter().copied().filter(|&by| by != to);
        let mut found: Vec<Detour> = others
            .filter_map(|by| {
                let hops = tree.hops(by)?;
                Some(Detour { hops, by })
            })
            .filter(|detour| detour.hops <= most)
            .collect();
        found.sort_unstable();
        found
    }

    /// To whom we pass on a broadcast that began at `root` and came by `from` (`None`: we began it). Beside our children in
    /// the agreed tree these are the neighbours whose link with us is too young for others to count on.
    pub fn pass_on(&self, root: NodeId, from: Option<NodeId>) -> BTreeSet<NodeId> {
        let children = self.agreed.broadcast_children(root, self.ourself);
        let known = |peer: &NodeId| self.agreed.is_linked(self.ourself, *peer);
        let young = self.up.iter().copied().filter(|peer| !known(peer));
        children
            .into_iter()
            .filter(|child| self.up.contains(child))
            .chain(young)
            .filter(|&peer| Some(peer) != from && peer != root)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Claims = BTreeMap<NodeId, BTreeSet<NodeId>>;

    fn node(n: u8) -> NodeId {
        NodeId::new([n; 32])
    }

    fn claims(links: &[(u8, u8)]) -> Claims {
        let mut claims = Claims::new();
        for &(a, b) in links {
            claims.entry(node(a)).or_default().insert(node(b));
            claims.entry(node(b)).or_default().insert(node(a));
        }
        claims
    }

    fn complete(nodes: u8) -> Claims {
        let pairs = (0..nodes).flat_map(|a| (0..a).map(move |b| (a, b)));
        claims(&pairs.collect::<Vec<_>>())
    }

    /// Lets every node pass a broadcast on by its own view; counts how often each got it.
    fn broadcast(routes: &BTreeMap<NodeId, Routes>, root: NodeId) -> BTreeMap<NodeId, u32> {
        let mut got = BTreeMap::new();
        let mut queue = VecDeque::from([(root, None)]);
        while let Some((at, from)) = queue.pop_front() {
            *got.entry(at).or_default() += 1;
            let next = routes[&at].pass_on(root, from);
            queue.extend(next.into_iter().map(|to| (to, Some(at))));
        }
        got
    }

    #[test]
    fn a_link_that_one_end_claims_is_none() {
        let mut claims = claims(&[(1, 2)]);
        claims.entry(node(3)).or_default().insert(node(1));
        claims.entry(node(1)).or_default().insert(node(1));

        let graph = Graph::mutual(&claims);

        assert!(graph.is_linked(node(1), node(2)));
        assert!(!graph.is_linked(node(1), node(3)));
        assert_eq!(graph.tree(node(1)).reached().collect::<Vec<_>>(), [node(2)]);
    }

    #[test]
    fn a_complete_graph_gives_a_star() {
        let graph = Graph::mutual(&complete(24));

        for root in 0..24 {
            assert_eq!(graph.broadcast_children(node(root), node(root)).len(), 23);
            let others = (0..24).filter(|&other| other != root);
            assert!(others.map(node).all(|other| {
                graph.broadcast_children(node(root), other).is_empty()
                    && graph.tree(node(root)).next_hop(other) == Some(other)
            }));
        }
    }

    #[test]
    fn the_way_round_a_missing_link_is_over_the_smallest_neighbour() {
        let claims = claims(&[(1, 2), (1, 3), (2, 4), (3, 4)]);
        let routes = Routes::new(node(1), &claims, [node(2), node(3)].into());

        assert_eq!(routes.next_hop(node(4)), Some(node(2)));
        assert_eq!(routes.hops(node(4)), Some(2));
        assert_eq!(routes.next_hop(node(5)), None);
        assert_eq!(routes.hops(node(1)), Some(0));
    }

    #[test]
    fn detours_lead_round_us_and_round_the_missing_link() {
        // 1 is linked with 2, 3 and 5; 5 reaches 4 over us only.
        let claims = claims(&[(1, 2), (1, 3), (1, 5), (3, 4), (2, 6), (6, 4)]);
        let routes = Routes::new(node(1), &claims, [node(2), node(3), node(5)].into());

        let detour = |hops, by| Detour { hops, by: node(by) };
        assert_eq!(routes.detours(node(4), 3), [detour(1, 3), detour(2, 2)]);
        assert_eq!(routes.detours(node(4), 1), [detour(1, 3)]);
        assert!(routes.detours(node(9), 3).is_empty());
    }

    #[test]
    fn a_link_that_is_down_is_no_way_whatever_its_other_end_claims() {
        let claims = claims(&[(1, 2), (1, 3), (2, 3)]);
        let routes = Routes::new(node(1), &claims, [node(3)].into());

        assert_eq!(routes.next_hop(node(2)), Some(node(3)));
        assert_eq!(routes.pass_on(node(1), None), [node(3)].into());
    }

    #[test]
    fn a_young_link_gets_every_broadcast_but_its_own() {
        let claims = claims(&[(1, 2)]);
        let routes = Routes::new(node(1), &claims, [node(2), node(9)].into());

        assert_eq!(routes.pass_on(node(2), Some(node(2))), [node(9)].into());
        assert!(routes.pass_on(node(9), Some(node(9))).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_broadcast_reaches_every_node_exactly_once(
            // Node n hangs on one of those before it, so the graph is connected; more links make circles.
            trunk in prop::collection::vec(any::<prop::sample::Index>(), 1..23),
            more in prop::collection::vec((0..24_u8, 0..24_u8), 0..60),
        ) {
            let nodes = u8::try_from(trunk.len()).unwrap() + 1;
            let trunk = trunk.iter().zip(1_u8..).map(|(index, n)| {
                (n, u8::try_from(index.index(n.into())).unwrap())
            });
            let more = more.into_iter().filter(|&(a, b)| a != b && a < nodes && b < nodes);
            let claims = claims(&trunk.chain(more).collect::<Vec<_>>());

            let routes = claims
                .iter()
                .map(|(&at, links)| (at, Routes::new(at, &claims, links.clone())))
                .collect();

            for root in 0..nodes {
                let got = broadcast(&routes, node(root));

                prop_assert_eq!(got.len(), usize::from(nodes));
                prop_assert!(got.values().all(|&times| times == 1));
            }
        }
    }
}
