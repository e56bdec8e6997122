//! Affine groups: `weight ≈ scale · code + bias`.

use super::Quantised;
use super::round::Round;
use half::{bf16, f16};
use kiln_cpu::{Work, widest};
use kiln_plan::{DType, Format};

const LEAST: f32 = 1e-7;
// Added to a number below 2^22, it leaves the number's nearest integer in the low bits of the sum.
const ROUND: f32 = 8_388_608.0;

/// Weights that are worked on side by side; every group consists of such.
const SIDES: usize = 32;

/// Appends the groups of `values` to `out`, and writes to `restored` what they stand for. Codes are
/// found with the scale and the bias in f32, as they are before they are rounded to `dtype`.
pub(super) fn quantise(
    values: &[f32],
    format: Format,
    dtype: DType,
    out: &mut Quantised,
    restored: &mut [f32],
) {
    let groups = Groups {
        values,
        size: format.group(),
        dtype,
        out,
        restored,
    };
    match format.bits() {
        1 => widest(OfBits::<1>(groups)),
        2 => widest(OfBits::<2>(groups)),
        3 => widest(OfBits::<3>(groups)),
        4 => widest(OfBits::<4>(groups)),
        5 => widest(OfBits::<5>(groups)),
        6 => widest(OfBits::<6>(groups)),
        _ => widest(OfBits::<8>(groups)),
    }
}

struct Groups<'a> {
    values: &'a [f32],
    size: usize,
    dtype: DType,
    out: &'a mut Quantised,
    restored: &'a mut [f32],
}

struct OfBits<'a, const BITS: usize>(Groups<'a>);

impl<const BITS: usize> Work for OfBits<'_, BITS> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        match self.0.dtype {
            DType::F16 => self.0.each::<BITS>(Round::F16),
            DType::BF16 => self.0.each::<BITS>(Round::BF16),
            _ => self.0.each::<BITS>(Round::F32),
        }
    }
}

impl Groups<'_> {
    #[inline(always)]
    fn each<const BITS: usize>(self, round: Round) {
        let Quantised {
            codes,
            scales,
            biases,
        } = self.out;
        let start = codes.len();
        codes.resize(start + self.values.len() * BITS / 8, 0);
        let groups = self.values.chunks_exact(self.size);
        let codes = codes[start..].chunks_exact_mut(self.size * BITS / 8);
        let restored = self.restored.chunks_exact_mut(self.size);
        for ((group, codes), restored) in groups.zip(codes).zip(restored) {
            let (scale, bias) = if BITS == 1 {
                range(group)
            } else {
                edge(group, BITS)
            };
            write(scale, self.dtype, scales);
            write(bias, self.dtype, biases);
            let stored = (round.apply(scale), round.apply(bias));
            let parts = group.as_chunks::<SIDES>().0.iter();
            let codes = codes.chunks_exact_mut(SIDES * BITS / 8);
            let restored = restored.as_chunks_mut::<SIDES>().0;
            for ((weights, codes), restored) in parts.zip(codes).zip(restored) {
                let numbers = encode::<BITS>(weights, scale, bias);
                for (restored, &number) in restored.iter_mut().zip(&numbers) {
                    let product = round.apply(stored.0 * number as f32);
                    *restored = round.apply(product + stored.1);
                }
                pack::<BITS>(&numbers, codes);
            }
        }
    }
}

/// With one bit, the codes are the least and the greatest weight.
#[inline(always)]
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
#[inline(always)]
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

#[inline(always)]
fn extremes(group: &[f32]) -> (f32, f32) {
    let mut least = [f32::INFINITY; SIDES];
    let mut greatest = [f32::NEG_INFINITY; SIDES];
    for weights in group.as_chunks::<SIDES>().0 {
        for ((least, greatest), &weight) in least.iter_mut().zip(&mut greatest).zip(weights) {
            *least = if weight < *least { weight } else { *least };
            *greatest = if weight > *greatest {
                weight
            } else {
                *greatest
            };
        }
    }
    // Halves at a time, so that vectors stay vectors.
    let mut width = SIDES / 2;
    while width > 0 {
        for side in 0..width {
            let (low, high) = (least[side + width], greatest[side + width]);
            least[side] = if low < least[side] { low } else { least[side] };
            greatest[side] = if high > greatest[side] {
                high
            } else {
                greatest[side]
            };
        }
        width /= 2;
    }
    (least[0], greatest[0])
}

/// `clamp(rint((weight - bias) / scale))`; clamping first gives the same and keeps numbers small.
#[inline(always)]
fn encode<const BITS: usize>(weights: &[f32; SIDES], scale: f32, bias: f32) -> [u32; SIDES] {
    let most = ((1u32 << BITS) - 1) as f32;
    let mut numbers = [0; SIDES];
    for (number, &weight) in numbers.iter_mut().zip(weights) {
        let code = (weight - bias) / scale;
        let code = if code > 0.0 { code } else { 0.0 };
        let code = if code < most { code } else { most };
        *number = (code + ROUND).to_bits() & 0xff;
    }
    numbers
}

/// A bit stream, the lowest bits first: eight codes lie in as many bytes as a code has bits.
#[inline(always)]
fn pack<const BITS: usize>(numbers: &[u32; SIDES], out: &mut [u8]) {
    let bytes = numbers.map(|number| number as u8);
    if BITS == 4 {
        for (out, pair) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
            let pair = u16::from_le_bytes(*pair);
            *out = (pair | pair >> 4) as u8;
        }
        return;
    }
    for (out, eight) in out.chunks_exact_mut(BITS).zip(bytes.as_chunks::<8>().0) {
        let mut packed = 0u64;
        for (place, &number) in eight.iter().enumerate() {
            packed |= u64::from(number) << (place * BITS);
        }
        out.copy_from_slice(&packed.to_le_bytes()[..BITS]);
    }
}

fn write(value: f32, dtype: DType, out: &mut Vec<u8>) {
    match dtype {
        DType::F16 => out.extend(f16::from_f32(value).to_le_bytes()),
        DType::BF16 => out.extend(bf16::from_f32(value).to_le_bytes()),
        _ => out.extend(value.to_le_bytes()),
    }
}
