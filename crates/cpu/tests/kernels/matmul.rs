//! Matmul of every format, size and number of tokens.

use crate::{close, everywhere, noise, random, weights};
use kiln_array::{Array, DType, Device, Format, Result};
use kiln_cpu::{Error, Options, Precision, instruction_sets};

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
fn a_unit_of_several_panels_and_parts_is_right() {
    // So many rows that a unit has more than one panel of them.
    let (n, t) = (1100, 40);
    for (bits, group, k) in [(4, 32, 384), (4, 64, 640), (8, 128, 640), (3, 64, 320)] {
        let format = Format::affine(bits, group, DType::F32).unwrap();
        let (parts, values) = weights(format, &[300, 7, 793], k, bits as u64);
        let cut = |x: &f32| f32::from_bits(x.to_bits() & 0xffff_0000);
        let x: Vec<f32> = noise(5, t * k).iter().map(cut).collect();
        let exact = product(&x, &values, k);
        for dtype in [DType::BF16, DType::F16, DType::F32] {
            let results = everywhere(|device| {
                let w = DType::Quantised(format);
                let w = Array::from_parts(w, &[n, k], parts.clone(), device)?;
                let x = Array::from_slice(&x, &[t, k], device)?.cast(dtype)?;
                x.matmul(&w)?.cast(DType::F32)
            });
            // f32 sums of 640 products, codes and biases apart, of up to 256 times 1.
            results
                .iter()
                .for_each(|result| close(result, &exact, 2e-2));
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
                    ..Options::default()
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

/// How the softmax of `x · wᵀ` changes when row 0 of `x` is replaced, in place. (An epilogue would
/// move the first product behind the change.)
fn twice(device: &Device, t: usize) -> Result<Array> {
    let mut x = random(1, &[t, 32], DType::F32, device)?.silu()?;
    let w = random(2, &[8, 32], DType::F32, device)?;
    let before = x.matmul(&w)?.softmax(-1)?;
    let zero = Array::from_slice(&[0u32], &[1], device)?;
    x.write(0, &zero, &Array::zeros(DType::F32, &[1, 32], device)?)?;
    before - x.matmul(&w)?.softmax(-1)?
}

#[test]
fn vectors_changed_in_place_are_prepared_anew() {
    for t in [2, 9] {
        for result in everywhere(|device| twice(device, t)) {
            let (first, rest) = result.split_at(8);
            assert!(first.iter().all(|v| *v != 0.0) && rest.iter().all(|v| *v == 0.0));
        }
    }
}

/// `x · wᵀ` on an instruction set, if it has this precision.
fn with_precision(
    isa: &str,
    precision: Precision,
    product: impl Fn(&Device) -> Result<Array>,
) -> Option<Vec<f32>> {
    let device = |threads| {
        kiln_cpu::device(Options {
            isa: Some(isa),
            threads: Some(threads),
            precision,
            poison: true,
        })
    };
    let run = |device: &Device| product(device).unwrap().to_vec::<f32>().unwrap();
    let one = match device(1) {
        Err(Error::NoFast { .. }) => return None,
        device => run(&device.unwrap()),
    };
    assert_eq!(run(&device(3).unwrap()), one, "{isa}: threads");
    Some(one)
}

#[test]
fn fast_prompts_are_near_the_exact_ones_and_all_else_is_exact() {
    let mut found = 0;
    for (bits, group, k) in [(4, 64, 640), (8, 128, 384), (3, 64, 192), (4, 32, 640)] {
        let format = Format::affine(bits, group, DType::F32).unwrap();
        let (parts, _) = weights(format, &[70, 7], k, bits as u64);
        for t in [1, 8, 45] {
            let x = noise(9, t * k);
            for isa in instruction_sets() {
                let product = |device: &Device| {
                    let dtype = DType::Quantised(format);
                    let w = Array::from_parts(dtype, &[77, k], parts.clone(), device)?;
                    Array::from_slice(&x, &[t, k], device)?.matmul(&w)
                };
                let exact = with_precision(isa, Precision::Exact, product).unwrap();
                let Some(fast) = with_precision(isa, Precision::Fast, product) else {
                    continue;
                };
                if t <= 8 || group == 32 {
                    assert_eq!(
                        fast, exact,
                        "{isa}: {bits} bits, groups of {group}, {t} tokens"
                    );
                    continue;
                }
                found += 1;
                let squares = |x: &mut dyn Iterator<Item = f32>| -> f64 {
                    x.map(|x| f64::from(x) * f64::from(x)).sum()
                };
                let error = squares(&mut fast.iter().zip(&exact).map(|(a, b)| a - b));
                let error = error / squares(&mut exact.iter().copied());
                // Elements are even in -1..1: a unit is 1/127, its roundings have a variance of a
                // twelfth of its square, the elements of 1/3. Biases meet exact sums, so codes
                // can only lose more where biases cancel them, which these do not.
                let expected = 3.0 / (12.0 * 127.0 * 127.0);
                assert!(error > 0.0, "{isa}: nothing was rounded");
                assert!(
                    error < 4.0 * expected,
                    "{isa}: {error:e} of the square, {expected:e}"
                );
            }
        }
    }
    let has = instruction_sets()
        .iter()
        .any(|isa| ["amx", "avx512vnni", "avx512bf16"].contains(isa));
    assert_eq!(found > 0, has);
}
