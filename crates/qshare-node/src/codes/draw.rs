//! Draws the numbers of mailboxes.

use rand::Rng;

/// The first range is 1 to this.
const FIRST_MAX: u32 = 99;
/// Draws before the range grows tenfold.
const DRAWS_PER_RANGE: u32 = 2;
/// The largest number.
const NUMBER_MAX: u32 = 999_999_999;

/// A series of random numbers, small ones first.
///
/// They are random rather than the lowest free ones, so that a stranger cannot tell which number is
/// drawn next.
#[derive(Debug)]
pub(super) struct Draws {
    drawn: u32,
    max: u32,
}

impl Draws {
    pub(super) fn new() -> Draws {
        Draws {
            drawn: 0,
            max: FIRST_MAX,
        }
    }

    /// Draws a number.
    pub(super) fn next(&mut self, random: &mut impl Rng) -> u32 {
        if self.drawn == DRAWS_PER_RANGE {
            self.drawn = 0;
            self.max = self
                .max
                .saturating_mul(10)
                .saturating_add(9)
                .min(NUMBER_MAX);
        }
        self.drawn += 1;
        random.random_range(1..=self.max)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn numbers_are_small_until_they_conflict_often() {
        let (mut draws, mut random) = (Draws::new(), StdRng::seed_from_u64(1));
        let mut max = [0; 20];
        for _ in 0..1_000 {
            for max in &mut max {
                let number = draws.next(&mut random);
                assert!(number > 0);
                *max = number.max(*max);
            }
            draws = Draws::new();
        }
        assert!((90..=99).contains(&max[0]) && (90..=99).contains(&max[1]));
        assert!((900..=999).contains(&max[2]));
        assert!((9_000..=9_999).contains(&max[4]));
        assert!(max[19] <= NUMBER_MAX);
    }
}
