//! Elementwise functions: the table of scalar functions, and straight-line programs over them.

use crate::few::Few;
use crate::{DType, Kind, math};
use std::fmt;

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

/// One instruction. Registers are numbered by the instruction that fills them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Instr {
    /// An element of operand `n`.
    Input(u8),
    /// Constant `n`.
    Const(u8),
    /// A function of registers; arguments past its arity are 0.
    Apply(Scalar, [u8; 3]),
    /// A register converted to a dtype: rounded to a float dtype, cut to the bits of an integer,
    /// compared with 0 for bool. A float becomes the nearest integer towards zero; out of range it
    /// becomes the closest integer, NaN becomes 0.
    Cast(DType, u8),
}

/// A number written into a program, with the dtype it was given in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Constant {
    /// The dtype; the value is representable in it.
    pub dtype: DType,
    /// The register's bits: an f32 for the float dtypes.
    pub bits: u32,
}

/// An elementwise function of arrays: a straight-line program whose last instruction is the cast
/// to the result's dtype.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Expr {
    inputs: u8,
    code: Few<Instr, 4>,
    constants: Few<Constant, 1>,
}

impl Expr {
    /// The longest program; fusion stops there.
    pub const MAX_CODE: usize = 64;

    /// A program over `inputs` operands. [`Expr::check`] says whether it makes sense.
    pub fn new(inputs: usize, code: &[Instr], constants: &[Constant]) -> Expr {
        let zero = Constant {
            dtype: DType::F32,
            bits: 0,
        };
        Expr {
            inputs: inputs as u8,
            code: Few::new(code, Instr::Input(0)),
            constants: Few::new(constants, zero),
        }
    }

    /// The conversion of one operand to `dtype`.
    pub fn cast(dtype: DType) -> Expr {
        Expr::new(1, &[Instr::Input(0), Instr::Cast(dtype, 0)], &[])
    }

    /// Number of operands.
    pub fn inputs(&self) -> usize {
        self.inputs as usize
    }

    /// The instructions.
    pub fn code(&self) -> &[Instr] {
        &self.code
    }

    /// The constants.
    pub fn constants(&self) -> &[Constant] {
        &self.constants
    }

    /// The kind of every register for operands of these dtypes, or what is wrong.
    pub fn kinds(&self, inputs: &[DType]) -> Result<Vec<Kind>, String> {
        let mut kinds = vec![Kind::Float; self.code.len()];
        self.fill(&mut kinds, |n| inputs.get(n).copied())?;
        Ok(kinds)
    }

    /// The dtype of the result for operands of these dtypes, or what is wrong.
    pub fn check(&self, inputs: &[DType]) -> Result<DType, String> {
        self.result(inputs.len(), |n| inputs.get(n).copied())
    }

    /// [`Expr::check`] of `inputs` operands, the dtypes of which `dtype` knows.
    pub(crate) fn result(
        &self,
        inputs: usize,
        dtype: impl Fn(usize) -> Option<DType>,
    ) -> Result<DType, String> {
        let mut few = [Kind::Float; 8];
        match few.get_mut(..self.code.len()) {
            Some(kinds) => self.fill(kinds, dtype)?,
            None => self.fill(&mut vec![Kind::Float; self.code.len()], dtype)?,
        }
        match self.code.last() {
            Some(Instr::Cast(dtype, _)) if inputs == self.inputs() => Ok(*dtype),
            _ => Err(format!("{} operands and a last cast", self.inputs)),
        }
    }

    /// Writes the kind of every register, or says what is wrong.
    fn fill(
        &self,
        kinds: &mut [Kind],
        dtype: impl Fn(usize) -> Option<DType>,
    ) -> Result<(), String> {
        for (at, instr) in self.code.iter().enumerate() {
            let of = |r: u8| {
                let filled = kinds[..at].get(r as usize).copied();
                filled.ok_or("a register before its value")
            };
            kinds[at] = match *instr {
                Instr::Input(n) => {
                    let dtype = dtype(n as usize).ok_or("an operand that is not there")?;
                    if dtype.is_quantised() {
                        return Err("operands that are not quantised".into());
                    }
                    dtype.kind()
                }
                Instr::Const(n) => self
                    .constants
                    .get(n as usize)
                    .ok_or("a constant that is not there")?
                    .dtype
                    .kind(),
                Instr::Cast(dtype, r) => {
                    of(r)?;
                    if dtype.is_quantised() {
                        return Err("a cast to a plain dtype".into());
                    }
                    dtype.kind()
                }
                Instr::Apply(scalar, arguments) => {
                    let arguments = &arguments[..scalar.arity()];
                    let kind = of(arguments[scalar.arity() - 1])?;
                    for (i, &argument) in arguments.iter().enumerate() {
                        let condition = scalar == Scalar::Select && i == 0;
                        if of(argument)? != if condition { Kind::Bool } else { kind } {
                            return Err(format!("{scalar:?} of operands of one kind"));
                        }
                    }
                    scalar
                        .result(kind)
                        .ok_or_else(|| format!("{scalar:?} not of {kind:?}"))?
                }
            };
        }
        Ok(())
    }

    /// This program with operand `n` called `numbers[n]`, of `inputs` operands.
    pub(crate) fn renumber(&self, numbers: &[u8], inputs: usize) -> Expr {
        let renumbered = |instr: &Instr| match *instr {
            Instr::Input(n) => Instr::Input(numbers[n as usize]),
            other => other,
        };
        let code: Vec<Instr> = self.code.iter().map(renumbered).collect();
        Expr::new(inputs, &code, &self.constants)
    }

    /// This program with operand `at` computed by `producer`. `operands` maps this program's
    /// operands, and `producer_operands` the producer's, to those of the result.
    pub(crate) fn inline(
        &self,
        at: usize,
        operands: &[u8],
        producer: &Expr,
        producer_operands: &[u8],
        inputs: usize,
    ) -> Expr {
        let mut code = Vec::with_capacity(self.code.len() + producer.code.len());
        let mut constants = producer.constants.to_vec();
        for instr in &*producer.code {
            code.push(match *instr {
                Instr::Input(n) => Instr::Input(producer_operands[n as usize]),
                other => other,
            });
        }
        let produced = (code.len() - 1) as u8;
        let mut registers = Vec::with_capacity(self.code.len());
        for instr in &*self.code {
            let moved = |r: u8| registers.get(r as usize).copied().unwrap_or(0);
            let instr = match *instr {
                Instr::Input(n) if n as usize == at => {
                    registers.push(produced);
                    continue;
                }
                Instr::Input(n) => Instr::Input(operands[n as usize]),
                Instr::Const(n) => {
                    constants.push(self.constants[n as usize]);
                    Instr::Const((constants.len() - 1) as u8)
                }
                Instr::Apply(scalar, r) => Instr::Apply(scalar, r.map(moved)),
                Instr::Cast(dtype, r) => Instr::Cast(dtype, moved(r)),
            };
            code.push(instr);
            registers.push((code.len() - 1) as u8);
        }
        Expr::new(inputs, &code, &constants)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, instr) in self.code.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            match instr {
                Instr::Input(n) => write!(f, "r{i}=in{n}")?,
                Instr::Const(n) => {
                    let constant = self.constants[*n as usize];
                    match constant.dtype.kind() {
                        Kind::Float => write!(f, "r{i}={}", f32::from_bits(constant.bits))?,
                        _ => write!(f, "r{i}={}", constant.bits)?,
                    }
                }
                Instr::Apply(scalar, r) => write!(f, "r{i}={scalar:?}{:?}", &r[..scalar.arity()])?,
                Instr::Cast(dtype, r) => write!(f, "r{i}={dtype}(r{r})")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Converts register bits of kind `from` to `dtype`'s register bits: the meaning of
/// [`Instr::Cast`].
#[inline(always)]
pub fn cast(from: Kind, dtype: DType, bits: u32) -> u32 {
    match (from, dtype) {
        (Kind::Float, DType::Bool) => (f32::from_bits(bits) != 0.0) as u32,
        (Kind::Float, DType::U8) => f32::from_bits(bits) as u8 as u32,
        (Kind::Float, DType::U32) => f32::from_bits(bits) as u32,
        (Kind::Float, DType::I32) => f32::from_bits(bits) as i32 as u32,
        (Kind::Float, float) => float.round(f32::from_bits(bits)).to_bits(),
        (_, DType::Bool) => (bits != 0) as u32,
        (_, DType::U8) => bits & 0xff,
        (_, DType::U32 | DType::I32) => bits,
        (Kind::I32, float) => float.round(bits as i32 as f32).to_bits(),
        (_, float) => float.round(bits as f32).to_bits(),
    }
}
