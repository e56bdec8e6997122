//! How far weights are from others.

use serde::Serialize;

/// Sums that are made side by side, so that the processor's vectors can. The order of additions is
/// fixed by the rows alone.
const SIDES: usize = 8;

/// Sums over pairs of weights: before, and after.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Sums {
    before: f64,
    after: f64,
    product: f64,
    difference: f64,
    most: f32,
}

/// How far the weights of a tensor are from those of another.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Distance {
    /// The length of the difference over the length of the first tensor; 0 where both are all zero.
    pub relative: f64,
    /// The largest difference of two weights.
    pub most: f64,
    /// The cosine of the angle between them; 1 where both are all zero.
    pub cosine: f64,
}

impl Distance {
    /// That of equal tensors.
    pub(crate) const NONE: Distance = Distance {
        relative: 0.0,
        most: 0.0,
        cosine: 1.0,
    };
}

impl Sums {
    /// Of one row.
    pub(crate) fn of(before: &[f32], after: &[f32]) -> Sums {
        let mut sides = [[0.0f64; SIDES]; 4];
        let mut most = [0.0f32; SIDES];
        let (before, after) = (before.as_chunks::<SIDES>(), after.as_chunks::<SIDES>());
        let rest = |rest: &[f32]| {
            let mut padded = [0.0; SIDES];
            padded[..rest.len()].copy_from_slice(rest);
            padded
        };
        let last = (rest(before.1), rest(after.1));
        let pairs = before.0.iter().zip(after.0).chain([(&last.0, &last.1)]);
        for (before, after) in pairs {
            for side in 0..SIDES {
                let (x, y) = (before[side], after[side]);
                let (a, b) = (f64::from(x), f64::from(y));
                sides[0][side] += a * a;
                sides[1][side] += b * b;
                sides[2][side] += a * b;
                sides[3][side] += (a - b) * (a - b);
                let difference = (x - y).abs();
                most[side] = if difference > most[side] {
                    difference
                } else {
                    most[side]
                };
            }
        }
        let [before, after, product, difference] = sides.map(|side| side.iter().sum());
        Sums {
            before,
            after,
            product,
            difference,
            most: most.into_iter().fold(0.0, f32::max),
        }
    }

    pub(crate) fn add(&mut self, other: Sums) {
        self.before += other.before;
        self.after += other.after;
        self.product += other.product;
        self.difference += other.difference;
        self.most = self.most.max(other.most);
    }

    pub(crate) fn distance(self) -> Distance {
        let equal = self.difference == 0.0;
        let lengths = self.before.sqrt() * self.after.sqrt();
        Distance {
            relative: match equal {
                true => 0.0,
                false => (self.difference / self.before).sqrt(),
            },
            most: f64::from(self.most),
            cosine: match (equal, lengths > 0.0) {
                (true, _) => 1.0,
                (false, true) => self.product / lengths,
                (false, false) => 0.0,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_definition() {
        let before: Vec<f32> = (0..37).map(|i| (i as f32 * 0.7).sin()).collect();
        let after: Vec<f32> = before.iter().map(|x| (x * 8.0).round() / 8.0).collect();
        let distance = Sums::of(&before, &after).distance();
        let pairs = || {
            before
                .iter()
                .zip(&after)
                .map(|(&a, &b)| (f64::from(a), f64::from(b)))
        };
        let sum = |of: fn((f64, f64)) -> f64| pairs().map(of).sum::<f64>();
        let squares = sum(|(a, _)| a * a);
        let relative = (sum(|(a, b)| (a - b).powi(2)) / squares).sqrt();
        let cosine = sum(|(a, b)| a * b) / (squares * sum(|(_, b)| b * b)).sqrt();
        let most = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!((distance.relative - relative).abs() < 1e-12 && relative > 0.01);
        assert!((distance.cosine - cosine).abs() < 1e-12 && cosine < 0.9999);
        assert!((distance.most - most).abs() < 1e-7 && most > 0.05);
    }

    #[test]
    fn zeros_and_equals_have_no_distance() {
        assert_eq!(Sums::of(&[0.0; 9], &[0.0; 9]).distance(), Distance::NONE);
        assert_eq!(Sums::of(&[2.5; 9], &[2.5; 9]).distance(), Distance::NONE);
        let lost = Sums::of(&[1.0, 2.0], &[0.0, 0.0]).distance();
        assert_eq!((lost.relative, lost.most, lost.cosine), (1.0, 2.0, 0.0));
        let made = Sums::of(&[0.0, 0.0], &[1.0, 2.0]).distance();
        assert!(made.relative.is_infinite());
    }
}
