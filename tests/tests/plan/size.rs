//! Graphs that are deeper, wider or more split than usual.

use crate::graphs::same;
use kiln_array::{Array, DType, Device, Format, Result};
use kiln_tests::{Numbers, Rows, Values, View, devices, numbers_of};

#[test]
fn a_graph_of_a_million_nodes_drops_without_recursion() -> Result<()> {
    let device = devices::best().remove(0);
    let mut x = Array::from_slice(&[1.0f32], &[1], &device)?;
    for _ in 0..1_000_000 {
        x = x.exp()?;
    }
    drop(x);
    assert_eq!(device.stats().evaluations, 0);
    Ok(())
}

#[test]
fn a_chain_of_a_hundred_thousand_nodes_evaluates_without_recursion() -> Result<()> {
    let device = devices::best().remove(0);
    let mut x = Array::from_slice(&[0u32, 7], &[2], &device)?;
    for _ in 0..100_000 {
        x = (x + 1)?;
    }
    assert_eq!(x.to_vec::<u32>()?, [100_000, 100_007]);
    Ok(())
}

#[test]
fn a_thousand_arrays_add_up() -> Result<()> {
    let device = devices::best().remove(0);
    let leaf = |i: u32| Array::from_slice(&[i], &[1], &device);
    let mut level = (0..1000).map(leaf).collect::<Result<Vec<_>>>()?;
    while level.len() > 1 {
        let pairs = level.chunks(2);
        level = pairs
            .map(|pair| {
                if let [a, b] = pair {
                    a + b
                } else {
                    Ok(pair[0].clone())
                }
            })
            .collect::<Result<_>>()?;
    }
    assert_eq!(level[0].item::<u32>()?, 499_500);
    Ok(())
}

fn operand(dtype: DType, shape: &[usize], seed: u64, device: &Device) -> Result<Array> {
    let view = View::default();
    Values {
        dtype,
        shape: shape.to_vec(),
        view,
        numbers: Numbers::Tame,
        seed,
    }
    .on(device)
}

/// Results of steps that are large enough to be shared among threads.
fn large_results(device: &Device) -> Result<Vec<Vec<f64>>> {
    let operand = |dtype, shape: &[usize], seed| operand(dtype, shape, seed, device);
    let mut results = Vec::new();
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        let x = operand(dtype, &[45, 640], 1)?;
        let w = operand(dtype, &[389, 640], 2)?;
        results.push(x.matmul(&w)?.silu()?);
        results.push(x.slice(0, 7..8)?.matmul(&w)?);
        results.push(x.softmax(-1)?);
        results.push(x.sum(-1)?);
        results.push(x.mean(0)?);
        results.push(x.rms_norm(&operand(dtype, &[640], 3)?, 1e-5)?);
        let q = operand(dtype, &[45, 6, 64], 4)?;
        let cache = operand(dtype, &[4, 517, 64], 5)?;
        let positions: Vec<u32> = (400..445).collect();
        let positions = Array::from_slice(&positions, &[45], device)?;
        let [keys, values] = cache.split(0, 2)?;
        results.push(q.attention(&keys, &values, &positions, 0.125, 0)?);
        let one = q.slice(0, 3..4)?;
        results.push(one.attention(&keys, &values, &positions.slice(0, 3..4)?, 0.125, 300)?);
        results.push(x.argmax(-1)?);
        for format in Format::all() {
            let w = Rows {
                format,
                rows: 97,
                k: 640,
                blocks: 3,
                misaligned: 3,
                seed: 6,
            };
            let w = w.on(device)?;
            results.push(x.slice(0, 0..1)?.matmul(&w)?);
            results.push(x.slice(0, 0..9)?.matmul(&w)?);
        }
    }
    results.iter().map(numbers_of).collect()
}

#[test]
fn results_have_the_same_bits_for_every_number_of_threads() -> Result<()> {
    let one = large_results(&devices::threads(1))?;
    for threads in [2, 3, 7] {
        let found = large_results(&devices::threads(threads))?;
        assert_eq!(same(&found, &one), Ok(()), "{threads} threads");
    }
    Ok(())
}
