//! Choices from a seed.

use celeriac_core::Entropy;
use celeriac_core::testing::Seeded;
use std::time::Duration;

/// Draws from one seed; the same seed draws the same.
#[derive(Debug)]
pub struct Dice(Seeded);

impl Dice {
    /// Dice of a seed; `stream` keeps several dice of one seed apart.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mixed = Seeded::new(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15)).next_u64();
        Self(Seeded::new(mixed))
    }

    /// A number below `sides`, which is at least 1.
    pub fn roll(&self, sides: u64) -> u64 {
        // Multiply-shift maps 64 random bits evenly onto 0..sides (Lemire 2019).
        ((u128::from(self.0.next_u64()) * u128::from(sides)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        low + self.roll(high - low + 1)
    }

    /// A span in whole milliseconds, both ends included.
    pub fn millis(&self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// Whether something happens that happens in so many of a thousand cases.
    pub fn happens(&self, permille: u64) -> bool {
        self.roll(1000) < permille
    }

    /// One of the things.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<'a, T>(&self, things: &'a [T]) -> &'a T {
        &things[self.roll(things.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_streams_differ() {
        let draw = |seed, stream| -> Vec<u64> {
            let dice = Dice::new(seed, stream);
            (0..100).map(|_| dice.between(3, 7)).collect()
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
        let drawn = draw(1, 2);
        assert!((3..=7).all(|number| drawn.contains(&number)) && drawn.iter().all(|n| *n < 8));
    }
}
