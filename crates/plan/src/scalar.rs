//! The table of scalar functions.

use crate::{Kind, math};

/// A number while it is computed with, kept as 32 bits.
pub trait Value: Copy {
    /// The number these bits stand for.
    fn from_bits(bits: u32) -> Self;
    /// The bits that stand for this number.
    fn bits(self) -> u32;
}

impl Value for f32 {
    #[inline(always)]
    fn from_bits(bits: u32) -> f32 {
        f32::from_bits(bits)
    }
    #[inline(always)]
    fn bits(self) -> u32 {
        self.to_bits()
    }
}
impl Value for u32 {
    #[inline(always)]
    fn from_bits(bits: u32) -> u32 {
        bits
    }
    #[inline(always)]
    fn bits(self) -> u32 {
        self
    }
}
impl Value for i32 {
    #[inline(always)]
    fn from_bits(bits: u32) -> i32 {
        bits as i32
    }
    #[inline(always)]
    fn bits(self) -> u32 {
        self as u32
    }
}
impl Value for bool {
    #[inline(always)]
    fn from_bits(bits: u32) -> bool {
        bits != 0
    }
    #[inline(always)]
    fn bits(self) -> u32 {
        self as u32
    }
}

#[inline(always)]
fn each<const N: usize, T: Value, R: Value>(
    out: &mut [u32],
    arguments: [&[u32]; 3],
    f: impl Fn([T; N]) -> R,
) {
    let n = out.len();
    let arguments = arguments.map(|a| &a[..n.min(a.len())]);
    if arguments[..N].iter().any(|a| a.len() != n) {
        return;
    }
    for i in 0..n {
        out[i] = f(std::array::from_fn(|a| T::from_bits(arguments[a][i]))).bits();
    }
}

// The Rust types that the kinds compute with, under the names of `Kind`.
type Float = f32;
type U32 = u32;
type I32 = i32;
type Bool = bool;

/// How many names a list like `[a, b]` has.
const fn count(list: &str) -> usize {
    let mut commas = 0;
    let mut i = 0;
    while i < list.len() {
        commas += (list.as_bytes()[i] == b',') as usize;
        i += 1;
    }
    commas + 1
}

macro_rules! scalars {
    ($( $(#[$doc:meta])* $name:ident $arguments:tt $wgsl:literal
        { $($kind:ident -> $result:ident: $body:expr),+ $(,)? } )+) => {
        /// A function of up to three numbers. All arguments have one kind (but the condition of
        /// `Select`, which is a bool).
        ///
        /// ```
        /// use kiln_array::{Kind, Scalar};
        /// assert_eq!(Scalar::Less.arity(), 2);
        /// assert_eq!(Scalar::Less.result(Kind::Float), Some(Kind::Bool));
        /// assert_eq!(Scalar::Less.wgsl(), "({a} < {b})");
        /// let mut sums = [0; 2];
        /// Scalar::Add.apply(Kind::U32, &mut sums, [&[1, 2], &[3, 4], &[]]);
        /// assert_eq!(sums, [4, 6]);
        /// ```
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Scalar { $( $(#[$doc])* $name ),+ }

        impl Scalar {
            /// Every function.
            pub const ALL: &'static [Scalar] = &[$(Scalar::$name),+];

            /// Number of arguments.
            pub const fn arity(self) -> usize {
                match self { $( Scalar::$name => count(stringify!($arguments)) ),+ }
            }

            /// The function in WGSL, with the arguments' names in braces. `{kind}` stands for their
            /// WGSL type. A backend provides the functions named like `exp_f32` and `div_{kind}`.
            pub const fn wgsl(self) -> &'static str {
                match self { $( Scalar::$name => $wgsl ),+ }
            }

            /// The kind of the result for arguments of `kind` (the last argument's), or `None`
            /// where the function has no meaning.
            pub const fn result(self, kind: Kind) -> Option<Kind> {
                match (self, kind) {
                    $($( (Scalar::$name, Kind::$kind) => Some(Kind::$result), )+)+
                    _ => None,
                }
            }

            /// Applies the function to every element of the arguments, which are as long as `out`;
            /// arguments past the function's arity are not looked at.
            #[inline(always)]
            pub fn apply(self, kind: Kind, out: &mut [u32], arguments: [&[u32]; 3]) {
                match (self, kind) {
                    $($( (Scalar::$name, Kind::$kind) =>
                        each(out, arguments, |$arguments: [$kind; _]| -> $result { $body }), )+)+
                    _ => {}
                }
            }
        }
    };
}

scalars! {
    /// Sum; integers wrap.
    Add[a, b] "({a} + {b})"
        { Float -> Float: a + b, U32 -> U32: a.wrapping_add(b), I32 -> I32: a.wrapping_add(b) }
    /// Difference; integers wrap.
    Sub[a, b] "({a} - {b})"
        { Float -> Float: a - b, U32 -> U32: a.wrapping_sub(b), I32 -> I32: a.wrapping_sub(b) }
    /// Product; integers wrap.
    Mul[a, b] "({a} * {b})"
        { Float -> Float: a * b, U32 -> U32: a.wrapping_mul(b), I32 -> I32: a.wrapping_mul(b) }
    /// Quotient; of integers towards zero, `a` where `b` is 0.
    Div[a, b] "div_{kind}({a}, {b})" {
        Float -> Float: a / b,
        U32 -> U32: a.checked_div(b).unwrap_or(a),
        I32 -> I32: a.checked_div(b).unwrap_or(a),
    }
    /// Remainder with the sign of `a`; 0 where an integer `b` is 0.
    Rem[a, b] "rem_{kind}({a}, {b})" {
        Float -> Float: a % b,
        U32 -> U32: a.checked_rem(b).unwrap_or(0),
        I32 -> I32: a.checked_rem(b).unwrap_or(0),
    }
    /// Negative.
    Neg[a] "(-{a})" { Float -> Float: -a, I32 -> I32: a.wrapping_neg() }
    /// Magnitude.
    Abs[a] "abs({a})" { Float -> Float: a.abs(), I32 -> I32: a.wrapping_abs() }
    /// The smaller; NaN if either is.
    Min[a, b] "min_{kind}({a}, {b})" {
        Float -> Float: if a < b || a.is_nan() { a } else { b },
        U32 -> U32: a.min(b), I32 -> I32: a.min(b),
    }
    /// The larger; NaN if either is.
    Max[a, b] "max_{kind}({a}, {b})" {
        Float -> Float: if a > b || a.is_nan() { a } else { b },
        U32 -> U32: a.max(b), I32 -> I32: a.max(b),
    }
    /// `eᵃ`.
    Exp[a] "exp_f32({a})" { Float -> Float: math::exp(a) }
    /// Natural logarithm.
    Log[a] "log_f32({a})" { Float -> Float: math::ln(a) }
    /// Square root.
    Sqrt[a] "sqrt({a})" { Float -> Float: a.sqrt() }
    /// `1 / √a`.
    Rsqrt[a] "inverseSqrt({a})" { Float -> Float: 1.0 / a.sqrt() }
    /// Sine of radians.
    Sin[a] "sin_f32({a})" { Float -> Float: math::sin_cos(a).0 }
    /// Cosine of radians.
    Cos[a] "cos_f32({a})" { Float -> Float: math::sin_cos(a).1 }
    /// Hyperbolic tangent.
    Tanh[a] "tanh_f32({a})" { Float -> Float: math::tanh(a) }
    /// Error function.
    Erf[a] "erf_f32({a})" { Float -> Float: math::erf(a) }
    /// The number whose error function is `a`.
    ErfInv[a] "erfinv_f32({a})" { Float -> Float: math::erfinv(a) }
    /// `aᵇ`. Of integers wrapping; 0 for a negative `b`, but of 1 and -1.
    Power[a, b] "power_{kind}({a}, {b})" {
        Float -> Float: math::power(a, b),
        U32 -> U32: a.wrapping_pow(b),
        I32 -> I32: math::power_i32(a, b),
    }
    /// The bits of an f32.
    Bits[a] "bitcast<u32>({a})" { Float -> U32: a.to_bits() }
    /// `1 / (1 + e⁻ᵃ)`.
    Sigmoid[a] "sigmoid_f32({a})" { Float -> Float: math::sigmoid(a) }
    /// `a · sigmoid(a)`.
    Silu[a] "({a} / (1.0 + exp_f32(-{a})))" { Float -> Float: a / (1.0 + math::exp(-a)) }
    /// Largest integer not above `a`.
    Floor[a] "floor({a})" { Float -> Float: a.floor() }
    /// Nearest integer, ties to even.
    Nearest[a] "round({a})" { Float -> Float: a.round_ties_even() }
    /// Both; bitwise for integers.
    And[a, b] "({a} & {b})" { Bool -> Bool: a & b, U32 -> U32: a & b, I32 -> I32: a & b }
    /// Either; bitwise for integers.
    Or[a, b] "({a} | {b})" { Bool -> Bool: a | b, U32 -> U32: a | b, I32 -> I32: a | b }
    /// Bits that differ.
    Xor[a, b] "({a} ^ {b})" { U32 -> U32: a ^ b, I32 -> I32: a ^ b }
    /// The opposite.
    Not[a] "(!{a})" { Bool -> Bool: !a }
    /// `a · 2ᵇ`; `b` counts modulo 32.
    ShiftLeft[a, b] "({a} << (u32({b}) & 31u))"
        { U32 -> U32: a.wrapping_shl(b), I32 -> I32: a.wrapping_shl(b as u32) }
    /// `a / 2ᵇ` rounded down, keeping the sign; `b` counts modulo 32.
    ShiftRight[a, b] "({a} >> (u32({b}) & 31u))"
        { U32 -> U32: a.wrapping_shr(b), I32 -> I32: a.wrapping_shr(b as u32) }
    /// Whether the arguments are equal; NaN equals nothing.
    Equal[a, b] "({a} == {b})" {
        Float -> Bool: a == b, U32 -> Bool: a == b, I32 -> Bool: a == b, Bool -> Bool: a == b,
    }
    /// Whether `a` is below `b`.
    Less[a, b] "({a} < {b})" { Float -> Bool: a < b, U32 -> Bool: a < b, I32 -> Bool: a < b }
    /// Whether `a` is at most `b`.
    LessEqual[a, b] "({a} <= {b})"
        { Float -> Bool: a <= b, U32 -> Bool: a <= b, I32 -> Bool: a <= b }
    /// `a` where the condition holds, else `b`.
    Select[c, a, b] "select({b}, {a}, {c})" {
        Float -> Float: if c.bits() != 0 { a } else { b },
        U32 -> U32: if c.bits() != 0 { a } else { b },
        I32 -> I32: if c.bits() != 0 { a } else { b },
        Bool -> Bool: if c.bits() != 0 { a } else { b },
    }
}
