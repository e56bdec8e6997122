//! Kernels against naive sums or the operations' own definitions, with poisoned memory, and the
//! same bits for every number of threads.

use half::{bf16, f16};
use kiln_array::{
    Array, Bits, Bytes, DType, Device, Format, Mode, Op, Pairing, Part, Result, Rope, Scales,
};
use kiln_cpu::{Options, device, instruction_sets};

fn on(isa: &str, threads: usize) -> Device {
    device(Options {
        isa: Some(isa),
        threads: Some(threads),
        poison: true,
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

fn product(x: &[f32], w: &[f32], k: usize) -> Vec<f64> {
    let dot = |x: &[f32], w: &[f32]| -> f64 {
        x.iter()
            .zip(w)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    x.chunks(k)
        .flat_map(|x| w.chunks(k).map(move |w| dot(x, w)))
        .collect()
}

#[test]
fn quantised_matmul_is_right_for_every_format_and_number_of_tokens() {
    for (number, format) in Format::all().into_iter().enumerate() {
        let k = 3 * format.group();
        let (parts, values) = weights(format, &[5, 1, 17], k, number as u64);
        for t in [1, 2, 5, 19] {
            let x = noise(7, t * k);
            let exact = product(&x, &values, k);
            let results = everywhere(|device| {
                let dtype = DType::Quantised(format);
                let w = Array::from_parts(dtype, &[23, k], parts.clone(), device)?;
                Array::from_slice(&x, &[t, k], device)?.matmul(&w)
            });
            // f32 sums of at most 384 products, codes and biases apart.
            results
                .iter()
                .for_each(|result| close(result, &exact, 2e-3));
        }
    }
}

#[test]
fn a_view_of_quantised_rows_is_those_rows() {
    let format = Format::affine(4, 32, DType::F16).unwrap();
    let (parts, values) = weights(format, &[4, 9], 64, 3);
    for t in [1, 6] {
        let x = noise(2, t * 64);
        let exact = product(&x, &values[3 * 64..11 * 64], 64);
        let results = everywhere(|device| {
            let w = Array::from_parts(DType::Quantised(format), &[13, 64], parts.clone(), device)?;
            Array::from_slice(&x, &[t, 64], device)?.matmul(&w.slice(0, 3..11)?)
        });
        results
            .iter()
            .for_each(|result| close(result, &exact, 1e-3));
    }
}

#[test]
fn plain_matmul_is_right_at_and_around_the_sizes_of_blocks() {
    for (t, n, k) in [
        (1, 1, 1),
        (3, 47, 65),
        (4, 49, 7),
        (5, 48, 16),
        (17, 97, 513),
        (33, 5, 1030),
    ] {
        let (x, w) = (noise(1, t * k), noise(2, n * k));
        let exact = product(&x, &w, k);
        let results = everywhere(|device| {
            let w = Array::from_slice(&w, &[n, k], device)?;
            Array::from_slice(&x, &[t, k], device)?.matmul(&w)
        });
        results
            .iter()
            .for_each(|result| close(result, &exact, 1e-3));
    }
}

#[test]
fn more_tokens_than_a_unit_holds_are_right() {
    let (t, n, k) = (1030, 9, 33);
    let (x, w) = (noise(1, t * k), noise(2, n * k));
    let exact = product(&x, &w, k);
    let results = everywhere(|device| {
        let w = Array::from_slice(&w, &[n, k], device)?;
        Array::from_slice(&x, &[t, k], device)?.matmul(&w)
    });
    results
        .iter()
        .for_each(|result| close(result, &exact, 1e-4));
}

#[test]
fn batches_of_weights_meet_their_own_vectors() {
    for t in [2, 9] {
        let (b, n, k) = (3, 10, 20);
        let (x, w) = (noise(1, b * t * k), noise(2, b * n * k));
        let pairs = x.chunks(t * k).zip(w.chunks(n * k));
        let exact: Vec<f64> = pairs.flat_map(|(x, w)| product(x, w, k)).collect();
        let results = everywhere(|device| {
            let w = Array::from_slice(&w, &[b, n, k], device)?;
            Array::from_slice(&x, &[b, t, k], device)?.matmul(&w)
        });
        results
            .iter()
            .for_each(|result| close(result, &exact, 1e-4));
    }
}

#[test]
fn an_epilogue_gives_the_bits_of_separate_steps() {
    for (isa, t) in instruction_sets()
        .into_iter()
        .flat_map(|isa| [(isa, 1), (isa, 21)])
    {
        for dtype in [DType::F16, DType::BF16, DType::F32] {
            let build = |fuse| {
                let cpu = kiln_cpu::Cpu::new(Options {
                    isa: Some(isa),
                    threads: Some(2),
                    poison: true,
                });
                let options = kiln_array::Options {
                    fuse,
                    ..Default::default()
                };
                let device = Device::with(cpu.unwrap(), options, None);
                let x = random(1, &[t, 96], dtype, &device).unwrap();
                let w = random(2, &[130, 96], dtype, &device).unwrap();
                let bias = random(3, &[130], dtype, &device).unwrap();
                let wide = random(4, &[t, 150], dtype, &device).unwrap();
                let residual = wide.slice(1, 3..133).unwrap();
                let y = x.matmul(&w).unwrap();
                let y = ((y + bias).unwrap().silu().unwrap() * residual).unwrap();
                y.cast(DType::F32).unwrap().to_vec::<f32>().unwrap()
            };
            assert_eq!(build(true), build(false));
        }
    }
}

/// Compares an operation with its definition on each instruction set.
fn defined(bound: f32, op: &Op, inputs: impl Fn(&Device) -> Result<Vec<Array>>) {
    let ours = everywhere(|device| Array::make(op.clone(), inputs(device)?));
    let theirs = everywhere(|device| {
        let inputs = inputs(device)?;
        Ok(op.decompose(&inputs)?.unwrap_or_else(|| inputs[0].clone()))
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

#[test]
fn norms_and_softmax_are_as_defined() {
    let eps = Bits::from(1e-5);
    for dtype in FLOATS {
        for n in [1, 7, 64, 577] {
            let bound = ulp(dtype);
            let x = |device: &Device| random(1, &[5, n], dtype, device);
            defined(bound, &Op::Softmax, |device| Ok(vec![x(device)?]));
            defined(bound, &Op::RmsNorm { eps }, |device| {
                Ok(vec![x(device)?, random(2, &[n], DType::F32, device)?])
            });
            let op = Op::LayerNorm { eps };
            defined(4.0 * bound, &op, |device| {
                let weight = random(2, &[n], dtype, device)?;
                Ok(vec![x(device)?, weight, random(3, &[n], dtype, device)?])
            });
        }
    }
}

#[test]
fn rope_is_as_defined() {
    for (dtype, pairing) in FLOATS
        .into_iter()
        .flat_map(|d| [(d, Pairing::Halves), (d, Pairing::Neighbours)])
    {
        for (heads, pairs) in [(3, 4), (2, 3), (5, 0)] {
            let op = Op::Rope {
                pairing,
                heads,
                scale: Bits::from(1.25),
            };
            defined(ulp(dtype), &op, |device| {
                let positions = Array::from_slice(&[0u32, 5, 70_000, 3], &[4], device)?;
                let frequencies = Array::from_slice(&vec![0.7f32; pairs], &[pairs], device)?;
                Ok(vec![
                    random(1, &[4, 5, 8], dtype, device)?,
                    positions,
                    frequencies,
                ])
            });
        }
    }
}

#[test]
fn attention_is_as_defined_for_any_view_window_and_position() {
    for (dtype, window) in FLOATS.into_iter().flat_map(|d| [(d, 0), (d, 9)]) {
        for positions in [vec![70u32], vec![3, 90, 0, 4_000_000], (60..97).collect()] {
            let op = Op::Attention {
                scale: Bits::from(0.3),
                window,
            };
            let t = positions.len();
            defined(2.0 * ulp(dtype), &op, |device| {
                let joint = random(1, &[4, 99, 16], dtype, device)?;
                let keys = joint.slice(0, 0..2)?;
                let values = joint.slice(0, 2..4)?.slice(2, 1..12)?;
                let q = random(2, &[6, 16, t], dtype, device)?
                    .transpose(1, 2)?
                    .transpose(0, 1)?;
                let positions = Array::from_slice(&positions, &[t], device)?;
                Ok(vec![q, keys, values, positions])
            });
        }
    }
}

#[test]
fn entries_that_a_query_does_not_see_do_not_count() {
    for t in [1usize, 12] {
        let clean = |device: &Device, garbage: f32| -> Result<Array> {
            let mut cache = random(1, &[2, 80, 16], DType::F32, device)?.copy()?;
            let hidden: Vec<u32> = (40..80).collect();
            let bad = Array::full(garbage, DType::F32, &[2, 40, 16], device)?;
            cache.write(1, &Array::from_slice(&hidden, &[40], device)?, &bad)?;
            let positions: Vec<u32> = (0..t as u32).map(|i| 39 - 3 * i).collect();
            let q = random(2, &[t, 4, 16], DType::F32, device)?;
            let positions = Array::from_slice(&positions, &[t], device)?;
            q.attention(&cache, &cache, &positions, 0.25, 0)
        };
        let good = everywhere(|device| clean(device, 0.0));
        assert_eq!(good, everywhere(|device| clean(device, f32::NAN)));
        // A later query sees NaN, which earlier queries must not notice.
        let mixed = everywhere(|device| {
            let mut cache = random(1, &[2, 80, 16], DType::F32, device)?.copy()?;
            let bad = Array::full(f32::NAN, DType::F32, &[2, 1, 16], device)?;
            cache.write(1, &Array::from_slice(&[20u32], &[1], device)?, &bad)?;
            let positions: Vec<u32> = (9..9 + t as u32).collect();
            let q = random(2, &[t, 4, 16], DType::F32, device)?;
            let positions = Array::from_slice(&positions, &[t], device)?;
            q.attention(&cache, &cache, &positions, 0.25, 0)
        });
        for result in mixed {
            let (before, after) = result.split_at((t * 4 * 16).min(11 * 4 * 16));
            assert!(before.iter().all(|v| !v.is_nan()));
            assert!(after.iter().all(|v| v.is_nan()));
        }
    }
}

#[test]
fn reductions_follow_any_axis() {
    for dtype in [
        DType::U8,
        DType::U32,
        DType::I32,
        DType::F16,
        DType::BF16,
        DType::F32,
    ] {
        for axis in 0..3 {
            let numbers: Vec<f32> = (0..6 * 5 * 700).map(|i| ((i * 7) % 11) as f32).collect();
            let shape = [6, 5, 700];
            let results = everywhere(|device| {
                let x = Array::from_slice(&numbers, &shape, device)?.cast(dtype)?;
                let sum = x.sum(axis)?.cast(DType::F32)?;
                sum + x.max(axis)?.cast(DType::F32)?
            });
            let stride: usize = shape[axis as usize + 1..].iter().product();
            let length = shape[axis as usize];
            let exact: Vec<f64> = (0..numbers.len() / length)
                .map(|i| {
                    let start = i / stride * stride * length + i % stride;
                    let all = (0..length).map(|j| f64::from(numbers[start + j * stride]));
                    let sum: f64 = all.clone().sum();
                    let sum = if dtype == DType::U8 { sum % 256.0 } else { sum };
                    sum + all.fold(0.0, f64::max)
                })
                .collect();
            // Sums of whole numbers are exact but for the dtype's own rounding.
            let bound = if dtype.is_float() {
                3600.0 * f64::from(ulp(dtype))
            } else {
                0.0
            };
            results
                .iter()
                .for_each(|result| close(result, &exact, bound));
        }
    }
}

#[test]
fn argmax_is_the_first_of_equals_and_the_first_nan() {
    let mut row = vec![0.0f32; 3000];
    (row[1500], row[2500]) = (2.0, 2.0);
    let mut nan = row.clone();
    (nan[2700], nan[2800]) = (f32::NAN, f32::NAN);
    let lowest = vec![f32::NEG_INFINITY; 3000];
    let all = [row, nan, lowest].concat();
    let results = everywhere(|device| Array::from_slice(&all, &[3, 3000], device)?.argmax());
    results
        .iter()
        .for_each(|result| assert_eq!(result, &[1500.0, 2700.0, 0.0]));
    let results =
        everywhere(|device| Array::from_slice(&[-5i32, 7, -9, 7], &[2, 2], device)?.argmax());
    results
        .iter()
        .for_each(|result| assert_eq!(result, &[1.0, 1.0]));
}

#[test]
fn taking_outside_the_table_gives_nan_or_nothing() {
    let format = Format::affine(3, 32, DType::BF16).unwrap();
    let (parts, values) = weights(format, &[2, 3], 64, 9);
    let ids = [4u32, 0, 5, u32::MAX, 2];
    let results = everywhere(|device| {
        let w = Array::from_parts(DType::Quantised(format), &[5, 64], parts.clone(), device)?;
        w.take(&Array::from_slice(&ids, &[5], device)?)
    });
    for result in results {
        for (row, id) in result.chunks(64).zip(ids) {
            match values.chunks(64).nth(id as usize) {
                Some(exact) => {
                    assert!(
                        row.iter()
                            .zip(exact)
                            .all(|(a, b)| *a == bf16::from_f32(*b).to_f32())
                    );
                }
                None => assert!(row.iter().all(|v| v.is_nan())),
            }
        }
    }
    let results = everywhere(|device| {
        let table = Array::from_slice(&[1i32, 2, 3, 4], &[2, 2], device)?;
        table.take(&Array::from_slice(&[1u32, 2], &[2], device)?)
    });
    results
        .iter()
        .for_each(|result| assert_eq!(result, &[3.0, 4.0, 0.0, 0.0]));
}

#[test]
fn writes_keep_the_last_of_equal_positions_and_drop_those_outside() {
    let results = everywhere(|device| {
        let mut target = Array::zeros(DType::F16, &[2, 4, 3], device)?.copy()?;
        let source = Array::from_slice(&noise(1, 24), &[4, 3, 2], device)?;
        let positions = Array::from_slice(&[2u32, 9, 2, 0], &[4], device)?;
        target.write(1, &positions, &source.transpose(0, 2)?.transpose(1, 2)?)?;
        Ok(target)
    });
    let source = noise(1, 24);
    let at = |head: usize, i: usize, d: usize| f16::from_f32(source[i * 6 + d * 2 + head]).to_f32();
    for result in results {
        for (head, d) in (0..2).flat_map(|head| (0..3).map(move |d| (head, d))) {
            let column: Vec<f32> = (0..4).map(|p| result[head * 12 + p * 3 + d]).collect();
            assert_eq!(column, [at(head, 3, d), 0.0, at(head, 2, d), 0.0]);
        }
    }
}

#[test]
fn any_view_of_any_dtype_is_copied_and_mapped() {
    for dtype in DType::PLAIN {
        let results = everywhere(|device| {
            let numbers: Vec<f32> = (0..4 * 6 * 5).map(|i| (i % 2) as f32).collect();
            let x = Array::from_slice(&numbers, &[4, 6, 5], device)?.cast(dtype)?;
            let view = x.slice(1, 1..5)?.transpose(0, 2)?;
            let copied = view.copy()?.cast(DType::F32)?;
            let row = Array::from_slice(&[1.0f32, 2.0, 4.0, 8.0], &[4], device)?;
            let column = row.reshape(&[4, 1])?;
            (view.cast(DType::F32)? * row)? + (copied * column)?
        });
        for result in results {
            for (i, value) in result.iter().enumerate() {
                let (a, b, c) = (i / 16, i / 4 % 4, i % 4);
                let bit = ((c * 30 + (b + 1) * 5 + a) % 2) as f32;
                assert_eq!(*value, bit * ((1 << c) + (1 << b)) as f32);
            }
        }
    }
}

#[test]
fn plain_row_blocks_are_joined_once_and_only_where_needed() {
    let device = on("scalar", 1);
    let parts = || {
        let block = |from: u8| Bytes::from((from..from + 6).collect::<Vec<u8>>());
        vec![Part::plain(2, block(0)), Part::plain(2, block(6))]
    };
    let x = Array::from_parts(DType::U8, &[4, 3], parts(), &device).unwrap();
    let before = device.stats().allocations;
    assert_eq!(x.to_vec::<u8>().unwrap(), (0..12).collect::<Vec<u8>>());
    assert_eq!(device.stats().allocations, before);
    let sum = || {
        x.cast(DType::U32)
            .unwrap()
            .sum(0)
            .unwrap()
            .to_vec::<u32>()
            .unwrap()
    };
    assert_eq!(sum(), [18, 22, 26]);
    let once = device.stats().allocations;
    assert_eq!(sum(), [18, 22, 26]);
    assert_eq!(device.stats().allocations, once);
}

fn attend(
    device: &Device,
    w: &Array,
    rope: &Rope,
    cache: &mut Array,
    position: u32,
) -> Result<Array> {
    let at = Array::from_slice(&[position], &[1], device)?;
    let q = random(2, &[1, 64], DType::F16, device)?
        .matmul(w)?
        .reshape(&[1, 4, 16])?;
    let q = q.rope(&at, 4, rope)?;
    cache.write(1, &at, &q.transpose(0, 1)?)?;
    q.attention(cache, cache, &at, 0.25, 0)?.cast(DType::F32)
}

#[test]
fn steady_work_allocates_nothing() {
    let device = on("scalar", 1);
    let w = random(1, &[64, 64], DType::F16, &device).unwrap();
    let rope = Rope {
        pairing: Pairing::Halves,
        frequencies: Array::from_slice(&[0.5f32; 8], &[8], &device).unwrap(),
        scale: 1.0,
    };
    let mut cache = Array::zeroed(DType::F16, &[4, 32, 16], &device).unwrap();
    let mut step = |position: u32| {
        // Built in a function: a handle that is still held would keep its node's result.
        attend(&device, &w, &rope, &mut cache, position)
            .unwrap()
            .to_vec::<f32>()
            .unwrap()
    };
    for position in 0..3 {
        step(position);
    }
    let before = device.stats();
    for position in 3..20 {
        step(position);
    }
    let after = device.stats();
    assert_eq!(after.allocations, before.allocations);
    assert_eq!((after.copies, after.misses), (before.copies, before.misses));
}

#[test]
fn names_of_instruction_sets_are_checked() {
    let unknown = device(Options {
        isa: Some("abacus"),
        ..Default::default()
    });
    let message = unknown
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(
        message.starts_with("no instruction set is called abacus; there are "),
        "{message}"
    );
    let two = device(Options {
        isa: Some("scalar"),
        threads: Some(2),
        poison: false,
    })
    .unwrap();
    assert_eq!(two.to_string(), "cpu (scalar, 2 threads)");
}
