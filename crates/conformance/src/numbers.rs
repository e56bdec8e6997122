//! Numbers of every plain dtype as f64: random ones, rounding, encoding.

use kiln_array::DType;
use std::cell::Cell;

thread_local! {
    static GPU: Cell<bool> = const { Cell::new(false) };
}

/// Makes this thread's random cases such that a GPU can be expected to get them right: no number
/// is subnormal in f32, since it may be read as 0, and what becomes of it may be far from that; no
/// program goes on with a quotient or a root, whose last place is open.
pub fn for_gpu(gpu: bool) {
    GPU.set(gpu);
}

/// Whether this thread's random cases are for a GPU.
pub(crate) fn are_for_gpu() -> bool {
    GPU.get()
}

/// A small reproducible generator (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Equal seeds give equal numbers.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `n - 1`; 0 for an `n` of 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() >> 16) as usize % n.max(1)
    }

    /// A number in `low..high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (self.bits() >> 11) as f64 / (1u64 << 53) as f64 * (high - low)
    }
}

/// What random operands hold.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Numbers {
    /// Finite numbers between -2 and 2, some zeros; integers up to a hundred.
    Tame,
    /// Finite numbers of very different sizes (at most 1000), zeros of both signs, subnormals.
    Spread,
    /// As `Spread`, and now and then an infinity or NaN.
    Holes,
    /// Anything that the dtype holds: extremes, infinities, NaN.
    Wild,
    /// Evenly distributed in a range.
    Between(f64, f64),
}

impl Numbers {
    /// A random number that `dtype` can hold.
    pub fn next(self, dtype: DType, random: &mut Random) -> f64 {
        if dtype == DType::Bool {
            return random.below(2) as f64;
        }
        let value = match (self, dtype.is_float()) {
            (Numbers::Between(low, high), _) => random.between(low, high),
            (Numbers::Tame, true) if random.below(16) == 0 => 0.0,
            (Numbers::Tame, true) => random.between(-2.0, 2.0),
            (Numbers::Tame | Numbers::Spread | Numbers::Holes, false) => {
                random.between(-100.0, 101.0).floor()
            }
            (Numbers::Spread, true) => spread(dtype, random),
            (Numbers::Holes, true) => match random.below(200) {
                0 => f64::NAN,
                1 => f64::INFINITY,
                2 => f64::NEG_INFINITY,
                _ => spread(dtype, random),
            },
            (Numbers::Wild, true) => wild_float(dtype, random),
            (Numbers::Wild, false) => wild_integer(random) as f64,
        };
        match dtype {
            DType::U8 => (value as i64 as u8) as f64,
            DType::U32 => (value as i64 as u32) as f64,
            DType::I32 => (value as i64 as i32) as f64,
            _ if GPU.get() && value.abs() < f64::from(f32::MIN_POSITIVE) => 0f64.copysign(value),
            float => round(float, value),
        }
    }
}

fn spread(dtype: DType, random: &mut Random) -> f64 {
    match random.below(24) {
        0 => 0.0,
        1 => -0.0,
        2 => smallest(dtype) * random.between(-9.0, 9.0).round(),
        _ => {
            let size = random.between(-12.0, 9.9).exp2();
            if random.below(2) == 0 { size } else { -size }
        }
    }
}

fn wild_float(dtype: DType, random: &mut Random) -> f64 {
    let sign = if random.below(2) == 0 { 1.0 } else { -1.0 };
    sign * match random.below(24) {
        0 => 0.0,
        1 => f64::NAN,
        2 => f64::INFINITY,
        3 => largest(dtype),
        4 => smallest(dtype),
        5 => smallest(dtype) * random.between(1.0, 200.0).round(),
        6 => 1.0,
        7 => 0.5,
        8 => 2.5,
        9 => random.between(0.0, 300.0).round(),
        10 => 2f64.powi(31),
        11 => 2f64.powi(32),
        12 => random.between(0.0, 5e9),
        // Half way between two numbers of f16, subnormal or not.
        13 => (random.below(4096) as f64 + 0.5) * 2f64.powi(-24),
        14..16 => random.between(-126.0, 127.0).exp2(),
        16..18 => random.between(80.0, 110.0),
        _ => random.between(0.0, 8.0),
    }
}

fn wild_integer(random: &mut Random) -> i64 {
    match random.below(8) {
        0 => [0, 1, -1, 2, -2, 31, 32, 33][random.below(8)],
        1 => i64::from(i32::MAX) - random.below(2) as i64,
        2 => i64::from(i32::MIN) + random.below(2) as i64,
        3 => i64::from(u32::MAX) - random.below(2) as i64,
        4 => 1 << random.below(32),
        5 => random.below(300) as i64,
        _ => random.bits() as i32 as i64,
    }
}

/// Bits of a float dtype's significand and its smallest normal exponent.
fn precision(dtype: DType) -> (i32, i32) {
    match dtype {
        DType::F16 => (11, -14),
        DType::BF16 => (8, -126),
        _ => (24, -126),
    }
}

/// The smallest positive number of a float dtype.
pub fn smallest(dtype: DType) -> f64 {
    let (bits, exponent) = precision(dtype);
    2f64.powi(exponent - bits + 1)
}

/// The largest finite number of a float dtype.
pub fn largest(dtype: DType) -> f64 {
    let (bits, exponent) = precision(dtype);
    (2.0 - 2f64.powi(1 - bits)) * 2f64.powi(1 - exponent)
}

/// The distance between the numbers of a float dtype around `value`.
pub fn ulp(dtype: DType, value: f64) -> f64 {
    let (bits, exponent) = precision(dtype);
    let own = ((value.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    2f64.powi(own.max(exponent) - bits + 1)
}

/// `value` rounded to a float dtype, ties to even; unchanged for other dtypes.
pub fn round(dtype: DType, value: f64) -> f64 {
    if !dtype.is_float() || !value.is_finite() || value == 0.0 {
        return value;
    }
    let step = ulp(dtype, value);
    let rounded = (value / step).round_ties_even() * step;
    match rounded.abs() > largest(dtype) {
        true => f64::INFINITY.copysign(value),
        false => rounded,
    }
}

/// `value` as `dtype` would hold it after it was computed in f32.
pub fn stored(dtype: DType, value: f64) -> f64 {
    round(dtype, round(DType::F32, value))
}

/// Appends the bytes of a number that `dtype` can hold.
pub fn encode(dtype: DType, value: f64, out: &mut Vec<u8>) {
    let single = (value as f32).to_bits();
    match dtype {
        DType::Bool | DType::U8 => out.push(value as u8),
        DType::U32 => out.extend((value as u32).to_le_bytes()),
        DType::I32 => out.extend((value as i32).to_le_bytes()),
        DType::BF16 => {
            let nan = if value.is_nan() { 0x40 } else { 0 };
            out.extend((((single >> 16) as u16) | nan).to_le_bytes());
        }
        DType::F16 => out.extend(half::f16::from_f64(value).to_le_bytes()),
        _ => out.extend(single.to_le_bytes()),
    }
}

/// The numbers of a plain dtype's bytes.
pub fn decode(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let word = |bytes: &[u8]| {
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(bytes);
        u32::from_le_bytes(word)
    };
    let value = |bytes: &[u8]| match dtype {
        DType::I32 => f64::from(word(bytes) as i32),
        float if float.is_float() => float.read_float(bytes, 0).into(),
        _ => f64::from(word(bytes)),
    };
    bytes
        .chunks_exact(dtype.bytes().max(1))
        .map(value)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_agrees_with_the_hardware() {
        let mut random = Random::new(1);
        for _ in 0..200_000 {
            let value = random.between(-150.0, 130.0).exp2() * random.between(-1.0, 1.0);
            assert_eq!(
                round(DType::F32, value),
                f64::from(value as f32),
                "{value:e}"
            );
            let single = value as f32;
            let (half, brain) = (half::f16::from_f32(single), half::bf16::from_f32(single));
            assert_eq!(round(DType::F16, single.into()), half.to_f64(), "{value:e}");
            assert_eq!(
                round(DType::BF16, single.into()),
                brain.to_f64(),
                "{value:e}"
            );
        }
    }

    #[test]
    fn extremes_are_those_of_the_dtypes() {
        assert_eq!(largest(DType::F32), f64::from(f32::MAX));
        assert_eq!(largest(DType::F16), 65504.0);
        assert_eq!(smallest(DType::F32), f64::from(f32::from_bits(1)));
        assert_eq!(largest(DType::BF16), half::bf16::MAX.to_f64());
    }
}
