//! The laws of a replica (`weft_types::Replica`), checked alike for everything that is gossiped.

use std::fmt::Debug;
use std::time::Instant;

use proptest::prelude::*;
use weft_types::Delta;

use super::Gossiped;

/// Whether replicas that begin as `empty` keep the laws with these pieces.
pub(crate) fn hold<R>(empty: &R, pieces: [R::Delta; 3], now: Instant) -> Result<(), TestCaseError>
where
    R: Gossiped + Clone,
    R::Delta: Clone + Debug + PartialEq,
{
    let merged = |order: [usize; 4]| {
        let mut replica = empty.clone();
        for i in order {
            replica.merge(pieces[i].clone(), now);
        }
        replica
    };
    let whole = merged([0, 1, 2, 2]);

    // Every order, and in each a piece that comes again.
    same(&whole, &merged([0, 2, 1, 0]))?;
    same(&whole, &merged([1, 0, 2, 1]))?;
    same(&whole, &merged([1, 2, 0, 1]))?;
    same(&whole, &merged([2, 0, 1, 0]))?;
    same(&whole, &merged([2, 1, 0, 2]))?;
    news_is_what_was_new(empty, &pieces, now)?;
    folding_changes_nothing(empty, pieces, now)
}

/// News is news once, and carries as far as everything.
fn news_is_what_was_new<R>(
    empty: &R,
    pieces: &[R::Delta],
    now: Instant,
) -> Result<(), TestCaseError>
where
    R: Gossiped + Clone,
    R::Delta: Clone + Debug + PartialEq,
{
    let (mut all, mut by_news) = (empty.clone(), empty.clone());
    for piece in pieces {
        if let Some(news) = all.merge(piece.clone(), now) {
            prop_assert_eq!(all.merge(news.clone(), now), None);
            by_news.merge(news, now);
        }
    }
    prop_assert_eq!(all.merge(all.snapshot(), now), None);
    same(&all, &by_news)
}

fn folding_changes_nothing<R>(
    empty: &R,
    [before, x, y]: [R::Delta; 3],
    now: Instant,
) -> Result<(), TestCaseError>
where
    R: Gossiped + Clone,
    R::Delta: Clone + Debug + PartialEq,
{
    let (mut one_by_one, mut folded) = (empty.clone(), empty.clone());
    for piece in [&before, &x, &y] {
        one_by_one.merge(piece.clone(), now);
    }
    let mut both = x;
    both.absorb(y);
    folded.merge(before, now);
    folded.merge(both, now);
    same(&one_by_one, &folded)
}

fn same<R>(a: &R, b: &R) -> Result<(), TestCaseError>
where
    R: Gossiped,
    R::Delta: Debug + PartialEq,
{
    prop_assert_eq!(a.snapshot(), b.snapshot());
    prop_assert_eq!(a.digest(), b.digest());
    Ok(())
}
