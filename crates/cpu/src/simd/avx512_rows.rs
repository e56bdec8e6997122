//! AVX-512: elements in and out of registers, and what softmax does with a row. Loops count indices
//! for the reason given in `avx2`.

#![allow(clippy::needless_range_loop)]

use super::avx512::{first_floats, floats};
use super::{avx2, scalar};
use kiln_plan::{DType, Kind, Scalar, math};
use std::arch::x86_64::*;

/// Up to sixteen elements, f16 or bf16, as floats; zeros behind them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn wide<const F16: bool>(bytes: &[u8]) -> __m512 {
    let used = ((1u32 << (bytes.len() / 2).min(16)) - 1) as u16;
    // SAFETY: only elements inside the slice are read.
    let halves = unsafe { _mm256_maskz_loadu_epi16(used, bytes.as_ptr().cast()) };
    widened::<F16>(halves)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn widened<const F16: bool>(halves: __m256i) -> __m512 {
    if F16 {
        return _mm512_cvtph_ps(halves);
    }
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
}

/// Sixteen floats rounded to nearest even; NaN stays NaN, made quiet.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn halves<const F16: bool>(values: __m512) -> __m256i {
    if F16 {
        return _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values);
    }
    let bits = _mm512_castps_si512(values);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let up = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
    let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000));
    let chosen = _mm512_mask_blend_epi32(nan, _mm512_add_epi32(bits, up), quiet);
    _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(chosen))
}

/// Stores the first lanes, as many as there is room for.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn put_first(out: &mut [f32], values: __m512) {
    let used = ((1u32 << out.len().min(16)) - 1) as u16;
    // SAFETY: only lanes inside the slice are written.
    unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), used, values) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn load(dtype: DType, bytes: &[u8], out: &mut [u32]) {
    match dtype {
        DType::F16 => load_of::<true>(bytes, bytemuck::cast_slice_mut(out)),
        DType::BF16 => load_of::<false>(bytes, bytemuck::cast_slice_mut(out)),
        DType::F32 => bytemuck::cast_slice_mut(out).copy_from_slice(bytes),
        _ => scalar::load(dtype, bytes, out),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn load_of<const F16: bool>(bytes: &[u8], out: &mut [f32]) {
    let (blocks, rest) = bytes.as_chunks::<32>();
    let (sixteens, out_rest) = out.as_chunks_mut::<16>();
    for i in 0..blocks.len().min(sixteens.len()) {
        put_first(&mut sixteens[i], wide::<F16>(&blocks[i]));
    }
    put_first(out_rest, wide::<F16>(rest));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn store(dtype: DType, registers: &[u32], out: &mut [u8]) {
    match dtype {
        DType::F16 => store_of::<true>(bytemuck::cast_slice(registers), out),
        DType::BF16 => store_of::<false>(bytemuck::cast_slice(registers), out),
        DType::U32 | DType::I32 | DType::F32 => {
            out.copy_from_slice(bytemuck::cast_slice(registers));
        }
        _ => scalar::store(dtype, registers, out),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn store_of<const F16: bool>(values: &[f32], out: &mut [u8]) {
    let (blocks, rest) = values.as_chunks::<16>();
    let (out_blocks, out_rest) = out.as_chunks_mut::<32>();
    for i in 0..blocks.len().min(out_blocks.len()) {
        let halves = halves::<F16>(floats(&blocks[i]));
        // SAFETY: room for 32 bytes, any alignment.
        unsafe { _mm256_storeu_si256(out_blocks[i].as_mut_ptr().cast(), halves) };
    }
    let used = ((1u32 << rest.len().min(out_rest.len() / 2)) - 1) as u16;
    let halves = halves::<F16>(first_floats(rest));
    // SAFETY: only elements inside the slice are written.
    unsafe { _mm256_mask_storeu_epi16(out_rest.as_mut_ptr().cast(), used, halves) };
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn cast(from: Kind, dtype: DType, input: &[u32], out: &mut [u32]) {
    match (from, dtype) {
        (Kind::Float, DType::F16) => round::<true>(input, out),
        (Kind::Float, DType::BF16) => round::<false>(input, out),
        _ => avx2::TABLE.cast(from, dtype, input, out),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn round<const F16: bool>(input: &[u32], out: &mut [u32]) {
    let (blocks, rest) = bytemuck::cast_slice(input).as_chunks::<16>();
    let (sixteens, out_rest) = bytemuck::cast_slice_mut(out).as_chunks_mut::<16>();
    for i in 0..blocks.len().min(sixteens.len()) {
        let rounded = widened::<F16>(halves::<F16>(floats(&blocks[i])));
        put_first(&mut sixteens[i], rounded);
    }
    put_first(out_rest, widened::<F16>(halves::<F16>(first_floats(rest))));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn apply(scalar: Scalar, kind: Kind, out: &mut [u32], from: [&[u32]; 3]) {
    scalar::apply(scalar, kind, out, from);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn max(values: &[f32]) -> f32 {
    let (blocks, rest) = values.as_chunks::<16>();
    let mut largest = _mm512_set1_ps(f32::NEG_INFINITY);
    let mut nan = 0;
    for i in 0..blocks.len() {
        let value = floats(&blocks[i]);
        largest = _mm512_max_ps(largest, value);
        nan |= _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
    }
    if !rest.is_empty() {
        let used = ((1u32 << rest.len()) - 1) as u16;
        let value = first_floats(rest);
        largest = _mm512_mask_max_ps(largest, used, largest, value);
        nan |= _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
    }
    if nan == 0 {
        _mm512_reduce_max_ps(largest)
    } else {
        f32::NAN
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn exp_sum(values: &mut [f32], max: f32) -> f32 {
    for i in 0..values.len() {
        values[i] = math::exp(values[i] - max);
    }
    // In the order of every other sum: softmax has the bits of its definition.
    avx2::TABLE.sum(values)
}
