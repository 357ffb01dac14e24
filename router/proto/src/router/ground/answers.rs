//! Bounds how many strangers of one source are answered: an answer costs a key exchange, and is longer than most questions.
//!
//! Only who holds a secret of the mesh is answered at all, so nobody spends what is another's but who shares both its
//! address and that secret.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::budget::Budget;

/// Answers to one source in a second, and at once: a site behind one address that comes back as a whole.
const PER_SECOND: u64 = 8;
const AT_ONCE: u64 = 64;
/// Sources that are told apart.
const SOURCES: usize = 256;

/// What is left for each source.
#[derive(Default)]
pub(crate) struct Answers {
    sources: BTreeMap<IpAddr, (Instant, Budget)>,
}

impl Answers {
    /// Whether one more is answered; that it is counts at once.
    pub(crate) fn allow(&mut self, from: IpAddr, now: Instant) -> bool {
        let from = source(from);
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&from) {
            self.forget_one();
        }
        let fresh = || (now, Budget::new(PER_SECOND, AT_ONCE, now));
        let (last, budget) = self.sources.entry(from).or_insert_with(fresh);
        *last = now;
        budget.spend(1, now)
    }

    /// Forgets who was answered longest ago.
    fn forget_one(&mut self) {
        let oldest = self.sources.iter().min_by_key(|(_, (last, _))| *last);
        if let Some(oldest) = oldest.map(|(from, _)| *from) {
            self.sources.remove(&oldest);
        }
    }
}

/// An IPv6 host owns its /64 (RFC 4291 §2.5.4).
fn source(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::virtual_time::origin;

    fn host(n: u32) -> IpAddr {
        IpAddr::V4((0xc000_0200 + n).into())
    }

    #[test]
    fn one_source_is_answered_so_often_and_others_all_the_same() {
        let (mut answers, begun) = (Answers::default(), origin());
        let from: IpAddr = "2001:db8::1".parse().expect("an address");
        let same: IpAddr = "2001:db8::2".parse().expect("an address");

        let mut count = 0;
        for ms in 0..10_000 {
            let now = begun + Duration::from_millis(ms);
            let from = if ms % 2 == 0 { from } else { same };
            count += u64::from(answers.allow(from, now));
        }

        assert_eq!(count, AT_ONCE + 10 * PER_SECOND - 1);
        assert!(answers.allow(host(1), begun));
    }

    #[test]
    fn many_sources_are_no_burden() {
        let (mut answers, now) = (Answers::default(), origin());

        for n in 0..100_000 {
            assert!(answers.allow(host(n), now));
        }

        assert_eq!(answers.sources.len(), SOURCES);
    }
}
