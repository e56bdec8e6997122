//! NEON: codes become bytes and floats, and rows of weights of every format f32. Loops count indices
//! for the reason given in `neon`.

#![allow(clippy::needless_range_loop)]

use super::Weights;
use super::neon::{bytes16, load, put_four};
use kiln_plan::{DType, E2M1, Format, Mode};
use std::arch::aarch64::*;

/// How codes become floats: looked up among sixteen numbers, as unsigned bytes, as E4M3.
pub(super) const LOOKUP: u8 = 0;
pub(super) const BYTE: u8 = 1;
pub(super) const FLOAT8: u8 = 2;

/// Sixteen bytes from number `at` on; zeros past the end.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn bytes_at(bytes: &[u8], at: usize) -> uint8x16_t {
    let bytes = &bytes[at..];
    match bytes.first_chunk() {
        Some(bytes) => bytes16(bytes),
        None => {
            let mut padded = [0; 16];
            padded[..bytes.len()].copy_from_slice(bytes);
            bytes16(&padded)
        }
    }
}

/// Where codes of `BITS` bits begin.
struct Spread<const BITS: usize>;

impl<const BITS: usize> Spread<BITS> {
    /// The byte that code `i` begins in.
    const BYTES: [u8; 16] = {
        let mut bytes = [0; 16];
        let mut i = 0;
        while i < 16 {
            bytes[i] = (i * BITS / 8) as u8;
            i += 1;
        }
        bytes
    };
    /// The bits of that byte before it.
    const BEFORE: [u8; 16] = {
        let mut before = [0; 16];
        let mut i = 0;
        while i < 16 {
            before[i] = (i * BITS % 8) as u8;
            i += 1;
        }
        before
    };
}

/// The sixteen codes of `BITS` bits that `packed` begins with.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn spread<const BITS: usize>(packed: uint8x16_t) -> uint8x16_t {
    if BITS == 8 {
        return packed;
    }
    let bytes = bytes16(&Spread::<BITS>::BYTES);
    let before = vreinterpretq_s8_u8(bytes16(&Spread::<BITS>::BEFORE));
    // A negative shift is one to the right; one by eight bits leaves nothing.
    let first = vshlq_u8(vqtbl1q_u8(packed, bytes), vnegq_s8(before));
    let next = vqtbl1q_u8(packed, vaddq_u8(bytes, vdupq_n_u8(1)));
    let next = vshlq_u8(next, vsubq_s8(vdupq_n_s8(8), before));
    vandq_u8(vorrq_u8(first, next), mask::<BITS>())
}

#[inline]
#[target_feature(enable = "neon")]
fn mask<const BITS: usize>() -> uint8x16_t {
    vdupq_n_u8(((1u32 << BITS) - 1) as u8)
}

/// Codes that one lane of a register holds: those that fill a byte, or one that is spread.
pub(super) const fn codes(bits: usize) -> usize {
    match bits {
        2 => 4,
        4 => 2,
        _ => 1,
    }
}

/// Code number `code` of each lane.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn step<const BITS: usize>(packed: uint8x16_t, code: usize) -> uint8x16_t {
    if codes(BITS) == 1 {
        return spread::<BITS>(packed);
    }
    let right = vdupq_n_s8(-((code * BITS) as i8));
    vandq_u8(vshlq_u8(packed, right), mask::<BITS>())
}

/// Sixteen bf16, low and high bytes apart.
#[derive(Clone, Copy)]
pub(super) struct Table {
    low: uint8x16_t,
    high: uint8x16_t,
}

const INTEGERS: [[u8; 16]; 2] = {
    let mut values = [0.0; 16];
    let mut i = 0;
    while i < 16 {
        values[i] = i as f32;
        i += 1;
    }
    apart(values)
};
const FLOATS: [[u8; 16]; 2] = apart(E2M1);

/// The low and the high bytes of bf16.
const fn apart(values: [f32; 16]) -> [[u8; 16]; 2] {
    let mut bytes = [[0; 16]; 2];
    let mut i = 0;
    while i < 16 {
        [_, _, bytes[0][i], bytes[1][i]] = values[i].to_bits().to_le_bytes();
        i += 1;
    }
    bytes
}

/// The values of codes of up to four bits, all of which are bf16.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn table(format: Format) -> Table {
    let [low, high] = match format.mode() {
        Mode::Affine => &INTEGERS,
        _ => &FLOATS,
    };
    Table {
        low: bytes16(low),
        high: bytes16(high),
    }
}

/// What sixteen codes stand for.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn values<const VALUES: u8>(codes: uint8x16_t, table: Table) -> [float32x4_t; 4] {
    if VALUES == LOOKUP {
        let (low, high) = (vqtbl1q_u8(table.low, codes), vqtbl1q_u8(table.high, codes));
        let first = vreinterpretq_u16_u8(vzip1q_u8(low, high));
        let last = vreinterpretq_u16_u8(vzip2q_u8(low, high));
        return [
            vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(first))),
            vreinterpretq_f32_u32(vshll_high_n_u16::<16>(first)),
            vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(last))),
            vreinterpretq_f32_u32(vshll_high_n_u16::<16>(last)),
        ];
    }
    let (first, last) = (vmovl_u8(vget_low_u8(codes)), vmovl_high_u8(codes));
    let words = [
        vmovl_u16(vget_low_u16(first)),
        vmovl_high_u16(first),
        vmovl_u16(vget_low_u16(last)),
        vmovl_high_u16(last),
    ];
    let mut values = [vdupq_n_f32(0.0); 4];
    for i in 0..4 {
        values[i] = if VALUES == BYTE {
            vcvtq_f32_u32(words[i])
        } else {
            e4m3(words[i])
        };
    }
    values
}

/// The values of E4M3 codes.
#[inline]
#[target_feature(enable = "neon")]
fn e4m3(codes: uint32x4_t) -> float32x4_t {
    // The sign copied down four bits, cut off again; exponent and mantissa at an f32's places.
    let top = vreinterpretq_s32_u32(vshlq_n_u32::<24>(codes));
    let moved = vreinterpretq_u32_s32(vshrq_n_s32::<4>(top));
    let bits = vandq_u32(moved, vdupq_n_u32(0x87f0_0000));
    let magnitude = vdupq_n_u32(0x07f0_0000);
    let nan = vceqq_u32(vandq_u32(moved, magnitude), magnitude);
    // 2^120 is the difference of the exponents' biases; subnormals come out right as well.
    let value = vmulq_n_f32(vreinterpretq_f32_u32(bits), 2f32.powi(120));
    vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(value), nan))
}

#[target_feature(enable = "neon")]
pub(super) fn dequantise(w: Weights<'_>, start: usize, out: &mut [f32]) {
    let DType::Quantised(format) = w.dtype else {
        let bytes = w.dtype.row_bytes(start)..w.dtype.row_bytes(start + out.len());
        return load(w.dtype, &w.data[bytes], bytemuck::cast_slice_mut(out));
    };
    match (format.mode(), format.bits()) {
        (Mode::Mxfp8, _) => dequantise_of::<8, FLOAT8>(format, w, start, out),
        (_, 1) => dequantise_of::<1, LOOKUP>(format, w, start, out),
        (_, 2) => dequantise_of::<2, LOOKUP>(format, w, start, out),
        (_, 3) => dequantise_of::<3, LOOKUP>(format, w, start, out),
        (_, 4) => dequantise_of::<4, LOOKUP>(format, w, start, out),
        (_, 5) => dequantise_of::<5, BYTE>(format, w, start, out),
        (_, 6) => dequantise_of::<6, BYTE>(format, w, start, out),
        _ => dequantise_of::<8, BYTE>(format, w, start, out),
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn dequantise_of<const BITS: usize, const VALUES: u8>(
    format: Format,
    w: Weights<'_>,
    start: usize,
    out: &mut [f32],
) {
    let table = table(format);
    let first = start / format.group();
    let mut at = start / 8 * BITS;
    let (fours, _) = out.as_chunks_mut::<4>();
    let (blocks, _) = fours.as_chunks_mut::<4>();
    let per_group = format.group() / 16;
    for number in 0..blocks.len() / per_group {
        let group = first + number;
        let scale = vdupq_n_f32(format.scale(w.scales, group));
        let bias = if format.has_biases() {
            format.scale(w.biases, group)
        } else {
            0.0
        };
        for i in number * per_group..(number + 1) * per_group {
            let values = values::<VALUES>(spread::<BITS>(bytes_at(w.data, at)), table);
            at += 2 * BITS;
            for j in 0..4 {
                let scaled = vmulq_f32(values[j], scale);
                // Without a bias nothing is added: -0.0 stays.
                let value = if format.has_biases() {
                    vaddq_f32(scaled, vdupq_n_f32(bias))
                } else {
                    scaled
                };
                put_four(&mut blocks[i][j], value);
            }
        }
    }
}
