//! Matrix products of any batch, and attention with any mask.

use super::rows::sum_error;
use crate::numbers::round;
use crate::{Case, Expected, Numbers, Span, Values, length, view};
use kiln_array::{Array, DType, Device, Mask, Result};
use proptest::prelude::*;

const FLOATS: [DType; 3] = [DType::F16, DType::BF16, DType::F32];

/// A product of `a` \[…, t, k\] and `b` \[…, k, n\].
#[derive(Clone, Debug)]
pub struct Dot {
    a: Values,
    b: Values,
}

impl Case for Dot {
    type Subject = DType;
    const CASES: u32 = 30;

    fn subjects() -> Vec<DType> {
        FLOATS.to_vec()
    }

    fn any(dtype: DType) -> BoxedStrategy<Dot> {
        let counts = (1..5usize, length(90), 1..7usize);
        let batches = (1..4usize, any::<bool>(), any::<bool>());
        (counts, batches)
            .prop_flat_map(move |((t, k, n), (batch, first, second))| {
                let of = |has: bool| if has { batch } else { 1 };
                let a = view(dtype, &[of(first), t, k], Numbers::Tame);
                (a, view(dtype, &[of(second), k, n], Numbers::Tame))
            })
            .prop_map(|(a, b)| Dot { a, b })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        self.a.on(device)?.dot(&self.b.on(device)?)
    }

    fn expected(&self) -> Expected {
        let (a, b) = (self.a.to_vec(), self.b.to_vec());
        let (&[first, t, k], &[second, _, n]) = (&self.a.shape[..], &self.b.shape[..]) else {
            return Expected::nothing();
        };
        let batch = first.max(second);
        let mut elements = Vec::new();
        for row in 0..batch * t {
            let (which, row) = (row / t, row % t);
            let (x, y) = (which % first, which % second);
            for column in 0..n {
                let terms =
                    || (0..k).map(|i| a[(x * t + row) * k + i] * b[(y * k + i) * n + column]);
                let size: f64 = terms().map(f64::abs).sum();
                elements.push(Span::near(terms().sum(), size * sum_error(4 * k)));
            }
        }
        Expected::near(self.a.dtype, &[batch, t, n], elements)
    }
}

/// What a query sees.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Seeing {
    /// All keys.
    All,
    /// Those up to its place.
    Causal,
    /// Those that bools say.
    Bools,
    /// All, by scores that floats are added to.
    Floats,
}

/// Attention of one and of several sequences.
#[derive(Clone, Debug)]
pub struct Attend {
    seeing: Seeing,
    q: Values,
    keys: Values,
    values: Values,
    mask: Values,
    sinks: Option<Values>,
}

/// A share of what is added up, and of the largest score, for each element.
const ERROR: f64 = 1e-5;

impl Case for Attend {
    type Subject = (Seeing, DType);
    const CASES: u32 = 20;

    fn subjects() -> Vec<(Seeing, DType)> {
        let all = [Seeing::All, Seeing::Causal, Seeing::Bools, Seeing::Floats];
        all.into_iter()
            .flat_map(|seeing| FLOATS.map(|dtype| (seeing, dtype)))
            .collect()
    }

    fn any((seeing, dtype): (Seeing, DType)) -> BoxedStrategy<Attend> {
        let counts = (
            1..3usize,
            1..3usize,
            1..3usize,
            1..6usize,
            1..9usize,
            1..9usize,
            any::<bool>(),
        );
        counts
            .prop_flat_map(move |(batch, groups, shared, queries, keys, size, sinks)| {
                let heads = groups * shared;
                let of = |dtype, shape: &[usize]| view(dtype, shape, Numbers::Tame);
                let mask = if seeing == Seeing::Bools {
                    DType::Bool
                } else {
                    DType::F32
                };
                (
                    of(dtype, &[batch, heads, queries, size]),
                    of(dtype, &[batch, groups, keys, size]),
                    of(dtype, &[batch, groups, keys, size + 1]),
                    of(mask, &[heads, queries, keys]),
                    of(DType::F32, &[heads]).prop_map(move |values| sinks.then_some(values)),
                )
            })
            .prop_map(move |(q, keys, values, mask, sinks)| Attend {
                seeing,
                q,
                keys,
                values,
                mask,
                sinks,
            })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        let mask = self.mask.on(device)?;
        let mask = match self.seeing {
            Seeing::All => Mask::None,
            Seeing::Causal => Mask::Causal,
            _ => Mask::Array(&mask),
        };
        let sinks = self.sinks.as_ref().map(|sinks| sinks.on(device));
        let q = self.q.on(device)?;
        let (keys, values) = (self.keys.on(device)?, self.values.on(device)?);
        q.attend(&keys, &values, 0.5, mask, sinks.transpose()?.as_ref())
    }

    fn expected(&self) -> Expected {
        let (q, k, v, mask) = (
            self.q.to_vec(),
            self.keys.to_vec(),
            self.values.to_vec(),
            self.mask.to_vec(),
        );
        let sinks = self.sinks.as_ref().map(Values::to_vec);
        let (&[batch, heads, queries, size], &[_, groups, keys, out]) =
            (&self.q.shape[..], &self.values.shape[..])
        else {
            return Expected::nothing();
        };
        let mut elements = Vec::new();
        for row in 0..batch * heads * queries {
            let (query, head) = (row % queries, row / queries % heads);
            let group = row / queries / heads * groups + head / (heads / groups);
            let score = |key: usize| {
                let product: f64 = (0..size)
                    .map(|i| q[row * size + i] * k[(group * keys + key) * size + i])
                    .sum();
                let given = mask[(head * queries + query) * keys + key];
                match self.seeing {
                    Seeing::Causal if key + queries > query + keys => f64::from(f32::MIN),
                    Seeing::Bools if given == 0.0 => f64::from(f32::MIN),
                    Seeing::Floats => product * 0.5 + given,
                    _ => product * 0.5,
                }
            };
            let scores: Vec<f64> = (0..keys).map(score).collect();
            let sink = sinks.as_ref().map(|sinks| sinks[head]);
            let largest = scores
                .iter()
                .copied()
                .chain(sink)
                .fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
            let sum = weights.iter().sum::<f64>() + sink.map_or(0.0, |sink| (sink - largest).exp());
            for i in 0..out {
                let terms =
                    || (0..keys).map(|key| weights[key] / sum * v[(group * keys + key) * out + i]);
                let size: f64 = terms().map(f64::abs).sum();
                elements.push(Span::near(terms().sum(), size * ERROR + 1e-38));
            }
        }
        // Also rounded by Op::Attention, in whose f32 results nothing else is.
        let dtype = self.q.dtype;
        let elements = elements
            .into_iter()
            .map(|span| span.map(|v| round(DType::F32, v)));
        Expected::near(dtype, &[batch, heads, queries, out], elements.collect())
    }
}
