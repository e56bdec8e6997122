//! The table for AVX-512 with VNNI and VBMI: mat-vec of codes as bytes and vectors as integers,
//! whose products are summed exactly. The rest is AVX-512's.
//!
//! The bytes that are multiplied are unsigned: E2M1 counts as twice its values, which are integers,
//! and [`EXCESS`] more. Loops count indices for the reason given in `avx2`.

#![allow(clippy::needless_range_loop)]

use super::avx2_scales::{AHEAD, eight_scales, fetch_ahead, fetch_near};
use super::avx512::{self, codes, floats, totals};
use super::avx512_quads;
use super::avx512_rows::wide;
use super::integers::{self, DIGITS, lines};
use super::{Elements, Integers, Isa, Order, Vector, Weights};
use kiln_plan::{DType, E2M1, Format, Mode, Scales};
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

/// A format that this table reads, how many codes of a byte are taken apart by shifts, and how much
/// larger codes are than what they stand for.
fn integer(dtype: DType) -> Option<(Format, usize, i32)> {
    let DType::Quantised(format) = dtype else {
        return None;
    };
    let codes = match format.bits() {
        2 => 4,
        4 => 2,
        _ => 1,
    };
    match format.mode() {
        Mode::Affine => Some((format, codes, 0)),
        Mode::Mxfp4 | Mode::Nvfp4 => Some((format, codes, EXCESS)),
        Mode::Mxfp8 => None,
    }
}

/// What makes twice the values of E2M1 codes unsigned.
const EXCESS: i32 = 12;

/// Twice the values of E2M1 codes, and the excess.
const DOUBLED: [u8; 16] = {
    let mut doubled = [0; 16];
    let mut i = 0;
    while i < 16 {
        doubled[i] = ((2.0 * E2M1[i]) as i32 + EXCESS) as u8;
        i += 1;
    }
    doubled
};

/// Vectors of floats keep all their bits: they are left to AVX-512.
fn order(w: DType, x: DType) -> Order {
    match integer(w) {
        Some((format, codes, excess)) if x != DType::F32 => Order {
            elements: Elements::Integers(Integers {
                group: format.group(),
                excess,
            }),
            lanes: 64,
            codes,
        },
        _ => avx512::order(w, x),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,fma,f16c")]
fn store(x: &[f32], codes: usize, of: Integers, out: &mut [f32]) {
    integers::store(x, codes, of, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
fn matvec(w: Weights<'_>, vector: Vector<'_>, room: &mut [f32], out: &mut [f32]) {
    let (Elements::Integers(_), Some((format, ..))) = (vector.elements, integer(w.dtype)) else {
        return avx512::matvec(w, vector, room, out);
    };
    match (format.mode(), format.bits()) {
        (Mode::Affine, 1) => rows::<1, 1, false>(format, w, vector, out),
        (Mode::Affine, 2) => rows::<2, 4, false>(format, w, vector, out),
        (Mode::Affine, 3) => rows::<3, 1, false>(format, w, vector, out),
        (Mode::Affine, 4) => rows::<4, 2, false>(format, w, vector, out),
        (Mode::Affine, 5) => rows::<5, 1, false>(format, w, vector, out),
        (Mode::Affine, 6) => rows::<6, 1, false>(format, w, vector, out),
        (Mode::Affine, _) => rows::<8, 1, false>(format, w, vector, out),
        _ => rows::<4, 2, true>(format, w, vector, out),
    }
}

/// Groups whose scales are in a register together.
const GROUPS: usize = 16;

/// By the logarithm of a group's lanes: the group of each lane of the pieces of [`GROUPS`] groups.
static LANES: [[[u32; 16]; 2 * GROUPS]; 6] = {
    let mut lanes = [[[0; 16]; 2 * GROUPS]; 6];
    let mut i = 0;
    while i < 6 * 512 {
        let (shift, lane) = (i / 512, i % 512);
        lanes[shift][lane / 16][lane % 16] = (lane >> shift) as u32;
        i += 1;
    }
    lanes
};

/// Where the bytes of each eight codes go.
const fn bytes_of(bits: usize) -> [u8; 64] {
    let mut bytes = [0; 64];
    let mut i = 0;
    while i < 64 {
        bytes[i] = (i / 8 * bits + i % 8) as u8;
        i += 1;
    }
    bytes
}

/// Which of eight bytes' bits each of eight codes is.
const fn bits_of(bits: usize) -> [u8; 64] {
    let mut all = [0; 64];
    let mut i = 0;
    while i < 64 {
        all[i] = (i % 8 * bits) as u8;
        i += 1;
    }
    all
}

/// [`DOUBLED`], four times.
const fn doubled() -> [u8; 64] {
    let mut all = [0; 64];
    let mut i = 0;
    while i < 64 {
        all[i] = DOUBLED[i % 16];
        i += 1;
    }
    all
}

/// What rows of codes meet.
struct Rows<'a> {
    format: Format,
    /// Groups of a row.
    groups: usize,
    /// The vector in lines.
    x: &'a [[f32; 16]],
    /// Its units, and its sums over groups.
    units: &'a [[f32; GROUPS]],
    sums: &'a [[f32; GROUPS]],
    /// The group of each lane of the pieces of [`GROUPS`] groups.
    lanes: &'a [[u32; 16]],
    /// Where the bytes of each eight codes go, and which of their bits each code is.
    bytes_of: __m512i,
    bits_of: __m512i,
    /// [`DOUBLED`], four times.
    doubled: __m512i,
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
fn rows<const BITS: usize, const CODES: usize, const FLOAT4: bool>(
    format: Format,
    w: Weights<'_>,
    vector: Vector<'_>,
    out: &mut [f32],
) {
    // A lane has the codes of four bytes of a piece; a group of 128 may be two pieces.
    let shift = (format.group() / (4 * CODES)).ilog2();
    let (code_row, scale_row) = (format.code_row(w.k), format.scale_row(w.k));
    let lines = code_row.div_ceil(8 * BITS * CODES) * lines(CODES, FLOAT4);
    let (x, units) = vector.x.split_at(16 * lines);
    let rows = Rows {
        format,
        groups: w.k / format.group(),
        x: x.as_chunks().0,
        units: units.as_chunks().0,
        sums: vector.sums.as_chunks().0,
        lanes: &LANES[shift as usize][..1 << shift],
        bytes_of: codes(&const { bytes_of(BITS) }),
        bits_of: codes(&const { bits_of(BITS) }),
        doubled: codes(&const { doubled() }),
    };
    let mut sums = [_mm512_setzero_ps(); 4];
    for i in 0..out.len() {
        let biases = if FLOAT4 {
            &[]
        } else {
            &w.biases[i * scale_row..(i + 1) * scale_row]
        };
        let row = Weights {
            data: &w.data[i * code_row..],
            scales: &w.scales[i * scale_row..(i + 1) * scale_row],
            biases,
            ..w
        };
        sums[i % 4] = self::row::<BITS, CODES, FLOAT4>(&rows, row, code_row);
        if i % 4 == 3 || i + 1 == out.len() {
            let four = &mut out[i / 4 * 4..=i];
            four.copy_from_slice(&totals(sums)[..four.len()]);
        }
    }
}

/// The inner product of the row that `w` begins with, of `bytes` bytes, and the vector, as sixteen
/// numbers to be added up.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
fn row<const BITS: usize, const CODES: usize, const FLOAT4: bool>(
    rows: &Rows<'_>,
    w: Weights<'_>,
    bytes: usize,
) -> __m512 {
    let (size, lines) = (8 * BITS * CODES, lines(CODES, FLOAT4));
    let all = bytes.div_ceil(size);
    // Whole pieces from whose first byte on there are as many as a register holds.
    let whole = (bytes / size).min((w.data.len() + size).saturating_sub(64) / size);
    let (data, x) = (w.data, &rows.x[..all * lines]);
    let mut sum = _mm512_setzero_ps();
    for number in 0..rows.groups.div_ceil(GROUPS) {
        let end = ((number + 1) * GROUPS).min(rows.groups);
        let part = number * GROUPS * rows.format.scale_bytes()..end * rows.format.scale_bytes();
        let scales = &w.scales[part.clone()];
        fetch_ahead(scales, AHEAD / 2);
        let mut units = floats(&rows.units[number]);
        if FLOAT4 {
            units = _mm512_mul_ps(units, _mm512_set1_ps(0.5));
        } else {
            let biases = &w.biases[part];
            fetch_ahead(biases, AHEAD / 2);
            let biases = up_to_sixteen(rows.format, biases);
            sum = _mm512_fmadd_ps(biases, floats(&rows.sums[number]), sum);
        }
        let scales = _mm512_mul_ps(up_to_sixteen(rows.format, scales), units);
        let first = number * rows.lanes.len();
        let count = rows.lanes.len().min(whole.saturating_sub(first));
        for i in 0..count {
            let piece = first + i;
            // SAFETY: `whole` pieces lie in the data.
            let from = unsafe { data.get_unchecked(piece * size..) };
            // SAFETY: as many times `lines` lines lie in the vector.
            let x = unsafe { x.get_unchecked(piece * lines..(piece + 1) * lines) };
            debug_assert!(from.len() >= 64);
            fetch_ahead(from, AHEAD);
            fetch_near(from);
            // SAFETY: each of `whole` pieces has a register's bytes from its first on.
            let packed = unsafe { _mm512_loadu_si512(from.as_ptr().cast()) };
            let total = self::piece::<BITS, CODES, FLOAT4>(rows, x, packed);
            sum = _mm512_fmadd_ps(total, lanes_of(&rows.lanes[i], scales), sum);
        }
        for piece in first + count..(first + rows.lanes.len()).min(all) {
            let packed = codes(&data[piece * size..bytes.min((piece + 1) * size)]);
            let x = &x[piece * lines..(piece + 1) * lines];
            let total = self::piece::<BITS, CODES, FLOAT4>(rows, x, packed);
            sum = _mm512_fmadd_ps(total, lanes_of(&rows.lanes[piece - first], scales), sum);
        }
    }
    sum
}

/// The scales of lanes, out of those of [`GROUPS`] groups.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
fn lanes_of(lanes: &[u32; 16], scales: __m512) -> __m512 {
    // SAFETY: 64 bytes.
    let lanes = unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) };
    _mm512_permutexvar_ps(lanes, scales)
}

/// Up to sixteen scales or biases; zeros behind them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
fn up_to_sixteen(format: Format, bytes: &[u8]) -> __m512 {
    match format.scales() {
        Scales::F16 => wide::<true>(bytes),
        Scales::BF16 => wide::<false>(bytes),
        Scales::F32 => _mm512_castsi512_ps(codes(bytes)),
        Scales::U8 => {
            let (low, high) = bytes.split_at(bytes.len().min(8));
            let low = _mm512_castpd256_pd512(_mm256_castps_pd(eight_scales(format, low)));
            let high = _mm256_castps_pd(eight_scales(format, high));
            _mm512_castpd_ps(_mm512_insertf64x4::<1>(low, high))
        }
    }
}

/// The products of one piece of codes with its part of the vector, in units.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
fn piece<const BITS: usize, const CODES: usize, const FLOAT4: bool>(
    rows: &Rows<'_>,
    x: &[[f32; 16]],
    packed: __m512i,
) -> __m512 {
    let x = &x[..lines(CODES, FLOAT4)];
    let mask = _mm512_set1_epi8(((1u32 << BITS) - 1) as i8);
    let mut values = [packed; CODES];
    for code in 0..CODES {
        if CODES > 1 {
            let moved = _mm512_srl_epi16(packed, _mm_cvtsi32_si128((code * BITS) as i32));
            values[code] = _mm512_and_si512(moved, mask);
        } else if BITS < 8 {
            let spread = _mm512_permutexvar_epi8(rows.bytes_of, packed);
            let moved = _mm512_multishift_epi64_epi8(rows.bits_of, spread);
            values[code] = _mm512_and_si512(moved, mask);
        }
        if FLOAT4 {
            values[code] = _mm512_shuffle_epi8(rows.doubled, values[code]);
        }
    }
    let digit = |mut total: __m512i, digit: usize| {
        for code in 0..CODES {
            let x = _mm512_castps_si512(floats(&x[DIGITS * code + digit]));
            total = _mm512_dpbusd_epi32(total, values[code], x);
        }
        total
    };
    let zero = _mm512_setzero_si512();
    let high = digit(zero, 2);
    if BITS == 8 {
        // Together they might not fit 32 bits.
        let low = digit(_mm512_slli_epi32::<8>(digit(zero, 1)), 0);
        let low = _mm512_cvtepi32_ps(low);
        return _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), _mm512_set1_ps(65536.0), low);
    }
    let middle = digit(_mm512_slli_epi32::<8>(high), 1);
    let mut low = _mm512_slli_epi32::<8>(middle);
    if FLOAT4 {
        low = _mm512_add_epi32(low, _mm512_castps_si512(floats(&x[DIGITS * CODES])));
    }
    _mm512_cvtepi32_ps(digit(low, 0))
}
