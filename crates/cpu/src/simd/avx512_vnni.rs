//! The table for AVX-512 with VNNI and VBMI: mat-vec of codes as bytes and vectors as integers,
//! whose products are summed exactly. The rest is AVX-512's. Loops count indices for the reason
//! given in `avx2`.

#![allow(clippy::needless_range_loop)]

use super::avx2_scales::{AHEAD, fetch_ahead};
use super::avx512::{self, codes, first_floats, floats, totals};
use super::avx512_quads;
use super::avx512_rows::wide;
use super::integers::{self, DIGITS};
use super::{Elements, Isa, Order, Vector, Weights};
use kiln_array::{DType, Format, Mode, Scales};
use std::arch::x86_64::*;

pub(super) const TABLE: Isa = Isa {
    name: "avx512vnni",
    available,
    preferred: super::intel,
    order,
    integers: store,
    matvec,
    quads: Some(avx512_quads::QUADS),
    ..avx512::TABLE
};

pub(super) fn available() -> bool {
    avx512::available()
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("avx512vbmi")
}

/// The format of weights whose codes are integers.
fn integer(dtype: DType) -> Option<Format> {
    match dtype {
        DType::Quantised(format) => Some(format).filter(|format| format.mode() == Mode::Affine),
        _ => None,
    }
}

/// Vectors of floats keep all their bits: they are left to AVX-512.
fn order(w: DType, x: DType) -> Order {
    match integer(w) {
        Some(format) if x != DType::F32 => Order {
            elements: Elements::Integers,
            lanes: 64,
            codes: match format.bits() {
                2 => 4,
                4 => 2,
                _ => 1,
            },
        },
        _ => avx512::order(w, x),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn store(x: &[f32], codes: usize, out: &mut [f32]) {
    integers::store(x, codes, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
fn matvec(w: Weights<'_>, vector: Vector<'_>, room: &mut [f32], out: &mut [f32]) {
    let Some(format) = integer(w.dtype).filter(|_| vector.elements == Elements::Integers) else {
        return avx512::matvec(w, vector, room, out);
    };
    match format.bits() {
        1 => rows::<1, 1>(format, w, vector, out),
        2 => rows::<2, 4>(format, w, vector, out),
        3 => rows::<3, 1>(format, w, vector, out),
        4 => rows::<4, 2>(format, w, vector, out),
        5 => rows::<5, 1>(format, w, vector, out),
        6 => rows::<6, 1>(format, w, vector, out),
        _ => rows::<8, 1>(format, w, vector, out),
    }
}

/// Groups whose scales are in a register together.
const GROUPS: usize = 16;

/// What rows of codes meet.
struct Rows<'a> {
    format: Format,
    /// Groups of a row.
    groups: usize,
    /// The vector in lines.
    x: &'a [[f32; 16]],
    /// The vector's sums over groups.
    sums: &'a [f32],
    /// Lane j of a piece belongs to its group `j >> shift`: sixteen groups are `1 << shift` pieces.
    shift: u32,
    /// That group of each lane.
    lanes: __m512i,
    /// Where the bytes of each eight codes go, and which of their bits each code is.
    bytes_of: __m512i,
    bits_of: __m512i,
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
fn rows<const BITS: usize, const CODES: usize>(
    format: Format,
    w: Weights<'_>,
    vector: Vector<'_>,
    out: &mut [f32],
) {
    let shift = (format.group() / (4 * CODES)).ilog2();
    let bytes_of: [u8; 64] = std::array::from_fn(|i| (i / 8 * BITS + i % 8) as u8);
    let bits_of: [u8; 64] = std::array::from_fn(|i| (i % 8 * BITS) as u8);
    let numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let rows = Rows {
        format,
        groups: w.k / format.group(),
        x: vector.x.as_chunks().0,
        sums: vector.sums,
        shift,
        lanes: _mm512_srl_epi32(numbers, _mm_cvtsi32_si128(shift as i32)),
        bytes_of: codes(&bytes_of),
        bits_of: codes(&bits_of),
    };
    let (code_row, scale_row) = (format.code_row(w.k), format.scale_row(w.k));
    let mut sums = [_mm512_setzero_ps(); 4];
    for i in 0..out.len() {
        let row = Weights {
            data: &w.data[i * code_row..(i + 1) * code_row],
            scales: &w.scales[i * scale_row..(i + 1) * scale_row],
            biases: &w.biases[i * scale_row..(i + 1) * scale_row],
            ..w
        };
        sums[i % 4] = self::row::<BITS, CODES>(&rows, row);
        if i % 4 == 3 || i + 1 == out.len() {
            let four = &mut out[i / 4 * 4..=i];
            four.copy_from_slice(&totals(sums)[..four.len()]);
        }
    }
}

/// The inner product of a row with the vector, as sixteen numbers to be added up.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
fn row<const BITS: usize, const CODES: usize>(rows: &Rows<'_>, w: Weights<'_>) -> __m512 {
    let (size, lines) = (8 * BITS * CODES, DIGITS * CODES + 1);
    let whole = w.data.len() / size;
    let x = &rows.x[..w.data.len().div_ceil(size) * lines];
    let bytes = rows.format.scale_bytes();
    let mut sum = _mm512_setzero_ps();
    for first in (0..rows.groups).step_by(GROUPS) {
        let end = (first + GROUPS).min(rows.groups);
        let scales = &w.scales[first * bytes..end * bytes];
        let biases = &w.biases[first * bytes..end * bytes];
        fetch_ahead(scales, AHEAD / 2);
        fetch_ahead(biases, AHEAD / 2);
        let scales = up_to_sixteen(rows.format, scales);
        let biases = up_to_sixteen(rows.format, biases);
        sum = _mm512_fmadd_ps(biases, first_floats(&rows.sums[first..end]), sum);
        let piece_before = first << rows.shift >> 4;
        let pieces = ((first + GROUPS) << rows.shift >> 4).min(whole) - piece_before;
        for number in 0..pieces {
            let piece = piece_before + number;
            // SAFETY: `whole` pieces lie in the row, and as many times `lines` lines in the vector.
            let packed = unsafe { w.data.get_unchecked(piece * size..(piece + 1) * size) };
            // SAFETY: as above.
            let x = unsafe { x.get_unchecked(piece * lines..(piece + 1) * lines) };
            fetch_ahead(packed, AHEAD);
            let scale = scales_of(rows, number, scales);
            sum = piece_sum::<BITS, CODES>(rows, x, codes(packed), scale, sum);
        }
        if end == rows.groups && whole * size < w.data.len() {
            let scale = scales_of(rows, pieces, scales);
            let rest = codes(&w.data[whole * size..]);
            sum = piece_sum::<BITS, CODES>(rows, &x[whole * lines..], rest, scale, sum);
        }
    }
    sum
}

/// The scales of the lanes of piece `number`, out of those of sixteen groups.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
fn scales_of(rows: &Rows<'_>, number: usize, scales: __m512) -> __m512 {
    let before = _mm512_set1_epi32((number << 4 >> rows.shift) as i32);
    _mm512_permutexvar_ps(_mm512_add_epi32(rows.lanes, before), scales)
}

/// Scales or biases; zeros behind them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
fn up_to_sixteen(format: Format, bytes: &[u8]) -> __m512 {
    match format.scales() {
        Scales::F16 => wide::<true>(bytes),
        Scales::BF16 => wide::<false>(bytes),
        _ => _mm512_castsi512_ps(codes(bytes)),
    }
}

/// `sum` plus the products of one piece of codes with its part of the vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
fn piece_sum<const BITS: usize, const CODES: usize>(
    rows: &Rows<'_>,
    x: &[[f32; 16]],
    packed: __m512i,
    scale: __m512,
    sum: __m512,
) -> __m512 {
    let x = &x[..DIGITS * CODES + 1];
    let mask = _mm512_set1_epi8(((1u32 << BITS) - 1) as i8);
    let mut digits = [_mm512_setzero_si512(); DIGITS];
    for code in 0..CODES {
        let codes = if BITS == 8 {
            packed
        } else if CODES > 1 {
            let moved = _mm512_srl_epi16(packed, _mm_cvtsi32_si128((code * BITS) as i32));
            _mm512_and_si512(moved, mask)
        } else {
            let spread = _mm512_permutexvar_epi8(rows.bytes_of, packed);
            _mm512_and_si512(_mm512_multishift_epi64_epi8(rows.bits_of, spread), mask)
        };
        for digit in 0..DIGITS {
            let x = _mm512_castps_si512(floats(&x[DIGITS * code + digit]));
            digits[digit] = _mm512_dpbusd_epi32(digits[digit], codes, x);
        }
    }
    let [low, middle, high] = digits;
    let low = _mm512_add_epi32(_mm512_slli_epi32::<8>(middle), low);
    let total = if BITS == 8 {
        // Together they might not fit 32 bits.
        let low = _mm512_cvtepi32_ps(low);
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), _mm512_set1_ps(65536.0), low)
    } else {
        _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32::<16>(high), low))
    };
    let unit = floats(&x[DIGITS * CODES]);
    _mm512_fmadd_ps(_mm512_mul_ps(total, unit), scale, sum)
}
