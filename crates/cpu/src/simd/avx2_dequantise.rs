//! AVX2: rows of weights of every format as f32.

#![allow(clippy::needless_range_loop)]

use super::Weights;
use super::avx2::{load, put};
use super::avx2_rows::{
    FLOAT4, FLOAT8, INTEGER, e2m1_magnitudes, e4m3_top, eight_codes, step, with_margin,
};
use super::avx2_scales::eight_scales;
use kiln_plan::{DType, Format, Mode};
use std::arch::x86_64::*;

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dequantise(w: Weights<'_>, start: usize, out: &mut [f32]) {
    let DType::Quantised(format) = w.dtype else {
        let bytes = w.dtype.row_bytes(start)..w.dtype.row_bytes(start + out.len());
        return load(w.dtype, &w.data[bytes], bytemuck::cast_slice_mut(out));
    };
    match (format.mode(), format.bits()) {
        (Mode::Affine, 1) => dequantise_of::<1, INTEGER>(format, w, start, out),
        (Mode::Affine, 2) => dequantise_of::<2, INTEGER>(format, w, start, out),
        (Mode::Affine, 3) => dequantise_of::<3, INTEGER>(format, w, start, out),
        (Mode::Affine, 4) => dequantise_of::<4, INTEGER>(format, w, start, out),
        (Mode::Affine, 5) => dequantise_of::<5, INTEGER>(format, w, start, out),
        (Mode::Affine, 6) => dequantise_of::<6, INTEGER>(format, w, start, out),
        (Mode::Affine, _) => dequantise_of::<8, INTEGER>(format, w, start, out),
        (Mode::Mxfp4 | Mode::Nvfp4, _) => dequantise_of::<4, FLOAT4>(format, w, start, out),
        (Mode::Mxfp8, _) => dequantise_of::<8, FLOAT8>(format, w, start, out),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dequantise_of<const BITS: usize, const VALUES: u8>(
    format: Format,
    w: Weights<'_>,
    start: usize,
    out: &mut [f32],
) {
    let group = format.group();
    let bytes = group / 8 * BITS;
    let table = e2m1_magnitudes();
    let mut room = [0; 160];
    let (mut scales, mut biases) = ([0.0; 8], [0.0; 8]);
    let (eights, _) = out.as_chunks_mut::<8>();
    let (first, per_group) = (start / group, group / 8);
    for i in 0..eights.len() / per_group {
        if i % 8 == 0 {
            let from = (first + i) * format.scale_bytes();
            put(&mut scales, eight_scales(format, &w.scales[from..]));
            if format.has_biases() {
                put(&mut biases, eight_scales(format, &w.biases[from..]));
            }
        }
        let scale = _mm256_set1_ps(scales[i % 8]);
        let bias = _mm256_set1_ps(biases[i % 8]);
        let codes = with_margin(w.data, (first + i) * bytes, bytes, &mut room);
        let out = &mut eights[i * per_group..(i + 1) * per_group];
        for j in 0..per_group {
            let codes = eight_codes::<BITS>(codes, j * BITS);
            let value = match VALUES {
                INTEGER => _mm256_cvtepi32_ps(codes),
                FLOAT4 => step::<4, FLOAT4>(codes, 0, table),
                _ => e4m3_top(_mm256_slli_epi32::<24>(codes)),
            };
            let scaled = _mm256_mul_ps(scale, value);
            // Without a bias nothing is added: -0.0 stays.
            put(
                &mut out[j],
                if VALUES == INTEGER {
                    _mm256_add_ps(scaled, bias)
                } else {
                    scaled
                },
            );
        }
    }
}
