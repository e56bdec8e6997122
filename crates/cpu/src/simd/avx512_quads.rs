//! AVX-512 with its products of bytes: codes as bytes, and the register tile of bytes. Loops count
//! indices for the reason given in `avx2`.

#![allow(clippy::needless_range_loop)]

use super::avx512_pairs::{deposits, nibbles};
use super::avx512_scaled::{COLUMNS, Sums, columns, everywhere, finish, operands, put};
use super::pairs::PairBlock;
use super::quads::{self, Quads};
use std::arch::x86_64::*;

const ROWS: usize = 8;

pub(super) const QUADS: Quads = Quads {
    tile: (ROWS, COLUMNS),
    available: || is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("bmi2"),
    codes,
    whole,
    multiply,
};

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c,bmi2")]
pub(super) fn codes(bits: usize, bytes: &[u8], out: &mut [u8]) {
    let (out, _) = out.as_chunks_mut::<32>();
    match bits {
        4 => {
            let (blocks, _) = bytes.as_chunks::<16>();
            for i in 0..out.len().min(blocks.len()) {
                let (to, apart) = (out[i].as_mut_ptr().cast(), nibbles(&blocks[i]));
                // SAFETY: room for 32 bytes.
                unsafe { _mm256_storeu_si256(to, apart) };
            }
        }
        8 => {
            let (bytes, _) = bytes.as_chunks::<32>();
            out.copy_from_slice(&bytes[..out.len()]);
        }
        _ => {
            for i in 0..out.len() {
                let (eights, _) = out[i].as_chunks_mut::<8>();
                let given = deposits(bits, bytes, i);
                for j in 0..4 {
                    eights[j] = given[j].to_le_bytes();
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn whole(values: &[f32], out: &mut [u8]) -> f32 {
    quads::whole(values, out)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn multiply(block: PairBlock<'_>, out: &mut [f32]) {
    let (part, parts) = block.parts();
    for tile in 0..block.tiles {
        for panel in 0..block.panels {
            for number in 0..parts {
                let x = tile * block.tile + 2 * number * part;
                let quads = panel * block.panel_stride + number * part * COLUMNS;
                let sums = products(block, x, quads, part);
                finish(block, [tile, panel, number], &sums, out);
            }
        }
    }
}

/// The sums of the products of `count` quads of eight rows that begin at `x`, and of a panel from
/// `at` on: whole numbers, in the bits of floats.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn products(block: PairBlock<'_>, x: usize, at: usize, count: usize) -> [Sums; ROWS] {
    let (rows, panel) = operands::<ROWS>(block, x, at, count);
    let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
    for i in 0..count {
        let [low, high] = columns(&panel[i]);
        for row in 0..ROWS {
            let x = everywhere(rows[row][i]);
            sums[row][0] = _mm512_dpbusd_epi32(sums[row][0], low, x);
            sums[row][1] = _mm512_dpbusd_epi32(sums[row][1], high, x);
        }
    }
    let mut stored: [Sums; ROWS] = [[[0.0; 16]; 2]; ROWS];
    for row in 0..ROWS {
        put(&mut stored[row][0], _mm512_castsi512_ps(sums[row][0]));
        put(&mut stored[row][1], _mm512_castsi512_ps(sums[row][1]));
    }
    stored
}
