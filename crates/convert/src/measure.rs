//! How far weights are from others.

use kiln_cpu::{Work, widest};
use serde::Serialize;

/// Sums that are made side by side, so that the processor's vectors can. The order of additions is
/// fixed by the rows alone.
const SIDES: usize = 16;

/// Sums over weights, others and their differences: of squares, and of the products of both.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Sums {
    weights: f64,
    products: f64,
    differences: f64,
    others: f64,
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

/// The sums of one row.
struct OfRow<'a> {
    before: &'a [f32],
    after: &'a [f32],
}

impl Work for OfRow<'_> {
    type Output = Sums;

    #[inline(always)]
    fn run(self) -> Sums {
        let mut sides = Sides::default();
        let (before, after) = (self.before.as_chunks(), self.after.as_chunks());
        for (before, after) in before.0.iter().zip(after.0) {
            sides.add(before, after);
        }
        let rest = |rest: &[f32]| {
            let mut padded = [0.0; SIDES];
            padded[..rest.len()].copy_from_slice(rest);
            padded
        };
        sides.add(&rest(before.1), &rest(after.1));
        Sums {
            weights: sides.weights.iter().sum(),
            products: sides.products.iter().sum(),
            differences: sides.differences.iter().sum(),
            others: sides.others.iter().sum(),
            most: sides.most.into_iter().fold(0.0, f32::max),
        }
    }
}

#[derive(Default)]
struct Sides {
    weights: [f64; SIDES],
    products: [f64; SIDES],
    differences: [f64; SIDES],
    others: [f64; SIDES],
    most: [f32; SIDES],
}

impl Sides {
    #[inline(always)]
    fn add(&mut self, before: &[f32; SIDES], after: &[f32; SIDES]) {
        for side in 0..SIDES {
            let (weight, other) = (f64::from(before[side]), f64::from(after[side]));
            let difference = weight - other;
            self.weights[side] += weight * weight;
            self.products[side] += weight * other;
            self.differences[side] += difference * difference;
            self.others[side] += other * other;
        }
        for side in 0..SIDES {
            let difference = (before[side] - after[side]).abs();
            let most = self.most[side];
            self.most[side] = if difference > most { difference } else { most };
        }
    }
}

impl Sums {
    /// Of one row.
    pub(crate) fn of(before: &[f32], after: &[f32]) -> Sums {
        widest(OfRow { before, after })
    }

    pub(crate) fn add(&mut self, other: Sums) {
        self.weights += other.weights;
        self.products += other.products;
        self.differences += other.differences;
        self.others += other.others;
        self.most = self.most.max(other.most);
    }

    pub(crate) fn distance(self) -> Distance {
        let equal = self.differences == 0.0;
        let lengths = self.weights.sqrt() * self.others.sqrt();
        Distance {
            relative: match equal {
                true => 0.0,
                false => (self.differences / self.weights).sqrt(),
            },
            most: f64::from(self.most),
            cosine: match (equal, lengths > 0.0) {
                (true, _) => 1.0,
                (false, true) => self.products / lengths,
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
