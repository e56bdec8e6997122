//! AVX2: the scales and biases of quantised rows.

#![allow(clippy::needless_range_loop)]

use super::Weights;
use super::avx2::{BF16, F16, F32, load, put, wide};
use super::avx2_rows::e4m3_top;
use kiln_plan::{DType, Format, Mode, Scales};
use std::arch::x86_64::*;

/// How far ahead of what is computed codes are fetched, in bytes. The processor's own prefetching
/// ends at each page: on Zen 4 half of this was worth a third; on Granite Rapids this brings a loop
/// of products from 12 to 21 GB/s out of the last cache, half of it does not; out of memory from 14
/// to 19 on two cores, where a stream that is only read reaches 21.
pub(super) const AHEAD: usize = 4096;

/// Begins to fetch the cache line `distance` bytes behind the first of these.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn fetch_ahead(bytes: &[u8], distance: usize) {
    // Wherever that is: fetching ahead reads nothing and cannot fault. Into the second cache, which
    // was worth a twentieth: the nearest holds 48 KB, of which vectors need a half.
    let line = bytes.as_ptr().wrapping_add(distance);
    _mm_prefetch::<_MM_HINT_T1>(line.cast())
}

/// Begins to bring what lies shortly behind these bytes into the nearest cache. On Granite Rapids
/// rows of bf16 out of memory came at 22.6 GB/s on two cores without this, at 24.5 with it; codes of
/// four bits came a twentieth faster.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn fetch_near(bytes: &[u8]) {
    // As above.
    _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(768).cast());
}

/// Eight scales as f32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn eight_scales(format: Format, bytes: &[u8]) -> __m256 {
    match (format.mode(), format.scales()) {
        (_, Scales::F16) => wide::<F16, 16>(&padded(bytes)),
        (_, Scales::BF16) => wide::<BF16, 16>(&padded(bytes)),
        (_, Scales::F32) => wide::<F32, 32>(&padded(bytes)),
        (Mode::Nvfp4, _) => {
            let bytes = _mm_cvtsi64_si128(i64::from_le_bytes(padded(bytes)));
            e4m3_top(_mm256_slli_epi32::<24>(_mm256_cvtepu8_epi32(bytes)))
        }
        (_, Scales::U8) => {
            let bytes = _mm_cvtsi64_si128(i64::from_le_bytes(padded(bytes)));
            let exponents = _mm256_slli_epi32::<23>(_mm256_cvtepu8_epi32(bytes));
            // Byte 0 is the subnormal 2^-127.
            _mm256_castsi256_ps(_mm256_max_epu32(exponents, _mm256_set1_epi32(0x0040_0000)))
        }
    }
}

/// The first bytes; zeros past their end.
#[inline]
fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    match bytes.first_chunk() {
        Some(bytes) => *bytes,
        None => {
            let mut padded = [0; N];
            padded[..bytes.len()].copy_from_slice(bytes);
            padded
        }
    }
}

/// All scales of `bytes` as f32, and up to eight numbers after them.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen_scales(format: Format, bytes: &[u8], out: &mut [f32]) {
    // The next block's scales, which usually lie behind these.
    for line in (0..bytes.len()).step_by(64) {
        fetch_ahead(bytes, bytes.len() + line);
    }
    match (format.mode(), format.scales()) {
        (Mode::Affine, Scales::F16) => widen(DType::F16, bytes, &mut out[..bytes.len() / 2]),
        (Mode::Affine, Scales::BF16) => widen(DType::BF16, bytes, &mut out[..bytes.len() / 2]),
        (Mode::Affine, _) => widen(DType::F32, bytes, &mut out[..bytes.len() / 4]),
        _ => {
            let (eights, _) = out.as_chunks_mut::<8>();
            for i in 0..bytes.len().div_ceil(8) {
                put(&mut eights[i], eight_scales(format, &bytes[8 * i..]));
            }
        }
    }
}

/// The first `count` of eight lanes: all bits set, the others none.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn first_lanes(count: usize) -> __m256 {
    let numbers = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), numbers))
}

/// Eight of `values` from number `at` on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn floats_at(values: &[f32], at: usize) -> __m256 {
    let eight = &values[at..at + 8];
    // SAFETY: eight floats.
    unsafe { _mm256_loadu_ps(eight.as_ptr()) }
}

/// The scales and biases of a block of rows as f32, each with a margin of sixteen.
#[derive(Clone, Copy)]
pub(super) struct Groups<'a> {
    /// How many a row has.
    pub(super) count: usize,
    /// The scales of all rows.
    pub(super) scales: &'a [f32],
    /// The biases; nothing for formats without.
    pub(super) biases: &'a [f32],
    /// The sums of the vector that they meet.
    pub(super) sums: &'a [f32],
}

/// Widens what `rows` rows of `w` have, into `room`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn groups<'a>(
    format: Format,
    w: Weights<'_>,
    sums: &'a [f32],
    rows: usize,
    room: &'a mut [f32],
) -> Groups<'a> {
    let count = w.k / format.group();
    let bytes = rows * format.scale_row(w.k);
    let (scales, biases) = room.split_at_mut(rows * count + 16);
    widen_scales(format, &w.scales[..bytes], scales);
    if !format.has_biases() {
        return Groups {
            count,
            scales,
            biases: &[],
            sums,
        };
    }
    widen_scales(format, &w.biases[..bytes], biases);
    Groups {
        count,
        scales,
        biases,
        sums,
    }
}

/// `Σ bias · sum` of row `i`, over eight lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn bias_sum(groups: Groups<'_>, i: usize) -> __m256 {
    let mut sum = _mm256_setzero_ps();
    if groups.biases.is_empty() {
        return sum;
    }
    let biases = &groups.biases[i * groups.count..];
    let whole = groups.count / 8 * 8;
    for j in (0..whole).step_by(8) {
        sum = _mm256_fmadd_ps(floats_at(biases, j), floats_at(groups.sums, j), sum);
    }
    if whole < groups.count {
        // What is past a row's biases may be NaN.
        let inside = first_lanes(groups.count - whole);
        let biases = _mm256_and_ps(floats_at(biases, whole), inside);
        sum = _mm256_fmadd_ps(biases, floats_at(groups.sums, whole), sum);
    }
    sum
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    load(dtype, bytes, bytemuck::cast_slice_mut(out));
}
