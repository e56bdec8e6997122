//! Arrays on every device: lazy, checked where they are written, computed when they are read.
//!
//! `cargo run --example arithmetic`

#![allow(clippy::print_stdout, reason = "an example prints")]

use kiln::{Array, DType, Device, Result, eval};

fn main() -> Result<()> {
    for device in devices()? {
        println!("on {device}");
        show(&device)?;
    }
    Ok(())
}

/// The processor, and a GPU where there is one.
fn devices() -> Result<Vec<Device>> {
    let cpu = kiln::cpu(Default::default()).map_err(kiln::array::Error::from)?;
    #[cfg(feature = "wgpu")]
    let gpu = kiln::gpu(&Default::default()).ok();
    #[cfg(not(feature = "wgpu"))]
    let gpu = None;
    Ok([Some(cpu), gpu].into_iter().flatten().collect())
}

fn show(device: &Device) -> Result<()> {
    let x = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], device)?;
    let w = Array::from_slice(&[1.0f32, 0.0, -1.0, 0.5, 0.5, 0.5], &[2, 3], device)?;

    // Nothing is computed yet: these are nodes of a graph.
    let product = x.matmul(&w)?;
    let scaled = ((&product - product.mean(-1)?)? * 2.0f32)?.softmax(-1)?;
    println!("{}", scaled.to_dot());

    // Both in one run. Views need no memory of their own.
    let columns = x.transpose(0, 1)?.slice(0, 1..3)?;
    let sums = columns.sum(-1)?;
    eval(&[&scaled, &sums])?;
    println!("softmax {:?}", scaled.to_vec::<f32>()?);
    println!("sums    {:?}", sums.to_vec::<f32>()?);

    // In half precision each operation rounds its result.
    let half = x.cast(DType::F16)?;
    let tenth = (half / 10.0f32)?.cast(DType::F32)?;
    println!("tenths  {:?}", tenth.to_vec::<f32>()?);

    // A mistake is told where it is made, with what was given.
    if let Err(error) = x.matmul(&w.transpose(0, 1)?) {
        println!("error   {error}");
    }
    println!("{:?}", device.stats());
    Ok(())
}
