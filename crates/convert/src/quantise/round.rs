//! Rounding to a narrower float, without branches: in loops over vectors.

/// What numbers are rounded to, the nearest, of two equally near ones the even.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Round {
    F32,
    F16,
    BF16,
}

impl Round {
    /// `value` in the narrower type, widened again. Of a NaN the sign and the first digit stay, as
    /// long as it is one that arithmetic makes.
    #[inline(always)]
    pub(super) fn apply(self, value: f32) -> f32 {
        match self {
            Round::F32 => value,
            Round::F16 => to_f16(value),
            Round::BF16 => f32::from_bits(nearest(value.to_bits(), 16)),
        }
    }
}

/// The bits of a float without the last `cut` of its digits. A carry goes into the exponent, as it
/// should.
#[inline(always)]
fn nearest(bits: u32, cut: u32) -> u32 {
    let odd = bits >> cut & 1;
    (bits.wrapping_add((1 << (cut - 1)) - 1 + odd)) & !((1 << cut) - 1)
}

#[inline(always)]
fn to_f16(value: f32) -> f32 {
    const SIGN: u32 = 1 << 31;
    // 2^-14, below which numbers are multiples of 2^-24, and the least that is rounded to infinity.
    const NORMAL: f32 = 6.103_515_6e-5;
    const BEYOND: f32 = 65_520.0;
    let (sign, size) = (value.to_bits() & SIGN, value.abs());
    // The last digit of numbers from 0.5 to 1 is 2^-24.
    let small = (size + 0.5) - 0.5;
    let large = f32::from_bits(nearest(size.to_bits(), 13));
    let rounded = if size < NORMAL { small } else { large };
    let rounded = if size >= BEYOND {
        f32::INFINITY
    } else {
        rounded
    };
    f32::from_bits(rounded.to_bits() | sign)
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    /// Numbers of every exponent, both signs, with the digits at which roundings turn.
    fn numbers() -> impl Iterator<Item = f32> {
        let digits = (0..1 << 10).flat_map(|high: u32| {
            let near = [0, 1, 0xfff, 0x1000, 0x1001, 0x1fff];
            near.map(|low| high << 13 | low)
        });
        let digits: Vec<u32> = digits.collect();
        let all = (0..0xff).flat_map(move |exponent: u32| {
            let digits = digits.clone();
            digits
                .into_iter()
                .map(move |digits| exponent << 23 | digits)
        });
        all.flat_map(|bits| [bits, bits | 1 << 31].map(f32::from_bits))
    }

    #[test]
    fn roundings_are_those_of_the_types() {
        for number in numbers() {
            let expected = f16::from_f32(number).to_f32().to_bits();
            assert_eq!(Round::F16.apply(number).to_bits(), expected, "{number:e}");
            let expected = bf16::from_f32(number).to_f32().to_bits();
            assert_eq!(Round::BF16.apply(number).to_bits(), expected, "{number:e}");
            assert_eq!(Round::F32.apply(number).to_bits(), number.to_bits());
        }
        for round in [Round::F32, Round::F16, Round::BF16] {
            for (number, sign) in [(f32::NAN, false), (-f32::NAN, true)] {
                let rounded = round.apply(number);
                assert!(rounded.is_nan() && rounded.is_sign_negative() == sign);
            }
            assert_eq!(round.apply(f32::INFINITY), f32::INFINITY);
        }
    }
}
