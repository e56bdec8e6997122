//! NEON: inner products and sums of plain rows, and the register tile. Loops count indices for the
//! reason given in `neon`.

#![allow(clippy::needless_range_loop)]

use super::neon::{
    BF16, Eight, F16, F32, floats, floats_rest, four, fused, put, put_four, put_rest, total, wide,
    wide_rest, zero,
};
use super::{Strided, Tile, Turn};
use kiln_plan::DType;
use std::arch::aarch64::*;

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn dot(dtype: DType, row: &[u8], x: &[f32]) -> f32 {
    match dtype {
        DType::F16 => dot_of::<F16, 16>(row, x),
        DType::BF16 => dot_of::<BF16, 16>(row, x),
        _ => dot_of::<F32, 32>(row, x),
    }
}

/// The inner product of floats.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn dot_floats(a: &[f32], b: &[f32]) -> f32 {
    dot_of::<F32, 32>(bytemuck::cast_slice(a), b)
}

#[inline]
#[target_feature(enable = "neon")]
fn dot_of<const T: u8, const BYTES: usize>(row: &[u8], x: &[f32]) -> f32 {
    let (blocks, rest) = row.as_chunks::<BYTES>();
    let (x_blocks, x_rest) = x.as_chunks::<8>();
    let (fours, single) = blocks.as_chunks::<4>();
    let (x_fours, x_single) = x_blocks.as_chunks::<4>();
    let mut sums = [zero(); 4];
    for i in 0..fours.len().min(x_fours.len()) {
        let (four, x) = (&fours[i], &x_fours[i]);
        for j in 0..4 {
            sums[j] = fused(sums[j], wide::<T, BYTES>(&four[j]), floats(&x[j]));
        }
    }
    for i in 0..single.len().min(x_single.len()) {
        let block = wide::<T, BYTES>(&single[i]);
        sums[0] = fused(sums[0], block, floats(&x_single[i]));
    }
    if !rest.is_empty() {
        let rest = wide_rest::<T, BYTES>(rest);
        sums[1] = fused(sums[1], rest, floats_rest(x_rest));
    }
    total(sums)
}

#[target_feature(enable = "neon")]
pub(super) fn dots(rows: Strided<'_>, x: &[f32], out: &mut [f32]) {
    let bytes = rows.dtype.row_bytes(x.len());
    for i in 0..out.len() {
        out[i] = dot(rows.dtype, &rows.bytes[i * rows.stride..][..bytes], x);
    }
}

#[target_feature(enable = "neon")]
pub(super) fn mix(rows: Strided<'_>, weights: &[f32], y: &mut [f32]) {
    match rows.dtype {
        DType::F16 => mix_of::<F16, 16>(rows, weights, y),
        DType::BF16 => mix_of::<BF16, 16>(rows, weights, y),
        _ => mix_of::<F32, 32>(rows, weights, y),
    }
}

#[inline]
#[target_feature(enable = "neon")]
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
    let bytes = BYTES / 8 * rest.len();
    if bytes > 0 {
        let mut sum = floats_rest(rest);
        for i in 0..weights.len() {
            let row = &rows.bytes[i * rows.stride + at * BYTES..][..bytes];
            let weight: Eight = [vdupq_n_f32(weights[i]); 2];
            sum = fused(sum, weight, wide_rest::<T, BYTES>(row));
        }
        put_rest(rest, sum);
    }
}

/// `COUNT` times eight columns, from byte `from` of each row on.
#[inline]
#[target_feature(enable = "neon")]
fn mix_columns<const T: u8, const BYTES: usize, const COUNT: usize>(
    rows: Strided<'_>,
    weights: &[f32],
    from: usize,
    y: &mut [[f32; 8]],
) {
    let mut sums = [zero(); COUNT];
    for j in 0..COUNT {
        sums[j] = floats(&y[j]);
    }
    for i in 0..weights.len() {
        let row = &rows.bytes[i * rows.stride + from..][..COUNT * BYTES];
        let (row, _) = row.as_chunks::<BYTES>();
        let weight: Eight = [vdupq_n_f32(weights[i]); 2];
        for j in 0..COUNT {
            sums[j] = fused(sums[j], weight, wide::<T, BYTES>(&row[j]));
        }
    }
    for j in 0..COUNT {
        put(&mut y[j], sums[j]);
    }
}

/// Rows of a register tile.
pub(super) const ROWS: usize = 8;
/// Columns of a register tile.
pub(super) const COLUMNS: usize = 8;

#[target_feature(enable = "neon")]
pub(super) fn tile(tile: Tile<'_>, out: &mut [f32]) {
    let mut sums = [zero(); ROWS];
    if tile.add {
        for row in 0..ROWS {
            let (eight, _) = out[row * tile.out_stride..][..COLUMNS].as_chunks::<8>();
            sums[row] = floats(&eight[0]);
        }
    }
    let mut rows: [&[f32]; ROWS] = [&[]; ROWS];
    for row in 0..ROWS {
        rows[row] = &tile.rows[row * tile.stride..][..tile.k];
    }
    let panel = &tile.panel.as_chunks::<COLUMNS>().0[..tile.k];
    let whole = tile.k / 4 * 4;
    for i in (0..whole).step_by(4) {
        let mut x = [vdupq_n_f32(0.0); ROWS];
        for row in 0..ROWS {
            x[row] = four(&rows[row][i..i + 4].as_chunks::<4>().0[0]);
        }
        let step = &panel[i..i + 4];
        sums = lane::<0>(sums, x, &step[0]);
        sums = lane::<1>(sums, x, &step[1]);
        sums = lane::<2>(sums, x, &step[2]);
        sums = lane::<3>(sums, x, &step[3]);
    }
    for i in whole..tile.k {
        let mut x = [vdupq_n_f32(0.0); ROWS];
        for row in 0..ROWS {
            x[row] = vdupq_n_f32(rows[row][i]);
        }
        sums = lane::<0>(sums, x, &panel[i]);
    }
    for row in 0..ROWS {
        let (eight, _) = out[row * tile.out_stride..][..COLUMNS].as_chunks_mut::<8>();
        put(&mut eight[0], sums[row]);
    }
}

/// The sums and the products of a line of the panel with lane `LANE` of each row's elements.
#[inline]
#[target_feature(enable = "neon")]
fn lane<const LANE: i32>(
    mut sums: [Eight; ROWS],
    x: [float32x4_t; ROWS],
    column: &[f32; COLUMNS],
) -> [Eight; ROWS] {
    let column = floats(column);
    for row in 0..ROWS {
        sums[row][0] = vfmaq_laneq_f32::<LANE>(sums[row][0], column[0], x[row]);
        sums[row][1] = vfmaq_laneq_f32::<LANE>(sums[row][1], column[1], x[row]);
    }
    sums
}

#[target_feature(enable = "neon")]
pub(super) fn turn(turn: Turn<'_>, out: &mut [u32]) {
    let rows: &[f32] = bytemuck::cast_slice(turn.rows);
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let whole = turn.words / 4 * 4;
    for first in (0..turn.columns).step_by(4) {
        for at in (0..whole).step_by(4) {
            let mut lines = [vdupq_n_f32(0.0); 4];
            for row in 0..4 {
                let (line, _) = rows[(first + row) * turn.stride + at..][..4].as_chunks::<4>();
                lines[row] = four(&line[0]);
            }
            let lines = four_by_four(lines);
            for i in 0..4 {
                let (out, _) = out[(at + i) * turn.columns + first..][..4].as_chunks_mut::<4>();
                put_four(&mut out[0], lines[i]);
            }
        }
        for at in whole..turn.words {
            for row in 0..4 {
                out[at * turn.columns + first + row] = rows[(first + row) * turn.stride + at];
            }
        }
    }
}

/// A matrix of four rows transposed.
#[inline]
#[target_feature(enable = "neon")]
fn four_by_four([a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
    let (ac, bd) = (vzip1q_f32(a, c), vzip1q_f32(b, d));
    let (ac_high, bd_high) = (vzip2q_f32(a, c), vzip2q_f32(b, d));
    [
        vzip1q_f32(ac, bd),
        vzip2q_f32(ac, bd),
        vzip1q_f32(ac_high, bd_high),
        vzip2q_f32(ac_high, bd_high),
    ]
}
