//! Rotary position embedding, in f64.

use crate::numbers::round;
use crate::{Case, Expected, Numbers, Random, Span, Values, contiguous, view};
use kiln_array::{Array, DType, Device, Pairing, Result, Rope as Turn};
use proptest::prelude::*;

/// Of the two numbers that are turned: sine and cosine within 2e-7, and three roundings.
const TURN: f64 = 5e-7;

/// The first heads turned, all or some of their elements.
#[derive(Clone, Debug)]
pub struct Rope {
    pairing: Pairing,
    x: Values,
    heads: usize,
    frequencies: Values,
    scale: f32,
    far: u32,
    seed: u64,
}

impl Rope {
    fn positions(&self) -> Vec<u32> {
        let mut random = Random::new(self.seed);
        (0..self.x.shape[0])
            .map(|_| random.below(self.far as usize + 1) as u32)
            .collect()
    }
}

impl Case for Rope {
    type Subject = (Pairing, DType);
    const CASES: u32 = 150;

    fn subjects() -> Vec<(Pairing, DType)> {
        let floats = [DType::F16, DType::BF16, DType::F32];
        floats
            .iter()
            .flat_map(|&x| [Pairing::Halves, Pairing::Neighbours].map(|p| (p, x)))
            .collect()
    }

    fn any((pairing, dtype): (Pairing, DType)) -> BoxedStrategy<Rope> {
        let size = prop_oneof![1..=20usize, Just(64), Just(65), Just(80), Just(128)];
        let numbers = prop_oneof![Just(Numbers::Tame), Just(Numbers::Spread)];
        let scale = prop_oneof![Just(1.0f32), 0.1..2.0f32];
        let far = prop_oneof![Just(20u32), Just(60_000)];
        let heads = (1..=5usize, 0..=5usize);
        (
            1..=6usize,
            heads,
            size,
            0..=64usize,
            numbers,
            (scale, far, any::<u64>()),
        )
            .prop_flat_map(move |(tokens, (all, heads), size, pairs, numbers, rest)| {
                let heads = heads.min(all);
                let pairs = if pairs % 3 == 0 {
                    size / 2
                } else {
                    pairs.min(size / 2)
                };
                let shape = [tokens, all, size];
                let x = prop_oneof![
                    contiguous(dtype, &shape, numbers).boxed(),
                    view(dtype, &shape, numbers).boxed()
                ];
                let frequencies = Numbers::Between(1e-4, 1.0);
                (
                    x,
                    view(DType::F32, &[pairs], frequencies),
                    Just(heads),
                    Just(rest),
                )
            })
            .prop_map(move |(x, frequencies, heads, (scale, far, seed))| Rope {
                pairing,
                x,
                heads,
                frequencies,
                scale,
                far,
                seed,
            })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        let positions = Array::from_slice(&self.positions(), &[self.x.shape[0]], device)?;
        let frequencies = self.frequencies.on(device)?;
        let turn = Turn {
            pairing: self.pairing,
            frequencies,
            scale: self.scale,
        };
        self.x.on(device)?.rope(&positions, self.heads, &turn)
    }

    fn expected(&self) -> Expected {
        let (positions, frequencies) = (self.positions(), self.frequencies.to_vec());
        let (all, size) = (self.x.shape[1], self.x.shape[2]);
        let pairs = frequencies.len();
        let x = self.x.to_vec();
        let element = |at: usize| {
            let (token, head, i) = (at / size / all, at / size % all, at % size);
            if head >= self.heads || i >= 2 * pairs {
                return Span::from(x[at]);
            }
            // The pair's number, whether this is its second element, and where the first one is.
            let (pair, second, first) = match self.pairing {
                Pairing::Halves => (i % pairs, i >= pairs, at - i / pairs * pairs),
                Pairing::Neighbours => (i / 2, i % 2 == 1, at - i % 2),
            };
            let distance = if self.pairing == Pairing::Halves {
                pairs
            } else {
                1
            };
            let (a, b) = (x[first], x[first + distance]);
            let angle = round(DType::F32, f64::from(positions[token]) * frequencies[pair]);
            let (sin, cos) = angle.sin_cos();
            let turned = if second {
                a * sin + b * cos
            } else {
                a * cos - b * sin
            };
            let scale = f64::from(self.scale);
            Span::near(turned * scale, TURN * (a.abs() + b.abs()) * scale + 1e-44)
        };
        let elements = (0..x.len()).map(element).collect();
        Expected::near(self.x.dtype, &self.x.shape, elements)
    }
}
