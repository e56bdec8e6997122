//! Throughput of matmul on this machine: weights and bytes per second for one token, GFLOP/s for
//! many.
//!
//! `cargo run --release -p kiln-cpu --example matvec -- [threads] [format] [outputs] [inputs] [vectors] [matrices]`
//!
//! `vectors` is their dtype, f32 unless given. Of `matrices`, as many as hold 28 million weights unless
//! given, few stay in caches and many do not.

#![allow(clippy::print_stdout)]

use kiln_array::{Array, Bytes, DType, Device, Format, Part, Result, eval};
use kiln_cpu::{Options, device};
use std::time::Instant;

fn matrix(dtype: DType, [n, k]: [usize; 2], device: &Device) -> Result<Array> {
    let plane = |bytes: usize, byte: u8| Bytes::from(vec![byte; bytes]);
    let part = match dtype {
        DType::Quantised(format) => Part {
            rows: n,
            data: plane(n * format.code_row(k), 0x35),
            scales: Some(plane(n * format.scale_row(k), 0x3c)),
            biases: format
                .has_biases()
                .then(|| plane(n * format.scale_row(k), 0x3c)),
        },
        plain => Part::plain(n, plane(plain.row_bytes(n * k), 0x3c)),
    };
    Array::from_parts(dtype, &[n, k], vec![part], device)
}

/// The shortest time of as many runs as half a second holds, in seconds: other programs only ever
/// make a run longer.
fn shortest(mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while begin.elapsed().as_secs_f64() < 0.5 {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn measure(
    dtype: DType,
    [n, k]: [usize; 2],
    vectors: DType,
    count: usize,
    device: &Device,
) -> Result<()> {
    let run = |matrices: &[Array], t: usize| {
        let x = Array::from_slice(&vec![0.5f32; t * k], &[t, k], device)?.cast(vectors)?;
        eval(&[&x])?;
        shortest(|| {
            let products = matrices
                .iter()
                .map(|w| x.matmul(w))
                .collect::<Result<Vec<_>>>()?;
            eval(&products.iter().collect::<Vec<_>>())
        })
    };
    let matrices = (0..count)
        .map(|_| matrix(dtype, [n, k], device))
        .collect::<Result<Vec<_>>>()?;
    let one = run(&matrices, 1)?;
    let many = run(&matrices[..count.min(2)], 256)?;
    let weights = (count * n * k) as f64;
    let bytes = (count * n) as f64 * dtype.row_bytes(k) as f64;
    let flops = 2.0 * 256.0 * (count.min(2) * n * k) as f64;
    println!(
        "{:<10} {:>8.2} {:>8.2} {:>10.1}",
        dtype.to_string(),
        weights / one / 1e9,
        bytes / one / 1e9,
        flops / many / 1e9
    );
    Ok(())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().and_then(|n| n.parse().ok());
    let only = arguments.next().unwrap_or_default();
    let mut size = |default| {
        arguments
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(default)
    };
    let [n, k] = [size(1536), size(576)];
    let vectors = match arguments.next().as_deref() {
        Some("f16") => DType::F16,
        Some("bf16") => DType::BF16,
        _ => DType::F32,
    };
    let count = arguments.next().and_then(|count| count.parse().ok());
    let count: usize = count.unwrap_or(28_000_000 / (n * k).max(1)).max(1);
    let device = device(Options {
        threads,
        ..Default::default()
    })?;
    println!(
        "{device}; {count} matrices of {:?}, vectors of {vectors}",
        [n, k]
    );
    println!(
        "{:<10} {:>8} {:>8} {:>10}",
        "weights", "G/s", "GB/s", "GFLOP/s"
    );
    let affine = |bits, group| Format::affine(bits, group, DType::BF16);
    let mut dtypes = vec![DType::F32, DType::F16, DType::BF16];
    for bits in [1, 2, 3, 4, 5, 6, 8] {
        dtypes.push(DType::Quantised(affine(bits, 64)?));
    }
    dtypes.push(DType::Quantised(affine(4, 32)?));
    dtypes.extend([Format::MXFP4, Format::MXFP8, Format::NVFP4].map(DType::Quantised));
    for dtype in dtypes {
        if dtype.to_string().starts_with(&only) {
            measure(dtype, [n, k], vectors, count, &device)?;
        }
    }
    Ok(())
}
