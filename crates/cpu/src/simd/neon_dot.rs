//! The table for NEON with products of bytes (`sdot`): mat-vec of codes as bytes and vectors as
//! integers, whose products are summed exactly. The rest is NEON's.
//!
//! The bytes that are multiplied are signed. Codes of 8 bits count as 128 less than they are; E2M1
//! counts as twice its values, which are integers. Loops count indices for the reason given in
//! `neon`.

#![allow(clippy::needless_range_loop)]

use super::integers::DIGITS;
use super::neon::{self, bytes16, four};
use super::neon_codes::{bytes_at, codes, step};
use super::neon_rows::{self, Groups, LANES, groups};
use super::{Elements, Integers, Isa, Order, Vector, Weights};
use kiln_plan::{DType, E2M1, Format, Mode};
use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

pub(super) const TABLE: Isa = Isa {
    name: "neondot",
    available: || neon::available() && is_aarch64_feature_detected!("dotprod"),
    order,
    matvec,
    ..neon::TABLE
};

/// The format of weights whose codes are integers, or halves of these.
fn integer(dtype: DType) -> Option<Format> {
    match dtype {
        DType::Quantised(format) => Some(format).filter(|format| format.mode() != Mode::Mxfp8),
        _ => None,
    }
}

/// Vectors of floats keep all their bits: they are left to NEON.
fn order(w: DType, x: DType) -> Order {
    match integer(w) {
        Some(format) if x != DType::F32 => Order {
            elements: Elements::Integers(Integers {
                group: format.group(),
                excess: 0,
            }),
            lanes: 4 * LANES,
            codes: codes(format.bits()),
        },
        _ => neon_rows::order(w, x),
    }
}

#[target_feature(enable = "neon,dotprod")]
fn matvec(w: Weights<'_>, vector: Vector<'_>, room: &mut [f32], out: &mut [f32]) {
    let (Elements::Integers(_), Some(format)) = (vector.elements, integer(w.dtype)) else {
        return neon_rows::matvec(w, vector, room, out);
    };
    let less = if format.bits() == 8 { 128.0 } else { 0.0 };
    let groups = groups(format, w, vector.sums, out.len(), room, less);
    let x = vector.x;
    match (format.mode(), format.bits()) {
        (Mode::Affine, 1) => rows::<1, 1, false>(format, w, x, groups, out),
        (Mode::Affine, 2) => rows::<2, 4, false>(format, w, x, groups, out),
        (Mode::Affine, 3) => rows::<3, 1, false>(format, w, x, groups, out),
        (Mode::Affine, 4) => rows::<4, 2, false>(format, w, x, groups, out),
        (Mode::Affine, 5) => rows::<5, 1, false>(format, w, x, groups, out),
        (Mode::Affine, 6) => rows::<6, 1, false>(format, w, x, groups, out),
        (Mode::Affine, _) => rows::<8, 1, false>(format, w, x, groups, out),
        _ => rows::<4, 2, true>(format, w, x, groups, out),
    }
}

/// `sum` plus, in each lane of 32 bits, the products of its four bytes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the processor has the instruction; it reads and writes these registers only.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn rows<const BITS: usize, const CODES: usize, const FLOAT4: bool>(
    format: Format,
    w: Weights<'_>,
    x: &[f32],
    groups: Groups<'_>,
    out: &mut [f32],
) {
    let bytes = format.code_row(w.k);
    let (x, _) = x.as_chunks::<4>();
    for i in 0..out.len() {
        let data = &w.data[i * bytes..];
        let sum = row::<BITS, CODES, FLOAT4>(format, data, x, groups.scales(i));
        out[i] = vaddvq_f32(sum) + groups.bias_sum(i);
    }
}

/// Twice the values of E2M1 codes.
const DOUBLED: [u8; 16] = {
    let mut doubled = [0; 16];
    let mut i = 0;
    while i < 16 {
        doubled[i] = (2.0 * E2M1[i]) as i8 as u8;
        i += 1;
    }
    doubled
};

/// The inner product of the row that `data` begins with, as four numbers to be added up.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn row<const BITS: usize, const CODES: usize, const FLOAT4: bool>(
    format: Format,
    data: &[u8],
    x: &[[f32; 4]],
    scales: &[f32],
) -> float32x4_t {
    let doubled = bytes16(&DOUBLED);
    let piece = 4 * DIGITS * CODES;
    let elements = scales.len() * format.group();
    let (x, units) = x.split_at(elements.div_ceil(4 * LANES * CODES) * piece);
    let units = &units.as_flattened()[..scales.len()];
    // Lane j of all registers belongs to group `j >> shift`.
    let shift = (format.group() / (4 * CODES)).ilog2();
    let registers = elements.div_ceil(LANES * CODES);
    let mut sum = vdupq_n_f32(0.0);
    for number in 0..registers.div_ceil(4) {
        let x = x[number * piece..(number + 1) * piece].as_chunks::<4>().0;
        for quarter in 0..4 {
            let register = 4 * number + quarter;
            if register == registers {
                break;
            }
            let packed = bytes_at(data, register * 2 * BITS * CODES);
            let product = product::<BITS, CODES, FLOAT4>(packed, x, quarter, doubled);
            sum = vfmaq_f32(sum, product, scale([scales, units], 4 * register, shift));
        }
    }
    sum
}

/// The products of a register of codes with its quarter of each line of a piece of the vector.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn product<const BITS: usize, const CODES: usize, const FLOAT4: bool>(
    packed: uint8x16_t,
    x: &[[[f32; 4]; 4]],
    quarter: usize,
    doubled: uint8x16_t,
) -> float32x4_t {
    let x = &x[..DIGITS * CODES];
    let mut digits = [vdupq_n_s32(0); DIGITS];
    for code in 0..CODES {
        let codes = step::<BITS>(packed, code);
        let codes = if BITS == 8 {
            veorq_u8(codes, vdupq_n_u8(0x80))
        } else if FLOAT4 {
            vqtbl1q_u8(doubled, codes)
        } else {
            codes
        };
        let codes = vreinterpretq_s8_u8(codes);
        for digit in 0..DIGITS {
            let x = four(&x[DIGITS * code + digit][quarter]);
            digits[digit] = sdot(digits[digit], codes, vreinterpretq_s8_f32(x));
        }
    }
    let product = joined::<BITS>(digits);
    if FLOAT4 {
        vmulq_n_f32(product, 0.5)
    } else {
        product
    }
}

/// What sums of digits stand for.
#[inline]
#[target_feature(enable = "neon")]
fn joined<const BITS: usize>([low, middle, high]: [int32x4_t; DIGITS]) -> float32x4_t {
    let low = vaddq_s32(low, vshlq_n_s32::<8>(middle));
    if BITS == 8 {
        // Together they might not fit 32 bits.
        return vfmaq_n_f32(vcvtq_f32_s32(low), vcvtq_f32_s32(high), 65536.0);
    }
    vcvtq_f32_s32(vaddq_s32(low, vshlq_n_s32::<16>(high)))
}

/// The scales times the units of the four lanes from number `lane` on.
#[inline]
#[target_feature(enable = "neon")]
fn scale([scales, units]: [&[f32]; 2], lane: usize, shift: u32) -> float32x4_t {
    let first = lane >> shift;
    let scale = scales[first] * units[first];
    if shift >= 2 {
        return vdupq_n_f32(scale);
    }
    // Two groups; none behind the last.
    let second = match (scales.get(first + 1), units.get(first + 1)) {
        (Some(scale), Some(unit)) => scale * unit,
        _ => 0.0,
    };
    vcombine_f32(vdup_n_f32(scale), vdup_n_f32(second))
}
