//! An operation from outside, which backends know by its decomposition only.

use crate::numbers::stored;
use crate::{Case, Expected, Numbers, Span, Values, view};
use kiln_array::{Array, CustomOp, DType, Device, Result, Spec};
use proptest::prelude::*;

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

    fn decompose(&self, inputs: &[Array]) -> Result<Array> {
        (&inputs[0] * self.factor)? + self.shift
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
