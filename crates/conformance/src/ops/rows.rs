//! What summarises or normalises rows: sums, extremes, softmax, norms.

use crate::numbers::{round, stored};
use crate::{Case, Expected, Numbers, Span, Values, length, view};
use kiln_array::{Array, DType, Device, Op, Reduce as Kind, Result};
use proptest::prelude::*;

/// The error of an f32 sum of `n` terms in eight lanes, as a share of their sizes: every term is
/// rounded once for each later one in its lane, and a few times where lanes meet.
pub(crate) fn sum_error(n: usize) -> f64 {
    (16.0 + n as f64 / 8.0) * 2f64.powi(-24)
}

const FLOATS: [DType; 3] = [DType::F16, DType::BF16, DType::F32];

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        length(3000).prop_map(|n| vec![n]),
        (1..6usize, length(800)).prop_map(|(a, b)| vec![a, b]),
        (length(800), 1..6usize).prop_map(|(a, b)| vec![a, b]),
        (1..5usize, 1..20usize, 1..40usize).prop_map(|(a, b, c)| vec![a, b, c]),
        (1..3usize, 1..5usize, 1..9usize, 1..12usize).prop_map(|(a, b, c, d)| vec![a, b, c, d]),
    ]
}

/// The innermost rows of `x`, each mapped to spans.
fn by_row(x: &Values, f: impl Fn(&[f64]) -> Vec<Span>) -> Vec<Span> {
    let n = x.shape.last().copied().unwrap_or(1);
    x.to_vec().chunks(n.max(1)).flat_map(f).collect()
}

/// One axis summarised.
#[derive(Clone, Debug)]
pub struct Reduce {
    kind: Kind,
    x: Values,
    axis: usize,
}

impl Case for Reduce {
    type Subject = (Kind, DType);
    const CASES: u32 = 80;

    fn subjects() -> Vec<(Kind, DType)> {
        let numbers = DType::PLAIN
            .into_iter()
            .filter(|&dtype| dtype != DType::Bool);
        let all = numbers.flat_map(|dtype| [Kind::Sum, Kind::Max, Kind::Mean].map(|k| (k, dtype)));
        all.filter(|&(kind, dtype)| kind != Kind::Mean || dtype.is_float())
            .collect()
    }

    fn any((kind, dtype): (Kind, DType)) -> BoxedStrategy<Reduce> {
        let numbers = match dtype.is_float() && kind != Kind::Max {
            true => prop_oneof![Just(Numbers::Spread), Just(Numbers::Holes)].boxed(),
            false => Just(Numbers::Wild).boxed(),
        };
        let empty = kind == Kind::Sum;
        let shapes = prop_oneof![
            20 => shapes(),
            1 => Just(if empty { vec![3, 0] } else { vec![3, 1] }),
            1 => Just(vec![0, 5]),
        ];
        (shapes, 0..4usize, numbers)
            .prop_flat_map(move |(shape, axis, numbers)| {
                let axis = if shape.contains(&0) {
                    1
                } else {
                    axis % shape.len()
                };
                (view(dtype, &shape, numbers), Just(axis))
            })
            .prop_map(move |(x, axis)| Reduce { kind, x, axis })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        let x = self.x.on(device)?;
        match self.kind {
            // The method counts bytes in u32.
            Kind::Sum if self.x.dtype == DType::U8 => {
                let axis = self.axis as u8;
                Array::make(
                    Op::Reduce {
                        kind: Kind::Sum,
                        axis,
                    },
                    vec![x],
                )
            }
            Kind::Sum => x.sum(self.axis as i32),
            Kind::Max => x.max(self.axis as i32 - x.shape().len() as i32),
            Kind::Mean => x.mean(self.axis as i32),
        }
    }

    fn expected(&self) -> Expected {
        let Values { dtype, shape, .. } = &self.x;
        let x = self.x.to_vec();
        let n = shape[self.axis];
        let inner: usize = shape[self.axis + 1..].iter().product();
        let outer: usize = shape[..self.axis].iter().product();
        let mut elements = Vec::new();
        for i in 0..outer * inner {
            let at = |j: usize| x[(i / inner * n + j) * inner + i % inner];
            let column: Vec<f64> = (0..n).map(at).collect();
            // Along other axes than the innermost, terms are added one after the other: as many
            // roundings of half the sum.
            let error = sum_error(if inner == 1 { n } else { 4 * n });
            elements.push(summary(self.kind, *dtype, &column, error));
        }
        let mut result = shape.clone();
        result[self.axis] = 1;
        Expected::near(*dtype, &result, elements)
    }
}

fn summary(kind: Kind, dtype: DType, column: &[f64], error: f64) -> Span {
    let sum: f64 = column.iter().sum();
    let error = error * column.iter().map(|x| x.abs()).sum::<f64>();
    match (kind, dtype) {
        (Kind::Max, _) if column.iter().any(|x| x.is_nan()) => f64::NAN.into(),
        (Kind::Max, _) => column
            .iter()
            .fold(f64::NEG_INFINITY, |a, &b| a.max(b))
            .into(),
        (Kind::Mean, _) => Span::near(sum, error).map(|sum| sum / column.len() as f64),
        (Kind::Sum, DType::U8) => f64::from(sum as u64 as u8).into(),
        (Kind::Sum, DType::U32) => f64::from(sum as u64 as u32).into(),
        (Kind::Sum, DType::I32) => f64::from(sum as i64 as i32).into(),
        (Kind::Sum, _) => Span::near(sum, error),
    }
}

/// The place of the largest element: the lowest of equals, the first NaN.
#[derive(Clone, Debug)]
pub struct ArgMax {
    x: Values,
}

impl Case for ArgMax {
    type Subject = DType;
    const CASES: u32 = 100;

    fn subjects() -> Vec<DType> {
        DType::PLAIN
            .into_iter()
            .filter(|&dtype| dtype != DType::Bool)
            .collect()
    }

    fn any(dtype: DType) -> BoxedStrategy<ArgMax> {
        // Whole numbers in a small range have many equals.
        let ties = Numbers::Between(0.0, if dtype.is_float() { 1e-4 } else { 5.0 });
        let numbers = prop_oneof![
            Just(Numbers::Wild),
            Just(Numbers::Holes),
            Just(Numbers::Tame),
            Just(ties)
        ];
        (shapes(), numbers)
            .prop_flat_map(move |(shape, numbers)| view(dtype, &shape, numbers))
            .prop_map(|x| ArgMax { x })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        self.x.on(device)?.argmax(-1)
    }

    fn expected(&self) -> Expected {
        let place = |row: &[f64]| {
            let nan = row.iter().position(|x| x.is_nan());
            let largest = row.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
            let place = nan.or_else(|| row.iter().position(|&x| x == largest));
            vec![Span::from(place.unwrap_or(0) as f64)]
        };
        let shape = &self.x.shape[..self.x.shape.len() - 1];
        Expected::near(DType::U32, shape, by_row(&self.x, place))
    }
}

/// Shares of exponentials, of small, huge and infinite logits.
#[derive(Clone, Debug)]
pub struct Softmax {
    x: Values,
}

impl Case for Softmax {
    type Subject = DType;
    const CASES: u32 = 150;

    fn subjects() -> Vec<DType> {
        FLOATS.to_vec()
    }

    fn any(dtype: DType) -> BoxedStrategy<Softmax> {
        let numbers = prop_oneof![
            Just(Numbers::Tame),
            Just(Numbers::Between(-60.0, 60.0)),
            Just(Numbers::Between(-3e4, 3e4)),
            Just(Numbers::Spread),
            Just(Numbers::Holes),
        ];
        (shapes(), numbers)
            .prop_flat_map(move |(shape, numbers)| view(dtype, &shape, numbers))
            .prop_map(|x| Softmax { x })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        self.x.on(device)?.softmax(-1)
    }

    fn expected(&self) -> Expected {
        let shares = |row: &[f64]| {
            let largest = match row.iter().any(|x| x.is_nan()) {
                true => f64::NAN,
                false => row.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b)),
            };
            let powers: Vec<f64> = row
                .iter()
                .map(|x| round(DType::F32, x - largest).exp())
                .collect();
            let sum: f64 = powers.iter().sum();
            // Beside the sum: an exponential of 2 ulp and a quotient; below 2⁻¹⁵⁰ they are 0.
            let error = sum_error(row.len());
            let share = |power: &f64| Span::near(power / sum, error * power / sum + 3e-45);
            powers.iter().map(share).collect()
        };
        Expected::near(self.x.dtype, &self.x.shape, by_row(&self.x, shares))
    }
}

/// A share of the root mean square, times a weight.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    x: Values,
    weight: Values,
    eps: f32,
}

fn rows(dtype: DType) -> impl Strategy<Value = Values> {
    let numbers = prop_oneof![
        Just(Numbers::Tame),
        Just(Numbers::Spread),
        Just(Numbers::Holes),
        // A mean far from 0 leaves few digits to the variance.
        Just(Numbers::Between(100.0, 101.0)),
    ];
    (shapes(), numbers).prop_flat_map(move |(shape, numbers)| view(dtype, &shape, numbers))
}

impl Case for RmsNorm {
    type Subject = (DType, DType);
    const CASES: u32 = 60;

    fn subjects() -> Vec<(DType, DType)> {
        FLOATS
            .iter()
            .flat_map(|&x| FLOATS.map(|weight| (x, weight)))
            .collect()
    }

    fn any((x, weight): (DType, DType)) -> BoxedStrategy<RmsNorm> {
        rows(x)
            .prop_flat_map(move |x| {
                let weight = view(weight, &x.shape[x.shape.len() - 1..], Numbers::Spread);
                (Just(x), weight, 1e-6..1e-3f32)
            })
            .prop_map(|(x, weight, eps)| RmsNorm { x, weight, eps })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        self.x
            .on(device)?
            .rms_norm(&self.weight.on(device)?, self.eps)
    }

    fn expected(&self) -> Expected {
        let joint = joint(&[self.x.dtype, self.weight.dtype]);
        let weight = self.weight.to_vec();
        let norm = |row: &[f64]| {
            let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
            let scale = 1.0 / (mean + f64::from(self.eps)).sqrt();
            let error = sum_error(row.len());
            let normal =
                |x: f64| Span::near(x * scale, error * (x * scale).abs() + 3e-45).round(joint);
            row.iter()
                .zip(&weight)
                .map(|(x, w)| normal(*x).map(|y| stored(joint, y * w)))
                .collect()
        };
        Expected::near(joint, &self.x.shape, by_row(&self.x, norm))
    }
}

fn joint(dtypes: &[DType]) -> DType {
    match dtypes.iter().all(|&dtype| dtype == dtypes[0]) {
        true => dtypes[0],
        false => DType::F32,
    }
}

/// Centred, a share of the deviation, times a weight, plus a bias.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    x: Values,
    weight: Values,
    bias: Values,
    eps: f32,
}

impl Case for LayerNorm {
    type Subject = [DType; 3];
    const CASES: u32 = 24;

    fn subjects() -> Vec<[DType; 3]> {
        let pairs = RmsNorm::subjects().into_iter();
        pairs
            .flat_map(|(x, weight)| FLOATS.map(|bias| [x, weight, bias]))
            .collect()
    }

    fn any([x, weight, bias]: [DType; 3]) -> BoxedStrategy<LayerNorm> {
        rows(x)
            .prop_flat_map(move |x| {
                let n = &x.shape[x.shape.len() - 1..];
                let weight = view(weight, n, Numbers::Spread);
                let bias = view(bias, n, Numbers::Spread);
                (Just(x), weight, bias, 1e-6..1e-3f32)
            })
            .prop_map(|(x, weight, bias, eps)| LayerNorm {
                x,
                weight,
                bias,
                eps,
            })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        let (weight, bias) = (self.weight.on(device)?, self.bias.on(device)?);
        self.x.on(device)?.layer_norm(&weight, &bias, self.eps)
    }

    fn expected(&self) -> Expected {
        let joint = joint(&[self.x.dtype, self.weight.dtype, self.bias.dtype]);
        let weights: Vec<(f64, f64)> = self
            .weight
            .to_vec()
            .into_iter()
            .zip(self.bias.to_vec())
            .collect();
        let norm = |row: &[f64]| {
            let n = row.len() as f64;
            let mean = row.iter().sum::<f64>() / n;
            let size = row.iter().map(|x| x.abs()).sum::<f64>() / n;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let scale = 1.0 / (variance + f64::from(self.eps)).sqrt();
            // The mean's error is a share of the elements' size; it shifts the deviations, and so
            // the variance by about its own square.
            let share = sum_error(row.len());
            let error = share * size + 2e-45;
            let spread = 2.0 * error * error * scale * scale;
            let normal = |x: f64| {
                let y = (x - mean) * scale;
                let slack = (error + share * x.abs()) * scale + (share + spread) * y.abs();
                Span::near(y, slack).round(joint)
            };
            let weighted = |(x, &(w, b)): (&f64, &(f64, f64))| {
                let scaled = normal(*x).map(|y| stored(joint, y * w));
                scaled.map(|y| stored(joint, y + b))
            };
            row.iter().zip(&weights).map(weighted).collect()
        };
        Expected::near(joint, &self.x.shape, by_row(&self.x, norm))
    }
}
