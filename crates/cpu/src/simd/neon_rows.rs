//! NEON: rows of weights of every format times a vector of floats.
//!
//! A register is sixteen lanes. Codes of 2 and 4 bits fill a byte in each, a step takes one of every
//! byte, and the vector is stored in that order (see [`Order`]). Other codes are spread over the
//! lanes, in their natural order. Loops count indices for the reason given in `neon`.

#![allow(clippy::needless_range_loop)]

use super::neon::{four, load};
use super::neon_codes::{BYTE, FLOAT8, LOOKUP, bytes_at, codes, step, table, values};
use super::neon_products::{dot, dot_floats};
use super::{E4M3, Elements, Order, Vector, Weights};
use kiln_plan::{DType, Format, Mode, Scales, e8m0};
use std::arch::aarch64::*;

/// Elements that are computed at once.
pub(super) const LANES: usize = 16;

pub(super) fn order(w: DType, _: DType) -> Order {
    match w {
        DType::Quantised(format) => Order {
            elements: Elements::Floats,
            lanes: LANES,
            codes: codes(format.bits()),
        },
        _ => Order::NATURAL,
    }
}

#[target_feature(enable = "neon")]
pub(super) fn matvec(w: Weights<'_>, vector: Vector<'_>, room: &mut [f32], out: &mut [f32]) {
    let DType::Quantised(format) = w.dtype else {
        let bytes = w.dtype.row_bytes(w.k);
        for i in 0..out.len() {
            let row = &w.data[i * bytes..(i + 1) * bytes];
            out[i] = dot(w.dtype, row, &vector.x[..w.k]);
        }
        return;
    };
    let groups = groups(format, w, vector.sums, out.len(), room, 0.0);
    let x = vector.x;
    match (format.mode(), format.bits()) {
        (Mode::Mxfp8, _) => rows::<8, 1, FLOAT8>(format, w, x, groups, out),
        (_, 1) => rows::<1, 1, LOOKUP>(format, w, x, groups, out),
        (_, 2) => rows::<2, 4, LOOKUP>(format, w, x, groups, out),
        (_, 3) => rows::<3, 1, LOOKUP>(format, w, x, groups, out),
        (_, 4) => rows::<4, 2, LOOKUP>(format, w, x, groups, out),
        (_, 5) => rows::<5, 1, BYTE>(format, w, x, groups, out),
        (_, 6) => rows::<6, 1, BYTE>(format, w, x, groups, out),
        _ => rows::<8, 1, BYTE>(format, w, x, groups, out),
    }
}

/// The scales and biases of a block of rows as f32.
#[derive(Clone, Copy)]
pub(super) struct Groups<'a> {
    /// How many a row has.
    count: usize,
    /// The scales of all rows.
    scales: &'a [f32],
    /// The biases; nothing for formats without.
    biases: &'a [f32],
    /// The sums of the vector that they meet.
    sums: &'a [f32],
}

impl Groups<'_> {
    /// The scales of row `i`.
    pub(super) fn scales(&self, i: usize) -> &[f32] {
        &self.scales[i * self.count..(i + 1) * self.count]
    }

    /// `Σ bias · sum` of row `i`.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn bias_sum(&self, i: usize) -> f32 {
        if self.biases.is_empty() {
            return 0.0;
        }
        let biases = &self.biases[i * self.count..(i + 1) * self.count];
        dot_floats(biases, &self.sums[..self.count])
    }
}

/// Widens what `rows` rows of `w` have, into `room`. Their codes will count as so much less than
/// they are as `less` says, which the biases make up for.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn groups<'a>(
    format: Format,
    w: Weights<'_>,
    sums: &'a [f32],
    rows: usize,
    room: &'a mut [f32],
    less: f32,
) -> Groups<'a> {
    let count = w.k / format.group();
    let bytes = rows * format.scale_row(w.k);
    let (scales, biases) = room.split_at_mut(rows * count);
    widen(format, &w.scales[..bytes], scales);
    let biases = if format.has_biases() {
        &mut biases[..rows * count]
    } else {
        &mut []
    };
    if format.has_biases() {
        widen(format, &w.biases[..bytes], biases);
    }
    if less != 0.0 {
        for i in 0..biases.len() {
            biases[i] = scales[i].mul_add(less, biases[i]);
        }
    }
    Groups {
        count,
        scales,
        biases,
        sums,
    }
}

/// Scales or biases as f32.
#[inline]
#[target_feature(enable = "neon")]
fn widen(format: Format, bytes: &[u8], out: &mut [f32]) {
    let plain = match (format.mode(), format.scales()) {
        (_, Scales::F16) => DType::F16,
        (_, Scales::BF16) => DType::BF16,
        (_, Scales::F32) => DType::F32,
        (Mode::Nvfp4, Scales::U8) => {
            for i in 0..out.len() {
                out[i] = E4M3[bytes[i] as usize];
            }
            return;
        }
        (_, Scales::U8) => {
            for i in 0..out.len() {
                out[i] = e8m0(bytes[i]);
            }
            return;
        }
    };
    load(plain, bytes, bytemuck::cast_slice_mut(out));
}

#[inline]
#[target_feature(enable = "neon")]
fn rows<const BITS: usize, const CODES: usize, const VALUES: u8>(
    format: Format,
    w: Weights<'_>,
    x: &[f32],
    groups: Groups<'_>,
    out: &mut [f32],
) {
    let bytes = format.code_row(w.k);
    let (x, _) = x.as_chunks::<4>();
    let (x, _) = x.as_chunks::<4>();
    let (x, _) = x.as_chunks::<CODES>();
    for i in 0..out.len() {
        let data = &w.data[i * bytes..];
        let sum = row::<BITS, CODES, VALUES>(format, data, x, groups.scales(i));
        out[i] = vaddvq_f32(sum) + groups.bias_sum(i);
    }
}

/// The inner product of the row that `data` begins with, as four numbers to be added up.
#[inline]
#[target_feature(enable = "neon")]
fn row<const BITS: usize, const CODES: usize, const VALUES: u8>(
    format: Format,
    data: &[u8],
    x: &[[[[f32; 4]; 4]; CODES]],
    scales: &[f32],
) -> float32x4_t {
    let table = table(format);
    let zero = vdupq_n_f32(0.0);
    // Either a group is some registers or a register is two groups.
    let registers = (format.group() / (LANES * CODES)).max(1);
    let halved = format.group() < LANES * CODES;
    let mut sum = zero;
    for number in 0..x.len() / registers {
        let mut partial = [zero; 4];
        for register in number * registers..(number + 1) * registers {
            let packed = bytes_at(data, register * 2 * BITS * CODES);
            let x = &x[register];
            for code in 0..CODES {
                let values = values::<VALUES>(step::<BITS>(packed, code), table);
                for i in 0..4 {
                    partial[i] = vfmaq_f32(partial[i], values[i], four(&x[code][i]));
                }
            }
        }
        let [a, b, c, d] = partial;
        let (low, high) = (vaddq_f32(a, b), vaddq_f32(c, d));
        if halved {
            sum = vfmaq_n_f32(sum, low, scales[2 * number]);
            // What lies behind the last group is another row's.
            if let Some(scale) = scales.get(2 * number + 1) {
                sum = vfmaq_n_f32(sum, high, *scale);
            }
        } else {
            sum = vfmaq_n_f32(sum, vaddq_f32(low, high), scales[number]);
        }
    }
    sum
}
