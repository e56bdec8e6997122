//! Other looks at the same elements: parts of several axes, and axes that come, go and move.

use crate::{Array, Result};
use std::ops::{Range, RangeFrom, RangeFull, RangeTo};

/// What is wanted of one axis: a range, every so-manieth element of one, or a single element.
/// Negative ends count from behind.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    start: i64,
    end: Option<i64>,
    step: usize,
    single: bool,
}

impl Slice {
    /// Every `step`th element of `range`. 0 is an error where the slice is used.
    pub fn every(step: usize, range: impl Into<Slice>) -> Slice {
        Slice {
            step,
            ..range.into()
        }
    }

    fn new(start: i64, end: Option<i64>) -> Slice {
        Slice {
            start,
            end,
            step: 1,
            single: false,
        }
    }

    /// Where the slice lies on an axis of `length`: first, end, and whether that is inside.
    fn bounds(&self, length: usize) -> Option<Range<usize>> {
        let length = length as i64;
        let from_start = |at: i64| if at < 0 { at + length } else { at };
        let start = from_start(self.start);
        let end = match self.single {
            true => start.saturating_add(1),
            false => self.end.map_or(length, from_start),
        };
        let inside = self.step > 0 && 0 <= start && start <= end && end <= length;
        inside.then_some(start as usize..end as usize)
    }
}

/// Numbers that say where on an axis: i32 from either end, usize from the front.
pub trait Index {
    /// The number, negative if it counts from behind.
    fn place(self) -> i64;
}

impl Index for i32 {
    fn place(self) -> i64 {
        self.into()
    }
}

impl Index for usize {
    fn place(self) -> i64 {
        i64::try_from(self).unwrap_or(i64::MAX)
    }
}

impl<T: Index> From<Range<T>> for Slice {
    fn from(range: Range<T>) -> Slice {
        Slice::new(range.start.place(), Some(range.end.place()))
    }
}

impl<T: Index> From<RangeTo<T>> for Slice {
    fn from(range: RangeTo<T>) -> Slice {
        Slice::new(0, Some(range.end.place()))
    }
}

impl<T: Index> From<RangeFrom<T>> for Slice {
    fn from(range: RangeFrom<T>) -> Slice {
        Slice::new(range.start.place(), None)
    }
}

impl From<RangeFull> for Slice {
    fn from(_: RangeFull) -> Slice {
        Slice::new(0, None)
    }
}

impl<T: Index> From<T> for Slice {
    /// This element alone: its axis goes.
    fn from(at: T) -> Slice {
        Slice {
            single: true,
            ..Slice::new(at.place(), None)
        }
    }
}

/// Slices of the outermost axes, as [`Array::index`] takes them: one, or a tuple of up to four.
pub trait Slices {
    /// One slice for each axis from the outermost on.
    fn list(self) -> Vec<Slice>;
}

impl<A: Into<Slice>> Slices for A {
    fn list(self) -> Vec<Slice> {
        vec![self.into()]
    }
}

impl<A: Into<Slice>, B: Into<Slice>> Slices for (A, B) {
    fn list(self) -> Vec<Slice> {
        vec![self.0.into(), self.1.into()]
    }
}

impl<A: Into<Slice>, B: Into<Slice>, C: Into<Slice>> Slices for (A, B, C) {
    fn list(self) -> Vec<Slice> {
        vec![self.0.into(), self.1.into(), self.2.into()]
    }
}

impl<A: Into<Slice>, B: Into<Slice>, C: Into<Slice>, D: Into<Slice>> Slices for (A, B, C, D) {
    fn list(self) -> Vec<Slice> {
        vec![self.0.into(), self.1.into(), self.2.into(), self.3.into()]
    }
}

/// # Views
///
/// No view copies; [`Array::reshape`] and [`Array::flatten`] do where strides cannot say it.
///
/// ```
/// # fn main() -> kiln_array::Result<()> {
/// use kiln_array::{Array, DType, Slice};
/// let device = kiln_cpu::device(Default::default())?;
/// let x = Array::arange(0, 12, 1, DType::I32, &device)?.reshape(&[3, 4])?;
///
/// assert_eq!(x.slice(1, 1..3)?.to_vec::<i32>()?, [1, 2, 5, 6, 9, 10]);
/// assert_eq!(x.index((1.., ..2))?.to_vec::<i32>()?, [4, 5, 8, 9]);
/// assert_eq!(x.index((-1, Slice::every(2, ..)))?.to_vec::<i32>()?, [8, 10]);
/// let [left, right] = x.split(1, 3)?;
/// assert_eq!((left.shape()[1], right.shape()[1]), (3, 1));
/// assert_eq!(x.split_at(0, &[1])?[1].shape()[0], 2);
/// assert_eq!(x.chunks(1, 2)?.len(), 2);
///
/// assert_eq!(*x.transpose(0, 1)?.shape(), [4, 3]);
/// assert_eq!(*x.expand(0)?.shape(), [1, 3, 4]);
/// assert_eq!(*x.expand(0)?.permute(&[2, 0, 1])?.shape(), [4, 1, 3]);
/// assert_eq!(*x.expand(0)?.move_axis(0, -1)?.shape(), [3, 4, 1]);
/// assert_eq!(*x.expand(1)?.squeeze(1)?.shape(), [3, 4]);
/// assert_eq!(*x.flatten()?.shape(), [12]);
/// assert_eq!(*x.expand(0)?.broadcast(&[2, 3, 4])?.shape(), [2, 3, 4]);
/// assert_eq!(x.copy()?.dtype(), x.dtype());
/// # Ok(()) }
/// ```
impl Array {
    /// Slices of several axes at once, as a view: `x.index((1..3, .., -1))`. Axes without a slice
    /// stay whole, those with a single element go. A range that reaches outside is an error (MLX
    /// cuts it). Of a quantised array, rows only.
    #[track_caller]
    pub fn index(&self, slices: impl Slices) -> Result<Array> {
        let slices = slices.list();
        if slices.len() > self.shape().len() {
            return self.invalid("index", format!("at least {} axes", slices.len()));
        }
        let mut view = self.clone();
        let mut kept = Vec::new();
        for (axis, &length) in self.shape().iter().enumerate() {
            let slice = slices.get(axis).copied().unwrap_or(Slice::from(..));
            let Some(range) = slice.bounds(length) else {
                return self.invalid("index", format!("{slice:?} inside axis {axis}"));
            };
            if range != (0..length) {
                view = view.slice(axis as i32, range)?;
            }
            if slice.step > 1 {
                if self.dtype().is_quantised() {
                    return self.invalid("index", "weights that are not quantised");
                }
                let Some(stepped) = view.layout.step(axis, slice.step) else {
                    return self.invalid("index", format!("axis {axis}"));
                };
                view = view.view(stepped);
            }
            if !slice.single {
                kept.push(view.shape()[axis]);
            }
        }
        match kept.len() == view.shape().len() {
            true => Ok(view),
            false => view.reshape(&kept),
        }
    }

    /// Equal parts of `axis`, as views. An error if its length is no multiple of `count`.
    #[track_caller]
    pub fn chunks(&self, axis: i32, count: usize) -> Result<Vec<Array>> {
        let length = self.shape()[self.axis("chunks", axis)?];
        if count == 0 || count > length.max(1) || !length.is_multiple_of(count) {
            return self.invalid("chunks", format!("an axis of {count} equal parts"));
        }
        let part = length / count;
        let places: Vec<usize> = (1..count).map(|i| i * part).collect();
        self.split_at(axis, &places)
    }

    /// `axis` cut in front of each of the elements `places`, which rise, as views: one part more
    /// than there are places.
    #[track_caller]
    pub fn split_at(&self, axis: i32, places: &[usize]) -> Result<Vec<Array>> {
        let length = self.shape()[self.axis("split_at", axis)?];
        let mut parts = Vec::with_capacity(places.len() + 1);
        let mut start = 0;
        for &end in places.iter().chain([&length]) {
            parts.push(self.slice(axis, start..end)?);
            start = end;
        }
        Ok(parts)
    }

    /// A new axis of length 1 in front of axis `axis`; -1 makes it the innermost. A view.
    #[track_caller]
    pub fn expand(&self, axis: i32) -> Result<Array> {
        let mut lengths = self.shape().to_vec();
        let rank = lengths.len() as i32;
        let at = if axis < 0 { axis + rank + 1 } else { axis };
        if !(0..=rank).contains(&at) {
            return self.invalid("expand", format!("an axis up to {rank}, not {axis},"));
        }
        lengths.insert(at as usize, 1);
        self.reshape(&lengths)
    }

    /// The array without `axis`, which has length 1. A view.
    #[track_caller]
    pub fn squeeze(&self, axis: i32) -> Result<Array> {
        let axis = self.axis("squeeze", axis)?;
        let mut lengths = self.shape().to_vec();
        if lengths.remove(axis) != 1 {
            return self.invalid("squeeze", format!("axis {axis} of length 1"));
        }
        self.reshape(&lengths)
    }

    /// One axis of all elements.
    #[track_caller]
    pub fn flatten(&self) -> Result<Array> {
        self.reshape(&[self.shape().elements()])
    }

    /// Axis `axes[i]` becomes axis `i`; every axis occurs once. A view.
    #[track_caller]
    pub fn permute(&self, axes: &[i32]) -> Result<Array> {
        let mut wanted = Vec::with_capacity(axes.len());
        for &axis in axes {
            wanted.push(self.axis("permute", axis)?);
        }
        let rank = self.shape().len();
        if wanted.len() != rank || (0..rank).any(|axis| !wanted.contains(&axis)) {
            return self.invalid("permute", format!("each axis once, not {axes:?},"));
        }
        let mut view = self.clone();
        let mut order: Vec<usize> = (0..rank).collect();
        for (to, axis) in wanted.into_iter().enumerate() {
            let from = order.iter().position(|&a| a == axis).unwrap_or(to);
            order.swap(to, from);
            view = view.transpose(to as i32, from as i32)?;
        }
        Ok(view)
    }

    /// Axis `from` moved to place `to`; the others keep their order. A view.
    #[track_caller]
    pub fn move_axis(&self, from: i32, to: i32) -> Result<Array> {
        let (from, to) = (self.axis("move_axis", from)?, self.axis("move_axis", to)?);
        let mut axes: Vec<i32> = (0..self.shape().len() as i32).collect();
        let axis = axes.remove(from);
        axes.insert(to, axis);
        self.permute(&axes)
    }
}
