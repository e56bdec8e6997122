//! AVX2: rows of weights of every format times a vector.
//!
//! Codes whose width divides 32 are taken apart in place: a lane of 32 bits holds consecutive
//! codes, and shifting all lanes brings one code of each to its low end. The vector is stored in
//! that order (see [`Order`]). Codes of 3, 5 and 6 bits are spread eight at a time by a byte
//! shuffle, in their natural order. Loops count indices for the reason given in `avx2`.

#![allow(clippy::needless_range_loop)]

use super::avx2::{floats, total};
use super::avx2_products::dot;
use super::avx2_scales::{AHEAD, Groups, bias_sum, fetch_ahead, first_lanes, floats_at, groups};
use super::{Elements, Order, Vector, Weights};
use kiln_plan::{DType, E2M1, Format, Mode};
use std::arch::x86_64::*;

/// How the lanes approach reads a code: an unsigned integer, E2M1 or E4M3.
pub(super) const INTEGER: u8 = 0;
pub(super) const FLOAT4: u8 = 1;
pub(super) const FLOAT8: u8 = 2;

pub(super) fn order(w: DType, _: DType) -> Order {
    match w {
        DType::Quantised(format) if 32 % format.bits() == 0 => Order {
            elements: Elements::Floats,
            lanes: 8,
            codes: 32 / format.bits(),
        },
        _ => Order::NATURAL,
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn matvec(w: Weights<'_>, vector: Vector<'_>, room: &mut [f32], out: &mut [f32]) {
    let DType::Quantised(format) = w.dtype else {
        let bytes = w.dtype.row_bytes(w.k);
        for i in 0..out.len() {
            out[i] = dot(
                w.dtype,
                &w.data[i * bytes..(i + 1) * bytes],
                &vector.x[..w.k],
            );
        }
        return;
    };
    let groups = groups(format, w, vector.sums, out.len(), room);
    match (format.mode(), format.bits()) {
        (Mode::Affine, 1) => lanes::<1, 32, INTEGER>(format, w, vector.x, groups, out),
        (Mode::Affine, 2) => lanes::<2, 16, INTEGER>(format, w, vector.x, groups, out),
        (Mode::Affine, 4) => lanes::<4, 8, INTEGER>(format, w, vector.x, groups, out),
        (Mode::Affine, 8) => lanes::<8, 4, INTEGER>(format, w, vector.x, groups, out),
        (Mode::Affine, 3) => spread::<3>(format, w, vector.x, groups, out),
        (Mode::Affine, 5) => spread::<5>(format, w, vector.x, groups, out),
        (Mode::Affine, _) => spread::<6>(format, w, vector.x, groups, out),
        (Mode::Mxfp4 | Mode::Nvfp4, _) => lanes::<4, 8, FLOAT4>(format, w, vector.x, groups, out),
        (Mode::Mxfp8, _) => lanes::<8, 4, FLOAT8>(format, w, vector.x, groups, out),
    }
}

/// The codes of step `m` of eight lanes as floats.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn step<const BITS: i32, const VALUES: u8>(
    lanes: __m256i,
    m: i32,
    table: __m256,
) -> __m256 {
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
pub(super) fn e4m3_top(codes: __m256i) -> __m256 {
    let magnitude = _mm256_and_si256(codes, _mm256_set1_epi32(0x7f00_0000));
    let nan = _mm256_cmpeq_epi32(magnitude, _mm256_set1_epi32(0x7f00_0000));
    let sign = _mm256_and_si256(codes, _mm256_set1_epi32(i32::MIN));
    // Exponent and mantissa at an f32's places, and the difference of the exponents' biases.
    let bits = _mm256_add_epi32(
        _mm256_srli_epi32::<4>(magnitude),
        _mm256_set1_epi32(120 << 23),
    );
    let value = _mm256_castsi256_ps(bits);
    // Where the exponent is 0, no one stands before the mantissa: this is less there, and more elsewhere.
    // Through subnormals, which Granite Rapids multiplies by microcode, 1.1 B weights of mxfp8 made one
    // token a second there and not fifteen.
    let subnormal = _mm256_fmsub_ps(value, _mm256_set1_ps(2.0), _mm256_set1_ps(2f32.powi(-6)));
    let value = _mm256_min_ps(value, subnormal);
    let value = _mm256_or_ps(value, _mm256_castsi256_ps(sign));
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
pub(super) fn e2m1_magnitudes() -> __m256 {
    floats_at(&E2M1, 0)
}

/// One piece: eight lanes of codes times `STEPS = 32 / BITS` vectors of eight elements, added to
/// two partial sums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn piece<const BITS: i32, const STEPS: usize, const VALUES: u8>(
    codes: &[u8; 32],
    x: &[[f32; 8]; STEPS],
    table: __m256,
    [mut even, mut odd]: [__m256; 2],
) -> [__m256; 2] {
    fetch_ahead(codes, AHEAD);
    let lanes = bytes32(codes);
    for half in 0..STEPS / 2 {
        let (m, n) = (2 * half, 2 * half + 1);
        let (a, b) = (
            step::<BITS, VALUES>(lanes, m as i32, table),
            step::<BITS, VALUES>(lanes, n as i32, table),
        );
        even = _mm256_fmadd_ps(a, floats(&x[m]), even);
        odd = _mm256_fmadd_ps(b, floats(&x[n]), odd);
    }
    [even, odd]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn lanes<const BITS: i32, const STEPS: usize, const VALUES: u8>(
    format: Format,
    w: Weights<'_>,
    x: &[f32],
    groups: Groups<'_>,
    out: &mut [f32],
) {
    let bytes = format.code_row(w.k);
    let lanes_per_group = format.group() / STEPS;
    let (x, _) = x.as_chunks::<8>();
    let (x, _) = x.as_chunks::<STEPS>();
    for i in 0..out.len() {
        let row = &w.data[i * bytes..(i + 1) * bytes];
        let scales = &groups.scales[i * groups.count..];
        let sum = if lanes_per_group >= 8 {
            whole_pieces::<BITS, STEPS, VALUES>(row, lanes_per_group / 8, x, scales)
        } else {
            split_pieces::<BITS, STEPS, VALUES>(row, lanes_per_group, x, scales)
        };
        out[i] = total(_mm256_add_ps(sum, bias_sum(groups, i)));
    }
}

/// A row whose groups are `count` pieces each.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn whole_pieces<const BITS: i32, const STEPS: usize, const VALUES: u8>(
    row: &[u8],
    count: usize,
    x: &[[[f32; 8]; STEPS]],
    scales: &[f32],
) -> __m256 {
    let table = e2m1_magnitudes();
    let zero = _mm256_setzero_ps();
    let mut sum = zero;
    let (pieces, _) = row.as_chunks::<32>();
    let groups = pieces.len() / count;
    let (x, scales) = (&x[..pieces.len()], &scales[..groups]);
    for group in 0..groups {
        let mut partial = [zero; 2];
        for i in group * count..(group + 1) * count {
            partial = piece::<BITS, STEPS, VALUES>(&pieces[i], &x[i], table, partial);
        }
        let [even, odd] = partial;
        sum = _mm256_fmadd_ps(_mm256_set1_ps(scales[group]), _mm256_add_ps(even, odd), sum);
    }
    sum
}

/// A row whose pieces hold several groups, of `lanes_per_group` lanes each. `scales` has a margin
/// of eight.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn split_pieces<const BITS: i32, const STEPS: usize, const VALUES: u8>(
    row: &[u8],
    lanes_per_group: usize,
    x: &[[[f32; 8]; STEPS]],
    scales: &[f32],
) -> __m256 {
    let table = e2m1_magnitudes();
    let zero = _mm256_setzero_ps();
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    // Lane j belongs to group j / lanes_per_group of its piece.
    let shift = _mm_cvtsi32_si128(lanes_per_group.ilog2() as i32);
    let spread = _mm256_srl_epi32(lanes, shift);
    let groups = 8 / lanes_per_group;
    let mut sum = zero;
    let (pieces, rest) = row.as_chunks::<32>();
    for i in 0..pieces.len() {
        let scale = _mm256_permutevar8x32_ps(floats_at(scales, i * groups), spread);
        let [even, odd] = piece::<BITS, STEPS, VALUES>(&pieces[i], &x[i], table, [zero; 2]);
        sum = _mm256_fmadd_ps(scale, _mm256_add_ps(even, odd), sum);
    }
    if !rest.is_empty() {
        let mut codes = [0; 32];
        codes[..rest.len()].copy_from_slice(rest);
        let scale = floats_at(scales, pieces.len() * groups);
        // What is past the row's scales may be NaN.
        let used = first_lanes(rest.len() / 4 / lanes_per_group);
        let scale = _mm256_permutevar8x32_ps(_mm256_and_ps(scale, used), spread);
        let x = &x[pieces.len()];
        let [even, odd] = piece::<BITS, STEPS, VALUES>(&codes, x, table, [zero; 2]);
        sum = _mm256_fmadd_ps(scale, _mm256_add_ps(even, odd), sum);
    }
    sum
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

/// The eight codes that begin at byte `at`, which 16 bytes follow.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn eight_codes<const BITS: usize>(codes: &[u8], at: usize) -> __m256i {
    let bytes = &codes[at..at + 16];
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
pub(super) fn with_margin<'a>(
    codes: &'a [u8],
    at: usize,
    bytes: usize,
    room: &'a mut [u8; 160],
) -> &'a [u8] {
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
    groups: Groups<'_>,
    out: &mut [f32],
) {
    let group = format.group();
    let bytes = group / 8 * BITS;
    let (x, _) = x.as_chunks::<8>();
    let mut room = [0; 160];
    for i in 0..out.len() {
        let start = i * format.code_row(w.k);
        let scales = &groups.scales[i * groups.count..(i + 1) * groups.count];
        let mut sum = bias_sum(groups, i);
        for number in 0..groups.count {
            let codes = with_margin(w.data, start + number * bytes, bytes, &mut room);
            let x = &x[number * (group / 8)..][..group / 8];
            let mut partial = [_mm256_setzero_ps(); 2];
            for half in 0..group / 16 {
                for odd in 0..2 {
                    let j = 2 * half + odd;
                    let codes = _mm256_cvtepi32_ps(eight_codes::<BITS>(codes, j * BITS));
                    partial[odd] = _mm256_fmadd_ps(codes, floats(&x[j]), partial[odd]);
                }
            }
            let partial = _mm256_add_ps(partial[0], partial[1]);
            sum = _mm256_fmadd_ps(_mm256_set1_ps(scales[number]), partial, sum);
        }
        out[i] = total(sum);
    }
}
