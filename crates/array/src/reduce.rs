//! What summarises axes.

use crate::{Array, DType, Op, Reduce, Result, Scalar};

/// Which axes: one, several (`[0, -1]`), or all (`..`). Negative ones count from the innermost.
#[derive(Clone, Debug)]
pub struct Axes(Option<Vec<i32>>);

impl From<i32> for Axes {
    fn from(axis: i32) -> Axes {
        Axes(Some(vec![axis]))
    }
}

impl<const N: usize> From<[i32; N]> for Axes {
    fn from(axes: [i32; N]) -> Axes {
        Axes(Some(axes.to_vec()))
    }
}

impl From<&[i32]> for Axes {
    fn from(axes: &[i32]) -> Axes {
        Axes(Some(axes.to_vec()))
    }
}

impl From<std::ops::RangeFull> for Axes {
    fn from(_: std::ops::RangeFull) -> Axes {
        Axes(None)
    }
}

/// # Reductions
///
/// Axes stay with length 1, so that results meet what they were made of; [`Array::squeeze`] removes
/// them. Floats are added up in f32. The order of a sum depends on the shape and the backend alone.
///
/// ```
/// # fn main() -> kiln_array::Result<()> {
/// use kiln_array::Array;
/// let device = kiln_cpu::device(Default::default())?;
/// let x = Array::new([[1.0, 2.0], [3.0, 6.0]], &device)?;
///
/// assert_eq!(x.sum(0)?.to_vec::<f32>()?, [4.0, 8.0]);
/// assert_eq!(*x.sum([0, 1])?.shape(), [1, 1]);
/// assert_eq!(x.mean(..)?.item::<f32>()?, 3.0);
/// assert_eq!(x.max(-1)?.to_vec::<f32>()?, [2.0, 6.0]);
/// assert_eq!(x.min(-1)?.to_vec::<f32>()?, [1.0, 3.0]);
/// assert_eq!(x.var(1, 0)?.to_vec::<f32>()?, [0.25, 2.25]);
/// assert_eq!(x.std(1, 0)?.to_vec::<f32>()?, [0.5, 1.5]);
/// assert_eq!(x.greater(2.0)?.any(1)?.to_bools()?, [false, true]);
/// assert_eq!(x.greater(2.0)?.all(1)?.to_bools()?, [false, true]);
/// assert_eq!(x.argmax(0)?.to_vec::<u32>()?, [1, 1]);
/// assert_eq!(x.argmin(1)?.to_vec::<u32>()?, [0, 0]);
/// assert_eq!(x.cumsum(1)?.to_vec::<f32>()?, [1.0, 3.0, 3.0, 9.0]);
/// assert_eq!(x.softmax(1)?.sum(..)?.item::<f32>()?, 2.0);
/// assert!((x.logsumexp(..)?.item::<f32>()? - 6.0722).abs() < 1e-3);
/// # Ok(()) }
/// ```
impl Array {
    /// The axes, each once, in order.
    #[track_caller]
    fn axes(&self, op: &'static str, axes: impl Into<Axes>) -> Result<Vec<usize>> {
        let Some(list) = axes.into().0 else {
            return Ok((0..self.shape().len()).collect());
        };
        let mut axes = Vec::with_capacity(list.len());
        for axis in list {
            let axis = self.axis(op, axis)?;
            if axes.contains(&axis) {
                return self.invalid(op, format!("axis {axis} once"));
            }
            axes.push(axis);
        }
        axes.sort_unstable();
        Ok(axes)
    }

    /// Several axes are made one first, so that there is one sum and one rounding.
    #[track_caller]
    fn reduce(&self, kind: Reduce, axes: &[usize]) -> Result<Array> {
        if let [axis] = *axes {
            return self.along(kind, axis);
        }
        self.plain("reduce")?;
        let rank = self.shape().len();
        let mut order: Vec<i32> = (0..rank)
            .filter(|axis| !axes.contains(axis))
            .map(|a| a as i32)
            .collect();
        let mut lengths: Vec<usize> = order
            .iter()
            .map(|&axis| self.shape()[axis as usize])
            .collect();
        order.extend(axes.iter().map(|&axis| axis as i32));
        lengths.push(axes.iter().map(|&axis| self.shape()[axis]).product());
        let mut result = self.shape().to_vec();
        axes.iter().for_each(|&axis| result[axis] = 1);
        if axes.is_empty() {
            // An axis more than all of them might be one too many.
            lengths = vec![self.shape().elements(), 1];
            return self.reshape(&lengths)?.along(kind, 1)?.reshape(&result);
        }
        let joined = self.permute(&order)?.reshape(&lengths)?;
        joined.along(kind, lengths.len() - 1)?.reshape(&result)
    }

    #[track_caller]
    fn along(&self, kind: Reduce, axis: usize) -> Result<Array> {
        let axis = axis as u8;
        Array::make(Op::Reduce { kind, axis }, vec![self.clone()])
    }

    /// Sum along `axes`. Bools are counted in i32, bytes in u32; integers wrap.
    #[track_caller]
    pub fn sum(&self, axes: impl Into<Axes>) -> Result<Array> {
        let axes = self.axes("sum", axes)?;
        let dtype = match self.dtype() {
            DType::Bool => DType::I32,
            DType::U8 => DType::U32,
            other => other,
        };
        self.cast(dtype)?.reduce(Reduce::Sum, &axes)
    }

    /// Mean along `axes`; of integers and bools in f32.
    #[track_caller]
    pub fn mean(&self, axes: impl Into<Axes>) -> Result<Array> {
        let axes = self.axes("mean", axes)?;
        self.floats("mean")?.reduce(Reduce::Mean, &axes)
    }

    /// Largest element along `axes`; NaN if there is one.
    #[track_caller]
    pub fn max(&self, axes: impl Into<Axes>) -> Result<Array> {
        let axes = self.axes("max", axes)?;
        match self.dtype() {
            DType::Bool => self
                .cast(DType::U8)?
                .reduce(Reduce::Max, &axes)?
                .cast(DType::Bool),
            _ => self.reduce(Reduce::Max, &axes),
        }
    }

    /// Smallest element along `axes`; NaN if there is one.
    #[track_caller]
    pub fn min(&self, axes: impl Into<Axes>) -> Result<Array> {
        self.opposite()?.max(axes)?.opposite()
    }

    /// The elements in the opposite order: what is its own inverse and loses nothing.
    #[track_caller]
    fn opposite(&self) -> Result<Array> {
        match self.dtype() {
            DType::Bool => self.logical_not(),
            DType::U8 => self.number(Scalar::Sub, 255.0, true),
            DType::U32 => self.number(Scalar::Sub, u32::MAX.into(), true),
            DType::I32 => self.number(Scalar::Sub, -1.0, true),
            _ => self.negative(),
        }
    }

    /// Mean square of the differences from the mean along `axes`, with `corrections` (0 or 1, as a
    /// rule) subtracted from the count. Integers and bools as f32; the sums are not rounded to the
    /// dtype in between.
    #[track_caller]
    pub fn var(&self, axes: impl Into<Axes>, corrections: usize) -> Result<Array> {
        let axes = self.axes("var", axes)?;
        let wide = self.plain("reduce")?.cast(DType::F32)?;
        let count: usize = axes.iter().map(|&axis| self.shape()[axis]).product();
        let centred = (&wide - wide.reduce(Reduce::Mean, &axes)?)?;
        let squares = centred.square()?.reduce(Reduce::Sum, &axes)?;
        let left = count as f32 - corrections as f32;
        (squares / left.max(0.0))?.cast(self.float())
    }

    /// The root of [`Array::var`].
    #[track_caller]
    pub fn std(&self, axes: impl Into<Axes>, corrections: usize) -> Result<Array> {
        let wide = self.plain("reduce")?.cast(DType::F32)?;
        wide.var(axes, corrections)?.sqrt()?.cast(self.float())
    }

    fn float(&self) -> DType {
        match self.dtype() {
            float if float.is_float() => float,
            _ => DType::F32,
        }
    }

    /// Whether one element along `axes` is not 0, as bool.
    #[track_caller]
    pub fn any(&self, axes: impl Into<Axes>) -> Result<Array> {
        self.truth()?.sum(axes)?.not_equal(0)
    }

    /// Whether no element along `axes` is 0, as bool.
    #[track_caller]
    pub fn all(&self, axes: impl Into<Axes>) -> Result<Array> {
        self.logical_not()?.sum(axes)?.equal(0)
    }

    /// `ln Σ eˣ` along `axes`, computed in f32 about the largest element.
    #[track_caller]
    pub fn logsumexp(&self, axes: impl Into<Axes>) -> Result<Array> {
        let axes = self.axes("logsumexp", axes)?;
        let wide = self.plain("reduce")?.cast(DType::F32)?;
        let max = wide.reduce(Reduce::Max, &axes)?;
        let zero = Array::zeros(DType::F32, &[], self.device())?;
        // An infinite difference from an infinite maximum would be NaN.
        let base = max.is_inf()?.select(&zero, &max)?;
        let sum = (wide - &base)?.exp()?.reduce(Reduce::Sum, &axes)?;
        (sum.log()? + base)?.cast(self.float())
    }

    /// Position of the largest element along `axis`, which goes, as u32: the lowest of equals, the
    /// first NaN. See [`Op::ArgMax`].
    #[track_caller]
    pub fn argmax(&self, axis: i32) -> Result<Array> {
        self.axis("argmax", axis)?;
        let rows = self.move_axis(axis, -1)?;
        match self.dtype() {
            DType::Bool => Array::make(Op::ArgMax, vec![rows.cast(DType::U8)?]),
            _ => Array::make(Op::ArgMax, vec![rows]),
        }
    }

    /// Position of the smallest element along `axis`, which goes, as u32: the lowest of equals, the
    /// first NaN.
    #[track_caller]
    pub fn argmin(&self, axis: i32) -> Result<Array> {
        self.opposite()?.argmax(axis)
    }

    /// `exp(x - max) / Σ exp(x - max)` along `axis`, computed in f32: [`Op::Softmax`].
    #[track_caller]
    pub fn softmax(&self, axis: i32) -> Result<Array> {
        self.axis("softmax", axis)?;
        let x = self.floats("softmax")?;
        Array::make(Op::Softmax, vec![x.move_axis(axis, -1)?])?.move_axis(-1, axis)
    }

    /// Sums of the elements of `axis` up to each. Bools are counted in i32; floats are added in f32,
    /// in pairs: log₂ n steps over the whole array, so the error grows with log n, not n.
    #[track_caller]
    pub fn cumsum(&self, axis: i32) -> Result<Array> {
        let at = self.axis("cumsum", axis)?;
        let (working, result) = match self.dtype() {
            DType::Bool => (DType::I32, DType::I32),
            float if float.is_float() => (DType::F32, float),
            integer => (integer, integer),
        };
        let length = self.shape()[at];
        let mut sums = self.plain("cumsum")?.cast(working)?;
        let places = Array::arange(0, length as u32, 1, DType::U32, self.device())?;
        let mut shift = 1;
        while shift < length {
            let later = sums.slice(axis, shift..length)?;
            let moved = (later + sums.slice(axis, 0..length - shift)?)?;
            sums.write(axis, &places.slice(0, shift..length)?, &moved)?;
            shift *= 2;
        }
        sums.cast(result)
    }
}
