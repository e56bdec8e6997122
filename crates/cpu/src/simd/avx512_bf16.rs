//! The table for AVX-512 with its bf16 products: mat-vec of vectors of bf16, for codes of 2, 4 and
//! 8 bits, and register tiles of bf16. The rest is AVX-512's.
//!
//! Codes become bf16 by one table lookup and are exact, so are the products of two bf16; the sums
//! are f32. A piece is 32 lanes of 16 bits. The products flush subnormal numbers to zero. Loops
//! count indices for the reason given in `avx2`.

#![allow(clippy::needless_range_loop)]

use super::avx2_scales::{AHEAD, Groups, fetch_ahead, groups};
use super::avx512::{self, bias_sums, codes, first_floats, floats_at, totals, values};
use super::{Elements, Isa, Order, Vector, Weights, avx512_pairs, avx512_quads};
use kiln_plan::{DType, Format, Mode};
use std::arch::x86_64::*;

pub(super) const TABLE: Isa = Isa {
    name: "avx512bf16",
    available,
    // Intel's processors take longer for products of bf16 than for those of floats.
    preferred: || !super::intel(),
    order,
    matvec,
    pairs: Some(avx512_pairs::PAIRS),
    quads: Some(avx512_quads::QUADS),
    ..avx512::TABLE
};

pub(super) fn available() -> bool {
    avx512::available()
        && is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("bmi2")
}

/// The format of weights whose codes this table looks up.
fn looked_up(dtype: DType) -> Option<Format> {
    match dtype {
        DType::Quantised(format) if format.mode() == Mode::Mxfp8 => None,
        DType::Quantised(format) => matches!(format.bits(), 2 | 4 | 8).then_some(format),
        _ => None,
    }
}

fn order(w: DType, x: DType) -> Order {
    match looked_up(w) {
        Some(format) if x == DType::BF16 => Order {
            elements: Elements::Halves,
            lanes: 32,
            codes: 16 / format.bits(),
        },
        _ => avx512::order(w, x),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
fn matvec(w: Weights<'_>, vector: Vector<'_>, room: &mut [f32], out: &mut [f32]) {
    let Some(format) = looked_up(w.dtype).filter(|_| vector.elements == Elements::Halves) else {
        return avx512::matvec(w, vector, room, out);
    };
    let groups = groups(format, w, vector.sums, out.len(), room);
    match format.bits() {
        8 => rows::<8, 2>(format, w, vector.x, groups, out),
        4 => rows::<4, 4>(format, w, vector.x, groups, out),
        _ => rows::<2, 8>(format, w, vector.x, groups, out),
    }
}

/// The bf16 of the values of a code's low four bits, times `factor`; a lookup takes five bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
fn table(values: &[f32; 16], factor: f32) -> __m512i {
    let halves: [u16; 32] =
        std::array::from_fn(|i| ((values[i % 16] * factor).to_bits() >> 16) as u16);
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(halves.as_ptr().cast()) }
}

/// `sum` plus the products of 32 pairs of bf16, two of them in each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
fn products(sum: __m512, a: __m512i, b: &[f32; 16]) -> __m512 {
    // SAFETY: 64 bytes.
    let b = unsafe { _mm512_loadu_si512(b.as_ptr().cast()) };
    // SAFETY: both types are 64 bytes of any contents.
    let [a, b] = unsafe { std::mem::transmute::<[__m512i; 2], [__m512bh; 2]>([a, b]) };
    _mm512_dpbf16_ps(sum, a, b)
}

/// One piece: 32 lanes of codes times `CODES = 16 / BITS` vectors of 32 elements. Codes of eight
/// bits are two of four.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
fn piece<const BITS: u32, const CODES: usize>(
    lanes: __m512i,
    x: &[[f32; 16]; CODES],
    tables: [__m512i; 2],
) -> __m512 {
    // Products take several cycles: two sums wait half as long.
    let mut sums = [_mm512_setzero_ps(); 2];
    for code in 0..CODES {
        let sum = &mut sums[code % 2];
        let moved = _mm512_srl_epi16(lanes, _mm_cvtsi32_si128((code as u32 * BITS) as i32));
        *sum = products(*sum, _mm512_permutexvar_epi16(moved, tables[0]), &x[code]);
        if BITS == 8 {
            let moved = _mm512_srl_epi16(lanes, _mm_cvtsi32_si128((code as u32 * 8 + 4) as i32));
            *sum = products(*sum, _mm512_permutexvar_epi16(moved, tables[1]), &x[code]);
        }
    }
    _mm512_add_ps(sums[0], sums[1])
}

/// Rows of codes, and what they meet.
#[derive(Clone, Copy)]
struct Rows<'a, const CODES: usize> {
    data: &'a [u8],
    /// Bytes of a row.
    bytes: usize,
    x: &'a [[[f32; 16]; CODES]],
    groups: Groups<'a>,
    tables: [__m512i; 2],
    /// Lane j of a piece's products belongs to its group `j >> shift`.
    shift: u32,
    /// That group of each lane.
    spread: __m512i,
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
fn rows<const BITS: u32, const CODES: usize>(
    format: Format,
    w: Weights<'_>,
    x: &[f32],
    groups: Groups<'_>,
    out: &mut [f32],
) {
    let values: [f32; 16] = match format.mode() {
        // The low four bits of two codes tell only the first one apart.
        Mode::Affine => std::array::from_fn(|i| (i % (1 << BITS.min(4))) as f32),
        _ => values(format),
    };
    let shift = (format.group() / (2 * CODES)).ilog2();
    let numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let bytes = format.code_row(w.k);
    let rows = Rows {
        data: w.data,
        bytes,
        x: &x.as_chunks::<16>().0.as_chunks::<CODES>().0[..bytes.div_ceil(64)],
        groups,
        tables: [table(&values, 1.0), table(&values, 16.0)],
        shift,
        spread: _mm512_srl_epi32(numbers, _mm_cvtsi32_si128(shift as i32)),
    };
    for (number, four) in out.chunks_mut(4).enumerate() {
        let mut sums = [_mm512_setzero_ps(); 4];
        for i in 0..four.len() {
            sums[i] = row::<BITS, CODES>(&rows, 4 * number + i);
        }
        four.copy_from_slice(&totals(sums)[..four.len()]);
    }
}

/// The inner product of row `i` with the vector, as sixteen numbers to be added up.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
fn row<const BITS: u32, const CODES: usize>(rows: &Rows<'_, CODES>, i: usize) -> __m512 {
    let Rows { x, groups, .. } = *rows;
    let (pieces, rest) = rows.data[i * rows.bytes..(i + 1) * rows.bytes].as_chunks::<64>();
    let scales = &groups.scales[i * groups.count..];
    let mut sum = bias_sums(groups, i);
    for number in 0..pieces.len() {
        fetch_ahead(&pieces[number], AHEAD);
        let first = (number * 16) >> rows.shift;
        // Lanes whose groups are another piece's or row's are not looked at.
        let scale = _mm512_permutexvar_ps(rows.spread, floats_at(scales, first));
        let product = piece::<BITS, CODES>(codes(&pieces[number]), &x[number], rows.tables);
        sum = _mm512_fmadd_ps(scale, product, sum);
    }
    if !rest.is_empty() {
        let first = (pieces.len() * 16) >> rows.shift;
        let scale = first_floats(&scales[first..groups.count]);
        let scale = _mm512_permutexvar_ps(rows.spread, scale);
        let product = piece::<BITS, CODES>(codes(rest), &x[pieces.len()], rows.tables);
        sum = _mm512_fmadd_ps(scale, product, sum);
    }
    sum
}
