//! Vectors as integers: what they stand for, and that no sum of their products overflows.

use super::tests::{arranged, isas_and_vectors, noise};
use super::*;
use kiln_plan::{Format, Mode, Scales};
use proptest::prelude::*;

proptest! {
    #[test]
    fn integers_are_the_numbers_that_they_stand_for(
        pieces in 0usize..4,
        codes in prop::sample::select(vec![1usize, 2, 4]),
        group in prop::sample::select(vec![16usize, 32, 64, 128]),
        excess in prop::sample::select(vec![0, 12]),
        small in 0i32..60,
        seed in any::<u32>(),
    ) {
        let of = Integers { group, excess };
        let order = Order { elements: Elements::Integers(of), lanes: 64, codes };
        let scale = |(i, x): (usize, f32)| if i % 5 == 0 { x * 2f32.powi(-small) } else { x };
        let x = noise(seed, pieces * order.piece());
        let x: Vec<f32> = x.into_iter().enumerate().map(scale).collect();
        for isa in Isa::all() {
            let mut out = vec![f32::NAN; order.floats(x.len())];
            isa.integers(order, of, &x, &mut out);
            let size = 48 * codes + if excess > 0 { 16 } else { 0 };
            let (lines, units) = out.split_at(pieces * size);
            for (i, piece) in x.chunks(order.piece()).enumerate() {
                let (digits, excesses) = lines[i * size..(i + 1) * size].split_at(48 * codes);
                let bytes: &[i8] = bytemuck::cast_slice(digits);
                let mut sums = vec![0; excesses.len()];
                for (j, &element) in piece.iter().enumerate() {
                    let digit = |d| i32::from(bytes[64 * (3 * (j % codes) + d) + j / codes]);
                    let whole = digit(0) + 256 * digit(1) + 65536 * digit(2);
                    let number = (i * order.piece() + j) / group;
                    let unit = f64::from(units[number]);
                    let all = x.chunks(group).nth(number).unwrap();
                    let largest = all.iter().fold(0f32, |a, b| a.max(b.abs()));
                    prop_assert!(unit <= f64::from(largest) * 2f64.powi(-21));
                    prop_assert!((f64::from(whole) * unit - f64::from(element)).abs() <= unit / 2.0);
                    if let Some(sum) = sums.get_mut(j / codes / 4) {
                        *sum -= excess * whole;
                    }
                }
                prop_assert_eq!(bytemuck::cast_slice::<f32, i32>(excesses), &sums);
            }
        }
    }
}

#[test]
fn integers_of_what_is_not_finite_are_nan() {
    let of = Integers {
        group: 32,
        excess: 0,
    };
    let order = Order {
        elements: Elements::Integers(of),
        lanes: 64,
        codes: 2,
    };
    for isa in Isa::all() {
        let mut x = vec![1.0; 128];
        x[3] = f32::INFINITY;
        (x[40], x[41]) = (f32::NAN, 0.0);
        x[64..96].fill(-0.0);
        x[96..].fill(1e-36);
        let mut out = vec![1.0; order.floats(128)];
        isa.integers(order, of, &x, &mut out);
        let units = &out[96..];
        assert!(units[0].is_nan() && units[1].is_nan());
        assert_eq!(units[2..4], [1.0, f32::MIN_POSITIVE]);
    }
}

/// The byte of the largest codes of a format, what they stand for, and the bytes of a scale of 1.
fn largest(format: Format) -> (u8, f32, Vec<u8>) {
    let one = match (format.mode(), format.scales()) {
        (Mode::Nvfp4, _) => vec![0x38],
        (_, Scales::U8) => vec![127],
        (_, Scales::F16) => vec![0, 0x3c],
        (_, Scales::BF16) => vec![0x80, 0x3f],
        (_, Scales::F32) => vec![0, 0, 0x80, 0x3f],
    };
    match format.mode() {
        Mode::Affine => (0xff, ((1u32 << format.bits()) - 1) as f32, one),
        Mode::Mxfp8 => (0x7e, 448.0, one),
        Mode::Mxfp4 | Mode::Nvfp4 => (0x77, 6.0, one),
    }
}

#[test]
fn products_of_the_largest_codes_and_elements_are_exact() {
    for format in Format::all() {
        let (byte, value, one) = largest(format);
        let groups = 2;
        let k = groups * format.group();
        let biases = if format.has_biases() { groups } else { 0 };
        let w = Weights {
            dtype: DType::Quantised(format),
            k,
            data: &vec![byte; format.code_row(k)],
            scales: &one.repeat(groups),
            biases: &vec![0; biases * one.len()],
        };
        // The largest bf16 below 2: in units of its group a little less than 2^22.
        for x in [1.9921875f32, -1.9921875] {
            for (isa, vector) in isas_and_vectors() {
                let order = isa.order(w.dtype, vector);
                let vector = Vector {
                    x: &arranged(order, &vec![x; k]),
                    elements: order.elements,
                    sums: &[format.group() as f32 * x; 16],
                };
                let mut room = vec![f32::NAN; Isa::matvec_room(w.dtype, k, 1)];
                let mut out = [f32::NAN];
                isa.matvec(w, vector, &mut room, &mut out);
                // Up to 256 terms of sixteen bits: every sum of them is exact in f32.
                assert_eq!(out[0], k as f32 * value * x, "{} {format}", isa.name());
            }
        }
    }
}
