//! AVX-512 with its bf16 products: codes as bf16, and the register tile of bf16. Loops count
//! indices for the reason given in `avx2`.

#![allow(clippy::needless_range_loop)]

use super::avx512_scaled::{COLUMNS, Sums, columns, everywhere, finish, operands, put};
use super::pairs::{self, PairBlock, Pairs};
use std::arch::x86_64::*;

const ROWS: usize = 8;

pub(super) const PAIRS: Pairs = Pairs {
    tile: (ROWS, COLUMNS),
    terms: 1,
    codes,
    split,
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c,bmi2")]
pub(super) fn codes(bits: usize, bytes: &[u8], out: &mut [u16]) {
    if bits == 4 {
        return looked_up(bytes, out);
    }
    converted(bits, bytes, out);
}

/// Sixteen bytes of codes of four bits as 32 bytes, by shifting copies of them apart.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn nibbles(packed: &[u8; 16]) -> __m256i {
    // SAFETY: sixteen bytes.
    let packed = unsafe { _mm_loadu_si128(packed.as_ptr().cast()) };
    let wide = _mm256_cvtepu8_epi16(packed);
    let apart = _mm256_or_si256(wide, _mm256_slli_epi16::<4>(wide));
    _mm256_and_si256(apart, _mm256_set1_epi8(15))
}

/// Codes of four bits as bytes, then by a table.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c,bmi2")]
fn looked_up(bytes: &[u8], out: &mut [u16]) {
    let values: [u16; 32] =
        std::array::from_fn(|i| ((i % 16) as f32).to_bits().wrapping_shr(16) as u16);
    // SAFETY: 64 bytes.
    let table = unsafe { _mm512_loadu_si512(values.as_ptr().cast()) };
    let (blocks, _) = bytes.as_chunks::<16>();
    let (out, _) = out.as_chunks_mut::<32>();
    for i in 0..out.len().min(blocks.len()) {
        let apart = nibbles(&blocks[i]);
        let halves = _mm512_permutexvar_epi16(_mm512_cvtepu8_epi16(apart), table);
        // SAFETY: room for 32 halves.
        unsafe { _mm512_storeu_si512(out[i].as_mut_ptr().cast(), halves) };
    }
}

/// The codes of block `block` of 32, as eights of bytes, by a bit deposit.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c,bmi2")]
pub(super) fn deposits(bits: usize, bytes: &[u8], block: usize) -> [u64; 4] {
    let mask = u64::from_le_bytes([((1u32 << bits) - 1) as u8; 8]);
    let mut eights = [0; 4];
    for i in 0..4 {
        eights[i] = _pdep_u64(word(bytes, (4 * block + i) * bits), mask);
    }
    eights
}

/// Codes as bytes, then as floats, which are cut to bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c,bmi2")]
fn converted(bits: usize, bytes: &[u8], out: &mut [u16]) {
    let (out, _) = out.as_chunks_mut::<32>();
    for i in 0..out.len() {
        let eights = deposits(bits, bytes, i).map(|eight| eight as i64);
        let low = _mm512_cvtepu8_epi32(_mm_set_epi64x(eights[1], eights[0]));
        let high = _mm512_cvtepu8_epi32(_mm_set_epi64x(eights[3], eights[2]));
        let halves = _mm512_cvtne2ps_pbh(_mm512_cvtepi32_ps(high), _mm512_cvtepi32_ps(low));
        // SAFETY: both types are 64 bytes of any contents.
        let halves = unsafe { std::mem::transmute::<__m512bh, __m512i>(halves) };
        // SAFETY: room for 32 halves.
        unsafe { _mm512_storeu_si512(out[i].as_mut_ptr().cast(), halves) };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
pub(super) fn split(values: &mut [f32], out: &mut [u16]) {
    pairs::split(values, out);
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
    let (part, parts) = block.parts();
    for tile in 0..block.tiles {
        for panel in 0..block.panels {
            for number in 0..parts {
                let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
                for term in 0..block.terms {
                    let x = tile * block.tile + term * block.term + 2 * number * part;
                    let pairs = panel * block.panel_stride + number * part * COLUMNS;
                    accumulate(block, x, pairs, part, &mut sums);
                }
                let mut stored: [Sums; ROWS] = [[[0.0; 16]; 2]; ROWS];
                for row in 0..ROWS {
                    put(&mut stored[row][0], sums[row][0]);
                    put(&mut stored[row][1], sums[row][1]);
                }
                finish(block, [tile, panel, number], &stored, out);
            }
        }
    }
}

/// Adds the products of `count` pairs of eight rows that begin at `x`, and of a panel from `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
fn accumulate(
    block: PairBlock<'_>,
    x: usize,
    at: usize,
    count: usize,
    sums: &mut [[__m512; 2]; ROWS],
) {
    let (rows, panel) = operands::<ROWS>(block, x, at, count);
    for i in 0..count {
        let [low, high] = columns(&panel[i]);
        for row in 0..ROWS {
            let x = everywhere(rows[row][i]);
            sums[row][0] = products(sums[row][0], x, low);
            sums[row][1] = products(sums[row][1], x, high);
        }
    }
}
