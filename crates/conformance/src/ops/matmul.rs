//! Products with plain and quantised weights, alone and with what fusion puts behind them.

use crate::numbers::{round, stored};
use crate::{Case, Expected, Numbers, Rows, Span, Values, Weight, contiguous, view};
use kiln_array::{Array, DType, Device, Format, Mode, Result};
use proptest::prelude::*;

/// The error of an f32 sum of `k` products as a share of their sizes: as many roundings of sums
/// that are half of the whole on average, and a few where lanes meet.
fn sum_error(k: usize) -> f64 {
    (16.0 + k as f64 / 2.0) * 2f64.powi(-24)
}

const FLOATS: [DType; 3] = [DType::F16, DType::BF16, DType::F32];

/// Rows of `x`: around the edges of register tiles.
fn tokens() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => Just(1usize),
        8 => 1..=9usize,
        4 => 10..=40usize,
        2 => Just(0usize),
        1 => 511..=514usize,
    ]
}

/// Rows of weights.
fn outputs() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1..=20usize, 2 => 21..=70usize, 1 => Just(129usize), 1 => Just(0usize)]
}

/// Elements of a row.
fn inputs() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1..=20usize, 4 => 21..=140usize, 1 => 250..=520usize, 1 => Just(0usize), 1 => Just(1025usize)]
}

/// `x · wᵀ` for `t` rows of `x` and `n` weights of `k` elements. A weight is its value and the size
/// of what that is the sum of.
fn product(x: &[f64], w: &[(f64, f64)], [t, n, k]: [usize; 3]) -> Vec<Span> {
    let element = |i: usize| {
        let terms = (0..k).map(|j| (x[i / n * k + j], w[i % n * k + j]));
        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), (x, (w, s))| {
            (sum + x * w, size + x.abs() * s)
        });
        // Subnormal terms are rounded to steps of 1e-45 and then scaled.
        Span::near(sum, sum_error(k) * size + 1e-40)
    };
    (0..t * n).map(element).collect()
}

/// What each element of such a product may lack because processors that multiply bf16 take subnormal
/// numbers as zero: parts of elements (of a float there are up to three), weights, and sums. A
/// weight is given by what a vector's number is multiplied with.
fn flushed(x: &[f64], w: &[f64], [t, n, k]: [usize; 3]) -> Vec<f64> {
    let element = |i: usize| {
        let terms = (0..k).map(|j| (x[i / n * k + j].abs(), w[i % n * k + j].abs()));
        let lost = |(x, w): (f64, f64)| 3.0 * w + x + 2.0;
        terms.map(lost).filter(|lost| lost.is_finite()).sum::<f64>() * f64::from(f32::MIN_POSITIVE)
    };
    (0..t * n).map(element).collect()
}

fn sized(values: Vec<f64>) -> Vec<(f64, f64)> {
    values
        .into_iter()
        .map(|value| (value, value.abs()))
        .collect()
}

fn join(a: DType, b: DType) -> DType {
    if a == b { a } else { DType::F32 }
}

/// Plain weights, without and with batch axes.
#[derive(Clone, Debug)]
pub struct Matmul {
    x: Values,
    w: Values,
}

impl Case for Matmul {
    type Subject = (DType, DType);
    const CASES: u32 = 100;

    fn subjects() -> Vec<(DType, DType)> {
        FLOATS
            .iter()
            .flat_map(|&x| FLOATS.map(|w| (x, w)))
            .collect()
    }

    fn any((x, w): (DType, DType)) -> BoxedStrategy<Matmul> {
        let batch = prop_oneof![
            4 => Just(vec![]),
            1 => (1..4usize).prop_map(|a| vec![a]),
            1 => (1..3usize, 1..4usize).prop_map(|(a, b)| vec![a, b]),
        ];
        let numbers = prop_oneof![
            Just(Numbers::Tame),
            Just(Numbers::Spread),
            Just(Numbers::Holes)
        ];
        (batch, any::<bool>(), tokens(), outputs(), inputs(), numbers)
            .prop_flat_map(move |(batch, batched, t, n, k, numbers)| {
                let weights = if batched { &batch[..] } else { &[] };
                let x = view(x, &[&batch[..], &[t, k]].concat(), numbers);
                (x, view(w, &[weights, &[n, k]].concat(), numbers))
            })
            .prop_map(|(x, w)| Matmul { x, w })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        self.x.on(device)?.matmul(&self.w.on(device)?)
    }

    fn expected(&self) -> Expected {
        let [batch @ .., t, k] = &self.x.shape[..] else {
            return Expected::nothing();
        };
        let n = self.w.shape[self.w.shape.len() - 2];
        let (x, plain) = (self.x.to_vec(), self.w.to_vec());
        let w = sized(plain.clone());
        let count: usize = batch.iter().product();
        let halves = self.w.dtype == DType::BF16;
        let mut elements = Vec::new();
        for i in 0..count {
            let own = if self.w.shape.len() > 2 {
                i * n * k..(i + 1) * n * k
            } else {
                0..n * k
            };
            let x = &x[i * t * k..(i + 1) * t * k];
            let products = product(x, &w[own.clone()], [*t, n, *k]);
            if !halves {
                elements.extend(products);
                continue;
            }
            let flushed = flushed(x, &plain[own], [*t, n, *k]);
            let spans = products.into_iter().zip(flushed);
            // An infinity may have met a number that was taken as zero.
            elements.extend(spans.map(|(span, lost)| span.loose().within(lost)));
        }
        let shape = [batch, &[*t, n]].concat();
        Expected::near(join(self.x.dtype, self.w.dtype), &shape, elements)
    }
}

/// Weights of every format.
#[derive(Clone, Debug)]
pub struct MatmulQuantised {
    x: Values,
    w: Rows,
    cut: usize,
}

fn result(format: Format, x: DType) -> DType {
    if format.mode() == Mode::Affine {
        join(x, format.dequantised())
    } else {
        x
    }
}

/// The values of rows from `cut` on, and the sizes that they are sums of.
fn weights(rows: &Rows, cut: usize) -> Vec<(f64, f64)> {
    rows.weights()[cut * rows.k..]
        .iter()
        .map(|w| (w.value(), w.size()))
        .collect()
}

impl Case for MatmulQuantised {
    type Subject = (Format, DType);
    const CASES: u32 = 10;

    fn subjects() -> Vec<(Format, DType)> {
        Format::all()
            .into_iter()
            .flat_map(|format| FLOATS.map(|x| (format, x)))
            .collect()
    }

    fn any((format, dtype): (Format, DType)) -> BoxedStrategy<MatmulQuantised> {
        let numbers = prop_oneof![Just(Numbers::Tame), Just(Numbers::Holes)];
        let lengths = prop_oneof![1..=5usize, Just(9usize)];
        (tokens(), outputs(), lengths, 0..3usize, numbers)
            .prop_flat_map(move |(t, n, groups, cut, numbers)| {
                let k = groups * format.group();
                let x = view(dtype, &[t, k], numbers);
                (
                    x,
                    Rows::any(format, n, k),
                    Just(cut.min(n.saturating_sub(1))),
                )
            })
            .prop_map(|(x, w, cut)| MatmulQuantised { x, w, cut })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        let w = self.w.on(device)?.slice(0, self.cut..self.w.rows)?;
        self.x.on(device)?.matmul(&w)
    }

    fn expected(&self) -> Expected {
        let (t, n) = (self.x.shape[0], self.w.rows - self.cut);
        let elements = product(
            &self.x.to_vec(),
            &weights(&self.w, self.cut),
            [t, n, self.w.k],
        );
        let x = self.x.to_vec();
        let weights = &self.w.weights()[self.cut * self.w.k..];
        let met: Vec<f64> = weights
            .iter()
            .map(|w| w.scale.abs() * (w.code.abs() + 2.0))
            .collect();
        let flushed = flushed(&x, &met, [t, n, self.w.k]);
        let units = self.units(&x, weights);
        // Kernels may add up codes before they scale them: then infinities meet zeros elsewhere.
        let loose = |(i, span): (usize, Span)| span.loose().within(flushed[i] + units[i]);
        let elements = elements.into_iter().enumerate().map(loose).collect();
        Expected::near(result(self.w.format, self.x.dtype), &[t, n], elements)
    }
}

impl MatmulQuantised {
    /// What each output may lack because processors that multiply bytes take a vector's elements, of
    /// 16 bits, as multiples of a 2²¹st part of the largest of 32.
    fn units(&self, x: &[f64], weights: &[Weight]) -> Vec<f64> {
        let (k, n) = (self.w.k, self.w.rows - self.cut);
        if self.x.dtype == DType::F32 || self.w.format.mode() != Mode::Affine {
            return vec![0.0; self.x.shape[0] * n];
        }
        let largest = |i: usize| {
            let block = &x[i / 32 * 32..(i / 32 * 32 + 32).min(x.len())];
            block.iter().fold(0.0, |a: f64, b| a.max(b.abs()))
        };
        let largest: Vec<f64> = (0..x.len()).map(largest).collect();
        let element = |i: usize| {
            let terms = (0..k).map(|j| (largest[i / n * k + j], &weights[i % n * k + j]));
            let lost = |(x, w): (f64, &Weight)| x * 2f64.powi(-22) * (w.scale * w.code).abs();
            terms.map(lost).filter(|lost| lost.is_finite()).sum::<f64>()
        };
        (0..self.x.shape[0] * n).map(element).collect()
    }
}

/// What a model puts behind a product: a bias, a residual, an activation.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Behind {
    /// One number for each output.
    Bias,
    /// An array like the product.
    Residual,
    /// A cast, a cut at 0, and a product with an array like it.
    Gate,
}

/// A product with plain (`None`) or quantised weights and what is behind it.
#[derive(Clone, Debug)]
pub struct Epilogue {
    behind: Behind,
    x: Values,
    w: Weights,
    other: Values,
}

/// Plain or quantised weights.
#[derive(Clone, Debug)]
pub(crate) enum Weights {
    /// Plain ones.
    Plain(Values),
    /// Quantised ones.
    Quantised(Rows),
}

impl Case for Epilogue {
    type Subject = (Behind, DType, Option<Format>);
    const CASES: u32 = 24;

    fn subjects() -> Vec<(Behind, DType, Option<Format>)> {
        let q4 = Format::affine(4, 64, DType::F16).ok();
        let formats = [None, q4, Some(Format::MXFP4)];
        let behind = [Behind::Bias, Behind::Residual, Behind::Gate];
        let all = behind.iter().flat_map(|&b| FLOATS.map(|x| (b, x)));
        all.flat_map(|(b, x)| formats.map(|format| (b, x, format)))
            .collect()
    }

    fn any((behind, dtype, format): (Behind, DType, Option<Format>)) -> BoxedStrategy<Epilogue> {
        let width = format.map_or(20, |format| format.group());
        (tokens(), outputs(), 1..=4usize)
            .prop_flat_map(move |(t, n, groups)| {
                let k = groups * width;
                let w = match format {
                    None => view(dtype, &[n, k], Numbers::Tame)
                        .prop_map(Weights::Plain)
                        .boxed(),
                    Some(format) => Rows::any(format, n, k).prop_map(Weights::Quantised).boxed(),
                };
                let other = if behind == Behind::Bias {
                    vec![n]
                } else {
                    vec![t, n]
                };
                let joint = format.map_or(dtype, |format| self::result(format, dtype));
                (
                    contiguous(dtype, &[t, k], Numbers::Tame),
                    w,
                    view(joint, &other, Numbers::Tame),
                )
            })
            .prop_map(move |(x, w, other)| Epilogue {
                behind,
                x,
                w,
                other,
            })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        let w = match &self.w {
            Weights::Plain(w) => w.on(device)?,
            Weights::Quantised(w) => w.on(device)?,
        };
        let product = self.x.on(device)?.matmul(&w)?;
        let other = self.other.on(device)?;
        match self.behind {
            Behind::Bias => product + other,
            Behind::Residual => other + product,
            Behind::Gate => {
                let cut = product
                    .cast(DType::F32)?
                    .with_number(kiln_array::Scalar::Max, 0)?;
                cut * other
            }
        }
    }

    fn expected(&self) -> Expected {
        let (t, k) = (self.x.shape[0], self.x.shape[1]);
        let (w, n, dtype) = match &self.w {
            Weights::Plain(w) => (sized(w.to_vec()), w.shape[0], self.x.dtype),
            Weights::Quantised(w) => (weights(w, 0), w.rows, result(w.format, self.x.dtype)),
        };
        let other = self.other.to_vec();
        let behind = |(i, span): (usize, Span)| {
            let span = span.round(dtype);
            match self.behind {
                Behind::Bias => span.map(|v| stored(dtype, v + other[i % n])),
                Behind::Residual => span.map(|v| stored(dtype, v + other[i])),
                Behind::Gate => span.map(|v| round(DType::F32, v.max(0.0) * other[i])),
            }
        };
        let product = product(&self.x.to_vec(), &w, [t, n, k]);
        let elements = product.into_iter().enumerate().map(behind).collect();
        let dtype = if self.behind == Behind::Gate {
            DType::F32
        } else {
            dtype
        };
        Expected::near(dtype, &[t, n], elements)
    }
}
