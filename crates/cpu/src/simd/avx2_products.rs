//! AVX2: inner products and sums of plain rows, and the register tile. Loops count indices for the
//! reason given in `avx2`.

#![allow(clippy::needless_range_loop)]

use super::avx2::{BF16, F16, F32, floats, floats_rest, put, put_rest, total, wide, wide_rest};
use super::{Strided, Tile};
use kiln_array::DType;
use std::arch::x86_64::*;

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
pub(super) fn dots(rows: Strided<'_>, x: &[f32], out: &mut [f32]) {
    match rows.dtype {
        DType::F16 => dots_of::<F16, 16>(rows, x, out),
        DType::BF16 => dots_of::<BF16, 16>(rows, x, out),
        _ => dots_of::<F32, 32>(rows, x, out),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dots_of<const T: u8, const BYTES: usize>(rows: Strided<'_>, x: &[f32], out: &mut [f32]) {
    let bytes = BYTES / 8 * x.len();
    for i in 0..out.len() {
        out[i] = dot_of::<T, BYTES>(&rows.bytes[i * rows.stride..][..bytes], x);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn mix(rows: Strided<'_>, weights: &[f32], y: &mut [f32]) {
    match rows.dtype {
        DType::F16 => mix_of::<F16, 16>(rows, weights, y),
        DType::BF16 => mix_of::<BF16, 16>(rows, weights, y),
        _ => mix_of::<F32, 32>(rows, weights, y),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn mix_of<const T: u8, const BYTES: usize>(rows: Strided<'_>, weights: &[f32], y: &mut [f32]) {
    let (eights, rest) = y.as_chunks_mut::<8>();
    let mut at = 0;
    while at + 8 <= eights.len() {
        mix_columns::<T, BYTES, 8>(rows, weights, at * BYTES, &mut eights[at..at + 8]);
        at += 8;
    }
    while at < eights.len() {
        mix_columns::<T, BYTES, 1>(rows, weights, at * BYTES, &mut eights[at..at + 1]);
        at += 1;
    }
    let mut sum = floats_rest(rest);
    let bytes = BYTES / 8 * rest.len();
    if bytes > 0 {
        for i in 0..weights.len() {
            let row = wide_rest::<T, BYTES>(&rows.bytes[i * rows.stride + at * BYTES..][..bytes]);
            sum = _mm256_fmadd_ps(_mm256_set1_ps(weights[i]), row, sum);
        }
        put_rest(rest, sum);
    }
}

/// `COUNT` times eight columns, from byte `from` of each row on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn mix_columns<const T: u8, const BYTES: usize, const COUNT: usize>(
    rows: Strided<'_>,
    weights: &[f32],
    from: usize,
    y: &mut [[f32; 8]],
) {
    let mut sums = [_mm256_setzero_ps(); COUNT];
    for j in 0..COUNT {
        sums[j] = floats(&y[j]);
    }
    for i in 0..weights.len() {
        let row = &rows.bytes[i * rows.stride + from..][..COUNT * BYTES];
        let (row, _) = row.as_chunks::<BYTES>();
        let weight = _mm256_set1_ps(weights[i]);
        for j in 0..COUNT {
            sums[j] = _mm256_fmadd_ps(weight, wide::<T, BYTES>(&row[j]), sums[j]);
        }
    }
    for j in 0..COUNT {
        put(&mut y[j], sums[j]);
    }
}

/// Rows of a register tile.
pub(super) const ROWS: usize = 6;
/// Columns of a register tile.
pub(super) const COLUMNS: usize = 16;

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn tile(tile: Tile<'_>, out: &mut [f32]) {
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
