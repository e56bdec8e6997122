//! The table for AVX2 with FMA and F16C. Elementwise loops are the scalar ones, compiled for these
//! instructions; what is here differs from them.
//!
//! Loops that matter count indices: iterator adapters and closures are compiled without these
//! instructions, which keeps them from being inlined here.

#![allow(clippy::needless_range_loop)]

use super::avx2_rows::{dequantise, matvec, order};
use super::{Isa, Tile, scalar};
use kiln_array::{DType, Kind, Scalar};
use std::arch::x86_64::*;

pub(super) static TABLE: Isa = Isa {
    name: "avx2",
    available,
    load,
    store,
    cast,
    apply,
    sum,
    sum_squares,
    max,
    exp_sum,
    dot,
    add_scaled,
    order,
    matvec,
    dequantise,
    tile,
    tile_rows: ROWS,
    tile_columns: COLUMNS,
};

fn available() -> bool {
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
    let halves = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    if T == F16 {
        return _mm256_cvtph_ps(halves);
    }
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
}

/// The elements that do not fill eight: the rest are zeros.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn wide_rest<const T: u8, const BYTES: usize>(bytes: &[u8]) -> __m256 {
    let mut padded = [0; BYTES];
    padded[..bytes.len()].copy_from_slice(bytes);
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
fn floats_rest(values: &[f32]) -> __m256 {
    let mut padded = [0.0; 8];
    padded[..values.len()].copy_from_slice(values);
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
fn load(dtype: DType, bytes: &[u8], out: &mut [u32]) {
    if dtype != DType::F16 {
        return scalar::load(dtype, bytes, out);
    }
    let (blocks, rest) = bytes.as_chunks::<16>();
    let (out_blocks, out_rest) = bytemuck::cast_slice_mut::<u32, f32>(out).as_chunks_mut::<8>();
    for i in 0..blocks.len().min(out_blocks.len()) {
        put(&mut out_blocks[i], wide::<F16, 16>(&blocks[i]));
    }
    if !rest.is_empty() {
        let mut last = [0.0; 8];
        put(&mut last, wide_rest::<F16, 16>(rest));
        out_rest
            .iter_mut()
            .zip(last)
            .for_each(|(out, value)| *out = value);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves(values: &[f32; 8]) -> __m128i {
    _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(floats(values))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn put_halves(out: &mut [u8; 16], values: &[f32; 8]) {
    let halves = halves(values);
    // SAFETY: room for 16 bytes, any alignment.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), halves) }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn store(dtype: DType, registers: &[u32], out: &mut [u8]) {
    if dtype != DType::F16 {
        return scalar::store(dtype, registers, out);
    }
    let (blocks, rest) = bytemuck::cast_slice::<u32, f32>(registers).as_chunks::<8>();
    let (out_blocks, out_rest) = out.as_chunks_mut::<16>();
    for i in 0..blocks.len().min(out_blocks.len()) {
        put_halves(&mut out_blocks[i], &blocks[i]);
    }
    if !rest.is_empty() {
        let (mut padded, mut last) = ([0.0; 8], [0; 16]);
        padded[..rest.len()].copy_from_slice(rest);
        put_halves(&mut last, &padded);
        out_rest.copy_from_slice(&last[..2 * rest.len()]);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn cast(from: Kind, dtype: DType, input: &[u32], out: &mut [u32]) {
    if dtype != DType::F16 {
        return scalar::cast(from, dtype, input, out);
    }
    scalar::cast(from, DType::F32, input, out);
    let (blocks, rest) = bytemuck::cast_slice_mut::<u32, f32>(out).as_chunks_mut::<8>();
    for i in 0..blocks.len() {
        let rounded = _mm256_cvtph_ps(halves(&blocks[i]));
        put(&mut blocks[i], rounded);
    }
    if !rest.is_empty() {
        let mut padded = [0.0; 8];
        padded[..rest.len()].copy_from_slice(rest);
        let rounded = _mm256_cvtph_ps(halves(&padded));
        put(&mut padded, rounded);
        rest.copy_from_slice(&padded[..rest.len()]);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn apply(scalar: Scalar, kind: Kind, out: &mut [u32], from: [&[u32]; 3]) {
    scalar::apply(scalar, kind, out, from);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn sum(values: &[f32]) -> f32 {
    scalar::sum(values)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn sum_squares(values: &[f32]) -> f32 {
    scalar::sum_squares(values)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn max(values: &[f32]) -> f32 {
    scalar::max(values)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn exp_sum(values: &mut [f32], max: f32) -> f32 {
    scalar::exp_sum(values, max)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot(dtype: DType, row: &[u8], x: &[f32]) -> f32 {
    match dtype {
        DType::F16 => dot_of::<F16, 16>(row, x),
        DType::BF16 => dot_of::<BF16, 16>(row, x),
        _ => dot_of::<F32, 32>(row, x),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_of<const T: u8, const BYTES: usize>(row: &[u8], x: &[f32]) -> f32 {
    let (blocks, rest) = row.as_chunks::<BYTES>();
    let (x_blocks, x_rest) = x.as_chunks::<8>();
    let mut sums = [_mm256_setzero_ps(); 4];
    let (fours, single) = blocks.as_chunks::<4>();
    let (x_fours, x_single) = x_blocks.as_chunks::<4>();
    for i in 0..fours.len().min(x_fours.len()) {
        let (four, x) = (&fours[i], &x_fours[i]);
        for j in 0..4 {
            sums[j] = _mm256_fmadd_ps(wide::<T, BYTES>(&four[j]), floats(&x[j]), sums[j]);
        }
    }
    for i in 0..single.len().min(x_single.len()) {
        sums[0] = _mm256_fmadd_ps(wide::<T, BYTES>(&single[i]), floats(&x_single[i]), sums[0]);
    }
    if !rest.is_empty() {
        let rest = wide_rest::<T, BYTES>(rest);
        sums[1] = _mm256_fmadd_ps(rest, floats_rest(x_rest), sums[1]);
    }
    total(_mm256_add_ps(
        _mm256_add_ps(sums[0], sums[1]),
        _mm256_add_ps(sums[2], sums[3]),
    ))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn add_scaled(dtype: DType, factor: f32, row: &[u8], y: &mut [f32]) {
    match dtype {
        DType::F16 => add_scaled_of::<F16, 16>(factor, row, y),
        DType::BF16 => add_scaled_of::<BF16, 16>(factor, row, y),
        _ => add_scaled_of::<F32, 32>(factor, row, y),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_scaled_of<const T: u8, const BYTES: usize>(factor: f32, row: &[u8], y: &mut [f32]) {
    let (blocks, rest) = row.as_chunks::<BYTES>();
    let (y_blocks, y_rest) = y.as_chunks_mut::<8>();
    let factors = _mm256_set1_ps(factor);
    for i in 0..blocks.len().min(y_blocks.len()) {
        let sum = _mm256_fmadd_ps(factors, wide::<T, BYTES>(&blocks[i]), floats(&y_blocks[i]));
        put(&mut y_blocks[i], sum);
    }
    if !rest.is_empty() {
        let sum = _mm256_fmadd_ps(factors, wide_rest::<T, BYTES>(rest), floats_rest(y_rest));
        let mut last = [0.0; 8];
        put(&mut last, sum);
        y_rest.copy_from_slice(&last[..y_rest.len()]);
    }
}

const ROWS: usize = 6;
const COLUMNS: usize = 16;

#[target_feature(enable = "avx2,fma,f16c")]
fn tile(tile: Tile<'_>, out: &mut [f32]) {
    let (out, _) = out.as_chunks_mut::<8>();
    let (out, _) = out.as_chunks_mut::<2>();
    let out = &mut out[..ROWS];
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    if tile.add {
        for row in 0..ROWS {
            sums[row] = [floats(&out[row][0]), floats(&out[row][1])];
        }
    }
    let mut rows: [&[f32]; ROWS] = [&[]; ROWS];
    for row in 0..ROWS {
        rows[row] = &tile.weights[row * tile.stride..][..tile.k];
    }
    let (panel, _) = tile.panel.as_chunks::<8>();
    let (panel, _) = panel.as_chunks::<2>();
    let panel = &panel[..tile.k];
    for i in 0..tile.k {
        let x = [floats(&panel[i][0]), floats(&panel[i][1])];
        for row in 0..ROWS {
            let weight = _mm256_set1_ps(rows[row][i]);
            sums[row][0] = _mm256_fmadd_ps(weight, x[0], sums[row][0]);
            sums[row][1] = _mm256_fmadd_ps(weight, x[1], sums[row][1]);
        }
    }
    for row in 0..ROWS {
        put(&mut out[row][0], sums[row][0]);
        put(&mut out[row][1], sums[row][1]);
    }
}
