//! The elementwise functions that are more than an operator.

use crate::{Array, DType, Expr, Kind, Op, Result, Scalar};

/// The other side of an operation: an array, or a number, which takes the array's dtype (with a
/// fraction and an array of integers, both become f32).
#[derive(Clone, Copy, Debug)]
pub enum Other<'a> {
    /// An array, broadcast.
    Array(&'a Array),
    /// A number.
    Number(f64),
}

impl<'a> From<&'a Array> for Other<'a> {
    fn from(array: &'a Array) -> Other<'a> {
        Other::Array(array)
    }
}

macro_rules! numbers {
    ($($number:ty)+) => { $(
        impl From<$number> for Other<'_> {
            fn from(number: $number) -> Self {
                Other::Number(number.into())
            }
        }
    )+ };
}

numbers!(f64 f32 i32 u32);

impl Other<'_> {
    /// The array, or one of the number alone in the dtype that it takes beside `first`.
    #[track_caller]
    fn array(self, first: &Array) -> Result<Array> {
        let number = match self {
            Other::Array(array) => return Ok(array.clone()),
            Other::Number(number) => number,
        };
        let dtype = match first.dtype() {
            integer if !integer.is_float() && number.fract() != 0.0 => DType::F32,
            other => other,
        };
        Array::numbers(std::iter::once(number), &[], dtype, first.device())
    }
}

/// Whether what is left of a division truncated towards 0 has another sign than the divisor.
#[track_caller]
fn turned(left: &Array, divisor: &Array) -> Result<Array> {
    let other_sign = left.less(0)?.not_equal(&divisor.less(0)?)?;
    other_sign.logical_and(&left.not_equal(0)?)
}

/// # Elementwise functions
///
/// Functions of reals take integers and bools as f32; the others keep the dtype. All of them round
/// once to the result's dtype.
///
/// ```
/// # fn main() -> kiln_array::Result<()> {
/// use kiln_array::{Array, DType};
/// let device = kiln_cpu::device(Default::default())?;
/// let x = Array::new([-1.5, 0.0, 4.0], &device)?;
/// let values = |array: kiln_array::Result<Array>| array?.to_vec::<f32>();
///
/// assert_eq!(values(x.abs())?, [1.5, 0.0, 4.0]);
/// assert_eq!(values(x.negative())?, [1.5, 0.0, -4.0]);
/// assert_eq!(values(x.sign())?, [-1.0, 0.0, 1.0]);
/// assert_eq!(values(x.square())?, [2.25, 0.0, 16.0]);
/// assert_eq!(values(x.floor())?, [-2.0, 0.0, 4.0]);
/// assert_eq!(values(x.ceil())?, [-1.0, 0.0, 4.0]);
/// assert_eq!(values(x.round())?, [-2.0, 0.0, 4.0]);
/// assert_eq!(values(x.clip(-1.0, 1.0))?, [-1.0, 0.0, 1.0]);
/// assert_eq!(values(x.power(2))?, [2.25, 0.0, 16.0]);
/// assert_eq!(values(x.maximum(0.5))?, [0.5, 0.5, 4.0]);
/// assert_eq!(values(x.minimum(&x.negative()?))?, [-1.5, 0.0, -4.0]);
/// assert_eq!(values(x.remainder(2))?, [0.5, 0.0, 0.0]);
/// assert_eq!(values(x.floor_divide(2))?, [-1.0, 0.0, 2.0]);
///
/// let one = Array::new(1, &device)?;
/// let four = Array::new(4.0, &device)?;
/// let close = |array: kiln_array::Result<Array>, y: f32| {
///     array?.item::<f32>().map(|x| assert!((x - y).abs() < 1e-6, "{x} is not {y}"))
/// };
/// close(one.exp(), 2.7182817)?;
/// close(one.log(), 0.0)?;
/// close(four.sqrt(), 2.0)?;
/// close(four.rsqrt(), 0.5)?;
/// close(four.reciprocal(), 0.25)?;
/// close(one.sin(), 0.841471)?;
/// close(one.cos(), 0.5403023)?;
/// close(one.tanh(), 0.7615942)?;
/// close(one.sigmoid(), 0.7310586)?;
/// close(one.silu(), 0.7310586)?;
/// close(one.erf(), 0.8427008)?;
/// close(one.erf()?.erfinv(), 1.0)?;
///
/// assert_eq!(x.cast(DType::I32)?.to_vec::<i32>()?, [-1, 0, 4]);
/// # Ok(()) }
/// ```
impl Array {
    /// `f` of elements of this array and another, or a number.
    #[track_caller]
    pub(crate) fn with<'a>(&self, f: Scalar, other: impl Into<Other<'a>>) -> Result<Array> {
        match other.into() {
            Other::Array(other) => self.binary(f, other),
            Other::Number(number) => self.with_number(f, number),
        }
    }

    /// This array, if it is not quantised: only [`Array::cast`] makes numbers of weights.
    #[track_caller]
    pub(crate) fn plain(&self, op: &'static str) -> Result<&Array> {
        match self.dtype().is_quantised() {
            false => Ok(self),
            true => self.invalid(op, "operands that are not quantised"),
        }
    }

    /// The elements as floats: integers and bools as f32.
    #[track_caller]
    pub(crate) fn floats(&self, op: &'static str) -> Result<Array> {
        match self.dtype().is_float() {
            true => Ok(self.clone()),
            false => self.plain(op)?.cast(DType::F32),
        }
    }

    /// `f` of the elements as floats.
    #[track_caller]
    fn real(&self, f: Scalar) -> Result<Array> {
        self.floats("map")?.unary(f)
    }

    /// `|x|`.
    #[track_caller]
    pub fn abs(&self) -> Result<Array> {
        match self.dtype().kind() {
            Kind::U32 | Kind::Bool => Ok(self.clone()),
            _ => self.unary(Scalar::Abs),
        }
    }

    /// `-x`; of unsigned integers wrapping.
    #[track_caller]
    pub fn negative(&self) -> Result<Array> {
        match self.dtype().kind() {
            Kind::U32 => self.number(Scalar::Sub, 0.0, true),
            _ => self.unary(Scalar::Neg),
        }
    }

    /// -1, 0 or 1 as the number is below, at or above 0; 0 of NaN.
    #[track_caller]
    pub fn sign(&self) -> Result<Array> {
        match self.dtype().kind() {
            Kind::Bool => Ok(self.clone()),
            Kind::U32 => self.minimum(1),
            _ => self.greater(0)?.cast(self.dtype())? - self.less(0)?.cast(self.dtype())?,
        }
    }

    /// `x²`, in the dtype.
    #[track_caller]
    pub fn square(&self) -> Result<Array> {
        self * self
    }

    /// `1 / x`.
    #[track_caller]
    pub fn reciprocal(&self) -> Result<Array> {
        1.0 / self
    }

    /// Largest integer not above each element, in the dtype.
    #[track_caller]
    pub fn floor(&self) -> Result<Array> {
        match self.dtype().is_float() {
            true => self.unary(Scalar::Floor),
            false => self.plain("map").cloned(),
        }
    }

    /// Smallest integer not below each element, in the dtype.
    #[track_caller]
    pub fn ceil(&self) -> Result<Array> {
        match self.dtype().is_float() {
            true => self.negative()?.floor()?.negative(),
            false => self.plain("map").cloned(),
        }
    }

    /// Nearest integer in the dtype, ties to even.
    #[track_caller]
    pub fn round(&self) -> Result<Array> {
        match self.dtype().is_float() {
            true => self.unary(Scalar::Nearest),
            false => self.plain("map").cloned(),
        }
    }

    /// The elements brought between `low` and `high`, where `high` wins; NaN stays.
    #[track_caller]
    pub fn clip<'a>(&self, low: impl Into<Other<'a>>, high: impl Into<Other<'a>>) -> Result<Array> {
        self.maximum(low)?.minimum(high)
    }

    /// `selfᵇ`. On a GPU, powers that are no whole number up to 64 lose the places by which
    /// `|b · ln a|` passes 1; of integers, a negative `b` gives 0 (of 1 and -1, their powers).
    #[track_caller]
    pub fn power<'a>(&self, other: impl Into<Other<'a>>) -> Result<Array> {
        self.with(Scalar::Power, other)
    }

    /// The larger of two; NaN if either is.
    #[track_caller]
    pub fn maximum<'a>(&self, other: impl Into<Other<'a>>) -> Result<Array> {
        self.with(Scalar::Max, other)
    }

    /// The smaller of two; NaN if either is.
    #[track_caller]
    pub fn minimum<'a>(&self, other: impl Into<Other<'a>>) -> Result<Array> {
        self.with(Scalar::Min, other)
    }

    /// What is left of a division, with the sign of the divisor: `a - ⌊a/b⌋·b`. 0 where an integer
    /// `b` is 0.
    #[track_caller]
    pub fn remainder<'a>(&self, other: impl Into<Other<'a>>) -> Result<Array> {
        let other = other.into().array(self)?;
        let left = self.binary(Scalar::Rem, &other)?;
        let turned = turned(&left, &other)?;
        turned.select(&(&left + &other)?, &left)
    }

    /// The quotient rounded down, in the joint dtype; of integers `a` where `b` is 0.
    #[track_caller]
    pub fn floor_divide<'a>(&self, other: impl Into<Other<'a>>) -> Result<Array> {
        let other = other.into().array(self)?;
        let joint = self.dtype().join(other.dtype());
        let Some(dtype) = joint.filter(|joint| !joint.is_float()) else {
            return (self / other)?.floor();
        };
        let quotient = Expr::binary(Scalar::Div, [self.dtype(), other.dtype()], dtype);
        let quotient = Array::make(Op::Map(quotient), vec![self.clone(), other.clone()])?;
        let turned = turned(&self.binary(Scalar::Rem, &other)?, &other)?;
        quotient - turned.cast(dtype)?
    }
}

macro_rules! reals {
    ($($(#[$doc:meta])+ $name:ident $f:ident;)+) => {
        impl Array { $(
            $(#[$doc])+
            #[track_caller]
            pub fn $name(&self) -> Result<Array> {
                self.real(Scalar::$f)
            }
        )+ }
    };
}

reals! {
    /// `eˣ`.
    exp Exp;
    /// Natural logarithm.
    log Log;
    /// `√x`.
    sqrt Sqrt;
    /// `1 / √x`.
    rsqrt Rsqrt;
    /// Sine of radians, exact to 2e-7 up to 2²⁴.
    sin Sin;
    /// Cosine of radians, exact to 2e-7 up to 2²⁴.
    cos Cos;
    /// Hyperbolic tangent.
    tanh Tanh;
    /// `1 / (1 + e⁻ˣ)`.
    sigmoid Sigmoid;
    /// `x · sigmoid(x)`.
    silu Silu;
    /// Error function, exact to 5e-7.
    erf Erf;
    /// The number whose error function this is, within 4 last places of f32.
    erfinv ErfInv;
}
