//! What works on rows: norms, reductions, copies, table rows, writes.

use crate::{FLOATS, close, defined, everywhere, noise, random, ulp, weights};
use half::{bf16, f16};
use kiln_array::{Array, Bits, DType, Device, Format, Op};

#[test]
fn norms_and_softmax_have_the_bits_of_their_definitions() {
    let eps = Bits::from(1e-5);
    for dtype in FLOATS {
        for n in [1, 7, 64, 577] {
            let x = |device: &Device| random(1, &[5, n], dtype, device);
            defined(0.0, &Op::Softmax, |device| Ok(vec![x(device)?]));
            defined(0.0, &Op::RmsNorm { eps }, |device| {
                Ok(vec![x(device)?, random(2, &[n], DType::F32, device)?])
            });
            let op = Op::LayerNorm { eps };
            defined(0.0, &op, |device| {
                let weight = random(2, &[n], dtype, device)?;
                Ok(vec![x(device)?, weight, random(3, &[n], dtype, device)?])
            });
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
    let results = everywhere(|device| Array::from_slice(&all, &[3, 3000], device)?.argmax(-1));
    results
        .iter()
        .for_each(|result| assert_eq!(result, &[1500.0, 2700.0, 0.0]));
    let results =
        everywhere(|device| Array::from_slice(&[-5i32, 7, -9, 7], &[2, 2], device)?.argmax(-1));
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
        let positions = Array::from_slice(&[2u32, 4, 2, 0], &[4], device)?;
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
