//! The table for NEON, which every 64-bit ARM processor has. Elementwise loops are the scalar ones,
//! which are compiled for these instructions anyway; what is here differs from them.
//!
//! Loops that matter count indices: iterator adapters and closures are not inlined reliably into
//! functions that name their instructions.

#![allow(clippy::needless_range_loop)]

use super::neon_codes::dequantise;
use super::neon_products::{COLUMNS, ROWS, dots, mix, tile, turn};
use super::neon_rows::{matvec, order};
use super::{Isa, integers, scalar};
use kiln_plan::{DType, Kind, math};
use std::arch::aarch64::*;

pub(super) const TABLE: Isa = Isa {
    name: "neon",
    available,
    preferred: || true,
    load,
    store,
    cast,
    apply: scalar::apply,
    sum,
    sum_squares,
    max,
    exp_sum,
    dots,
    mix,
    order,
    integers: integers::store,
    matvec,
    dequantise,
    tile,
    tile_rows: ROWS,
    tile_columns: COLUMNS,
    turn,
    pairs: None,
    quads: None,
};

/// Elements lie in memory with their lowest byte first, and so must registers.
pub(super) fn available() -> bool {
    cfg!(target_endian = "little")
}

/// Element types that [`wide`] reads.
pub(super) const F32: u8 = 0;
pub(super) const F16: u8 = 1;
pub(super) const BF16: u8 = 2;

/// Eight numbers.
pub(super) type Eight = [float32x4_t; 2];

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn zero() -> Eight {
    [vdupq_n_f32(0.0); 2]
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn bytes16(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: 16 bytes, any alignment.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn four(values: &[f32; 4]) -> float32x4_t {
    // SAFETY: four floats.
    unsafe { vld1q_f32(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn put_four(out: &mut [f32; 4], values: float32x4_t) {
    // SAFETY: room for four floats.
    unsafe { vst1q_f32(out.as_mut_ptr(), values) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn floats(values: &[f32; 8]) -> Eight {
    let (fours, _) = values.as_chunks::<4>();
    [four(&fours[0]), four(&fours[1])]
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn put(out: &mut [f32; 8], values: Eight) {
    let (fours, _) = out.as_chunks_mut::<4>();
    put_four(&mut fours[0], values[0]);
    put_four(&mut fours[1], values[1]);
}

/// Numbers that do not fill eight: the rest are zeros.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn floats_rest(values: &[f32]) -> Eight {
    let mut padded = [0.0; 8];
    padded[..values.len()].copy_from_slice(values);
    floats(&padded)
}

/// The first lanes, as many as there is room for.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn put_rest(out: &mut [f32], values: Eight) {
    let mut eight = [0.0; 8];
    put(&mut eight, values);
    out.copy_from_slice(&eight[..out.len()]);
}

/// `sum + a · b`, rounded once.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn fused(sum: Eight, a: Eight, b: Eight) -> Eight {
    [vfmaq_f32(sum[0], a[0], b[0]), vfmaq_f32(sum[1], a[1], b[1])]
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn plus(a: Eight, b: Eight) -> Eight {
    [vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1])]
}

/// The sum of all lanes of four times eight numbers.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn total([a, b, c, d]: [Eight; 4]) -> f32 {
    let [low, high] = plus(plus(a, b), plus(c, d));
    vaddvq_f32(vaddq_f32(low, high))
}

/// Eight elements of type `T`, `BYTES` bytes together, in f32.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn wide<const T: u8, const BYTES: usize>(bytes: &[u8; BYTES]) -> Eight {
    const { assert!(BYTES == if T == F32 { 32 } else { 16 }) };
    let (lines, _) = bytes.as_chunks::<16>();
    if T == F32 {
        let (low, high) = (bytes16(&lines[0]), bytes16(&lines[1]));
        return [vreinterpretq_f32_u8(low), vreinterpretq_f32_u8(high)];
    }
    widened::<T>(vreinterpretq_u16_u8(bytes16(&lines[0])))
}

#[inline]
#[target_feature(enable = "neon")]
fn widened<const T: u8>(halves: uint16x8_t) -> Eight {
    if T == F16 {
        let halves = vreinterpretq_f16_u16(halves);
        return [
            vcvt_f32_f16(vget_low_f16(halves)),
            vcvt_high_f32_f16(halves),
        ];
    }
    [
        vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(halves))),
        vreinterpretq_f32_u32(vshll_high_n_u16::<16>(halves)),
    ]
}

/// The elements that do not fill eight: the rest are zeros.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn wide_rest<const T: u8, const BYTES: usize>(bytes: &[u8]) -> Eight {
    let mut padded = [0; BYTES];
    padded[..bytes.len()].copy_from_slice(bytes);
    wide::<T, BYTES>(&padded)
}

#[target_feature(enable = "neon")]
pub(super) fn load(dtype: DType, bytes: &[u8], out: &mut [u32]) {
    match dtype {
        DType::F16 => load_of::<F16>(bytes, bytemuck::cast_slice_mut(out)),
        DType::BF16 => load_of::<BF16>(bytes, bytemuck::cast_slice_mut(out)),
        _ => scalar::load(dtype, bytes, out),
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_of<const T: u8>(bytes: &[u8], out: &mut [f32]) {
    let (blocks, rest) = bytes.as_chunks::<16>();
    let (eights, out_rest) = out.as_chunks_mut::<8>();
    for i in 0..blocks.len().min(eights.len()) {
        put(&mut eights[i], wide::<T, 16>(&blocks[i]));
    }
    put_rest(out_rest, wide_rest::<T, 16>(rest));
}

/// Eight numbers rounded to `T`, F16 or BF16.
#[inline]
#[target_feature(enable = "neon")]
fn halves<const T: u8>([low, high]: Eight) -> uint16x8_t {
    if T == F16 {
        let low = vcvt_f16_f32(low);
        return vreinterpretq_u16_f16(vcvt_high_f16_f32(low, high));
    }
    vshrn_high_n_u32::<16>(vshrn_n_u32::<16>(rounded(low)), rounded(high))
}

/// The bits of four numbers, rounded to the upper sixteen. NaN stays NaN, made quiet.
#[inline]
#[target_feature(enable = "neon")]
fn rounded(values: float32x4_t) -> uint32x4_t {
    let bits = vreinterpretq_u32_f32(values);
    let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
    let up = vaddq_u32(odd, vdupq_n_u32(0x7fff));
    let number = vceqq_f32(values, values);
    let quiet = vorrq_u32(bits, vdupq_n_u32(0x0040_0000));
    vbslq_u32(number, vaddq_u32(bits, up), quiet)
}

#[inline]
#[target_feature(enable = "neon")]
fn put_halves(out: &mut [u8; 16], halves: uint16x8_t) {
    let bytes = vreinterpretq_u8_u16(halves);
    // SAFETY: room for 16 bytes, any alignment.
    unsafe { vst1q_u8(out.as_mut_ptr(), bytes) }
}

#[target_feature(enable = "neon")]
fn store(dtype: DType, registers: &[u32], out: &mut [u8]) {
    match dtype {
        DType::F16 => store_of::<F16>(bytemuck::cast_slice(registers), out),
        DType::BF16 => store_of::<BF16>(bytemuck::cast_slice(registers), out),
        _ => scalar::store(dtype, registers, out),
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn store_of<const T: u8>(values: &[f32], out: &mut [u8]) {
    let (blocks, rest) = values.as_chunks::<8>();
    let (out_blocks, out_rest) = out.as_chunks_mut::<16>();
    for i in 0..blocks.len().min(out_blocks.len()) {
        put_halves(&mut out_blocks[i], halves::<T>(floats(&blocks[i])));
    }
    let mut last = [0; 16];
    put_halves(&mut last, halves::<T>(floats_rest(rest)));
    out_rest.copy_from_slice(&last[..out_rest.len()]);
}

#[target_feature(enable = "neon")]
fn cast(from: Kind, dtype: DType, input: &[u32], out: &mut [u32]) {
    match dtype {
        DType::F16 | DType::BF16 => {}
        _ => return scalar::cast(from, dtype, input, out),
    }
    scalar::cast(from, DType::F32, input, out);
    let out = bytemuck::cast_slice_mut(out);
    if dtype == DType::F16 {
        round::<F16>(out)
    } else {
        round::<BF16>(out)
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn round<const T: u8>(values: &mut [f32]) {
    let (eights, rest) = values.as_chunks_mut::<8>();
    for i in 0..eights.len() {
        let rounded = widened::<T>(halves::<T>(floats(&eights[i])));
        put(&mut eights[i], rounded);
    }
    let rounded = widened::<T>(halves::<T>(floats_rest(rest)));
    put_rest(rest, rounded);
}

#[target_feature(enable = "neon")]
fn sum(values: &[f32]) -> f32 {
    sum_of::<false>(values)
}

#[target_feature(enable = "neon")]
fn sum_squares(values: &[f32]) -> f32 {
    sum_of::<true>(values)
}

/// The sum of values or of their squares, each rounded before it is added.
#[inline]
#[target_feature(enable = "neon")]
fn sum_of<const SQUARES: bool>(values: &[f32]) -> f32 {
    let (eights, rest) = values.as_chunks::<8>();
    let (fours, single) = eights.as_chunks::<4>();
    let mut sums = [zero(); 4];
    for i in 0..fours.len() {
        for j in 0..4 {
            sums[j] = plus(sums[j], term::<SQUARES>(floats(&fours[i][j])));
        }
    }
    for i in 0..single.len() {
        sums[0] = plus(sums[0], term::<SQUARES>(floats(&single[i])));
    }
    sums[0] = plus(sums[0], term::<SQUARES>(floats_rest(rest)));
    total(sums)
}

#[inline]
#[target_feature(enable = "neon")]
fn term<const SQUARES: bool>([low, high]: Eight) -> Eight {
    if SQUARES {
        [vmulq_f32(low, low), vmulq_f32(high, high)]
    } else {
        [low, high]
    }
}

#[target_feature(enable = "neon")]
fn max(values: &[f32]) -> f32 {
    // The larger of NaN and anything is NaN.
    let (eights, rest) = values.as_chunks::<8>();
    let mut largest = [vdupq_n_f32(f32::NEG_INFINITY); 2];
    for i in 0..eights.len() {
        let [low, high] = floats(&eights[i]);
        largest = [vmaxq_f32(largest[0], low), vmaxq_f32(largest[1], high)];
    }
    let mut padded = [f32::NEG_INFINITY; 8];
    padded[..rest.len()].copy_from_slice(rest);
    let [low, high] = floats(&padded);
    let low = vmaxq_f32(largest[0], low);
    vmaxvq_f32(vmaxq_f32(low, vmaxq_f32(largest[1], high)))
}

#[target_feature(enable = "neon")]
fn exp_sum(values: &mut [f32], max: f32) -> f32 {
    for i in 0..values.len() {
        values[i] = math::exp(values[i] - max);
    }
    sum_of::<false>(values)
}
