//! What a result may be: dtype, shape, and bounds of every element.

use crate::numbers::{round, ulp};
use kiln_array::DType;

/// The numbers that an element may be. Where the exact value is not finite, the element is that:
/// the same infinity, or NaN. Bounds the wrong way round stand for anything that is not finite.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Span {
    low: f64,
    high: f64,
}

impl From<f64> for Span {
    /// This number alone.
    fn from(value: f64) -> Span {
        Span {
            low: value,
            high: value,
        }
    }
}

impl Span {
    /// What lies within `slack` of `value`.
    pub fn near(value: f64, slack: f64) -> Span {
        match value.is_finite() {
            true => Span {
                low: value - slack,
                high: value + slack,
            },
            false => Span::from(value),
        }
    }

    /// What becomes of these numbers in `dtype`. Rounding never changes an order.
    pub fn round(self, dtype: DType) -> Span {
        Span {
            low: round(dtype, self.low),
            high: round(dtype, self.high),
        }
    }

    /// What becomes of these numbers under `f`, which never changes an order or always turns it.
    pub fn map(self, f: impl Fn(f64) -> f64) -> Span {
        let (a, b) = (f(self.low), f(self.high));
        if a > b {
            Span { low: b, high: a }
        } else {
            Span { low: a, high: b }
        }
    }

    /// These numbers and `steps` more of f32 on either side.
    pub fn wider(self, steps: f64) -> Span {
        let slack = |value: f64| {
            if value.is_finite() {
                steps * ulp(DType::F32, value)
            } else {
                0.0
            }
        };
        Span {
            low: self.low - slack(self.low),
            high: self.high + slack(self.high),
        }
    }

    /// These numbers; where the exact value is not finite, anything that is not.
    pub fn loose(self) -> Span {
        match self.low.is_finite() || self.high.is_finite() {
            true => self,
            false => Span {
                low: f64::INFINITY,
                high: f64::NEG_INFINITY,
            },
        }
    }

    /// These numbers with `slack` in last places of `dtype` and where f32 would be subnormal; what
    /// is not finite may be anything.
    fn on_gpu(self, dtype: DType, slack: f64) -> Span {
        let room = |value: f64| slack * (ulp(dtype, value) + f64::from(f32::MIN_POSITIVE));
        match self.low.is_finite() && self.high.is_finite() {
            true => Span {
                low: self.low - room(self.low),
                high: self.high + room(self.high),
            },
            false => Span {
                low: f64::NEG_INFINITY,
                high: f64::NAN,
            },
        }
    }

    /// These numbers, or some that are at most this far from them.
    pub fn within(self, room: f64) -> Span {
        match self.low.is_finite() && self.high.is_finite() {
            true => Span {
                low: self.low - room,
                high: self.high + room,
            },
            false => self,
        }
    }

    /// The lowest of these numbers.
    pub fn low(self) -> f64 {
        self.low
    }

    /// Whether an element of this value is right.
    pub fn allows(self, value: f64) -> bool {
        if self.low == f64::NEG_INFINITY && self.high.is_nan() {
            true
        } else if self.low.is_nan() || self.high.is_nan() {
            value.is_nan()
        } else if self.low > self.high {
            !value.is_finite()
        } else {
            self.low <= value && value <= self.high
        }
    }
}

/// A whole result.
#[derive(Clone, PartialEq, Debug)]
pub struct Expected {
    /// The elements' type.
    pub dtype: DType,
    /// Lengths of the axes.
    pub shape: Vec<usize>,
    /// Row after row.
    pub elements: Vec<Span>,
    /// Whether zeros must have the sign of the expected ones.
    pub signed_zeros: bool,
}

impl Expected {
    /// Elements within bounds, which are rounded to `dtype` here.
    pub fn near(dtype: DType, shape: &[usize], elements: Vec<Span>) -> Expected {
        let elements = elements.into_iter().map(|span| span.round(dtype)).collect();
        Expected {
            dtype,
            shape: shape.to_vec(),
            elements,
            signed_zeros: false,
        }
    }

    /// These numbers and no others, up to the sign of zeros.
    pub fn equal(dtype: DType, shape: &[usize], elements: Vec<f64>) -> Expected {
        Expected::near(dtype, shape, elements.into_iter().map(Span::from).collect())
    }

    /// These numbers and no others: for what only moves or converts elements.
    pub fn exact(dtype: DType, shape: &[usize], elements: Vec<f64>) -> Expected {
        Expected {
            signed_zeros: true,
            ..Expected::equal(dtype, shape, elements)
        }
    }

    /// What a GPU may make of it: subnormals are 0 there, also in between, quotients and roots are
    /// within 2.5 last places of f32 (so Vulkan says), which may be one place of a shorter dtype,
    /// and what is not finite may become anything. What only moves or converts elements does so in
    /// integers, so it is exact here, too.
    pub fn on_gpu(self) -> Expected {
        let slack = match self.dtype {
            _ if self.signed_zeros => 0.0,
            DType::F32 => 4.0,
            DType::F16 | DType::BF16 => 1.0,
            _ => 0.0,
        };
        let elements = self.elements.into_iter();
        let elements = elements
            .map(|span| span.on_gpu(self.dtype, slack))
            .collect();
        Expected { elements, ..self }
    }

    /// What no result equals.
    pub fn nothing() -> Expected {
        Expected::equal(DType::Bool, &[usize::MAX], vec![])
    }

    /// What is wrong with a result, if anything is: the first wrong element and how many there are.
    pub fn compare(&self, dtype: DType, shape: &[usize], values: &[f64]) -> Result<(), String> {
        if (dtype, shape) != (self.dtype, &self.shape[..]) {
            let Expected {
                dtype: wanted,
                shape: lengths,
                ..
            } = self;
            return Err(format!(
                "a result of {wanted}{lengths:?} is {dtype}{shape:?}"
            ));
        }
        assert_eq!(
            values.len(),
            self.elements.len(),
            "the reference has the result's length"
        );
        let sign = |span: &Span, value: f64| {
            !self.signed_zeros
                || value != 0.0
                || value.is_sign_negative() == span.low.is_sign_negative()
        };
        let wrong = |(span, value): (&Span, &f64)| !span.allows(*value) || !sign(span, *value);
        let count = self
            .elements
            .iter()
            .zip(values)
            .filter(|&pair| wrong(pair))
            .count();
        let Some(first) = self.elements.iter().zip(values).position(wrong) else {
            return Ok(());
        };
        let Span { low, high } = self.elements[first];
        let mut rest = first;
        let mut place = vec![0; shape.len()];
        for axis in (0..shape.len()).rev() {
            place[axis] = rest % shape[axis].max(1);
            rest /= shape[axis].max(1);
        }
        Err(format!(
            "{count} of {} elements of {dtype}{shape:?} are wrong; the first at {place:?} is {:?}, \
             expected {low:?} to {high:?}",
            values.len(),
            values[first],
        ))
    }
}

/// The first difference between two results, bit for bit; any NaN equals any other.
pub fn same_bits(found: &[f64], wanted: &[f64]) -> Result<(), String> {
    let equal = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    match found.iter().zip(wanted).position(|pair| !equal(pair)) {
        Some(i) => Err(format!(
            "element {i} is {:?}, not {:?}",
            found[i], wanted[i]
        )),
        None if found.len() == wanted.len() => Ok(()),
        None => Err(format!("{} elements, not {}", found.len(), wanted.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(expected: f64, slack: f64, value: f64) -> bool {
        let spans = vec![Span::near(expected, slack)];
        Expected::near(DType::F16, &[1], spans)
            .compare(DType::F16, &[1], &[value])
            .is_ok()
    }

    #[test]
    fn only_what_rounding_allows_is_right() {
        let half = |v| round(DType::F16, v);
        assert!(compare(0.1, 0.0, half(0.1)));
        assert!(!compare(0.1, 0.0, half(0.1001)));
        assert!(compare(0.1, 1e-4, half(0.1001)));
        assert!(compare(70000.0, 0.0, f64::INFINITY));
        assert!(!compare(1.0, 0.5, f64::NAN));
        assert!(compare(f64::NAN, 0.0, f64::NAN));
        assert!(!compare(f64::INFINITY, 1.0, 65504.0));
    }

    #[test]
    fn exact_results_keep_the_sign_of_zero() {
        let expected = Expected::exact(DType::F32, &[1], vec![-0.0]);
        assert!(expected.compare(DType::F32, &[1], &[0.0]).is_err());
        assert!(expected.compare(DType::F32, &[1], &[-0.0]).is_ok());
    }
}
