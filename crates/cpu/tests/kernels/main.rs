//! Kernels against naive sums or the operations' own definitions, with poisoned memory, and the
//! same bits for every number of threads.

#![allow(clippy::unwrap_used)]

mod attention;
mod matmul;
mod memory;
mod rows;

use half::{bf16, f16};
use kiln_array::{Array, Bytes, DType, Device, Format, Mode, Op, Part, Result, Scales, decompose};
use kiln_cpu::{Options, device, instruction_sets};

fn on(isa: &str, threads: usize) -> Device {
    device(Options {
        isa: Some(isa),
        threads: Some(threads),
        poison: true,
        ..Options::default()
    })
    .unwrap()
}

/// The result on every instruction set; the threads must agree to the bit.
fn everywhere(build: impl Fn(&Device) -> Result<Array>) -> Vec<Vec<f32>> {
    let mut results = Vec::new();
    for isa in instruction_sets() {
        let run = |threads| {
            let result = build(&on(isa, threads)).unwrap().cast(DType::F32).unwrap();
            result.to_vec::<f32>().unwrap()
        };
        let one = run(1);
        let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        for threads in [2, 3, 7] {
            assert_eq!(
                bits(&run(threads)),
                bits(&one),
                "{isa} with {threads} threads"
            );
        }
        results.push(one);
    }
    results
}

fn close(ours: &[f32], exact: &[f64], bound: f64) {
    assert_eq!(ours.len(), exact.len());
    for (i, (&a, &b)) in ours.iter().zip(exact).enumerate() {
        assert!(
            (f64::from(a) - b).abs() <= bound,
            "element {i}: {a} is not {b}"
        );
    }
}

/// Repeatable numbers in -1..1.
fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed << 8 | 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn random(seed: u64, shape: &[usize], dtype: DType, device: &Device) -> Result<Array> {
    Array::from_slice(&noise(seed, shape.iter().product()), shape, device)?.cast(dtype)
}

/// Rows of a format as parts of the given numbers of rows, at odd addresses, and their values.
fn weights(format: Format, parts: &[usize], k: usize, seed: u64) -> (Vec<Part>, Vec<f32>) {
    let plane = |bytes: Vec<u8>| {
        let mut room = vec![0xee];
        room.extend(&bytes);
        let end = room.len();
        Bytes::from(room).slice(1..end).unwrap()
    };
    let (mut all, mut values) = (Vec::new(), Vec::new());
    for (number, &rows) in parts.iter().enumerate() {
        let seed = seed + 100 * number as u64;
        let count = rows * k / format.group();
        let scales = |seed| -> Vec<u8> {
            let numbers = noise(seed, count);
            let bytes = |v: &f32| match (format.mode(), format.scales()) {
                (Mode::Nvfp4, _) => vec![((v + 1.0) * 40.0) as u8],
                (_, Scales::U8) => vec![(124.0 + 3.0 * v) as u8],
                (_, Scales::F16) => f16::from_f32(0.1 * v).to_le_bytes().to_vec(),
                (_, Scales::BF16) => bf16::from_f32(0.1 * v).to_le_bytes().to_vec(),
                (_, Scales::F32) => (0.1 * v).to_le_bytes().to_vec(),
            };
            numbers.iter().flat_map(bytes).collect()
        };
        let mut codes: Vec<u8> = noise(seed, rows * format.code_row(k))
            .iter()
            .map(|v| (v * 127.0) as i8 as u8)
            .collect();
        codes
            .iter_mut()
            .filter(|b| **b & 0x7f == 0x7f)
            .for_each(|b| *b = 0);
        let (s, b) = (scales(seed + 1), scales(seed + 2));
        let b = if format.has_biases() { b } else { Vec::new() };
        for row in 0..rows {
            let cut = |plane: &[u8], bytes: usize| plane[row * bytes..(row + 1) * bytes].to_vec();
            let mut out = vec![0.0; k];
            let biases = if b.is_empty() {
                vec![]
            } else {
                cut(&b, format.scale_row(k))
            };
            let codes = cut(&codes, format.code_row(k));
            format.dequantise(&codes, &cut(&s, format.scale_row(k)), &biases, 0, &mut out);
            values.extend(out);
        }
        let biases = format.has_biases().then(|| plane(b));
        all.push(Part {
            rows,
            data: plane(codes),
            scales: Some(plane(s)),
            biases,
        });
    }
    (all, values)
}

/// Compares an operation with its definition on each instruction set.
fn defined(bound: f32, op: &Op, inputs: impl Fn(&Device) -> Result<Vec<Array>>) {
    let ours = everywhere(|device| Array::make(op.clone(), inputs(device)?));
    let theirs = everywhere(|device| {
        let inputs = inputs(device)?;
        Ok(decompose(op, &inputs)?.unwrap_or_else(|| inputs[0].clone()))
    });
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours.len(), theirs.len());
        for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
            let equal = (a - b).abs() <= bound * (1.0 + b.abs()) || a.is_nan() && b.is_nan();
            assert!(equal, "{}: element {i}: {a} is not {b}", op.name());
        }
    }
}

/// How far results of one operation may be apart that were rounded to this dtype.
fn ulp(dtype: DType) -> f32 {
    match dtype {
        DType::F16 => 1.0 / 512.0,
        DType::BF16 => 1.0 / 64.0,
        _ => 1e-5,
    }
}

const FLOATS: [DType; 3] = [DType::F16, DType::BF16, DType::F32];
