//! Random choices that a seed repeats.

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// A source of choices.
pub(crate) struct Dice(StdRng);

impl Dice {
    /// The same seed and stream give the same choices.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        // Neighbouring streams must not have neighbouring states (SplitMix64's increment).
        Self(StdRng::seed_from_u64(seed ^ stream.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0.random_range(0..limit)
    }

    /// True in so many of a hundred cases.
    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
