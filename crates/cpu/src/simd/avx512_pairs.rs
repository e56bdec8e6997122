//! AVX-512 with its bf16 products: codes as bf16, and the register tile of bf16. Loops count
//! indices for the reason given in `avx2`.

#![allow(clippy::needless_range_loop)]

use super::avx512::floats;
use super::pairs::{PairBlock, Pairs};
use std::arch::x86_64::*;

const ROWS: usize = 8;
const COLUMNS: usize = 32;

pub(super) const PAIRS: Pairs = Pairs {
    tile: (ROWS, COLUMNS),
    terms: 1,
    codes,
    multiply,
};

/// Up to eight bytes as a little-endian number.
#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    match bytes[at..].first_chunk() {
        Some(word) => u64::from_le_bytes(*word),
        None => {
            let mut word = [0; 8];
            word[..bytes.len() - at].copy_from_slice(&bytes[at..]);
            u64::from_le_bytes(word)
        }
    }
}

/// Codes as bytes by a bit deposit, then as floats, which are cut to bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c,bmi2")]
pub(super) fn codes(bits: usize, bytes: &[u8], out: &mut [u16]) {
    let mask = u64::from_le_bytes([((1u32 << bits) - 1) as u8; 8]);
    let (out, _) = out.as_chunks_mut::<32>();
    for i in 0..out.len() {
        let at = 4 * bits * i;
        let mut eights = [0; 4];
        for j in 0..4 {
            eights[j] = _pdep_u64(word(bytes, at + j * bits), mask) as i64;
        }
        let low = _mm512_cvtepu8_epi32(_mm_set_epi64x(eights[1], eights[0]));
        let high = _mm512_cvtepu8_epi32(_mm_set_epi64x(eights[3], eights[2]));
        let halves = _mm512_cvtne2ps_pbh(_mm512_cvtepi32_ps(high), _mm512_cvtepi32_ps(low));
        // SAFETY: both types are 64 bytes of any contents.
        let halves = unsafe { std::mem::transmute::<__m512bh, __m512i>(halves) };
        // SAFETY: room for 32 halves.
        unsafe { _mm512_storeu_si512(out[i].as_mut_ptr().cast(), halves) };
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
fn products(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
    // SAFETY: both types are 64 bytes of any contents.
    let [a, b] = unsafe { std::mem::transmute::<[__m512i; 2], [__m512bh; 2]>([a, b]) };
    _mm512_dpbf16_ps(sum, a, b)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
fn multiply(block: PairBlock<'_>, out: &mut [f32]) {
    for first in (0..block.rows).step_by(ROWS) {
        let out = &mut out[first * block.out_stride..];
        rows(block, first, out);
    }
}

/// Eight rows from row `first` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
fn rows(block: PairBlock<'_>, first: usize, out: &mut [f32]) {
    let (part, parts) = block.parts();
    for number in 0..parts {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        for term in 0..block.terms {
            let from = first * block.stride + term * block.term + 2 * number * part;
            accumulate(block, from, number * part..(number + 1) * part, &mut sums);
        }
        for row in 0..ROWS {
            let add = block.add || number > 0;
            let out = &mut out[row * block.out_stride..][..COLUMNS];
            finish(block, (first + row, number), add, sums[row], out);
        }
    }
}

/// Adds the products of some pairs; those of the first row begin at `from`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
fn accumulate(
    block: PairBlock<'_>,
    from: usize,
    pairs: std::ops::Range<usize>,
    sums: &mut [[__m512; 2]; ROWS],
) {
    let count = pairs.len();
    let (panel, _) = block.panel[pairs.start * COLUMNS..pairs.end * COLUMNS].as_chunks::<COLUMNS>();
    let panel = &panel[..count];
    let mut rows: [&[[u16; 2]]; ROWS] = [&[]; ROWS];
    for row in 0..ROWS {
        let (pairs, _) = block.x[from + row * block.stride..][..2 * count].as_chunks::<2>();
        rows[row] = &pairs[..count];
    }
    for i in 0..count {
        let (low, high) = panel[i].split_at(16);
        // SAFETY: sixteen words.
        let low = unsafe { _mm512_loadu_si512(low.as_ptr().cast()) };
        // SAFETY: sixteen words.
        let high = unsafe { _mm512_loadu_si512(high.as_ptr().cast()) };
        for row in 0..ROWS {
            let [a, b] = rows[row][i];
            let x = _mm512_set1_epi32((u32::from(b) << 16 | u32::from(a)) as i32);
            sums[row][0] = products(sums[row][0], x, low);
            sums[row][1] = products(sums[row][1], x, high);
        }
    }
}

/// Scales the sums of one row and one part, and stores them or adds them to what is there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
pub(super) fn finish(
    block: PairBlock<'_>,
    (row, part): (usize, usize),
    add: bool,
    sums: [__m512; 2],
    out: &mut [f32],
) {
    let (out, _) = out.as_chunks_mut::<16>();
    for half in 0..2 {
        let before = if add {
            floats(&out[half])
        } else {
            _mm512_setzero_ps()
        };
        let value = match block.groups {
            None => _mm512_add_ps(before, sums[half]),
            Some(groups) => {
                let (scales, _) = groups.scales[part * COLUMNS..].as_chunks::<16>();
                let (biases, _) = groups.biases[part * COLUMNS..].as_chunks::<16>();
                let sum = _mm512_set1_ps(groups.sums[row * groups.stride + part]);
                let value = _mm512_fmadd_ps(floats(&scales[half]), sums[half], before);
                _mm512_fmadd_ps(floats(&biases[half]), sum, value)
            }
        };
        // SAFETY: room for sixteen floats.
        unsafe { _mm512_storeu_ps(out[half].as_mut_ptr(), value) };
    }
}
