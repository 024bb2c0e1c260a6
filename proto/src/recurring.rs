//! What is worth a line of what fails again and again: the first failure, then at growing intervals
//! how often it failed, and once that it works again.
//!
//! Pure: callers bring the time, and write the line.

use std::{
    collections::BTreeSet,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

/// The first interval of silence; each is twice the one before.
const FIRST: Duration = Duration::from_secs(60);
/// The longest interval of silence.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// How many reasons are told apart: a text with a number in it is another one each time.
const REASONS: usize = 8;
/// How long at most something fails whose last line is that it works.
const MISTAKEN: Duration = Duration::from_secs(5 * 60);

/// Something that is tried again and again, as far as its failures were told. Of the same size
/// whatever fails, and however often.
#[derive(Clone, Default, Debug)]
pub struct Recurring(Option<Spell>);

/// A time of failures, and of the quiet after it in which another failure is no news.
#[derive(Clone, Debug)]
struct Spell {
    /// How often it failed.
    failures: u64,
    /// Hashes of the reasons that were told: whoever fails may say much.
    told: BTreeSet<u64>,
    /// How long to say nothing after the next line.
    pause: Duration,
    /// Until when nothing is said.
    silent_until: Instant,
    /// A failure was told, and not yet that it is over.
    open: bool,
    /// Since when it works; `None`: it fails.
    well_since: Option<Instant>,
    /// Since when it fails without a break.
    failing_since: Instant,
}

impl Recurring {
    /// Notes a failure: how often it failed, if that is to be told now.
    ///
    /// The first failure is told, a reason that was not told yet (of the first few), and then at
    /// most one failure a minute, two, four and so on up to an hour. What fails again soon after it
    /// worked goes on where it was; but whoever read that it works is not left in that belief for
    /// more than five minutes of failures.
    pub fn failed(&mut self, why: &impl fmt::Display, now: Instant) -> Option<u64> {
        let over = |spell: &Spell| spell.well_since.is_some_and(|since| now >= since + spell.pause);
        if self.0.as_ref().is_some_and(over) {
            self.0 = None;
        }
        let spell = self.0.get_or_insert_with(|| Spell::begin(now));
        spell.failures += 1;
        if spell.well_since.take().is_some() {
            spell.failing_since = now;
        }
        let why = hash(&why.to_string());
        let another = spell.told.len() < REASONS && !spell.told.contains(&why);
        let patience = spell.pause.min(MISTAKEN);
        let mistaken = !spell.open && now >= spell.failing_since + patience;
        if now < spell.silent_until && !another && !mistaken {
            return None;
        }
        if another {
            spell.told.insert(why);
        }
        spell.open = true;
        spell.silent_until = now + spell.pause;
        spell.pause = (spell.pause * 2).min(LONGEST);
        Some(spell.failures)
    }

    /// Whether nothing failed of late.
    pub fn is_calm(&self) -> bool {
        self.0.is_none()
    }

    /// Notes that it works: how often it had failed, if failures were told and this was not.
    pub fn worked(&mut self, now: Instant) -> Option<u64> {
        let spell = self.0.as_mut()?;
        spell.well_since.get_or_insert(now);
        std::mem::take(&mut spell.open).then_some(spell.failures)
    }
}

impl Spell {
    fn begin(now: Instant) -> Self {
        Self {
            failures: 0,
            told: BTreeSet::new(),
            pause: FIRST,
            silent_until: now,
            open: false,
            well_since: None,
            failing_since: now,
        }
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_secs(5);

    #[test]
    fn a_failure_is_told_at_once_then_less_and_less_often_and_its_end_once() {
        let begin = Instant::now();
        let mut recurring = Recurring::default();
        let mut told = Vec::new();
        for step in 0..720_u32 {
            let now = begin + STEP * step;
            told.extend(recurring.failed(&"no answer", now).map(|count| (step * 5, count)));
        }
        // After one, two, four … minutes.
        assert_eq!(
            told,
            [(0, 1), (60, 13), (180, 37), (420, 85), (900, 181), (1860, 373)],
            "(seconds, failures)"
        );
        let end = begin + STEP * 720;
        assert_eq!(recurring.worked(end), Some(720));
        assert_eq!(recurring.worked(end + STEP), None);
    }

    #[test]
    fn what_works_from_the_start_says_nothing() {
        assert_eq!(Recurring::default().worked(Instant::now()), None);
    }

    #[test]
    fn what_fails_every_other_time_does_not_fill_the_log() {
        let begin = Instant::now();
        let mut recurring = Recurring::default();
        let mut lines = 0;
        for step in 0..720_u32 {
            let now = begin + STEP * step;
            let line = match step % 2 {
                0 => recurring.failed(&"no answer", now),
                _ => recurring.worked(now),
            };
            lines += usize::from(line.is_some());
        }
        assert!((2..=14).contains(&lines), "{lines} lines in an hour");
    }

    #[test]
    fn another_reason_is_told_at_once_but_not_without_end() {
        let now = Instant::now();
        let mut recurring = Recurring::default();
        let told = |recurring: &mut Recurring, why: &str| recurring.failed(&why, now).is_some();
        assert!(told(&mut recurring, "no answer"));
        assert!(!told(&mut recurring, "no answer"));
        assert!(told(&mut recurring, "no such name"));
        assert!(!told(&mut recurring, "no answer"), "it was told before");
        let more = (0..100).filter(|n| recurring.failed(n, now).is_some()).count();
        assert_eq!(more, REASONS - 2, "texts with numbers in them");
    }

    #[test]
    fn nobody_believes_for_long_that_it_works_while_it_fails() {
        let begin = Instant::now();
        let mut recurring = Recurring::default();
        // Hours of failures: the interval is an hour by now.
        let hours = |n: u32| begin + LONGEST * n;
        let steps = 0..8 * 720_u32;
        assert!(steps.filter_map(|n| recurring.failed(&"no", begin + STEP * n)).count() > 6);
        assert!(recurring.failed(&"no", hours(9)).is_some());
        assert!(recurring.worked(hours(9) + STEP).is_some());
        let again = hours(9) + STEP * 2;
        let told = (0..720).find(|n| recurring.failed(&"no", again + STEP * *n).is_some());
        assert_eq!(told.map(|n| STEP * n), Some(MISTAKEN));
        assert!(recurring.worked(again + LONGEST).is_some(), "and that this is over");
    }

    #[test]
    fn long_after_it_worked_a_failure_is_news() {
        let begin = Instant::now();
        let mut recurring = Recurring::default();
        assert_eq!(recurring.failed(&"no answer", begin), Some(1));
        assert_eq!(recurring.worked(begin + STEP), Some(1));
        assert_eq!(recurring.failed(&"no answer", begin + LONGEST), Some(1));
    }
}
