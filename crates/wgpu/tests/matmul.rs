//! Products on every kernel, with every format of weights, at the edges of tiles, against loops in
//! f64.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test panics, and one that cannot run says so"
)]

use half::{bf16, f16};
use kiln_array::{Array, Bytes, DType, Device, Format, Part, Scalar, Scales};
use kiln_wgpu::{Choice, Gpu, Options};

const FLOATS: [DType; 3] = [DType::F16, DType::BF16, DType::F32];

/// A small reproducible generator (xorshift).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    fn number(&mut self, size: f32) -> f32 {
        (self.bits() % 20001) as f32 / 10000.0 * size - size
    }
}

/// The devices under test: what the adapter offers, and less of it. None without an adapter.
fn devices() -> Vec<(String, Device)> {
    if kiln_wgpu::adapters().is_empty() {
        println!("skipped: there is no adapter");
        return Vec::new();
    }
    let base = Options {
        adapter: Choice::Index(0),
        poison: true,
        checked: false,
        ..Options::default()
    };
    let all = [
        base.clone(),
        Options {
            matrices: false,
            ..base.clone()
        },
        Options {
            subgroups: false,
            checked: true,
            ..base.clone()
        },
        Options {
            binding: Some(68 << 10),
            ..base
        },
    ];
    let device = |options: &Options| {
        let gpu = Gpu::new(options).unwrap();
        let name = format!(
            "{gpu}, subgroups {:?}, matrices {:?}, binding {:?}",
            gpu.subgroup(),
            gpu.matrix(),
            options.binding
        );
        (name, Device::new(gpu))
    };
    all.iter().map(device).collect()
}

fn bytes(dtype: DType, values: &[f32]) -> Vec<u8> {
    let element = |&v: &f32| match dtype {
        DType::F16 => f16::from_f32(v).to_le_bytes().to_vec(),
        DType::BF16 => bf16::from_f32(v).to_le_bytes().to_vec(),
        _ => v.to_le_bytes().to_vec(),
    };
    values.iter().flat_map(element).collect()
}

/// Random elements of a plain dtype, as it holds them.
fn plain(dtype: DType, count: usize, random: &mut Random) -> Vec<f32> {
    (0..count)
        .map(|_| dtype.round(random.number(2.0)))
        .collect()
}

/// Weights on a device: their values, and the sizes of what those are sums of.
struct Weights {
    array: Array,
    values: Vec<f32>,
    sizes: Vec<f32>,
}

impl Weights {
    fn new(
        dtype: DType,
        shape: &[usize],
        random: &mut Random,
        device: &Device,
    ) -> kiln_array::Result<Weights> {
        if let DType::Quantised(format) = dtype {
            return Weights::quantised(format, shape[0], shape[1], random, device);
        }
        let values = plain(dtype, shape.iter().product(), random);
        Ok(Weights {
            array: Array::from_bytes(dtype, shape, bytes(dtype, &values).into(), device)?,
            sizes: values.iter().map(|v| v.abs()).collect(),
            values,
        })
    }

    fn quantised(
        format: Format,
        n: usize,
        k: usize,
        random: &mut Random,
        device: &Device,
    ) -> kiln_array::Result<Weights> {
        let mut codes: Vec<u8> = (0..n * format.code_row(k))
            .map(|_| random.bits() as u8)
            .collect();
        if format == Format::MXFP8 {
            // These bytes are NaN.
            codes
                .iter_mut()
                .for_each(|c| *c -= u8::from(*c & 127 == 127));
        }
        let groups = n * k / format.group();
        let mut plane = |size: f32| -> Vec<u8> {
            let numbers: Vec<f32> = (0..groups).map(|_| random.number(size)).collect();
            match format.scales() {
                Scales::U8 if format == Format::NVFP4 => {
                    numbers.iter().map(|v| 56 + (v * 20.0) as u8).collect()
                }
                Scales::U8 => numbers.iter().map(|v| (124.0 + v * 4.0) as u8).collect(),
                _ => bytes(format.dequantised(), &numbers),
            }
        };
        let scales = plane(1.0);
        let biases = if format.has_biases() {
            plane(0.5)
        } else {
            Vec::new()
        };
        let (mut values, mut sizes) = (vec![0.0; n * k], Vec::new());
        for row in 0..n {
            let codes = &codes[row * format.code_row(k)..];
            let at = row * format.scale_row(k);
            let biases = biases.get(at..).unwrap_or_default();
            let out = &mut values[row * k..(row + 1) * k];
            format.dequantise(codes, &scales[at..], biases, 0, out);
            for (i, value) in out.iter().enumerate() {
                let bias = if format.has_biases() {
                    format.scale(biases, i / format.group())
                } else {
                    0.0
                };
                sizes.push((value - bias).abs() + bias.abs());
            }
        }
        let part = Part {
            rows: n,
            data: Bytes::from(codes),
            scales: Some(Bytes::from(scales)),
            biases: format.has_biases().then(|| Bytes::from(biases)),
        };
        let dtype = DType::Quantised(format);
        Ok(Weights {
            array: Array::from_parts(dtype, &[n, k], vec![part], device)?,
            values,
            sizes,
        })
    }
}

/// Sums of products in f64, and by how much f32 may miss them.
fn expected(x: &[f32], w: &Weights, [batch, t, n, k]: [usize; 4]) -> Vec<(f64, f64)> {
    let shared = w.values.len() == n * k;
    let error = (16.0 + k as f64 / 2.0) * 2f64.powi(-24);
    let element = |i: usize| {
        let (line, column) = (i / n, i % n);
        let row = column + if shared { 0 } else { line / t * n };
        let terms = (0..k).map(|j| (f64::from(x[line * k + j]), row * k + j));
        terms.fold((0.0, 0.0), |(sum, slack), (x, j)| {
            let size = x.abs() * f64::from(w.sizes[j]);
            (sum + x * f64::from(w.values[j]), slack + size * error)
        })
    };
    (0..batch * t * n).map(element).collect()
}

/// Half a unit in the last place of a dtype, as a share of the number.
fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
        _ => 2f64.powi(-24),
    }
}

fn compare(what: &str, y: &Array, expected: &[(f64, f64)]) {
    let found = y.cast(DType::F32).unwrap().to_vec::<f32>();
    let found = found.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (&found, &(value, slack))) in found.iter().zip(expected).enumerate() {
        let slack = slack + rounding(y.dtype()) * (value.abs() + slack);
        let right = (f64::from(found) - value).abs() <= slack;
        assert!(
            right,
            "{what}: element {i} is {found}, not {value} ± {slack}"
        );
    }
}

/// One product of random operands; `offset` elements of `x` lie before it.
fn check(name: &str, device: &Device, x: DType, w: DType, sizes: [usize; 4], offset: usize) {
    let [batch, t, n, k] = sizes;
    let what = format!("{x} · {w}, {sizes:?}, x from {offset} on {name}");
    let mut random = Random(0x9e37_79b9 + (t * 1000 + n * 10 + k) as u64);
    let lines = batch * t;
    let values = plain(x, offset + lines * k, &mut random);
    let length = values.len();
    let all = Array::from_bytes(x, &[length], bytes(x, &values).into(), device).unwrap();
    let cut = all.slice(0, offset..length).unwrap();
    let (shape, rows) = match batch {
        1 => (vec![t, k], vec![n, k]),
        _ => (vec![batch, t, k], vec![batch, n, k]),
    };
    let cut = cut.reshape(&shape).unwrap();
    let w = Weights::new(w, &rows, &mut random, device).unwrap();
    let y = cut.matmul(&w.array).unwrap();
    compare(&what, &y, &expected(&values[offset..], &w, sizes));
}

#[test]
fn plain_weights_at_every_edge() {
    for (name, device) in devices() {
        for (i, &x) in FLOATS.iter().enumerate() {
            for (j, &w) in FLOATS.iter().enumerate() {
                for k in [1, 7, 8, 31, 32, 40, 64, 65, 200] {
                    for (t, n) in [(1, 1), (2, 5), (5, 12), (8, 9), (9, 33), (40, 3), (70, 70)] {
                        check(&name, &device, x, w, [1, t, n, k], 0);
                    }
                }
                check(&name, &device, x, w, [1, 3 + i, 6, 32], 1 + j);
                check(&name, &device, x, w, [1, 13 + i, 6, 32], 1 + j);
                check(&name, &device, x, w, [1, 33, 6, 96], 8);
                check(&name, &device, x, w, [1, 1, 10, 1024 + 8 * i], 16);
            }
        }
    }
}

#[test]
fn weights_with_batches() {
    for (name, device) in devices() {
        for x in FLOATS {
            for w in FLOATS {
                for sizes in [[3, 1, 5, 32], [2, 17, 66, 32], [3, 25, 6, 64], [2, 9, 8, 9]] {
                    check(&name, &device, x, w, sizes, 0);
                }
                check(&name, &device, x, w, [2, 65, 65, 96], 0);
            }
        }
    }
}

/// Every format on the first device and every fourth on the others, with lines of changing dtypes.
fn formats(check: impl Fn(usize, &str, &Device, DType, Format)) {
    for (number, (name, device)) in devices().iter().enumerate() {
        let step = if number == 0 { 1 } else { 4 };
        for (i, format) in Format::all().into_iter().enumerate().step_by(step) {
            check(i, name, device, FLOATS[(i + i / 3 + number) % 3], format);
        }
    }
}

#[test]
fn every_format_for_few_lines() {
    formats(|i, name, device, x, format| {
        for (lines, groups) in [([1, 2, 4][i % 3], 1), ([7, 1, 2][i % 3], 37)] {
            let sizes = [1, lines, [6, 1, 13][i / 3 % 3], groups * format.group()];
            check(name, device, x, DType::Quantised(format), sizes, 0);
        }
    });
}

#[test]
fn every_format_for_many_lines() {
    formats(|i, name, device, x, format| {
        for (lines, groups) in [([9, 33, 17, 66][i % 4], 4), (20, 1)] {
            let sizes = [1, lines, [6, 70, 1][i / 3 % 3], groups * format.group()];
            check(name, device, x, DType::Quantised(format), sizes, 0);
        }
    });
}

#[test]
fn tables_in_pieces() {
    for (name, device) in devices() {
        let formats = [Format::affine(4, 64, DType::F16).unwrap(), Format::MXFP8];
        for w in formats.map(DType::Quantised).into_iter().chain(FLOATS) {
            for lines in [1, 3, 20, 30] {
                check(&name, &device, DType::F16, w, [1, lines, 301, 512], 0);
            }
        }
    }
}

#[test]
fn what_is_behind_a_product() {
    for (name, device) in devices() {
        let q4 = DType::Quantised(Format::affine(4, 32, DType::F32).unwrap());
        for (x, w) in [
            (DType::F16, DType::F16),
            (DType::BF16, q4),
            (DType::F32, q4),
        ] {
            for (t, n, k) in [(1, 12, 64), (3, 9, 32), (30, 67, 96), (2, 6, 12)] {
                if k % 32 != 0 && w.is_quantised() {
                    continue;
                }
                let what = format!("{x} · {w}, {t} {n} {k} on {name}");
                let mut random = Random(77);
                let values = plain(x, t * k, &mut random);
                let lines = Array::from_bytes(x, &[t, k], bytes(x, &values).into(), &device);
                let w = Weights::new(w, &[n, k], &mut random, &device).unwrap();
                let product = || lines.as_ref().unwrap().matmul(&w.array).unwrap();
                let wanted = expected(&values, &w, [1, t, n, k]);
                let bias = plain(DType::F32, n, &mut random);
                let on = Array::from_slice(&bias, &[n], &device).unwrap();
                let dtype = product().dtype();
                let sum = (product().cast(DType::F32).unwrap() + on).unwrap();
                let added = wanted.iter().enumerate().map(|(i, &(value, slack))| {
                    let slack = slack + rounding(dtype) * (value.abs() + slack);
                    (value + f64::from(bias[i % n]), slack)
                });
                compare(&what, &sum, &added.collect::<Vec<_>>());
                let negative = product().with_number(Scalar::Less, 0).unwrap();
                let found: Vec<f32> = negative.cast(DType::F32).unwrap().to_vec().unwrap();
                for (i, (found, (value, slack))) in found.iter().zip(&wanted).enumerate() {
                    let sure = value.abs() > 2.0 * slack + 1e-6;
                    let right = f32::from(u8::from(*value < 0.0));
                    assert!(!sure || *found == right, "{what}: {i}: {found}, {value}");
                }
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_in_its_line_and_column() {
    for (name, device) in devices() {
        for t in [3, 12, 30] {
            let (n, k) = (9, 64);
            let mut x = vec![1.0f32; t * k];
            x[k + 3] = f32::INFINITY;
            let mut w = vec![0.5f32; n * k];
            w[5 * k + 60] = f32::NAN;
            for dtype in FLOATS {
                let of = |shape: &[usize], values: &[f32]| {
                    Array::from_bytes(dtype, shape, bytes(dtype, values).into(), &device).unwrap()
                };
                let y = of(&[t, k], &x).matmul(&of(&[n, k], &w)).unwrap();
                let y = y.cast(DType::F32).unwrap().to_vec::<f32>().unwrap();
                for (i, value) in y.into_iter().enumerate() {
                    let right = match (i / n, i % n) {
                        (_, 5) => value.is_nan(),
                        (1, _) => value == f32::INFINITY,
                        _ => value == 32.0,
                    };
                    assert!(
                        right,
                        "{dtype}, {t} lines on {name}: element {i} is {value}"
                    );
                }
            }
        }
    }
}
