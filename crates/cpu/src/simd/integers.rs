//! Vectors as integers: the elements of each group of weights as multiples of a unit, in three digits
//! of eight bits. The unit is at most a 2²¹st part of the group's largest element, and normal. Elements
//! of 8 bits (bf16) are exact down to a 2¹⁴th of the largest; smaller ones lose up to half a unit. Sums
//! of products of codes and digits are exact.
//!
//! A piece is `64 · codes` elements in lines of 64 bytes. Byte i of its line `3 · c + d` is digit d,
//! the lowest first, of element `i · codes + c`. For codes that exceed what they stand for by
//! [`Integers::excess`] comes a line of sixteen integers: what the products of each four bytes exceed
//! theirs by, negated. Behind all pieces are the units of all groups, as floats.

use super::operands::Integers;

/// Elements that are looked at together.
const STEP: usize = 16;
/// Floats of a line.
const LINE: usize = 16;
/// Digits of an element.
pub(super) const DIGITS: usize = 3;

/// Lines of a piece, with or without that of excesses.
pub(super) const fn lines(codes: usize, excess: bool) -> usize {
    DIGITS * codes + excess as usize
}

/// Floats that `pieces` pieces take, and their groups' units.
pub(super) const fn floats(pieces: usize, codes: usize, integers: Integers) -> usize {
    let units = (pieces * 4 * LINE * codes).div_ceil(integers.group);
    pieces * LINE * lines(codes, integers.excess > 0) + units.next_multiple_of(LINE)
}

/// What elements are multiples of; NaN where one is not finite.
#[inline(always)]
fn unit(x: &[f32]) -> f32 {
    // Bits of magnitudes are in the order of these, infinity and NaN last.
    let mut largest = [0; STEP];
    for x in x.as_chunks::<STEP>().0 {
        for (largest, x) in largest.iter_mut().zip(x) {
            *largest = (*largest).max(x.to_bits() & 0x7fff_ffff);
        }
    }
    let largest = largest.into_iter().fold(0, u32::max);
    let exponent = largest >> 23;
    match exponent {
        // Of nothing, any; a small one would become subnormal, which some processors multiply slowly.
        _ if largest == 0 => 1.0,
        0xff => f32::NAN,
        // A smaller unit would be subnormal, and its inverse infinite.
        0..=22 => f32::MIN_POSITIVE,
        _ => f32::from_bits((exponent - 21) << 23),
    }
}

/// Stores elements, a whole number of pieces.
#[inline(always)]
pub(super) fn store(x: &[f32], codes: usize, integers: Integers, out: &mut [f32]) {
    match codes {
        1 => store_pieces::<1>(x, integers, out),
        2 => store_pieces::<2>(x, integers, out),
        _ => store_pieces::<4>(x, integers, out),
    }
}

/// [`store`] for so many codes.
#[inline(always)]
fn store_pieces<const CODES: usize>(x: &[f32], integers: Integers, out: &mut [f32]) {
    let (size, lines) = (4 * LINE * CODES, lines(CODES, integers.excess > 0));
    let (out, units) = out.split_at_mut(x.len() / size * lines * LINE);
    units.fill(0.0);
    for (unit, x) in units.iter_mut().zip(x.chunks(integers.group)) {
        *unit = self::unit(x);
    }
    let pieces = x.chunks_exact(size).zip(out.chunks_exact_mut(lines * LINE));
    for (number, (x, out)) in pieces.enumerate() {
        let mut wholes = [[0; STEP]; 16];
        let mut digits = [[[0; STEP]; 16]; DIGITS];
        for (step, x) in x.as_chunks::<STEP>().0.iter().enumerate() {
            let unit = units[(number * size + step * STEP) / integers.group];
            let inverse = 1.0 / unit;
            for i in 0..STEP {
                let whole = whole(x[i] * inverse);
                let [low, middle, high] = self::digits(whole);
                wholes[step][i] = whole;
                (digits[0][step][i], digits[1][step][i]) = (low, middle);
                digits[2][step][i] = high;
            }
        }
        let (bytes, sums) = out.split_at_mut(LINE * DIGITS * CODES);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(bytes);
        for (line, to) in bytes.chunks_exact_mut(4 * LINE).enumerate() {
            let (code, digit) = (line / DIGITS, line % DIGITS);
            let (from, _) = digits[digit].as_flattened().as_chunks::<CODES>();
            for (to, from) in to.iter_mut().zip(from) {
                *to = from[code];
            }
        }
        let sums: &mut [i32] = bytemuck::cast_slice_mut(sums);
        let lanes = wholes.as_flattened().chunks_exact(4 * CODES);
        for (sum, wholes) in sums.iter_mut().zip(lanes) {
            *sum = -integers.excess * wholes.iter().sum::<i32>();
        }
    }
}

/// The nearest integer of a number of a magnitude up to 2²²; one of no meaning for NaN.
#[inline(always)]
fn whole(x: f32) -> i32 {
    // Adding 1.5 · 2²³ leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    ((x + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32) << 8 >> 8
}

/// An integer of a magnitude up to 2²² as three signed digits, the lowest first.
#[inline(always)]
fn digits(whole: i32) -> [u8; DIGITS] {
    let low = whole as i8;
    let rest = (whole - i32::from(low)) >> 8;
    let middle = rest as i8;
    let high = (rest - i32::from(middle)) >> 8;
    [low as u8, middle as u8, high as u8]
}
