use super::*;
use crate::crypto::seeded::SeededCrypto;
use crate::io::ConnectError;
use crate::virtual_time::origin;

fn node(n: u8) -> NodeId {
    NodeId::new([n; 32])
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 6783))
}

fn dials(dialer: &mut Dialer) -> Vec<(ConnId, SocketAddr)> {
    let dial = |output| match output {
        DialerOutput::Dial { conn, to } => Some((conn, to)),
        DialerOutput::Abandon(_) | DialerOutput::Resolve(_) | DialerOutput::RoundFailed { .. } => {
            None
        }
    };
    std::iter::from_fn(|| dialer.poll_output())
        .filter_map(dial)
        .collect()
}

fn members(list: &[(u8, u8)]) -> BTreeMap<NodeId, Vec<SocketAddr>> {
    list.iter()
        .map(|&(n, a)| (node(n), vec![address(a)]))
        .collect()
}

const REFUSED: DialError = DialError::Connect(ConnectError::Refused);

#[test]
fn a_member_is_untried_until_its_first_round_has_failed_or_its_link_is_lost() {
    let mut crypto = SeededCrypto::new(1);
    let mut dialer = Dialer::new(node(1));
    dialer.set_members(&members(&[(2, 2), (3, 3)]), origin());
    assert!(dialer.is_untried(node(2)) && dialer.is_untried(node(3)));
    assert!(!dialer.is_untried(node(4)), "no member");

    dialer.handle_timeout(&mut crypto, origin());
    let dialled: Vec<ConnId> = std::iter::from_fn(|| dialer.poll_output())
        .filter_map(|output| match output {
            DialerOutput::Dial { conn, .. } => Some(conn),
            DialerOutput::Abandon(_)
            | DialerOutput::Resolve(_)
            | DialerOutput::RoundFailed { .. } => None,
        })
        .collect();
    assert!(dialer.is_untried(node(2)) && dialer.is_untried(node(3)));
    dialer.handle_failure(dialled[0], REFUSED, &mut crypto, origin());
    dialer.handle_linked(node(3), Some(dialled[1]));
    assert!(!dialer.is_untried(node(2)) && !dialer.is_untried(node(3)));
    dialer.handle_lost(node(3), origin());

    assert!(!dialer.is_untried(node(3)));
}

#[test]
fn a_failing_target_is_tried_ever_more_seldom_and_never_more_than_15_s_apart() {
    let mut crypto = SeededCrypto::new(1);
    let mut dialer = Dialer::new(node(1));
    let target = Target("a".to_owned());
    dialer.add_target(target.clone(), origin());

    let mut last = origin();
    let mut gaps = Vec::new();
    for _ in 0..12 {
        let (due, _) = dialer.poll_timeout().expect("a deadline");
        gaps.push(due - last);
        last = due;
        dialer.handle_timeout(&mut crypto, due);
        assert_eq!(
            dialer.poll_output(),
            Some(DialerOutput::Resolve(target.clone()))
        );
        dialer.handle_resolved(&target, vec![address(1)], &mut crypto, due);
        let conn = dials(&mut dialer)[0].0;
        dialer.handle_failure(conn, REFUSED, &mut crypto, due);
        assert!(matches!(
            dialer.poll_output(),
            Some(DialerOutput::RoundFailed { error: REFUSED, .. })
        ));
        assert!(dialer.poll_timeout().is_some_and(|(next, _)| next > due));
    }

    assert!(gaps[1] < FIRST && gaps[11] > CAP / 2);
    assert!(gaps.iter().all(|&gap| gap <= CAP));
}

#[test]
fn the_smaller_node_of_a_pair_dials_first() {
    let mut crypto = SeededCrypto::new(1);
    let mut dialer = Dialer::new(node(5));
    dialer.set_members(&members(&[(3, 3), (5, 5), (7, 7)]), origin());

    dialer.handle_timeout(&mut crypto, origin());
    assert_eq!(
        dials(&mut dialer)
            .iter()
            .map(|dial| dial.1)
            .collect::<Vec<_>>(),
        [address(7)]
    );

    dialer.handle_timeout(&mut crypto, origin() + COURTESY + Duration::from_millis(1));
    assert_eq!(
        dials(&mut dialer)
            .iter()
            .map(|dial| dial.1)
            .collect::<Vec<_>>(),
        [address(3)]
    );
}

#[test]
fn a_lost_member_is_dialled_at_once_and_often() {
    let mut crypto = SeededCrypto::new(1);
    let mut dialer = Dialer::new(node(1));
    dialer.set_members(&members(&[(2, 2)]), origin());
    dialer.handle_linked(node(2), None);
    assert_eq!(dialer.poll_timeout(), None);

    dialer.handle_lost(node(2), origin());

    let mut attempts = 0;
    while let Some((due, _)) = dialer
        .poll_timeout()
        .filter(|(due, _)| *due < origin() + EAGER)
    {
        dialer.handle_timeout(&mut crypto, due);
        let conn = dials(&mut dialer)[0].0;
        dialer.handle_failure(conn, REFUSED, &mut crypto, due);
        attempts += 1;
    }
    assert!((20..=35).contains(&attempts), "{attempts} attempts in 10 s");
}

#[test]
fn addresses_of_one_member_are_tried_side_by_side_and_the_slower_are_given_up() {
    let mut crypto = SeededCrypto::new(1);
    let mut dialer = Dialer::new(node(1));
    let both = BTreeMap::from([(node(2), vec![address(2), address(3)])]);
    dialer.set_members(&both, origin());
    dialer.handle_timeout(&mut crypto, origin());
    dialer.handle_timeout(&mut crypto, origin() + STAGGER);
    let tried = dials(&mut dialer);
    assert_eq!(tried.len(), 2);

    dialer.handle_linked(node(2), Some(tried[1].0));

    assert_eq!(
        dialer.poll_output(),
        Some(DialerOutput::Abandon(tried[0].0))
    );
    assert_eq!(dialer.poll_timeout(), None);
}

#[test]
fn a_target_that_is_ourselves_is_left_alone() {
    let mut crypto = SeededCrypto::new(1);
    let mut dialer = Dialer::new(node(1));
    let target = Target("a".to_owned());
    dialer.add_target(target.clone(), origin());
    dialer.handle_timeout(&mut crypto, origin());
    dialer.handle_resolved(&target, vec![address(1)], &mut crypto, origin());
    let conn = dials(&mut dialer)[0].0;

    dialer.handle_ourself(conn, &mut crypto, origin());

    assert_eq!(dialer.poll_timeout(), None);
    assert_eq!(
        dialer.targets().next().map(|status| status.state),
        Some(DialState::Ourself)
    );
}

#[test]
fn a_new_address_is_tried_at_once() {
    let mut crypto = SeededCrypto::new(1);
    let mut dialer = Dialer::new(node(1));
    dialer.set_members(&members(&[(2, 2)]), origin());
    for _ in 0..8 {
        let (due, _) = dialer.poll_timeout().expect("a deadline");
        dialer.handle_timeout(&mut crypto, due);
        let conn = dials(&mut dialer)[0].0;
        dialer.handle_failure(conn, REFUSED, &mut crypto, due);
    }

    dialer.set_members(&members(&[(2, 9)]), origin());

    assert_eq!(dialer.poll_timeout().map(|(due, _)| due), Some(origin()));
}

/// A member that tells these addresses, which all refuse; gives every dial until then.
fn dials_within(time: Duration, mut tell: impl FnMut(u32) -> Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (mut crypto, mut now) = (SeededCrypto::new(1), origin());
    let mut dialer = Dialer::new(node(1));
    let (end, mut all) = (now + time, Vec::new());
    for round in 0.. {
        let members = BTreeMap::from([(node(2), tell(round))]);
        dialer.set_members(&members, now);
        let due = dialer.poll_timeout().map_or(end, |(due, _)| due);
        now = due.min(now + Duration::from_millis(100)).max(now);
        if now >= end {
            break;
        }
        dialer.handle_timeout(&mut crypto, now);
        for (conn, to) in dials(&mut dialer) {
            all.push(to);
            dialer.handle_failure(conn, REFUSED, &mut crypto, now);
        }
        now += Duration::from_millis(1);
    }
    all
}

#[test]
fn a_member_that_tells_other_addresses_all_the_time_does_not_make_others_dial_all_the_time() {
    let minute = Duration::from_secs(60);
    let other = |round: u32| {
        let [.., a, b] = round.to_be_bytes();
        vec![SocketAddr::from(([198, 51, a, b], 80))]
    };

    let still = dials_within(minute, |_| vec![address(2)]).len();
    let changing = dials_within(minute, other).len();

    assert!(
        changing <= still + MAX_HURRIES as usize + 2,
        "{changing} {still}"
    );
}

#[test]
fn a_member_that_tells_many_addresses_has_a_bounded_number_of_dials() {
    let many: Vec<SocketAddr> = (0..64).map(address).collect();

    let dialled = dials_within(Duration::from_secs(600), |_| many.clone()).len() as u64;

    assert!(dialled <= UNPROVED_AT_ONCE + 600 * UNPROVED, "{dialled}");
}

#[test]
fn few_addresses_of_a_member_are_dialled_at_once() {
    let mut crypto = SeededCrypto::new(1);
    let mut dialer = Dialer::new(node(1));
    let many = (0..16).map(address).collect();
    dialer.set_members(&BTreeMap::from([(node(2), many)]), origin());

    let mut now = origin();
    let mut open = Vec::new();
    while let Some((due, _)) = dialer.poll_timeout() {
        now = due;
        dialer.handle_timeout(&mut crypto, now);
        open.extend(dials(&mut dialer));
    }
    let first = open.len();
    dialer.handle_failure(open[0].0, REFUSED, &mut crypto, now);
    open.extend(dials(&mut dialer));

    assert_eq!(first, MAX_AT_ONCE);
    assert_eq!(
        open.len(),
        MAX_AT_ONCE + 1,
        "the next follows the one that failed"
    );
}
