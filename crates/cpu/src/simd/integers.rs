//! Vectors as integers: each 32 elements as multiples of a unit, at most a 2²¹st part of their
//! largest, in three digits of eight bits. Elements of 8 bits (bf16) are exact down to a 2¹⁴th of
//! the largest; what others lose is what a sum of floats loses by rounding. Sums of products of
//! codes and digits are exact.
//!
//! A piece is `64 · codes` elements. Byte i of its line `3 · c + d` is digit d, the lowest first, of
//! element `i · codes + c`; then comes a line of sixteen floats: what a unit of the elements of each
//! four bytes is.

/// Elements that have a unit together.
const UNIT: usize = 32;
/// Floats of a line.
const LINE: usize = 16;
/// Digits of an element.
pub(super) const DIGITS: usize = 3;

/// Floats that a piece takes.
pub(super) const fn piece(codes: usize) -> usize {
    LINE * (DIGITS * codes + 1)
}

/// What elements are multiples of; NaN where one is not finite.
#[inline(always)]
fn unit(x: &[f32; UNIT]) -> f32 {
    // Bits of magnitudes are in the order of these, infinity and NaN last.
    let largest = x
        .iter()
        .fold(0, |largest: u32, x| largest.max(x.to_bits() & 0x7fff_ffff));
    let exponent = largest >> 23;
    match exponent {
        0xff => f32::NAN,
        // A smaller unit would be subnormal, and its inverse infinite.
        0..=22 => f32::MIN_POSITIVE,
        _ => f32::from_bits((exponent - 21) << 23),
    }
}

/// Stores elements, a whole number of pieces.
#[inline(always)]
pub(super) fn store(x: &[f32], codes: usize, out: &mut [f32]) {
    let pieces = x.chunks_exact(4 * LINE * codes);
    for (x, out) in pieces.zip(out.chunks_exact_mut(piece(codes))) {
        let (lines, units) = out.split_at_mut(LINE * DIGITS * codes);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(lines);
        let lanes = units.chunks_exact_mut(UNIT / (4 * codes));
        for ((number, x), lanes) in x.as_chunks::<UNIT>().0.iter().enumerate().zip(lanes) {
            let unit = unit(x);
            let inverse = 1.0 / unit;
            let mut digits = [[0; UNIT]; DIGITS];
            for (i, x) in x.iter().enumerate() {
                let [low, middle, high] = self::digits(x * inverse);
                (digits[0][i], digits[1][i], digits[2][i]) = (low, middle, high);
            }
            for (digit, values) in digits.iter().enumerate() {
                for code in 0..codes {
                    let line = 4 * LINE * (DIGITS * code + digit) + number * UNIT / codes;
                    let line = &mut bytes[line..][..UNIT / codes];
                    for (i, byte) in line.iter_mut().enumerate() {
                        *byte = values[i * codes + code];
                    }
                }
            }
            lanes.fill(unit);
        }
    }
}

/// A number of a magnitude up to 2²² as three signed digits, the lowest first.
#[inline(always)]
fn digits(x: f32) -> [u8; DIGITS] {
    // Adding 1.5 · 2²³ leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let whole = (x + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let low = whole as i8;
    let rest = (whole - i32::from(low)) >> 8;
    let middle = rest as i8;
    let high = (rest - i32::from(middle)) >> 8;
    [low as u8, middle as u8, high as u8]
}
