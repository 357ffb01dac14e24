//! Holds what was measured against a bar: the median of a few rounds, since the best of them hides what has become slower.
//!
//! In continuous integration others use the machine too, and the bar is for a build that was not optimised: there a median
//! of twice the bar fails. `WEFT_BARS=1` asks for the bar itself, of more rounds: for a machine that does nothing else.

use std::fmt::Debug;
use std::ops::Mul;
use std::time::Duration;

/// Odd, so that there is a median.
const ROUNDS: usize = 5;
const ROUNDS_ALONE: usize = 11;

/// A bar of a name.
#[derive(Debug, Clone, Copy)]
pub struct Bar<T> {
    name: &'static str,
    most: T,
}

/// How strictly bars are held.
#[derive(Debug, Clone, Copy)]
struct Rule {
    factor: u32,
    rounds: usize,
}

impl Rule {
    fn here() -> Self {
        let strict = std::env::var_os("WEFT_BARS").is_some_and(|said| said == "1");
        Self {
            factor: if strict { 1 } else { 2 },
            rounds: if strict { ROUNDS_ALONE } else { ROUNDS },
        }
    }
}

impl<T> Bar<T> {
    /// Names what may be so much at most.
    pub const fn new(name: &'static str, most: T) -> Self {
        Self { name, most }
    }
}

/// Returns how many rounds are to be measured here.
pub fn rounds() -> usize {
    Rule::here().rounds
}

/// Measures some rounds of several times, says what they were, and holds the median of each against its bar. Panics where
/// one is over it.
#[track_caller]
pub fn judge<const N: usize>(
    bars: [Bar<Duration>; N],
    mut round: impl FnMut(usize) -> [Duration; N],
) {
    let rule = Rule::here();
    let rounds: Vec<_> = (0..rule.rounds).map(&mut round).collect();
    for (at, bar) in bars.into_iter().enumerate() {
        let took: Vec<Duration> = rounds.iter().map(|times| times[at]).collect();
        verdict(bar, took, rule);
    }
}

/// Holds the median of what was measured against a bar. Panics where it is over it.
#[track_caller]
pub fn hold<T>(bar: Bar<T>, measured: impl IntoIterator<Item = T>)
where
    T: Copy + Debug + Ord + Mul<u32, Output = T>,
{
    verdict(bar, measured.into_iter().collect(), Rule::here());
}

#[track_caller]
fn verdict<T>(bar: Bar<T>, mut measured: Vec<T>, rule: Rule)
where
    T: Copy + Debug + Ord + Mul<u32, Output = T>,
{
    let all = format!("{measured:?}");
    measured.sort_unstable();
    let median = measured[measured.len() / 2];
    #[expect(
        clippy::print_stdout,
        reason = "the test harness shows what was measured"
    )]
    {
        println!(
            "{}: median {median:?} of {all}, the bar is {:?}",
            bar.name, bar.most
        );
    }
    let most = bar.most * rule.factor;
    assert!(
        median <= most,
        "{}: the median of {all} is {median:?}, more than {most:?}, which is {} times the bar",
        bar.name,
        rule.factor
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAR: Bar<Duration> = Bar::new("a test", Duration::from_secs(10));
    const HERE: Rule = Rule {
        factor: 2,
        rounds: 3,
    };
    const ALONE: Rule = Rule { factor: 1, ..HERE };

    fn passes(seconds: [u64; 3], rule: Rule) -> bool {
        let took = seconds.map(Duration::from_secs).to_vec();
        std::panic::catch_unwind(|| verdict(BAR, took, rule)).is_ok()
    }

    #[test]
    fn the_median_is_judged_and_neither_the_best_nor_the_worst() {
        assert!(passes([60, 1, 20], HERE));
        assert!(!passes([1, 21, 60], HERE));
    }

    #[test]
    fn alone_the_bar_itself_is_held() {
        assert!(passes([60, 10, 1], ALONE));
        assert!(!passes([1, 11, 60], ALONE));
    }

    #[test]
    fn as_many_rounds_are_taken_as_were_said() {
        let mut taken = 0;

        judge([BAR], |_| {
            taken += 1;
            [Duration::ZERO]
        });

        assert_eq!(taken, rounds());
    }
}
