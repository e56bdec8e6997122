//! The table for AVX-512 (F, BW, VL): mat-vec of codes whose width divides 32. The register
//! tile is `avx512_tile`'s, elements are `avx512_rows`', the rest is AVX2's.
//!
//! A piece is sixteen lanes of 32 bits; codes of up to four bits become floats by one table
//! lookup. Loops count indices for the reason given in `avx2`.

#![allow(clippy::needless_range_loop)]

use super::avx2;
use super::avx2_scales::{AHEAD, Groups, fetch_ahead, groups};
use super::avx512_e4m3;
use super::avx512_products;
use super::avx512_rows::{apply, cast, exp_sum, load, max, store};
use super::avx512_tile::{COLUMNS, ROWS, tile, turn};
use super::{Isa, Order, Vector, Weights};
use kiln_plan::{DType, E2M1, Format, Mode};
use std::arch::x86_64::*;

pub(super) const TABLE: Isa = Isa {
    name: "avx512",
    available,
    load,
    store,
    cast,
    apply,
    max,
    exp_sum,
    order,
    matvec,
    tile,
    tile_rows: ROWS,
    tile_columns: COLUMNS,
    turn,
    ..avx2::TABLE
};

pub(super) fn available() -> bool {
    avx2::available()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
}

/// How codes become floats: by the low four bits, or as an unsigned byte.
const LOOKUP: u8 = 0;
const BYTE: u8 = 1;

/// Whether AVX2 reads rows of this dtype: without VBMI, those of E4M3.
fn by_avx2(w: DType) -> bool {
    w == DType::Quantised(Format::MXFP8) && !avx512_e4m3::available()
}

pub(super) fn order(w: DType, x: DType) -> Order {
    let order = avx2::TABLE.order(w, x);
    if order == Order::NATURAL || by_avx2(w) {
        order
    } else {
        Order { lanes: 16, ..order }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn matvec(w: Weights<'_>, vector: Vector<'_>, room: &mut [f32], out: &mut [f32]) {
    let format = match w.dtype {
        DType::Quantised(format) if 32 % format.bits() == 0 && !by_avx2(w.dtype) => format,
        DType::Quantised(_) => return super::avx2_rows::matvec(w, vector, room, out),
        _ => return avx512_products::matvec(w, vector.x, out),
    };
    let groups = groups(format, w, vector.sums, out.len(), room);
    match (format.mode(), format.bits()) {
        // SAFETY: this machine has VBMI, or AVX2 had been asked.
        (Mode::Mxfp8, _) => unsafe { avx512_e4m3::matvec(w, vector.x, groups, out) },
        (_, 8) => lanes::<8, 4, BYTE>(format, w, vector.x, groups, out),
        (_, 4) => lanes::<4, 8, LOOKUP>(format, w, vector.x, groups, out),
        (_, 2) => lanes::<2, 16, LOOKUP>(format, w, vector.x, groups, out),
        _ => lanes::<1, 32, LOOKUP>(format, w, vector.x, groups, out),
    }
}

/// The values of a code's low four bits.
pub(super) fn values(format: Format) -> [f32; 16] {
    match format.mode() {
        Mode::Affine => std::array::from_fn(|i| (i % (1 << format.bits())) as f32),
        _ => E2M1,
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn floats(values: &[f32; 16]) -> __m512 {
    // SAFETY: sixteen floats.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

/// The first floats of sixteen; zeros for the others.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn first_floats(values: &[f32]) -> __m512 {
    let used = ((1u32 << values.len().min(16)) - 1) as u16;
    // SAFETY: only lanes inside the slice are read.
    unsafe { _mm512_maskz_loadu_ps(used, values.as_ptr()) }
}

/// Sixteen lanes of codes; zeros past the end.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn codes(bytes: &[u8]) -> __m512i {
    let used = if bytes.len() < 64 {
        (1u64 << bytes.len()) - 1
    } else {
        u64::MAX
    };
    // SAFETY: only bytes inside the slice are read.
    unsafe { _mm512_maskz_loadu_epi8(used, bytes.as_ptr().cast()) }
}

/// The codes of step `m` of all lanes as floats.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn step<const BITS: u32, const VALUES: u8>(lanes: __m512i, m: u32, table: __m512) -> __m512 {
    match VALUES {
        LOOKUP => {
            let moved = _mm512_srl_epi32(lanes, _mm_cvtsi32_si128((m * BITS) as i32));
            _mm512_permutexvar_ps(moved, table)
        }
        _ => {
            let moved = _mm512_srl_epi32(lanes, _mm_cvtsi32_si128((m * BITS) as i32));
            _mm512_cvtepi32_ps(_mm512_and_si512(moved, _mm512_set1_epi32(0xff)))
        }
    }
}

/// One piece: sixteen lanes of codes times `STEPS = 32 / BITS` vectors of sixteen elements.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn piece<const BITS: u32, const STEPS: usize, const VALUES: u8>(
    lanes: __m512i,
    x: &[[f32; 16]; STEPS],
    table: __m512,
) -> __m512 {
    let mut partial = [_mm512_setzero_ps(); 2];
    for half in 0..STEPS / 2 {
        for odd in 0..2 {
            let m = 2 * half + odd;
            let value = step::<BITS, VALUES>(lanes, m as u32, table);
            partial[odd] = _mm512_fmadd_ps(value, floats(&x[m]), partial[odd]);
        }
    }
    _mm512_add_ps(partial[0], partial[1])
}

/// Rows of codes, and what they meet.
#[derive(Clone, Copy)]
struct Rows<'a, const STEPS: usize> {
    data: &'a [u8],
    /// Bytes of a row.
    bytes: usize,
    x: &'a [[[f32; 16]; STEPS]],
    groups: Groups<'a>,
    table: __m512,
    /// Lane j of a piece's products belongs to its group `j >> shift`.
    shift: u32,
    /// That group of each lane.
    spread: __m512i,
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn lanes<const BITS: u32, const STEPS: usize, const VALUES: u8>(
    format: Format,
    w: Weights<'_>,
    x: &[f32],
    groups: Groups<'_>,
    out: &mut [f32],
) {
    let shift = (format.group() / STEPS).ilog2();
    let numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let bytes = format.code_row(w.k);
    let rows = Rows {
        data: w.data,
        bytes,
        x: &x.as_chunks::<16>().0.as_chunks::<STEPS>().0[..bytes.div_ceil(64)],
        groups,
        table: floats(&values(format)),
        shift,
        spread: _mm512_srl_epi32(numbers, _mm_cvtsi32_si128(shift as i32)),
    };
    for (number, four) in out.chunks_mut(4).enumerate() {
        let mut sums = [_mm512_setzero_ps(); 4];
        for i in 0..four.len() {
            sums[i] = row::<BITS, STEPS, VALUES>(&rows, 4 * number + i);
        }
        four.copy_from_slice(&totals(sums)[..four.len()]);
    }
}

/// The inner product of row `i` with the vector, as sixteen numbers to be added up.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn row<const BITS: u32, const STEPS: usize, const VALUES: u8>(
    rows: &Rows<'_, STEPS>,
    i: usize,
) -> __m512 {
    let Rows {
        x, groups, table, ..
    } = *rows;
    let (pieces, rest) = rows.data[i * rows.bytes..(i + 1) * rows.bytes].as_chunks::<64>();
    let scales = &groups.scales[i * groups.count..];
    let mut sum = bias_sums(groups, i);
    for number in 0..pieces.len() {
        fetch_ahead(&pieces[number], AHEAD);
        let first = (number * 16) >> rows.shift;
        // Lanes whose groups are another piece's or row's are not looked at.
        let scale = _mm512_permutexvar_ps(rows.spread, floats_at(scales, first));
        let product = piece::<BITS, STEPS, VALUES>(codes(&pieces[number]), &x[number], table);
        sum = _mm512_fmadd_ps(scale, product, sum);
    }
    if !rest.is_empty() {
        let first = (pieces.len() * 16) >> rows.shift;
        let scale = first_floats(&scales[first..groups.count]);
        let scale = _mm512_permutexvar_ps(rows.spread, scale);
        let product = piece::<BITS, STEPS, VALUES>(codes(rest), &x[pieces.len()], table);
        sum = _mm512_fmadd_ps(scale, product, sum);
    }
    sum
}

/// `bias · sum` of row `i`'s groups, as sixteen numbers to be added up.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn bias_sums(groups: Groups<'_>, i: usize) -> __m512 {
    let mut sum = _mm512_setzero_ps();
    if groups.biases.is_empty() {
        return sum;
    }
    let biases = &groups.biases[i * groups.count..(i + 1) * groups.count];
    for (biases, sums) in biases.chunks(16).zip(groups.sums.chunks(16)) {
        let sums = first_floats(&sums[..biases.len()]);
        sum = _mm512_fmadd_ps(first_floats(biases), sums, sum);
    }
    sum
}

/// Sixteen of `values` from number `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn floats_at(values: &[f32], at: usize) -> __m512 {
    let sixteen = &values[at..at + 16];
    // SAFETY: sixteen floats.
    unsafe { _mm512_loadu_ps(sixteen.as_ptr()) }
}

/// The sums over sixteen lanes of four vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn totals([a, b, c, d]: [__m512; 4]) -> [f32; 4] {
    let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    // Now lanes 0 and 2 of each four are of the first vector, 1 and 3 of the second.
    let low = _mm512_shuffle_ps::<0b01_00_01_00>(ab, cd);
    let high = _mm512_shuffle_ps::<0b11_10_11_10>(ab, cd);
    let fours = _mm512_add_ps(low, high);
    let low = _mm512_castps512_ps256(fours);
    let high = _mm512_castps512_ps256(_mm512_shuffle_f32x4::<0b1110>(fours, fours));
    let two = _mm256_add_ps(low, high);
    let one = _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps::<1>(two));
    let mut totals = [0.0; 4];
    // SAFETY: room for four floats.
    unsafe { _mm_storeu_ps(totals.as_mut_ptr(), one) };
    totals
}
