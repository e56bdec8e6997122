//! AVX-512: what register tiles of pairs and of quads read, and what becomes of their sums: they are
//! scaled, and stored or added.

#![allow(clippy::needless_range_loop)]

use super::avx512::{floats, floats_at};
use super::pairs::PairBlock;
use std::arch::x86_64::*;

/// Columns of a panel.
pub(super) const COLUMNS: usize = 32;

/// `count` words of `ROWS` rows from `x` on, and of all columns of a panel from `at` on.
#[inline(always)]
pub(super) fn operands<'a, const ROWS: usize>(
    block: PairBlock<'a>,
    x: usize,
    at: usize,
    count: usize,
) -> ([&'a [[u16; 2]]; ROWS], &'a [[u32; COLUMNS]]) {
    let mut rows: [&[[u16; 2]]; ROWS] = [&[]; ROWS];
    for row in 0..ROWS {
        let (words, _) = block.x[x + row * block.stride..][..2 * count].as_chunks::<2>();
        rows[row] = &words[..count];
    }
    let (panel, _) = block.panel[at..at + count * COLUMNS].as_chunks::<COLUMNS>();
    (rows, &panel[..count])
}

/// The words of a panel's columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn columns(words: &[u32; COLUMNS]) -> [__m512i; 2] {
    let (low, high) = words.split_at(16);
    // SAFETY: sixteen words.
    let low = unsafe { _mm512_loadu_si512(low.as_ptr().cast()) };
    // SAFETY: sixteen words.
    let high = unsafe { _mm512_loadu_si512(high.as_ptr().cast()) };
    [low, high]
}

/// A row's word in every lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn everywhere([a, b]: [u16; 2]) -> __m512i {
    _mm512_set1_epi32((u32::from(b) << 16 | u32::from(a)) as i32)
}

/// The sums of a row of a tile and a panel.
pub(super) type Sums = [[f32; 16]; 2];

/// Scales the sums of a tile, a panel and a part, and stores them or adds them to what is there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn finish(
    block: PairBlock<'_>,
    [tile, panel, part]: [usize; 3],
    sums: &[Sums],
    out: &mut [f32],
) {
    let stride = block.out_stride;
    let out = &mut out[tile * sums.len() * stride + panel * COLUMNS..];
    let add = block.add || part > 0;
    let Some(groups) = block.groups else {
        for row in 0..sums.len() {
            let (out, _) = out[row * stride..][..COLUMNS].as_chunks_mut::<16>();
            for half in 0..2 {
                let value = _mm512_add_ps(before(add, &out[half]), floats(&sums[row][half]));
                put(&mut out[half], value);
            }
        }
        return;
    };
    let at = (part * block.panels + panel) * COLUMNS;
    let (mut scales, mut biases) = ([_mm512_setzero_ps(); 2], [_mm512_setzero_ps(); 2]);
    for half in 0..2 {
        scales[half] = floats_at(groups.scales, at + 16 * half);
        biases[half] = floats_at(groups.biases, at + 16 * half);
    }
    let from = tile * groups.tile + part;
    let (given, units) = (
        &groups.sums[from..],
        groups.units.map(|units| &units[from..]),
    );
    for row in 0..sums.len() {
        let (out, _) = out[row * stride..][..COLUMNS].as_chunks_mut::<16>();
        let at = row * groups.stride;
        let given = _mm512_set1_ps(given[at]);
        for half in 0..2 {
            let mut sum = floats(&sums[row][half]);
            if let Some(units) = units {
                // What these bits are is a whole number.
                let whole = _mm512_cvtepi32_ps(_mm512_castps_si512(sum));
                sum = _mm512_mul_ps(whole, _mm512_set1_ps(units[at]));
            }
            let value = before(add, &out[half]);
            let value = _mm512_fmadd_ps(scales[half], sum, value);
            put(&mut out[half], _mm512_fmadd_ps(biases[half], given, value));
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn before(add: bool, out: &[f32; 16]) -> __m512 {
    if add {
        floats(out)
    } else {
        _mm512_setzero_ps()
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn put(out: &mut [f32; 16], values: __m512) {
    // SAFETY: room for sixteen floats.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), values) };
}
