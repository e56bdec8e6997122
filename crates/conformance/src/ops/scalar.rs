//! The scalar functions in f64 and i64: what one application may give.

use crate::Span;
use crate::numbers::{round, ulp};
use kiln_array::{DType, Kind, Scalar};

/// What `f` of arguments of `dtype` may give, before it is stored. Floats are computed in f32.
pub(crate) fn apply(f: Scalar, dtype: DType, arguments: [f64; 3]) -> Span {
    match dtype.kind() {
        Kind::Float => float(f, arguments),
        Kind::Bool => Span::from(logical(f, arguments)),
        Kind::U32 | Kind::I32 => {
            let [a, b, c] = arguments.map(|v| v as i64);
            let wrap = |v: i64| match dtype.kind() {
                Kind::I32 => v as i32 as f64,
                _ => v as u32 as f64,
            };
            Span::from(integer(f, dtype.kind(), [a, b, c]).map_or(f64::NAN, wrap))
        }
    }
}

/// Results of this dtype: bool for a comparison, u32 for bits.
pub(crate) fn result(f: Scalar, dtype: DType) -> Option<DType> {
    f.result(dtype.kind()).map(|kind| match kind {
        Kind::Bool => DType::Bool,
        Kind::U32 if dtype.is_float() => DType::U32,
        _ => dtype,
    })
}

fn flag(condition: bool) -> f64 {
    if condition { 1.0 } else { 0.0 }
}

fn float(f: Scalar, [a, b, c]: [f64; 3]) -> Span {
    let single = |value: f64| round(DType::F32, value);
    let steps = |value: f64, count: f64| Span::near(value, count * ulp(DType::F32, value));
    let exact = Span::from;
    match f {
        // One rounding to f32, which f64 arithmetic followed by a rounding reproduces.
        Scalar::Add => exact(single(a + b)),
        Scalar::Sub => exact(single(a - b)),
        Scalar::Mul => exact(single(a * b)),
        Scalar::Div => exact(single(a / b)),
        Scalar::Rem => exact(a % b),
        Scalar::Neg => exact(-a),
        Scalar::Abs => exact(a.abs()),
        Scalar::Min | Scalar::Max if a.is_nan() || b.is_nan() => exact(f64::NAN),
        Scalar::Min => exact(a.min(b)),
        Scalar::Max => exact(a.max(b)),
        Scalar::Sqrt => exact(single(a.sqrt())),
        Scalar::Floor => exact(a.floor()),
        Scalar::Nearest => exact(a.round_ties_even()),
        // The square root is rounded before it divides.
        Scalar::Rsqrt => exact(single(1.0 / single(a.sqrt()))),
        // As `math` promises: 2, 2 and 3 ulp.
        Scalar::Exp => steps(a.exp(), 2.0),
        Scalar::Log => steps(a.ln(), 2.0),
        Scalar::Tanh => steps(a.tanh(), 3.0),
        // As `math` promises: absolute errors.
        Scalar::Sin => Span::near(a.sin(), 2e-7),
        Scalar::Cos => Span::near(a.cos(), 2e-7),
        Scalar::Erf => Span::near(erf(a), 5e-7),
        Scalar::ErfInv => steps(erfinv(a), 4.0),
        Scalar::Power => power(a, b),
        Scalar::Bits => exact((a as f32).to_bits().into()),
        // An exponential, a sum and a quotient. The exponential overflows at -88.7, where the
        // sigmoid is below 1e-38.
        Scalar::Sigmoid => Span::near(1.0 / (1.0 + (-a).exp()), 1e-38).wider(4.0),
        Scalar::Silu if a.is_infinite() => exact(if a > 0.0 { a } else { f64::NAN }),
        Scalar::Silu => Span::near(a / (1.0 + (-a).exp()), 1e-36).wider(4.0),
        Scalar::Equal => exact(flag(a == b)),
        Scalar::Less => exact(flag(a < b)),
        Scalar::LessEqual => exact(flag(a <= b)),
        Scalar::Select => exact(if a != 0.0 { b } else { c }),
        Scalar::And | Scalar::Or | Scalar::Xor | Scalar::Not => exact(f64::NAN),
        Scalar::ShiftLeft | Scalar::ShiftRight => exact(f64::NAN),
    }
}

fn logical(f: Scalar, [a, b, c]: [f64; 3]) -> f64 {
    let [x, y] = [a != 0.0, b != 0.0];
    match f {
        Scalar::And => flag(x && y),
        Scalar::Or => flag(x || y),
        Scalar::Not => flag(!x),
        Scalar::Equal => flag(x == y),
        Scalar::Select => {
            if x {
                b
            } else {
                c
            }
        }
        _ => f64::NAN,
    }
}

fn integer(f: Scalar, kind: Kind, [a, b, c]: [i64; 3]) -> Option<i64> {
    Some(match f {
        Scalar::Add => a + b,
        Scalar::Sub => a - b,
        Scalar::Mul => a.wrapping_mul(b),
        Scalar::Div => {
            if b == 0 {
                a
            } else {
                a / b
            }
        }
        Scalar::Rem => {
            if b == 0 {
                0
            } else {
                a % b
            }
        }
        Scalar::Power if b < 0 => match a {
            1 => 1,
            -1 => 1 - 2 * b.rem_euclid(2),
            _ => 0,
        },
        // Only the low 32 bits matter to what is kept.
        Scalar::Power => (a as i32).wrapping_pow(b as u32).into(),
        Scalar::Neg if kind == Kind::I32 => -a,
        Scalar::Abs if kind == Kind::I32 => a.abs(),
        Scalar::Min => a.min(b),
        Scalar::Max => a.max(b),
        Scalar::And => a & b,
        Scalar::Or => a | b,
        Scalar::Xor => a ^ b,
        Scalar::ShiftLeft => a << b.rem_euclid(32),
        Scalar::ShiftRight => a >> b.rem_euclid(32),
        Scalar::Equal => i64::from(a == b),
        Scalar::Less => i64::from(a < b),
        Scalar::LessEqual => i64::from(a <= b),
        Scalar::Select => {
            if a != 0 {
                b
            } else {
                c
            }
        }
        _ => return None,
    })
}

/// The processor's powers are within a place; a GPU's, where they are no products, lose as much as
/// the logarithm's rounding is stretched.
fn power(a: f64, b: f64) -> Span {
    let value = match a == 1.0 || b == 0.0 {
        true => 1.0,
        false if a.is_nan() || b.is_nan() => f64::NAN,
        false => a.powf(b),
    };
    let stretched = if crate::numbers::are_for_gpu() {
        12.0 + 4.0 * (b * a.abs().ln()).abs().min(100.0)
    } else {
        1.0
    };
    Span::near(value, stretched * ulp(DType::F32, value))
}

/// The inverse error function by Newton's method.
fn erfinv(x: f64) -> f64 {
    if !(-1.0..=1.0).contains(&x) {
        return f64::NAN;
    }
    if x.abs() == 1.0 {
        return x * f64::INFINITY;
    }
    let tail = (-(1.0 - x.abs()).ln()).max(0.0).sqrt();
    let mut y: f64 = if x.abs() < 0.9 { x } else { tail.copysign(x) };
    for _ in 0..60 {
        let slope = std::f64::consts::FRAC_2_SQRT_PI * (-y * y).exp();
        y -= ((erf(y) - x) / slope).clamp(-0.5, 0.5);
    }
    y
}

/// The error function: its series below 3, the continued fraction of its complement above.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let size = if x.is_nan() {
        x
    } else if a < 3.0 {
        let (mut term, mut sum) = (a, a);
        for n in 1..100 {
            term *= -a * a / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        let fraction = (1..60).rev().fold(0.0, |f, n| f64::from(n) / 2.0 / (a + f));
        1.0 - (-a * a).exp() / ((a + fraction) * std::f64::consts::PI.sqrt())
    };
    size.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_error_function_is_right() {
        let known = [
            (0.5, 0.520_499_877_813_046_5),
            (2.5, 0.999_593_047_982_555),
            (3.5, 0.999_999_256_901_627_7),
        ];
        for (x, y) in known {
            assert!(
                (erf(x) - y).abs() < 1e-14 && (erf(-x) + y).abs() < 1e-14,
                "{x}: {}",
                erf(x)
            );
        }
    }
}
