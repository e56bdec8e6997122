//! AVX-512: the register tile, and panels for it. Loops count indices for the reason given in
//! `avx2`.

#![allow(clippy::needless_range_loop)]

use super::avx512::floats;
use super::{Tile, Turn};
use std::arch::x86_64::*;

/// Rows of a register tile.
pub(super) const ROWS: usize = 8;
/// Columns of a register tile.
pub(super) const COLUMNS: usize = 32;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn tile(tile: Tile<'_>, out: &mut [f32]) {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    if tile.add {
        for row in 0..ROWS {
            let (out, _) = out[row * tile.out_stride..][..COLUMNS].as_chunks::<16>();
            sums[row] = [floats(&out[0]), floats(&out[1])];
        }
    }
    let mut rows: [&[f32]; ROWS] = [&[]; ROWS];
    for row in 0..ROWS {
        rows[row] = &tile.rows[row * tile.stride..][..tile.k];
    }
    let (panel, _) = tile.panel.as_chunks::<16>();
    let (panel, _) = panel.as_chunks::<2>();
    let panel = &panel[..tile.k];
    for i in 0..tile.k {
        let weights = [floats(&panel[i][0]), floats(&panel[i][1])];
        for row in 0..ROWS {
            let x = _mm512_set1_ps(rows[row][i]);
            sums[row][0] = _mm512_fmadd_ps(x, weights[0], sums[row][0]);
            sums[row][1] = _mm512_fmadd_ps(x, weights[1], sums[row][1]);
        }
    }
    for row in 0..ROWS {
        let (out, _) = out[row * tile.out_stride..][..COLUMNS].as_chunks_mut::<16>();
        for half in 0..2 {
            // SAFETY: room for sixteen floats.
            unsafe { _mm512_storeu_ps(out[half].as_mut_ptr(), sums[row][half]) };
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn turn(turn: Turn<'_>, out: &mut [u32]) {
    if !turn.columns.is_multiple_of(16) {
        return super::avx2_products::turn(turn, out);
    }
    for first in (0..turn.columns).step_by(16) {
        for at in (0..turn.words).step_by(16) {
            let count = (turn.words - at).min(16);
            let used = ((1u32 << count) - 1) as u16;
            let mut lines = [_mm512_setzero_si512(); 16];
            for row in 0..16 {
                let words = &turn.rows[(first + row) * turn.stride + at..][..count];
                // SAFETY: only words inside the slice are read.
                lines[row] = unsafe { _mm512_maskz_loadu_epi32(used, words.as_ptr().cast()) };
            }
            let lines = sixteen_by_sixteen(lines);
            for i in 0..count {
                let line = &mut out[(at + i) * turn.columns + first..][..16];
                // SAFETY: room for sixteen words.
                unsafe { _mm512_storeu_si512(line.as_mut_ptr().cast(), lines[i]) };
            }
        }
    }
}

/// A matrix of sixteen rows transposed.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn sixteen_by_sixteen(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut twos = rows;
    for i in 0..8 {
        twos[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        twos[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    // Vector j of the four beginning at 4i: elements j, 4 + j, 8 + j, 12 + j of rows 4i to 4i + 3.
    let mut fours = rows;
    for i in 0..4 {
        for j in 0..2 {
            let (a, b) = (twos[4 * i + j], twos[4 * i + 2 + j]);
            fours[4 * i + 2 * j] = _mm512_unpacklo_epi64(a, b);
            fours[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(a, b);
        }
    }
    let mut turned = rows;
    for j in 0..4 {
        let (a, b, c, d) = (fours[j], fours[4 + j], fours[8 + j], fours[12 + j]);
        let even = [
            _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b),
            _mm512_shuffle_i32x4::<0b10_00_10_00>(c, d),
        ];
        let odd = [
            _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d),
        ];
        turned[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(even[0], even[1]);
        turned[4 + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(odd[0], odd[1]);
        turned[8 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(even[0], even[1]);
        turned[12 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(odd[0], odd[1]);
    }
    turned
}
