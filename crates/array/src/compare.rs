//! Comparisons, logic, and what numbers are not finite.

use crate::elementwise::Other;
use crate::{Array, DType, Expr, Result, Scalar};

/// # Comparisons and logic
///
/// Results are bool. A number that is compared with takes the array's dtype first.
///
/// ```
/// # fn main() -> kiln_array::Result<()> {
/// use kiln_array::Array;
/// let device = kiln_cpu::device(Default::default())?;
/// let x = Array::new([-1.5, 0.0, 4.0], &device)?;
/// assert_eq!(x.less(0.0)?.to_bools()?, [true, false, false]);
/// assert_eq!(x.less_equal(0.0)?.to_bools()?, [true, true, false]);
/// assert_eq!(x.greater(0.0)?.to_bools()?, [false, false, true]);
/// assert_eq!(x.greater_equal(0.0)?.to_bools()?, [false, true, true]);
/// assert_eq!(x.equal(0.0)?.to_bools()?, [false, true, false]);
/// assert_eq!(x.not_equal(0.0)?.to_bools()?, [true, false, true]);
/// let (yes, no) = (x.greater(-2.0)?, x.greater(9.0)?);
/// assert_eq!(yes.logical_and(&no)?.to_bools()?, [false; 3]);
/// assert_eq!(yes.logical_or(&no)?.to_bools()?, [true; 3]);
/// assert_eq!(no.logical_not()?.to_bools()?, [true; 3]);
/// assert_eq!(x.less(0.0)?.select(&x.abs()?, &x)?.to_vec::<f32>()?, [1.5, 0.0, 4.0]);
///
/// let odd = (&x / 0.0)?;
/// assert_eq!(odd.is_nan()?.to_bools()?, [false, true, false]);
/// assert_eq!(odd.is_inf()?.to_bools()?, [true, false, true]);
/// assert_eq!(odd.is_finite()?.to_bools()?, [false, false, false]);
/// # Ok(()) }
/// ```
impl Array {
    /// Whether elements are equal, as bool; NaN equals nothing.
    #[track_caller]
    pub fn equal<'a>(&self, other: impl Into<Other<'a>>) -> Result<Array> {
        self.with(Scalar::Equal, other)
    }

    /// Whether elements differ, as bool; NaN differs from all.
    #[track_caller]
    pub fn not_equal<'a>(&self, other: impl Into<Other<'a>>) -> Result<Array> {
        self.equal(other)?.logical_not()
    }

    /// Whether these elements are below the others, as bool.
    #[track_caller]
    pub fn less<'a>(&self, other: impl Into<Other<'a>>) -> Result<Array> {
        self.with(Scalar::Less, other)
    }

    /// Whether these elements are at most the others, as bool.
    #[track_caller]
    pub fn less_equal<'a>(&self, other: impl Into<Other<'a>>) -> Result<Array> {
        self.with(Scalar::LessEqual, other)
    }

    /// Whether these elements are above the others, as bool.
    #[track_caller]
    pub fn greater<'a>(&self, other: impl Into<Other<'a>>) -> Result<Array> {
        match other.into() {
            Other::Array(other) => other.binary(Scalar::Less, self),
            Other::Number(number) => self.number(Scalar::Less, number, true),
        }
    }

    /// Whether these elements are at least the others, as bool.
    #[track_caller]
    pub fn greater_equal<'a>(&self, other: impl Into<Other<'a>>) -> Result<Array> {
        match other.into() {
            Other::Array(other) => other.binary(Scalar::LessEqual, self),
            Other::Number(number) => self.number(Scalar::LessEqual, number, true),
        }
    }

    /// Whether both are not 0, as bool.
    #[track_caller]
    pub fn logical_and(&self, other: &Array) -> Result<Array> {
        self.truth()?.binary(Scalar::And, &other.truth()?)
    }

    /// Whether one of them is not 0, as bool.
    #[track_caller]
    pub fn logical_or(&self, other: &Array) -> Result<Array> {
        self.truth()?.binary(Scalar::Or, &other.truth()?)
    }

    /// Whether elements are 0, as bool.
    #[track_caller]
    pub fn logical_not(&self) -> Result<Array> {
        self.truth()?.unary(Scalar::Not)
    }

    /// Whether elements are not 0, as bool.
    #[track_caller]
    pub(crate) fn truth(&self) -> Result<Array> {
        self.plain("map")?.cast(DType::Bool)
    }

    /// Whether elements are NaN, as bool; by their bits, so that no backend's arithmetic matters.
    #[track_caller]
    pub fn is_nan(&self) -> Result<Array> {
        self.magnitude_bits()?.greater(f32::INFINITY.to_bits())
    }

    /// Whether elements are infinite, as bool.
    #[track_caller]
    pub fn is_inf(&self) -> Result<Array> {
        self.magnitude_bits()?.equal(f32::INFINITY.to_bits())
    }

    /// Whether elements are neither infinite nor NaN, as bool.
    #[track_caller]
    pub fn is_finite(&self) -> Result<Array> {
        self.magnitude_bits()?.less(f32::INFINITY.to_bits())
    }

    /// The bits of the elements' magnitudes as f32, whose order is theirs.
    #[track_caller]
    fn magnitude_bits(&self) -> Result<Array> {
        let wide = self.plain("map")?.cast(DType::F32)?;
        wide.bits()?.with_number(Scalar::And, 0x7fff_ffffu32)
    }

    /// The bits of f32 elements, as u32.
    #[track_caller]
    pub(crate) fn bits(&self) -> Result<Array> {
        self.map(Expr::unary(Scalar::Bits, DType::U32))
    }
}
