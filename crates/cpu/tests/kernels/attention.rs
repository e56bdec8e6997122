//! Attention and rope.

use crate::{FLOATS, defined, everywhere, random, ulp};
use kiln_array::{Array, Bits, DType, Device, Op, Pairing, Result};

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
    // Of 64 elements, bf16 is multiplied as it is where that is possible.
    let kinds = FLOATS
        .into_iter()
        .flat_map(|d| [16, 64].map(|elements| (d, elements)));
    for ((dtype, elements), window) in kinds.flat_map(|kind| [0, 9].map(|window| (kind, window))) {
        for positions in [vec![70u32], vec![3, 90, 0, 4_000_000], (60..97).collect()] {
            let op = Op::Attention {
                scale: Bits::from(0.3),
                window,
            };
            let t = positions.len();
            defined(2.0 * ulp(dtype), &op, |device| {
                let joint = random(1, &[4, 99, elements], dtype, device)?;
                let keys = joint.slice(0, 0..2)?;
                let some = if elements == 16 { 1..12 } else { 0..elements };
                let values = joint.slice(0, 2..4)?.slice(2, some)?;
                let q = random(2, &[6, elements, t], dtype, device)?
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
    let sizes = [
        (1usize, DType::F32, 16),
        (12, DType::F32, 16),
        (20, DType::F32, 16),
    ];
    for (t, dtype, d) in sizes.into_iter().chain([(20, DType::BF16, 64)]) {
        let clean = |device: &Device, garbage: f32| -> Result<Array> {
            let mut cache = random(1, &[2, 80, d], dtype, device)?.copy()?;
            let hidden: Vec<u32> = (40..80).collect();
            let bad = Array::full(garbage, dtype, &[2, 40, d], device)?;
            cache.write(1, &Array::from_slice(&hidden, &[40], device)?, &bad)?;
            let positions: Vec<u32> = (0..t as u32).map(|i| 39 - 2 * i).collect();
            let q = random(2, &[t, 4, d], dtype, device)?;
            let positions = Array::from_slice(&positions, &[t], device)?;
            q.attention(&cache, &cache, &positions, 0.25, 0)?
                .cast(DType::F32)
        };
        let good = everywhere(|device| clean(device, 0.0));
        assert_eq!(good, everywhere(|device| clean(device, f32::NAN)));
        // A later query sees NaN, which earlier queries must not notice.
        let mixed = everywhere(|device| {
            let mut cache = random(1, &[2, 80, d], dtype, device)?.copy()?;
            let bad = Array::full(f32::NAN, dtype, &[2, 1, d], device)?;
            cache.write(1, &Array::from_slice(&[20u32], &[1], device)?, &bad)?;
            let positions: Vec<u32> = (9..9 + t as u32).collect();
            let q = random(2, &[t, 4, d], dtype, device)?;
            let positions = Array::from_slice(&positions, &[t], device)?;
            q.attention(&cache, &cache, &positions, 0.25, 0)?
                .cast(DType::F32)
        });
        for result in mixed {
            let (before, after) = result.split_at((t * 4 * d).min(11 * 4 * d));
            assert!(before.iter().all(|v| !v.is_nan()));
            assert!(after.iter().all(|v| v.is_nan()));
        }
    }
}
