//! An operation of one's own, without a change of Kiln: what it means, and how the processor and a GPU
//! compute it faster than that.
//!
//! `cargo run --example custom_op`

#![allow(clippy::print_stdout, reason = "an example prints")]

use kiln::array::{CustomOp, Function, Spec};
use kiln::{Array, Device, Result};
use std::sync::Arc;

/// `max(0, x)² ` of floats.
#[derive(Debug)]
struct SquaredRelu;

impl CustomOp for SquaredRelu {
    fn name(&self) -> &'static str {
        "squared_relu"
    }

    fn parameters(&self) -> Vec<u32> {
        Vec::new()
    }

    fn infer(&self, inputs: &[Spec]) -> std::result::Result<Spec, String> {
        match inputs {
            [x] if x.dtype.is_float() => Ok(*x),
            _ => Err("one operand of floats".into()),
        }
    }

    fn decompose(&self, inputs: &[Array]) -> kiln::array::Result<Array> {
        let positive = inputs[0].with_number(kiln::array::Scalar::Max, 0.0)?;
        &positive * &positive
    }

    fn function(&self, _: &[Spec]) -> Option<Function> {
        Some(Function {
            unit: 4096,
            cost: 1,
            fill: Arc::new(|inputs, first, out| {
                let x = inputs[0].floats(first..first + out.len());
                for (y, x) in out.iter_mut().zip(x.iter()) {
                    let positive = if *x < 0.0 { 0.0 } else { *x };
                    *y = positive * positive;
                }
            }),
        })
    }

    fn wgsl(&self, _: &[Spec]) -> Option<String> {
        let text = "fn element(i: u32) -> f32 {
            let positive = select(x0(i), 0.0, x0(i) < 0.0);
            return positive * positive;
        }";
        Some(text.into())
    }
}

fn show(device: &Device) -> Result<()> {
    let x = Array::from_slice(&[-2.0f32, -0.5, 0.0, 1.5, 3.0], &[5], device)?;
    let y = (Array::custom(SquaredRelu, &[&x])? + 1.0f32)?;
    println!("{device}: {:?}", y.to_vec::<f32>()?);
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    show(&kiln::cpu(Default::default())?)?;
    #[cfg(feature = "wgpu")]
    match kiln::gpu(&Default::default()) {
        Ok(gpu) => show(&gpu)?,
        Err(error) => println!("no GPU: {error}"),
    }
    Ok(())
}
