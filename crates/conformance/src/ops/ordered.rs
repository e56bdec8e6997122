//! Functions along an axis that are a few operations: order, running sums, summaries.

use super::rows::sum_error;
use crate::{Case, Expected, Numbers, Span, Values, length, view};
use kiln_array::{Array, DType, Device, Result};
use proptest::prelude::*;
use std::cmp::Ordering;

/// What is found out about an axis.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Finding {
    /// Rising values.
    Sort,
    /// Their places.
    ArgSort,
    /// The largest ones.
    TopK,
    /// The place of the smallest.
    ArgMin,
    /// The smallest.
    Min,
    /// Whether one is not 0.
    Any,
    /// Whether none is 0.
    All,
    /// Running sums.
    CumSum,
    /// Variance.
    Var,
    /// Logarithm of the sum of exponentials.
    LogSumExp,
}

const EXACT: [Finding; 7] = [
    Finding::Sort,
    Finding::ArgSort,
    Finding::TopK,
    Finding::ArgMin,
    Finding::Min,
    Finding::Any,
    Finding::All,
];

/// A function along the middle axis of \[outer, axis, inner\].
#[derive(Clone, Debug)]
pub struct Ordered {
    finding: Finding,
    x: Values,
}

/// NaN above all; zeros are equal.
fn order(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b)
        .unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

impl Ordered {
    fn count(&self) -> usize {
        self.x.shape[1].min(3)
    }

    fn dtype(&self) -> DType {
        match (self.finding, self.x.dtype) {
            (Finding::ArgSort | Finding::ArgMin, _) => DType::U32,
            (Finding::Any | Finding::All, _) => DType::Bool,
            (Finding::CumSum, DType::Bool) => DType::I32,
            (_, own) => own,
        }
    }

    /// What becomes of a column.
    fn column(&self, x: &[f64]) -> Vec<Span> {
        let mut places: Vec<usize> = (0..x.len()).collect();
        places.sort_by(|&a, &b| order(x[a], x[b]));
        let exact = |values: Vec<f64>| values.into_iter().map(Span::from).collect();
        let flag = |condition: bool| exact(vec![f64::from(u8::from(condition))]);
        let sizes: Vec<f64> = x.iter().map(|v| v.abs()).collect();
        let error = sum_error(4 * x.len());
        match self.finding {
            Finding::Sort => exact(places.iter().map(|&p| x[p]).collect()),
            Finding::ArgSort => exact(places.iter().map(|&p| p as f64).collect()),
            Finding::TopK => {
                places.sort_by(|&a, &b| order(x[b], x[a]));
                exact(places[..self.count()].iter().map(|&p| x[p]).collect())
            }
            Finding::ArgMin => {
                let nan = x.iter().position(|v| v.is_nan());
                exact(vec![nan.unwrap_or(places[0]) as f64])
            }
            Finding::Min if x.iter().any(|v| v.is_nan()) => exact(vec![f64::NAN]),
            Finding::Min => exact(vec![x[places[0]]]),
            Finding::Any => flag(x.iter().any(|&v| v != 0.0)),
            Finding::All => flag(x.iter().all(|&v| v != 0.0)),
            Finding::CumSum => (0..x.len())
                .map(|i| {
                    let (sum, size): (f64, f64) = (x[..=i].iter().sum(), sizes[..=i].iter().sum());
                    match self.x.dtype {
                        DType::U8 => f64::from(sum as i64 as u8).into(),
                        DType::U32 => f64::from(sum as i64 as u32).into(),
                        DType::I32 | DType::Bool => f64::from(sum as i64 as i32).into(),
                        // A rounding in each of the log n steps.
                        _ => Span::near(sum, size * 16.0 * 2f64.powi(-24)),
                    }
                })
                .collect(),
            Finding::Var => {
                let mean = x.iter().sum::<f64>() / x.len() as f64;
                let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64;
                let largest = sizes.iter().fold(0.0, |a: f64, &b| a.max(b));
                vec![Span::near(var, 4.0 * error * largest * largest + 1e-38)]
            }
            Finding::LogSumExp => {
                let largest = x.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                let sum: f64 = x.iter().map(|v| (v - largest).exp()).sum();
                let value = largest + sum.ln();
                vec![Span::near(
                    value,
                    error + 4.0 * 2f64.powi(-24) * value.abs().max(largest.abs()),
                )]
            }
        }
    }
}

impl Case for Ordered {
    type Subject = (Finding, DType);
    const CASES: u32 = 20;

    fn subjects() -> Vec<(Finding, DType)> {
        let numbers = DType::PLAIN.into_iter();
        let exact = EXACT.into_iter().chain([Finding::CumSum]);
        let floats = [DType::F16, DType::BF16, DType::F32];
        let sums = [Finding::Var, Finding::LogSumExp].into_iter();
        exact
            .flat_map(|f| numbers.clone().map(move |dtype| (f, dtype)))
            .chain(sums.flat_map(|f| floats.map(|dtype| (f, dtype))))
            .collect()
    }

    fn any((finding, dtype): (Finding, DType)) -> BoxedStrategy<Ordered> {
        let numbers = match EXACT.contains(&finding) {
            // Whole numbers in a small range have many equals.
            true => prop_oneof![
                Just(Numbers::Wild),
                Just(Numbers::Tame),
                Just(Numbers::Between(0.0, 4.0))
            ]
            .boxed(),
            false => Just(Numbers::Between(-4.0, 4.0)).boxed(),
        };
        (1..4usize, length(150), 1..4usize, numbers)
            .prop_flat_map(move |(outer, middle, inner, numbers)| {
                view(dtype, &[outer, middle, inner], numbers)
            })
            .prop_map(move |x| Ordered { finding, x })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        let x = self.x.on(device)?;
        match self.finding {
            Finding::Sort => x.sort(1),
            Finding::ArgSort => x.argsort(-2),
            Finding::TopK => Ok(x.topk(self.count(), 1)?.0),
            Finding::ArgMin => x.argmin(1)?.expand(1),
            Finding::Min => x.min(1),
            Finding::Any => x.any(1),
            Finding::All => x.all(1),
            Finding::CumSum => x.cumsum(1),
            Finding::Var => x.var(1, 0),
            Finding::LogSumExp => x.logsumexp(1),
        }
    }

    fn expected(&self) -> Expected {
        let x = self.x.to_vec();
        let [outer, length, inner] = self.x.shape[..] else {
            return Expected::nothing();
        };
        let column = |row: usize| {
            let at = |i: usize| x[(row / inner * length + i) * inner + row % inner];
            self.column(&(0..length).map(at).collect::<Vec<f64>>())
        };
        let columns: Vec<Vec<Span>> = (0..outer * inner).map(column).collect();
        let count = columns[0].len();
        let mut elements = Vec::new();
        for o in 0..outer {
            elements.extend(
                (0..count)
                    .flat_map(|i| (0..inner).map(move |n| (i, n)))
                    .map(|(i, n)| columns[o * inner + n][i]),
            );
        }
        Expected::near(self.dtype(), &[outer, count, inner], elements)
    }
}
