//! Operations from outside: one that backends know by its decomposition only, and one that they are told
//! how to compute.

use crate::numbers::stored;
use crate::{Case, Expected, Numbers, Span, Values, view};
use kiln_array::{Array, CustomOp, DType, Device, Function, Result, Spec};
use proptest::prelude::*;
use std::sync::Arc;

/// `x · factor + shift` in the dtype of `x`, by two operations that each round.
#[derive(Debug)]
struct Shifted {
    factor: f32,
    shift: f32,
}

impl CustomOp for Shifted {
    fn name(&self) -> &'static str {
        "shifted"
    }

    fn parameters(&self) -> Vec<u32> {
        vec![self.factor.to_bits(), self.shift.to_bits()]
    }

    fn infer(&self, inputs: &[Spec]) -> std::result::Result<Spec, String> {
        match inputs {
            [x] if x.dtype.is_float() => Ok(*x),
            _ => Err("one operand of floats".into()),
        }
    }

    /// Computed under another shape than that of the result.
    fn decompose(&self, inputs: &[Array]) -> Result<Array> {
        let x = &inputs[0];
        let column = x.reshape(&[x.shape().elements(), 1])?;
        let shift = Array::full(self.shift, x.dtype(), &[1, 1], x.device())?;
        ((column * self.factor)? + shift)?.reshape(&x.shape())
    }
}

/// The operation on views.
#[derive(Clone, Debug)]
pub struct Custom {
    x: Values,
    factor: f32,
    shift: f32,
}

impl Case for Custom {
    type Subject = DType;
    const CASES: u32 = 24;

    fn subjects() -> Vec<DType> {
        vec![DType::F16, DType::BF16, DType::F32]
    }

    fn any(dtype: DType) -> BoxedStrategy<Custom> {
        (1..6usize, 1..50usize, -2.0..2.0f32, -2.0..2.0f32)
            .prop_flat_map(move |(a, b, factor, shift)| {
                let x = view(dtype, &[a, b], Numbers::Holes);
                x.prop_map(move |x| Custom { x, factor, shift })
            })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        let op = Shifted {
            factor: self.factor,
            shift: self.shift,
        };
        Array::custom(op, &[&self.x.on(device)?])
    }

    fn expected(&self) -> Expected {
        let dtype = self.x.dtype;
        let [factor, shift] = [self.factor, self.shift].map(|v| stored(dtype, v.into()));
        let element = |x: f64| stored(dtype, stored(dtype, x * factor) + shift);
        let elements: Vec<Span> = self
            .x
            .to_vec()
            .into_iter()
            .map(|x| element(x).into())
            .collect();
        Expected::near(dtype, &self.x.shape, elements)
    }
}

/// `x · factor + shift` with the columns in reverse order, in f32 and rounded once: by a function on
/// the processor, by a text on a GPU.
#[derive(Debug)]
struct Mirrored {
    factor: f32,
    shift: f32,
}

impl CustomOp for Mirrored {
    fn name(&self) -> &'static str {
        "mirrored"
    }

    fn parameters(&self) -> Vec<u32> {
        vec![self.factor.to_bits(), self.shift.to_bits()]
    }

    fn infer(&self, inputs: &[Spec]) -> std::result::Result<Spec, String> {
        match inputs {
            [x] if x.dtype.is_float() && x.shape.len() == 2 => Ok(*x),
            _ => Err("rows of floats".into()),
        }
    }

    fn decompose(&self, inputs: &[Array]) -> Result<Array> {
        let x = &inputs[0];
        let columns = x.shape()[1] as u32;
        let ids: Vec<u32> = (0..columns).rev().collect();
        let ids = Array::from_slice(&ids, &[ids.len()], x.device())?;
        let turned = x.transpose(0, 1)?.take(&ids)?.transpose(0, 1)?;
        let scaled = (turned.cast(DType::F32)? * self.factor)?;
        (scaled + self.shift)?.cast(x.dtype())
    }

    fn function(&self, inputs: &[Spec]) -> Option<Function> {
        let columns = inputs[0].shape[1];
        let (factor, shift) = (self.factor, self.shift);
        Some(Function {
            // No whole number of rows.
            unit: 7,
            cost: 1000,
            fill: Arc::new(move |inputs, first, out| {
                for (i, y) in (first..).zip(out) {
                    let (row, column) = (i / columns, i % columns);
                    let at = row * columns + columns - 1 - column;
                    *y = inputs[0].get(at) as f32 * factor + shift;
                }
            }),
        })
    }

    fn wgsl(&self, inputs: &[Spec]) -> Option<String> {
        let columns = inputs[0].shape[1];
        let [factor, shift] = [self.factor, self.shift].map(f32::to_bits);
        Some(format!(
            "fn element(i: u32) -> f32 {{
                let column = i % {columns}u;
                let x = x0(i - column + {columns}u - 1u - column);
                return x * bitcast<f32>({factor}u) + bitcast<f32>({shift}u);
            }}"
        ))
    }
}

/// The operation that backends are told how to compute, on views.
#[derive(Clone, Debug)]
pub struct CustomNative(Custom);

impl Case for CustomNative {
    type Subject = DType;
    const CASES: u32 = 24;

    fn subjects() -> Vec<DType> {
        Custom::subjects()
    }

    fn any(dtype: DType) -> BoxedStrategy<CustomNative> {
        Custom::any(dtype).prop_map(CustomNative).boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        let Custom { x, factor, shift } = &self.0;
        let (factor, shift) = (*factor, *shift);
        Array::custom(Mirrored { factor, shift }, &[&x.on(device)?])
    }

    fn expected(&self) -> Expected {
        let Custom { x, factor, shift } = &self.0;
        let wide = |value: f64| stored(DType::F32, value);
        let (factor, shift) = (f64::from(*factor), f64::from(*shift));
        let element = |x: &f64| {
            // A GPU may round the product, or not.
            let product = Span::from(wide(x * factor));
            let room = if x.is_finite() {
                (x * factor).abs() * 2f64.powi(-24)
            } else {
                0.0
            };
            let sum = product.within(room).map(|product| wide(product + shift));
            sum.round(self.0.x.dtype)
        };
        let values = x.to_vec();
        let rows = values.chunks(x.shape[1]);
        let elements = rows.flat_map(|row| row.iter().rev().map(element));
        Expected::near(x.dtype, &x.shape, elements.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operations of equal name and parameters share a program; others do not.
    #[test]
    fn programs_are_shared_by_name_and_parameters() -> Result<()> {
        {
            let device = kiln_cpu::device(Default::default()).unwrap();
            let x = Array::from_slice(&[1.0f32, 2.0], &[2], &device)?;
            let run =
                |factor| Array::custom(Shifted { factor, shift: 1.0 }, &[&x])?.to_vec::<f32>();
            assert_eq!(run(2.0)?, [3.0, 5.0]);
            assert_eq!(run(2.0)?, [3.0, 5.0]);
            assert_eq!(device.stats().misses, 1);
            assert_eq!(run(3.0)?, [4.0, 7.0]);
            assert_eq!(device.stats().misses, 2);
        }
        Ok(())
    }
}
