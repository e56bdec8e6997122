//! Causal attention over a cache, in f64.

use crate::{Case, Expected, Numbers, Random, Span, Values, length, view};
use kiln_array::{Array, DType, Device, Result};
use proptest::prelude::*;

/// Of the sizes that are added up, in a score and in a mix of at most 300 values.
const SUM: f64 = 4e-6;

/// Queries that see what came before them.
#[derive(Clone, Debug)]
pub struct Attention {
    q: Values,
    cache: Values,
    /// The values, where they are not the second half of the cache.
    own: Option<Values>,
    /// Sizes of a key and a value.
    sizes: (usize, usize),
    scale: f32,
    window: usize,
    /// Whether positions follow one another.
    in_order: bool,
    seed: u64,
}

impl Attention {
    fn groups(&self) -> usize {
        if self.own.is_some() {
            self.cache.shape[0]
        } else {
            self.cache.shape[0] / 2
        }
    }

    fn capacity(&self) -> usize {
        self.cache.shape[1]
    }

    /// One for each token; some past the capacity.
    fn positions(&self) -> Vec<u32> {
        let mut random = Random::new(self.seed);
        let capacity = self.capacity();
        let first = random.below(capacity + 2) as u32;
        let position = |i| match (self.in_order, random.below(12)) {
            (true, _) => first + i as u32,
            (false, 0) => u32::MAX,
            (false, 1) => (capacity + random.below(9)) as u32,
            _ => random.below(capacity) as u32,
        };
        (0..self.q.shape[0]).map(position).collect()
    }
}

const FLOATS: [DType; 3] = [DType::F16, DType::BF16, DType::F32];

impl Case for Attention {
    type Subject = [DType; 3];
    const CASES: u32 = 30;

    fn subjects() -> Vec<[DType; 3]> {
        let pairs = FLOATS.iter().flat_map(|&q| FLOATS.map(|k| (q, k)));
        pairs
            .flat_map(|(q, keys)| FLOATS.map(|values| [q, keys, values]))
            .collect()
    }

    fn any([q, keys, values]: [DType; 3]) -> BoxedStrategy<Attention> {
        let size = prop_oneof![8 => 0..=12usize, 2 => Just(16), 2 => Just(64), 2 => Just(65), 2 => Just(80)];
        let tokens = prop_oneof![3 => Just(1usize), 3 => 1..=9usize, 1 => 10..=40usize];
        let window = prop_oneof![3 => Just(0usize), 1 => 1..=4usize, 1 => 5..=40usize];
        let numbers =
            prop_oneof![4 => Just(Numbers::Tame), 1 => Just(Numbers::Between(-30.0, 30.0))];
        let counts = (tokens, 1..=3usize, 1..=3usize, length(300));
        let rest = (0.05..1.0f32, window, any::<bool>(), any::<u64>());
        (counts, (size.clone(), size), numbers, any::<bool>(), rest)
            .prop_flat_map(move |(counts, sizes, numbers, together, rest)| {
                let (tokens, groups, shared, capacity) = counts;
                // One array holds keys and values only where they are alike.
                let together = together && keys == values;
                let sizes = if together { (sizes.0, sizes.0) } else { sizes };
                let both = if together { 2 * groups } else { groups };
                let cache = view(keys, &[both, capacity, sizes.0], numbers);
                let own = view(values, &[groups, capacity, sizes.1], Numbers::Tame);
                let own = own.prop_map(move |own| (!together).then_some(own));
                let q = view(q, &[tokens, groups * shared, sizes.0], numbers);
                (q, cache, own, Just(sizes), Just(rest))
            })
            .prop_map(
                |(q, cache, own, sizes, (scale, window, in_order, seed))| Attention {
                    q,
                    cache,
                    own,
                    sizes,
                    scale,
                    window,
                    in_order,
                    seed,
                },
            )
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        let cache = self.cache.on(device)?;
        let [keys, values] = match &self.own {
            Some(values) => [cache, values.on(device)?],
            None => cache.split(0, self.groups())?,
        };
        let positions = Array::from_slice(&self.positions(), &[self.q.shape[0]], device)?;
        self.q
            .on(device)?
            .attention(&keys, &values, &positions, self.scale, self.window)
    }

    fn expected(&self) -> Expected {
        let (tokens, heads, capacity) = (self.q.shape[0], self.q.shape[1], self.capacity());
        let (size, out) = self.sizes;
        let (q, cache, positions) = (self.q.to_vec(), self.cache.to_vec(), self.positions());
        let values = match &self.own {
            Some(values) => values.to_vec(),
            None => cache[self.groups() * capacity * size..].to_vec(),
        };
        let mut elements = Vec::new();
        for row in 0..tokens * heads {
            let (token, head) = (row / heads, row % heads);
            let group = head / (heads / self.groups());
            let position = (positions[token] as usize).min(capacity - 1);
            let seen: Vec<usize> = (0..capacity)
                .filter(|&p| p <= position && (self.window == 0 || p + self.window > position))
                .map(|p| group * capacity + p)
                .collect();
            let score = |&entry: &usize| {
                let pairs = || {
                    q[row * size..]
                        .iter()
                        .zip(&cache[entry * size..])
                        .take(size)
                };
                let size: f64 = pairs().map(|(a, b)| (a * b).abs()).sum();
                (pairs().map(|(a, b)| a * b).sum::<f64>(), size)
            };
            let scale = f64::from(self.scale);
            let scores: Vec<(f64, f64)> = seen.iter().map(score).collect();
            let largest = scores
                .iter()
                .fold(f64::NEG_INFINITY, |a, s| a.max(s.0 * scale));
            let error = scores.iter().fold(0.0, |a: f64, s| a.max(s.1)) * scale * SUM;
            let powers: Vec<f64> = scores
                .iter()
                .map(|s| (s.0 * scale - largest).exp())
                .collect();
            let sum: f64 = powers.iter().sum();
            for i in 0..out {
                let terms = || {
                    powers
                        .iter()
                        .zip(&seen)
                        .map(|(w, e)| w / sum * values[e * out + i])
                };
                let size: f64 = terms().map(f64::abs).sum();
                // A score's error changes its weight by that share, and the others' by as much.
                // Weights below 2⁻¹²⁶ lose digits.
                let slack = size * (2.0 * error + 3.0 * SUM) + 1e-40;
                elements.push(Span::near(terms().sum(), slack));
            }
        }
        Expected::near(self.q.dtype, &[tokens, heads, out], elements)
    }
}
