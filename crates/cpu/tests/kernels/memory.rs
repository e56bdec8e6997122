//! What is allocated, joined and named.

use crate::{on, random};
use kiln_array::{Array, Bytes, DType, Device, Pairing, Part, Result, Rope};
use kiln_cpu::{Options, device};

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
        ..Options::default()
    })
    .unwrap();
    assert_eq!(two.to_string(), "cpu (scalar, 2 threads)");
}
