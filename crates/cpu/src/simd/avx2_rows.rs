//! AVX2: rows of weights of every format, times a vector and dequantised.
//!
//! Codes whose width divides 32 are taken apart in place: a lane of 32 bits holds consecutive
//! codes, and shifting all lanes brings one code of each to its low end. The vector is stored in
//! that order (see [`Order`]). Codes of 3, 5 and 6 bits are spread eight at a time by a byte
//! shuffle, in their natural order.

use super::avx2::{BF16, F16, F32, dot, floats, put, total, wide};
use super::{Order, Weights, scalar};
use kiln_array::{DType, E2M1, Format, Mode, Scales, e4m3};
use std::arch::x86_64::*;

/// Groups whose scales are widened at a time.
const GROUPS: usize = 256;

static E4M3: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut byte = 0;
    while byte < 256 {
        values[byte] = e4m3(byte as u8);
        byte += 1;
    }
    values
};

/// How the lanes approach reads a code: an unsigned integer, E2M1 or E4M3.
const INTEGER: u8 = 0;
const FLOAT4: u8 = 1;
const FLOAT8: u8 = 2;

pub(super) fn order(dtype: DType) -> Order {
    match dtype {
        DType::Quantised(format) if 32 % format.bits() == 0 => Order {
            lanes: 8,
            codes: 32 / format.bits(),
        },
        _ => Order::NATURAL,
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn matvec(w: Weights<'_>, x: &[f32], sums: &[f32], out: &mut [f32]) {
    let DType::Quantised(format) = w.dtype else {
        let bytes = w.dtype.row_bytes(w.k);
        for (out, row) in out.iter_mut().zip(w.data.chunks_exact(bytes.max(1))) {
            *out = dot(w.dtype, row, &x[..w.k]);
        }
        return;
    };
    match (format.mode(), format.bits()) {
        (Mode::Affine, 1) => lanes::<1, INTEGER>(format, w, x, sums, out),
        (Mode::Affine, 2) => lanes::<2, INTEGER>(format, w, x, sums, out),
        (Mode::Affine, 4) => lanes::<4, INTEGER>(format, w, x, sums, out),
        (Mode::Affine, 8) => lanes::<8, INTEGER>(format, w, x, sums, out),
        (Mode::Affine, 3) => spread::<3>(format, w, x, sums, out),
        (Mode::Affine, 5) => spread::<5>(format, w, x, sums, out),
        (Mode::Affine, _) => spread::<6>(format, w, x, sums, out),
        (Mode::Mxfp4 | Mode::Nvfp4, _) => lanes::<4, FLOAT4>(format, w, x, sums, out),
        (Mode::Mxfp8, _) => lanes::<8, FLOAT8>(format, w, x, sums, out),
    }
}

/// Eight scales from number `at` of a row's `scales` on, as f32; zeros past its end.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn eight_scales(format: Format, scales: &[u8], at: usize) -> __m256 {
    let bytes = &scales[at * format.scale_bytes()..];
    match (format.mode(), format.scales()) {
        (_, Scales::F16) => wide::<F16, 16>(&padded(bytes)),
        (_, Scales::BF16) => wide::<BF16, 16>(&padded(bytes)),
        (_, Scales::F32) => wide::<F32, 32>(&padded(bytes)),
        (Mode::Nvfp4, _) => floats(&padded::<8>(bytes).map(|byte| E4M3[byte as usize])),
        (_, Scales::U8) => {
            let bytes = _mm_cvtsi64_si128(i64::from_le_bytes(padded(bytes)));
            let exponents = _mm256_slli_epi32::<23>(_mm256_cvtepu8_epi32(bytes));
            // Byte 0 is the subnormal 2^-127. Zeros past the end become it too; they meet zeros.
            let least = _mm256_set1_epi32(0x0040_0000);
            _mm256_castsi256_ps(_mm256_max_epu32(exponents, least))
        }
    }
}

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

/// `Σ bias · sum` over the groups from number `first` on, in a vector.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_biases(format: Format, biases: &[u8], first: usize, sums: &[f32], total: __m256) -> __m256 {
    let mut total = total;
    for (i, eight) in sums.as_chunks::<8>().0.iter().enumerate() {
        let biases = eight_scales(format, biases, first + 8 * i);
        total = _mm256_fmadd_ps(biases, floats(eight), total);
    }
    total
}

/// The codes of step `m` of eight lanes as floats.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn step<const BITS: i32, const VALUES: u8>(lanes: __m256i, m: i32, table: __m256) -> __m256 {
    let right = _mm_cvtsi32_si128(m * BITS);
    match VALUES {
        INTEGER => {
            let mask = _mm256_set1_epi32((1 << BITS) - 1);
            _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srl_epi32(lanes, right), mask))
        }
        FLOAT4 => {
            let magnitude = _mm256_permutevar8x32_ps(table, _mm256_srl_epi32(lanes, right));
            let left = _mm_cvtsi32_si128(28 - m * BITS);
            let sign = _mm256_castsi256_ps(_mm256_sll_epi32(lanes, left));
            _mm256_xor_ps(magnitude, _mm256_and_ps(sign, _mm256_set1_ps(-0.0)))
        }
        _ => e4m3_top(_mm256_sll_epi32(lanes, _mm_cvtsi32_si128(24 - m * BITS))),
    }
}

/// The values of E4M3 codes in the top bytes of the lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn e4m3_top(codes: __m256i) -> __m256 {
    // The sign copied down four bits, cut off again; exponent and mantissa at an f32's places.
    let moved = _mm256_srai_epi32::<4>(codes);
    let bits = _mm256_and_si256(moved, _mm256_set1_epi32(0x87f0_0000u32 as i32));
    let magnitude = _mm256_set1_epi32(0x07f0_0000);
    let nan = _mm256_cmpeq_epi32(_mm256_and_si256(moved, magnitude), magnitude);
    // 2^120 is the difference of the exponents' biases; subnormals come out right as well.
    let value = _mm256_mul_ps(_mm256_castsi256_ps(bits), _mm256_set1_ps(2f32.powi(120)));
    _mm256_or_ps(value, _mm256_castsi256_ps(nan))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn bytes32(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: 32 bytes, any alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn e2m1_magnitudes() -> __m256 {
    floats(&std::array::from_fn(|i| E2M1[i]))
}

/// One piece: eight lanes of codes times `32 / BITS` vectors of eight elements.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn piece<const BITS: i32, const VALUES: u8>(
    codes: &[u8; 32],
    x: &[[f32; 8]],
    table: __m256,
) -> __m256 {
    let lanes = bytes32(codes);
    let (mut even, mut odd) = (_mm256_setzero_ps(), _mm256_setzero_ps());
    for m in (0..32 / BITS).step_by(2) {
        let at = m as usize;
        even = _mm256_fmadd_ps(step::<BITS, VALUES>(lanes, m, table), floats(&x[at]), even);
        odd = _mm256_fmadd_ps(
            step::<BITS, VALUES>(lanes, m + 1, table),
            floats(&x[at + 1]),
            odd,
        );
    }
    _mm256_add_ps(even, odd)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn lanes<const BITS: i32, const VALUES: u8>(
    format: Format,
    w: Weights<'_>,
    x: &[f32],
    sums: &[f32],
    out: &mut [f32],
) {
    let steps = 32 / BITS as usize;
    let (x, _) = x.as_chunks::<8>();
    let lanes_per_group = format.group() / steps;
    // Lane j of a piece belongs to this group, counted from the piece's first.
    let spread: [i32; 8] = std::array::from_fn(|j| (j / lanes_per_group) as i32);
    // SAFETY: eight integers.
    let spread = unsafe { _mm256_loadu_si256(spread.as_ptr().cast()) };
    let table = e2m1_magnitudes();
    let groups = w.k / format.group();
    let pieces_per_segment = GROUPS * lanes_per_group / 8;
    let mut scales = [0.0f32; GROUPS + 8];
    for (i, out) in out.iter_mut().enumerate() {
        let row = w.row(i);
        let mut sum = _mm256_setzero_ps();
        let (codes, rest) = row.data.as_chunks::<32>();
        let mut tail = [0; 32];
        tail[..rest.len()].copy_from_slice(rest);
        let last = if rest.is_empty() { None } else { Some(&tail) };
        for (number, codes) in codes.iter().chain(last).enumerate() {
            let within = number % pieces_per_segment;
            if within == 0 {
                let first = number * 8 / lanes_per_group;
                let count = GROUPS.min(groups - first);
                for (eight, out) in scales.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                    if 8 * eight >= count {
                        break;
                    }
                    put(out, eight_scales(format, row.scales, first + 8 * eight));
                }
                if format.has_biases() {
                    let sums = &sums[first..first + count.next_multiple_of(8)];
                    sum = add_biases(format, row.biases, first, sums, sum);
                }
            }
            let from = within * 8 / lanes_per_group;
            let Some(eight) = scales[from..].first_chunk() else {
                break;
            };
            let scale = _mm256_permutevar8x32_ps(floats(eight), spread);
            let x = &x[number * steps..][..steps];
            sum = _mm256_fmadd_ps(scale, piece::<BITS, VALUES>(codes, x, table), sum);
        }
        *out = total(sum);
    }
}

/// How eight codes of `BITS` bits are spread over eight lanes: each lane gets the two bytes its
/// code lies in, then shifts.
struct Spread<const BITS: usize>;

impl<const BITS: usize> Spread<BITS> {
    const BYTES: [u8; 32] = {
        let mut control = [0x80; 32];
        let mut j = 0;
        while j < 8 {
            control[4 * j] = (j * BITS / 8) as u8;
            control[4 * j + 1] = (j * BITS / 8) as u8 + 1;
            j += 1;
        }
        control
    };
    const SHIFTS: [i32; 8] = {
        let mut shifts = [0; 8];
        let mut j = 0;
        while j < 8 {
            shifts[j] = (j * BITS % 8) as i32;
            j += 1;
        }
        shifts
    };
}

/// The eight codes that begin at the first of these bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn eight_codes<const BITS: usize>(bytes: &[u8; 16]) -> __m256i {
    // SAFETY: 16 bytes, any alignment.
    let bytes = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    let bytes = _mm256_broadcastsi128_si256(bytes);
    let pairs = _mm256_shuffle_epi8(bytes, bytes32(&Spread::<BITS>::BYTES));
    // SAFETY: eight integers.
    let shifts = unsafe { _mm256_loadu_si256(Spread::<BITS>::SHIFTS.as_ptr().cast()) };
    let mask = _mm256_set1_epi32((1 << BITS) - 1);
    _mm256_and_si256(_mm256_srlv_epi32(pairs, shifts), mask)
}

/// The bytes of one group's codes and at least 16 after them: from `codes` where they reach that
/// far, else from a copy in `room`.
#[inline]
fn with_margin<'a>(codes: &'a [u8], at: usize, bytes: usize, room: &'a mut [u8; 160]) -> &'a [u8] {
    if let Some(group) = codes.get(at..at + bytes + 16) {
        return group;
    }
    room[..bytes].copy_from_slice(&codes[at..at + bytes]);
    &room[..bytes + 16]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn spread<const BITS: usize>(
    format: Format,
    w: Weights<'_>,
    x: &[f32],
    sums: &[f32],
    out: &mut [f32],
) {
    let group = format.group();
    let bytes = group / 8 * BITS;
    let (x, _) = x.as_chunks::<8>();
    let mut room = [0; 160];
    for (i, out) in out.iter_mut().enumerate() {
        let row = w.row(i);
        let start = i * format.code_row(w.k);
        let count = w.k / group;
        let mut sum = add_biases(format, row.biases, 0, sums, _mm256_setzero_ps());
        let mut scales = [0.0; 8];
        for (number, x) in x.chunks_exact(group / 8).take(count).enumerate() {
            if number % 8 == 0 {
                put(&mut scales, eight_scales(format, row.scales, number));
            }
            let codes = with_margin(w.data, start + number * bytes, bytes, &mut room);
            let mut partial = _mm256_setzero_ps();
            for (j, x) in x.iter().enumerate() {
                let Some(codes) = codes[j * BITS..].first_chunk() else {
                    break;
                };
                let codes = _mm256_cvtepi32_ps(eight_codes::<BITS>(codes));
                partial = _mm256_fmadd_ps(codes, floats(x), partial);
            }
            sum = _mm256_fmadd_ps(_mm256_set1_ps(scales[number % 8]), partial, sum);
        }
        *out = total(sum);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dequantise(w: Weights<'_>, start: usize, out: &mut [f32]) {
    let DType::Quantised(format) = w.dtype else {
        let bytes = w.dtype.row_bytes(start)..w.dtype.row_bytes(start + out.len());
        return widen(w.dtype, &w.data[bytes], out);
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
fn widen(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    if dtype != DType::F16 {
        return scalar::load(dtype, bytes, bytemuck::cast_slice_mut(out));
    }
    let whole = out.len() / 8 * 8;
    let (blocks, _) = bytes.as_chunks::<16>();
    for (out, block) in out.as_chunks_mut::<8>().0.iter_mut().zip(blocks) {
        put(out, wide::<F16, 16>(block));
    }
    scalar::load(
        dtype,
        &bytes[2 * whole..],
        bytemuck::cast_slice_mut(&mut out[whole..]),
    );
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
    for (i, out) in out.chunks_mut(group).enumerate() {
        let number = start / group + i;
        if i % 8 == 0 {
            put(&mut scales, eight_scales(format, w.scales, number));
            if format.has_biases() {
                put(&mut biases, eight_scales(format, w.biases, number));
            }
        }
        let scale = _mm256_set1_ps(scales[i % 8]);
        let bias = _mm256_set1_ps(biases[i % 8]);
        let codes = with_margin(w.data, number * bytes, bytes, &mut room);
        for (j, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let Some(codes) = codes[j * BITS..].first_chunk() else {
                break;
            };
            let codes = eight_codes::<BITS>(codes);
            let value = match VALUES {
                INTEGER => _mm256_cvtepi32_ps(codes),
                FLOAT4 => step::<4, FLOAT4>(codes, 0, table),
                _ => e4m3_top(_mm256_slli_epi32::<24>(codes)),
            };
            let scaled = _mm256_mul_ps(scale, value);
            // Without a bias nothing is added: -0.0 stays.
            let sum = if VALUES == INTEGER {
                _mm256_add_ps(scaled, bias)
            } else {
                scaled
            };
            put(out, sum);
        }
    }
}
