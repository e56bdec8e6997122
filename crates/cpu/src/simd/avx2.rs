//! The table for AVX2 with FMA and F16C. Elementwise loops are the scalar ones, compiled for these
//! instructions; what is here differs from them.
//!
//! Loops that matter count indices: iterator adapters and closures are compiled without these
//! instructions, which keeps them from being inlined here.

#![allow(clippy::needless_range_loop)]
// A call to copy less than eight elements takes longer than the loop.
#![allow(clippy::manual_memcpy)]

use super::avx2_dequantise::dequantise;
use super::avx2_products::{COLUMNS, ROWS, dots, mix, tile, turn};
use super::avx2_rows::{matvec, order};
use super::{Isa, integers, scalar};
use kiln_plan::{DType, Kind, Scalar, math};
use std::arch::x86_64::*;

pub(super) const TABLE: Isa = Isa {
    name: "avx2",
    available,
    preferred: || true,
    load,
    store,
    cast,
    apply,
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

pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

/// Element types that [`wide`] reads.
pub(super) const F32: u8 = 0;
pub(super) const F16: u8 = 1;
pub(super) const BF16: u8 = 2;

/// Eight elements of type `T`, `BYTES` bytes together, in f32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn wide<const T: u8, const BYTES: usize>(bytes: &[u8; BYTES]) -> __m256 {
    const { assert!(BYTES == if T == F32 { 32 } else { 16 }) };
    if T == F32 {
        // SAFETY: 32 bytes, any alignment.
        return unsafe { _mm256_loadu_ps(bytes.as_ptr().cast()) };
    }
    // SAFETY: 16 bytes, any alignment.
    widened::<T>(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widened<const T: u8>(halves: __m128i) -> __m256 {
    if T == F16 {
        return _mm256_cvtph_ps(halves);
    }
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
}

/// The elements that do not fill eight: the rest are zeros.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn wide_rest<const T: u8, const BYTES: usize>(bytes: &[u8]) -> __m256 {
    let mut padded = [0; BYTES];
    for i in 0..bytes.len() {
        padded[i] = bytes[i];
    }
    wide::<T, BYTES>(&padded)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn floats(values: &[f32; 8]) -> __m256 {
    // SAFETY: eight floats.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn put(out: &mut [f32; 8], values: __m256) {
    // SAFETY: room for eight floats.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), values) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn floats_rest(values: &[f32]) -> __m256 {
    let mut padded = [0.0; 8];
    for i in 0..values.len() {
        padded[i] = values[i];
    }
    floats(&padded)
}

/// The sum of eight lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn total(v: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load(dtype: DType, bytes: &[u8], out: &mut [u32]) {
    match dtype {
        DType::F16 => load_of::<F16, 16>(bytes, bytemuck::cast_slice_mut(out)),
        DType::BF16 => load_of::<BF16, 16>(bytes, bytemuck::cast_slice_mut(out)),
        DType::F32 => load_of::<F32, 32>(bytes, bytemuck::cast_slice_mut(out)),
        _ => scalar::load(dtype, bytes, out),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_of<const T: u8, const BYTES: usize>(bytes: &[u8], out: &mut [f32]) {
    let (blocks, rest) = bytes.as_chunks::<BYTES>();
    let (eights, out_rest) = out.as_chunks_mut::<8>();
    for i in 0..blocks.len().min(eights.len()) {
        put(&mut eights[i], wide::<T, BYTES>(&blocks[i]));
    }
    put_rest(out_rest, wide_rest::<T, BYTES>(rest));
}

/// The first lanes, as many as there is room for.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn put_rest(out: &mut [f32], values: __m256) {
    let mut eight = [0.0; 8];
    put(&mut eight, values);
    for i in 0..out.len() {
        out[i] = eight[i];
    }
}

/// Eight numbers rounded to `T`, F16 or BF16.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves<const T: u8>(values: __m256) -> __m128i {
    if T == F16 {
        return _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values);
    }
    let bits = _mm256_castps_si256(values);
    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let up = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    let rounded = _mm256_castsi256_ps(_mm256_add_epi32(bits, up));
    // NaN stays NaN, made quiet.
    let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(values, values);
    let quiet = _mm256_or_ps(values, _mm256_castsi256_ps(_mm256_set1_epi32(0x0040_0000)));
    let chosen = _mm256_castps_si256(_mm256_blendv_ps(rounded, quiet, nan));
    let top = _mm256_srli_epi32::<16>(chosen);
    _mm_packus_epi32(
        _mm256_castsi256_si128(top),
        _mm256_extracti128_si256::<1>(top),
    )
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn put_halves(out: &mut [u8; 16], halves: __m128i) {
    // SAFETY: room for 16 bytes, any alignment.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), halves) }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn store(dtype: DType, registers: &[u32], out: &mut [u8]) {
    match dtype {
        DType::F16 => store_of::<F16>(bytemuck::cast_slice(registers), out),
        DType::BF16 => store_of::<BF16>(bytemuck::cast_slice(registers), out),
        DType::U32 | DType::I32 | DType::F32 => {
            out.copy_from_slice(bytemuck::cast_slice(registers));
        }
        _ => scalar::store(dtype, registers, out),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn store_of<const T: u8>(values: &[f32], out: &mut [u8]) {
    let (blocks, rest) = values.as_chunks::<8>();
    let (out_blocks, out_rest) = out.as_chunks_mut::<16>();
    for i in 0..blocks.len().min(out_blocks.len()) {
        put_halves(&mut out_blocks[i], halves::<T>(floats(&blocks[i])));
    }
    let mut last = [0; 16];
    put_halves(&mut last, halves::<T>(floats_rest(rest)));
    for i in 0..out_rest.len() {
        out_rest[i] = last[i];
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
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
#[target_feature(enable = "avx2,fma,f16c")]
fn round<const T: u8>(values: &mut [f32]) {
    let (eights, rest) = values.as_chunks_mut::<8>();
    for i in 0..eights.len() {
        let rounded = widened::<T>(halves::<T>(floats(&eights[i])));
        put(&mut eights[i], rounded);
    }
    let rounded = widened::<T>(halves::<T>(floats_rest(rest)));
    put_rest(rest, rounded);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn apply(scalar: Scalar, kind: Kind, out: &mut [u32], from: [&[u32]; 3]) {
    scalar::apply(scalar, kind, out, from);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn sum(values: &[f32]) -> f32 {
    sum_of::<false>(values)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn sum_squares(values: &[f32]) -> f32 {
    sum_of::<true>(values)
}

/// The sum of values or of their squares, each rounded before it is added.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_of<const SQUARES: bool>(values: &[f32]) -> f32 {
    let (eights, rest) = values.as_chunks::<8>();
    let (fours, single) = eights.as_chunks::<4>();
    let mut sums = [_mm256_setzero_ps(); 4];
    for i in 0..fours.len() {
        for j in 0..4 {
            let value = floats(&fours[i][j]);
            let value = if SQUARES {
                _mm256_mul_ps(value, value)
            } else {
                value
            };
            sums[j] = _mm256_add_ps(sums[j], value);
        }
    }
    for i in 0..single.len() + 1 {
        let value = if i < single.len() {
            floats(&single[i])
        } else {
            floats_rest(rest)
        };
        let value = if SQUARES {
            _mm256_mul_ps(value, value)
        } else {
            value
        };
        sums[0] = _mm256_add_ps(sums[0], value);
    }
    total(_mm256_add_ps(
        _mm256_add_ps(sums[0], sums[1]),
        _mm256_add_ps(sums[2], sums[3]),
    ))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn max(values: &[f32]) -> f32 {
    let (eights, rest) = values.as_chunks::<8>();
    let mut largest = _mm256_set1_ps(f32::NEG_INFINITY);
    let mut nan = _mm256_setzero_ps();
    for i in 0..eights.len() {
        let value = floats(&eights[i]);
        largest = _mm256_max_ps(largest, value);
        nan = _mm256_or_ps(nan, _mm256_cmp_ps::<_CMP_UNORD_Q>(value, value));
    }
    let mut lanes = [0.0; 8];
    put(&mut lanes, largest);
    let mut largest = scalar::max(&lanes);
    for i in 0..rest.len() {
        largest = if largest > rest[i] || largest.is_nan() {
            largest
        } else {
            rest[i]
        };
    }
    if _mm256_movemask_ps(nan) == 0 {
        largest
    } else {
        f32::NAN
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn exp_sum(values: &mut [f32], max: f32) -> f32 {
    for i in 0..values.len() {
        values[i] = math::exp(values[i] - max);
    }
    sum_of::<false>(values)
}
