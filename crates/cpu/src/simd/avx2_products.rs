//! AVX2: inner products and sums of plain rows, and the register tile. Loops count indices for the
//! reason given in `avx2`.

#![allow(clippy::needless_range_loop)]

use super::avx2::{BF16, F16, F32, floats, floats_rest, put, put_rest, total, wide, wide_rest};
use super::avx2_scales::{AHEAD, fetch_ahead};
use super::{Strided, Tile, Turn};
use kiln_plan::DType;
use std::arch::x86_64::*;

/// The inner product of a row of weights, which another one follows, with a vector.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot(dtype: DType, row: &[u8], x: &[f32]) -> f32 {
    match dtype {
        DType::F16 => dot_of::<F16, 16, true>(row, x),
        DType::BF16 => dot_of::<BF16, 16, true>(row, x),
        _ => dot_of::<F32, 32, true>(row, x),
    }
}

/// The inner product of a row; `STREAM` where memory behind it is read next.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_of<const T: u8, const BYTES: usize, const STREAM: bool>(row: &[u8], x: &[f32]) -> f32 {
    let (blocks, rest) = row.as_chunks::<BYTES>();
    let (x_blocks, x_rest) = x.as_chunks::<8>();
    let mut sums = [_mm256_setzero_ps(); 4];
    let (fours, single) = blocks.as_chunks::<4>();
    let (x_fours, x_single) = x_blocks.as_chunks::<4>();
    for i in 0..fours.len().min(x_fours.len()) {
        let (four, x) = (&fours[i], &x_fours[i]);
        for j in 0..4 {
            if STREAM && (j * BYTES).is_multiple_of(64) {
                fetch_ahead(&four[j], AHEAD);
            }
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
        out[i] = dot_of::<T, BYTES, false>(&rows.bytes[i * rows.stride..][..bytes], x);
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
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    if tile.add {
        for row in 0..ROWS {
            let (out, _) = out[row * tile.out_stride..][..COLUMNS].as_chunks::<8>();
            sums[row] = [floats(&out[0]), floats(&out[1])];
        }
    }
    let mut rows: [&[f32]; ROWS] = [&[]; ROWS];
    for row in 0..ROWS {
        rows[row] = &tile.rows[row * tile.stride..][..tile.k];
    }
    let (panel, _) = tile.panel.as_chunks::<8>();
    let (panel, _) = panel.as_chunks::<2>();
    let panel = &panel[..tile.k];
    for i in 0..tile.k {
        let weights = [floats(&panel[i][0]), floats(&panel[i][1])];
        for row in 0..ROWS {
            let x = _mm256_set1_ps(rows[row][i]);
            sums[row][0] = _mm256_fmadd_ps(x, weights[0], sums[row][0]);
            sums[row][1] = _mm256_fmadd_ps(x, weights[1], sums[row][1]);
        }
    }
    for row in 0..ROWS {
        let (out, _) = out[row * tile.out_stride..][..COLUMNS].as_chunks_mut::<8>();
        put(&mut out[0], sums[row][0]);
        put(&mut out[1], sums[row][1]);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn turn(turn: Turn<'_>, out: &mut [u32]) {
    let rows: &[f32] = bytemuck::cast_slice(turn.rows);
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let whole = turn.words / 8 * 8;
    for first in (0..turn.columns).step_by(8) {
        for at in (0..whole).step_by(8) {
            let mut lines = [_mm256_setzero_ps(); 8];
            for row in 0..8 {
                let (eight, _) = rows[(first + row) * turn.stride + at..][..8].as_chunks::<8>();
                lines[row] = floats(&eight[0]);
            }
            let lines = eight_by_eight(lines);
            for i in 0..8 {
                let (eight, _) = out[(at + i) * turn.columns + first..][..8].as_chunks_mut::<8>();
                put(&mut eight[0], lines[i]);
            }
        }
        for at in whole..turn.words {
            for row in 0..8 {
                out[at * turn.columns + first + row] = rows[(first + row) * turn.stride + at];
            }
        }
    }
}

/// A matrix of eight rows transposed.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn eight_by_eight(rows: [__m256; 8]) -> [__m256; 8] {
    let mut pairs = rows;
    for i in 0..4 {
        pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    let mut fours = rows;
    for i in 0..2 {
        for j in 0..2 {
            let (a, b) = (pairs[4 * i + j], pairs[4 * i + 2 + j]);
            fours[4 * i + 2 * j] = _mm256_shuffle_ps::<0b01_00_01_00>(a, b);
            fours[4 * i + 2 * j + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(a, b);
        }
    }
    let mut turned = rows;
    for i in 0..4 {
        turned[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[4 + i]);
        turned[4 + i] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[4 + i]);
    }
    turned
}
