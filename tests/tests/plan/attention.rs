//! What attention must not touch.

use kiln_array::{Array, Device, Result};
use kiln_tests::{devices, numbers_of};

/// A cache of one group whose entries from `first` on are NaN, and queries at positions from `at`.
fn over_holes(
    device: &Device,
    first: usize,
    at: u32,
    tokens: u32,
    window: usize,
) -> Result<Vec<f64>> {
    const CAPACITY: usize = 100;
    let entries = |value: f32| {
        let of = |i| if i < 5 || i >= first { f32::NAN } else { value };
        let entries: Vec<f32> = (0..CAPACITY).flat_map(|i| [of(i); 8]).collect();
        Array::from_slice(&entries, &[1, CAPACITY, 8], device)
    };
    let positions: Vec<u32> = (at..at + tokens).collect();
    let positions = Array::from_slice(&positions, &[tokens as usize], device)?;
    let q = Array::full(
        0.5,
        kiln_array::DType::F32,
        &[tokens as usize, 2, 8],
        device,
    )?;
    numbers_of(&q.attention(&entries(1.0)?, &entries(10.0)?, &positions, 1.0, window)?)
}

fn kernels() -> Vec<Device> {
    devices::best()
        .into_iter()
        .chain(devices::each_isa())
        .collect()
}

#[test]
fn one_query_does_not_read_what_it_does_not_see() -> Result<()> {
    for device in kernels() {
        for window in 1..=90 {
            let seen = over_holes(&device, 96, 95, 1, window)?;
            assert!(
                seen.iter().all(|v| (v - 10.0).abs() < 1e-4),
                "{device}, {window}: {seen:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_query_does_not_read_what_only_later_ones_see() -> Result<()> {
    for device in kernels() {
        for tokens in [2, 8, 40] {
            // Of 40 queries the last two see a hole.
            let seen = over_holes(&device, 50 + tokens - 2, 50, tokens as u32, 20)?;
            let (before, last) = seen.split_at(seen.len() - 2 * 16);
            let right = before.iter().all(|v| (v - 10.0).abs() < 1e-4);
            assert!(right, "{device}, {tokens} tokens: {before:?}");
            assert!(
                last.iter().all(|v| v.is_nan()),
                "{device}, {tokens} tokens: {last:?}"
            );
        }
    }
    Ok(())
}
