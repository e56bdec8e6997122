//! Elementary functions in f32, built from exactly rounded operations only, so that they give the
//! same bits on every machine and loops over them vectorise.
//!
//! ```
//! use kiln_array::math::{erf, erfinv, exp, ln, power, power_i32, sigmoid, sin_cos, tanh};
//! assert_eq!((exp(0.0), ln(1.0), tanh(0.0), sigmoid(0.0)), (1.0, 0.0, 0.0, 0.5));
//! assert_eq!((erf(0.0), erfinv(0.0), sin_cos(0.0)), (0.0, 0.0, (0.0, 1.0)));
//! assert_eq!((power(3.0, 4.0), power_i32(-2, 3)), (81.0, -8));
//! ```
//!
//! The polynomials are the classic single-precision ones of the Cephes library (S. Moshier).

/// `eˣ`, within 2 ulp; 0 below -104, infinity above 88.73.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2²³ leaves the nearest integer in the low bits of the sum: a conversion that
    // vectorises, which `as i32` with its saturation does not.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-104.0, 89.0);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * 0.693_359_4;
    let r = r - n * -2.121_944_4e-4;
    let mut y = 1.987_569_1e-4;
    y = y * r + 1.398_199_9e-3;
    y = y * r + 8.333_452e-3;
    y = y * r + 4.166_579_6e-2;
    y = y * r + 1.666_666_5e-1;
    y = y * r + 0.5;
    let y = y * r * r + r + 1.0;
    // Two factors, because 2ⁿ itself over- or underflows before the product does.
    let whole = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = whole >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    let y = y * power(half) * power(whole.wrapping_sub(half));
    if x.is_nan() { x } else { y }
}

/// Natural logarithm, within 2 ulp; -infinity at 0, NaN below.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    let subnormal = x < f32::MIN_POSITIVE;
    let scaled = if subnormal { x * 8_388_608.0 } else { x };
    let bits = scaled.to_bits();
    // Mantissa in [√½, √2).
    let shifted = bits.wrapping_sub(0x3f35_04f3);
    let mut e = ((shifted as i32) >> 23) as f32;
    let m = f32::from_bits((shifted & 0x007f_ffff).wrapping_add(0x3f35_04f3));
    if subnormal {
        e -= 23.0;
    }
    let r = m - 1.0;
    let z = r * r;
    let mut y = 7.037_683_6e-2;
    y = y * r - 1.151_461e-1;
    y = y * r + 1.167_699_9e-1;
    y = y * r - 1.242_014_1e-1;
    y = y * r + 1.424_932_3e-1;
    y = y * r - 1.666_805_8e-1;
    y = y * r + 2.000_071_5e-1;
    y = y * r - 2.499_999_4e-1;
    y = y * r + 0.333_333_3;
    let y = y * r * z + e * -2.121_944_4e-4 - 0.5 * z;
    let y = r + y + e * 0.693_359_4;
    if x == 0.0 {
        f32::NEG_INFINITY
    } else if x < 0.0 || x.is_nan() {
        f32::NAN
    } else if x == f32::INFINITY {
        x
    } else {
        y
    }
}

/// Hyperbolic tangent, within 3 ulp.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let z = x * x;
    let mut y = -5.704_988_7e-3;
    y = y * z + 2.063_909e-2;
    y = y * z - 5.373_971_6e-2;
    y = y * z + 1.333_144_2e-1;
    y = y * z - 0.333_332_8;
    let small = y * z * x + x;
    let large = 1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0);
    if x.abs() < 0.625 {
        small.copysign(x)
    } else {
        large.copysign(x)
    }
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Error function, within 5e-7 absolute (Abramowitz and Stegun 7.1.26; a series near 0).
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let p = ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_7) * t - 0.284_496_74) * t
        + 0.254_829_6)
        * t;
    let large = (1.0 - p * exp(-a * a)).copysign(x);
    let z = x * x;
    let series = 1.0 - z * (1.0 / 3.0 - z * (0.1 - z * (1.0 / 42.0 - z / 216.0)));
    let small = x * std::f32::consts::FRAC_2_SQRT_PI * series;
    if a < 0.3 { small } else { large }
}

/// The inverse of [`erf`]: NaN outside of -1 to 1. Within 4 ulp of it, also where it is near 0: a
/// polynomial in `-ln(1 - x²)`, or in its root in the tails (M. Giles, "Approximating the erfinv
/// function", 2010).
#[inline(always)]
pub fn erfinv(x: f32) -> f32 {
    let w = -ln((1.0 - x) * (1.0 + x));
    let s = w - 2.5;
    let mut middle = 2.810_226_4e-8;
    middle = middle * s + 3.432_739_4e-7;
    middle = middle * s - 3.523_387_7e-6;
    middle = middle * s - 4.391_506_5e-6;
    middle = middle * s + 2.185_808_7e-4;
    middle = middle * s - 1.253_725_1e-3;
    middle = middle * s - 4.177_681_6e-3;
    middle = middle * s + 0.246_640_73;
    middle = middle * s + 1.501_409_4;
    let s = w.sqrt() - 3.0;
    let mut tail = -2.002_142_5e-4;
    tail = tail * s + 1.009_505_6e-4;
    tail = tail * s + 1.349_343_2e-3;
    tail = tail * s - 3.673_428_4e-3;
    tail = tail * s + 5.739_507_7e-3;
    tail = tail * s - 7.622_461_3e-3;
    tail = tail * s + 9.438_87e-3;
    tail = tail * s + 1.001_674;
    tail = tail * s + 2.832_976_8;
    let y = if w < 5.0 { middle } else { tail };
    if x.abs() == 1.0 {
        x * f32::INFINITY
    } else {
        y * x
    }
}

/// `aᵇ` within 1 ulp: NaN for a negative `a` and a `b` that is no integer; 1 where `b` is 0.
#[inline(always)]
pub fn power(a: f32, b: f32) -> f32 {
    let size = exp_wide(f64::from(b) * ln_wide(a.abs())) as f32;
    let size = if b == 0.0 || a.abs() == 1.0 {
        1.0
    } else {
        size
    };
    let whole = b.floor() == b;
    // From 2²⁴ on every f32 is even.
    let odd = whole && b.abs() < 16_777_216.0 && b as i32 & 1 != 0;
    if a == 1.0 || b == 0.0 {
        1.0
    } else if a.is_nan() || b.is_nan() || (a < 0.0 && a.is_finite() && !whole) {
        f32::NAN
    } else if odd {
        size.copysign(a)
    } else {
        size
    }
}

/// `aᵇ`, wrapping. A negative `b` gives 0 unless `a` is 1 or -1.
#[inline(always)]
pub fn power_i32(a: i32, b: i32) -> i32 {
    match (a, b) {
        (_, 0..) => a.wrapping_pow(b as u32),
        (1, _) => 1,
        (-1, _) => 1 - 2 * (b & 1),
        _ => 0,
    }
}

/// Natural logarithm of what is not negative, to some 45 bits: twice the series of the area tangent
/// of `(m - 1) / (m + 1)`.
#[inline(always)]
fn ln_wide(x: f32) -> f64 {
    let bits = f64::from(x).to_bits();
    let shifted = bits.wrapping_sub(0x3fe6_a09e_667f_3bcd);
    let e = ((shifted as i64) >> 52) as f64;
    let mantissa = (shifted & 0x000f_ffff_ffff_ffff).wrapping_add(0x3fe6_a09e_667f_3bcd);
    let m = f64::from_bits(mantissa);
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let mut y = 1.0 / 17.0;
    for n in [15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        y = y * z + 1.0 / n;
    }
    let y = e * std::f64::consts::LN_2 + 2.0 * s * y;
    if x == 0.0 {
        f64::NEG_INFINITY
    } else if x == f32::INFINITY {
        f64::INFINITY
    } else {
        y
    }
}

/// `eˣ` to some 40 bits, between what f32 makes 0 and infinity.
#[inline(always)]
fn exp_wide(x: f64) -> f64 {
    let clamped = x.clamp(-120.0, 100.0);
    let n = (clamped * std::f64::consts::LOG2_E).round_ties_even();
    let r = clamped - n * std::f64::consts::LN_2;
    let mut y = 1.0 / 39_916_800.0;
    for factorial in [
        3_628_800.0,
        362_880.0,
        40_320.0,
        5_040.0,
        720.0,
        120.0,
        24.0,
        6.0,
        2.0,
        1.0,
        1.0,
    ] {
        y = y * r + 1.0 / factorial;
    }
    y * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

/// Sine and cosine of an angle in radians, within 2e-7 absolute for angles up to 2²⁴.
#[inline(always)]
pub fn sin_cos(x: f32) -> (f32, f32) {
    let wide = f64::from(x);
    let turns = (wide * std::f64::consts::FRAC_2_PI).round();
    let r = (wide - turns * std::f64::consts::FRAC_PI_2) as f32;
    let z = r * r;
    let sin = ((-1.951_529_6e-4 * z + 8.332_161e-3) * z - 1.666_665_5e-1) * z * r + r;
    let cos = ((2.443_315_7e-5 * z - 1.388_731_6e-3) * z + 4.166_664_6e-2) * z * z - 0.5 * z + 1.0;
    let quarter = turns as i64 & 3;
    let (s, c) = if quarter & 1 == 0 {
        (sin, cos)
    } else {
        (cos, sin)
    };
    let s = if quarter & 2 == 0 { s } else { -s };
    let c = if (quarter + 1) & 2 == 0 { c } else { -c };
    (s, c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(name: &str, ours: f32, exact: f64, ulps: f64, absolute: f64) {
        if exact.abs() > f64::from(f32::MAX) {
            return assert_eq!(ours, exact as f32, "{name}");
        }
        let step = (exact.abs() as f32).max(f32::MIN_POSITIVE);
        let ulp = f64::from(f32::from_bits(step.to_bits() + 1)) - f64::from(step);
        let error = (f64::from(ours) - exact).abs();
        assert!(
            error <= ulps * ulp + absolute,
            "{name}: {ours} is not {exact}"
        );
    }

    #[test]
    fn functions_are_as_exact_as_they_say() {
        for i in -200_000..=200_000 {
            let x = i as f32 * 0.000_5;
            close("exp", exp(x), f64::from(x).exp(), 2.0, 0.0);
            close("tanh", tanh(x), f64::from(x).tanh(), 3.0, 0.0);
            if x > 0.0 {
                close("ln", ln(x), f64::from(x).ln(), 2.0, 0.0);
            }
        }
        for i in 0..100_000 {
            let x = i as f32 * 1.618;
            let (s, c) = sin_cos(x);
            close("sin", s, f64::from(x).sin(), 0.0, 2e-7);
            close("cos", c, f64::from(x).cos(), 0.0, 2e-7);
        }
    }

    #[test]
    fn erf_matches_known_values() {
        for (x, y) in [
            (0.1f32, 0.112_462_916),
            (0.5, 0.520_499_878),
            (1.0, 0.842_700_793),
        ] {
            close("erf", erf(x), y, 0.0, 5e-7);
            close("erf", erf(-x), -y, 0.0, 5e-7);
        }
    }

    #[test]
    fn powers_are_right_to_the_last_place() {
        for i in 1..2000 {
            for j in -60..60 {
                let (a, b) = (i as f32 * 0.037, j as f32 * 0.21);
                let exact = f64::from(a).powf(b.into());
                close("power", power(a, b), exact, 1.0, 0.0);
            }
        }
        for a in [
            0.0f32,
            -0.0,
            0.5,
            1.0,
            -1.0,
            2.0,
            -3.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
        ] {
            for b in [
                0.0f32,
                1.0,
                -1.0,
                2.0,
                3.0,
                0.5,
                -2.5,
                f32::INFINITY,
                f32::NEG_INFINITY,
            ] {
                let (ours, exact) = (power(a, b), a.powf(b));
                let same = ours == exact || ours.is_nan() && exact.is_nan();
                assert!(same, "{a} to {b} is {ours}, not {exact}");
            }
        }
        assert_eq!(
            [power_i32(-3, 3), power_i32(-1, -3), power_i32(7, -1)],
            [-27, -1, 0]
        );
    }

    #[test]
    fn the_inverse_error_function_undoes_the_error_function() {
        for (x, y) in [
            (0.5f32, 0.476_936_276_204_469_8),
            (0.1, 0.088_855_991_825_306_43),
            (1e-4, 8.862_269_053_849_193e-5),
            (0.99, 1.821_386_600_900_278),
            (0.999_999_94, 3.832_506_856_900_711),
        ] {
            close("erfinv", erfinv(x), y, 4.0, 0.0);
            close("erfinv", erfinv(-x), -y, 4.0, 0.0);
        }
        assert_eq!(
            [erfinv(1.0), erfinv(-1.0)],
            [f32::INFINITY, f32::NEG_INFINITY]
        );
        assert!(erfinv(1.5).is_nan());
        assert_eq!(erfinv(0.0), 0.0);
    }

    #[test]
    fn extremes_are_right() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan() && ln(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
        assert_eq!(ln(0.0), f32::NEG_INFINITY);
        assert!(ln(-1.0).is_nan());
        assert_eq!(tanh(50.0), 1.0);
        assert_eq!(tanh(-0.0).to_bits(), (-0.0f32).to_bits());
        close("exp", exp(-95.0), (-95.0f64).exp(), 1.0, 1.5e-45);
    }
}
