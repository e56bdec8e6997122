//! AVX-512: rows of plain weights times a vector. Loops count indices for the reason given in `avx2`.

#![allow(clippy::needless_range_loop)]

use super::Weights;
use super::avx2::{BF16, F16, F32};
use super::avx2_scales::{AHEAD, fetch_ahead, fetch_near};
use super::avx512::{codes, first_floats, floats, totals};
use super::avx512_rows::wide;
use kiln_plan::DType;
use std::arch::x86_64::*;

/// Rows of floats times a vector in its natural order.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn matvec(w: Weights<'_>, x: &[f32], out: &mut [f32]) {
    match w.dtype {
        DType::F16 => rows::<F16, 32>(w, x, out),
        DType::BF16 => rows::<BF16, 32>(w, x, out),
        _ => rows::<F32, 64>(w, x, out),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn rows<const T: u8, const BYTES: usize>(w: Weights<'_>, x: &[f32], out: &mut [f32]) {
    let bytes = w.dtype.row_bytes(w.k);
    let x = &x[..w.k];
    let mut sums = [_mm512_setzero_ps(); 4];
    for i in 0..out.len() {
        sums[i % 4] = row::<T, BYTES>(&w.data[i * bytes..(i + 1) * bytes], x);
        if i % 4 == 3 || i + 1 == out.len() {
            let four = &mut out[i / 4 * 4..=i];
            four.copy_from_slice(&totals(sums)[..four.len()]);
        }
    }
}

/// Up to sixteen elements of type `T` in f32; zeros behind them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn sixteen<const T: u8>(bytes: &[u8]) -> __m512 {
    match T {
        F32 => _mm512_castsi512_ps(codes(bytes)),
        F16 => wide::<true>(bytes),
        _ => wide::<false>(bytes),
    }
}

/// The inner product of a row, sixteen elements of which are `BYTES` bytes, with the vector, as
/// sixteen numbers to be added up.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn row<const T: u8, const BYTES: usize>(row: &[u8], x: &[f32]) -> __m512 {
    let (blocks, rest) = row.as_chunks::<BYTES>();
    let (x_blocks, x_rest) = x.as_chunks::<16>();
    let (fours, single) = blocks.as_chunks::<4>();
    let (x_fours, x_single) = x_blocks.as_chunks::<4>();
    let mut sums = [_mm512_setzero_ps(); 4];
    for i in 0..fours.len().min(x_fours.len()) {
        for j in 0..4 {
            if (j * BYTES).is_multiple_of(64) {
                fetch_ahead(&fours[i][j], AHEAD);
                fetch_near(&fours[i][j]);
            }
            let values = sixteen::<T>(&fours[i][j]);
            sums[j] = _mm512_fmadd_ps(values, floats(&x_fours[i][j]), sums[j]);
        }
    }
    for i in 0..single.len().min(x_single.len()) {
        let values = sixteen::<T>(&single[i]);
        sums[0] = _mm512_fmadd_ps(values, floats(&x_single[i]), sums[0]);
    }
    if !rest.is_empty() {
        sums[1] = _mm512_fmadd_ps(sixteen::<T>(rest), first_floats(x_rest), sums[1]);
    }
    _mm512_add_ps(
        _mm512_add_ps(sums[0], sums[1]),
        _mm512_add_ps(sums[2], sums[3]),
    )
}
