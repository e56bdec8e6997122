//! Affine groups: `weight ≈ scale · code + bias`.

use super::Quantised;
use half::{bf16, f16};
use kiln_array::{DType, Format};

const LEAST: f32 = 1e-7;
// Added to a number below 2^22, it leaves the number's nearest integer in the low bits of the sum.
const ROUND: f32 = 8_388_608.0;

/// Appends the groups of `values` to `out`. Codes are found with the scale and the bias in f32, as
/// they are before they are rounded to `dtype`.
pub(super) fn quantise(values: &[f32], format: Format, dtype: DType, out: &mut Quantised) {
    let bits = format.bits();
    for group in values.chunks_exact(format.group()) {
        let (scale, bias) = if bits == 1 {
            range(group)
        } else {
            edge(group, bits)
        };
        write(scale, dtype, &mut out.scales);
        write(bias, dtype, &mut out.biases);
        encode(group, scale, bias, bits, &mut out.codes);
    }
}

/// With one bit, the codes are the least and the greatest weight.
fn range(group: &[f32]) -> (f32, f32) {
    let (least, greatest) = extremes(group);
    // Of two zeros the first one, whose sign a file shows.
    let bias = group
        .iter()
        .copied()
        .find(|&weight| weight == least)
        .unwrap_or(least);
    ((greatest - least).max(LEAST), bias)
}

/// With more bits, the weight of the largest magnitude gets code 0, and zero a code of its own: the
/// scale is stretched until it divides that weight. The scale is negative where that weight is
/// positive.
fn edge(group: &[f32], bits: usize) -> (f32, f32) {
    let (least, greatest) = extremes(group);
    let steps = ((1u32 << bits) - 1) as f32;
    let scale = ((greatest - least) / steps).max(LEAST);
    let negative = least.abs() > greatest.abs();
    let (scale, edge) = if negative {
        (scale, least)
    } else {
        (-scale, greatest)
    };
    let zero = (edge / scale).round_ties_even();
    if zero != 0.0 {
        (edge / zero, edge)
    } else {
        (scale, 0.0)
    }
}

fn extremes(group: &[f32]) -> (f32, f32) {
    const LANES: usize = 8;
    let mut least = [f32::INFINITY; LANES];
    let mut greatest = [f32::NEG_INFINITY; LANES];
    for eight in group.as_chunks::<LANES>().0 {
        for ((least, greatest), &weight) in least.iter_mut().zip(&mut greatest).zip(eight) {
            *least = if weight < *least { weight } else { *least };
            *greatest = if weight > *greatest {
                weight
            } else {
                *greatest
            };
        }
    }
    let least = least.into_iter().fold(f32::INFINITY, f32::min);
    (
        least,
        greatest.into_iter().fold(f32::NEG_INFINITY, f32::max),
    )
}

/// `clamp(rint((weight - bias) / scale))`; clamping first gives the same and keeps numbers small.
fn encode(group: &[f32], scale: f32, bias: f32, bits: usize, codes: &mut Vec<u8>) {
    let most = ((1u32 << bits) - 1) as f32;
    for eight in group.as_chunks::<8>().0 {
        let numbers = eight.map(|weight| {
            let code = (weight - bias) / scale;
            let code = if code > 0.0 { code } else { 0.0 };
            let code = if code < most { code } else { most };
            (code + ROUND).to_bits() & 0xff
        });
        let mut packed = 0u64;
        for (place, number) in numbers.into_iter().enumerate() {
            packed |= u64::from(number) << (place * bits);
        }
        codes.extend_from_slice(&packed.to_le_bytes()[..bits]);
    }
}

fn write(value: f32, dtype: DType, out: &mut Vec<u8>) {
    match dtype {
        DType::F16 => out.extend(f16::from_f32(value).to_le_bytes()),
        DType::BF16 => out.extend(bf16::from_f32(value).to_le_bytes()),
        _ => out.extend(value.to_le_bytes()),
    }
}
