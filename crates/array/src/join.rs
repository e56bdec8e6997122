//! Arrays put together, repeated, and picked from.

use crate::{Array, DType, Error, Result, Scalar};
use std::panic::Location;

#[track_caller]
fn refused(op: &'static str, expected: &str, parts: &[&Array]) -> Error {
    Error::Invalid {
        op,
        expected: expected.into(),
        inputs: parts.iter().map(|part| part.spec()).collect(),
        site: Location::caller(),
    }
}

/// # Joining and picking
///
/// ```
/// # fn main() -> kiln_array::Result<()> {
/// use kiln_array::{Array, concat, stack};
/// let device = kiln_cpu::device(Default::default())?;
/// let a = Array::new([[1, 2], [3, 4]], &device)?;
///
/// assert_eq!(*concat(&[&a, &a], 1)?.shape(), [2, 4]);
/// assert_eq!(*stack(&[&a, &a], 0)?.shape(), [2, 2, 2]);
/// assert_eq!(a.repeat(1, 2)?.to_vec::<i32>()?, [1, 1, 2, 2, 3, 3, 4, 4]);
///
/// let row = Array::new([1u32], &device)?;
/// assert_eq!(a.take(&row)?.to_vec::<i32>()?, [3, 4]);
/// let ids = Array::new([-1, 0], &device)?;
/// assert_eq!(a.take_axis(&ids, 1)?.to_vec::<i32>()?, [2, 1, 4, 3]);
/// let each = Array::new([[1], [0]], &device)?;
/// assert_eq!(a.take_along_axis(&each, 1)?.to_vec::<i32>()?, [2, 3]);
///
/// let mut cache = Array::zeros(kiln_array::DType::I32, &[2, 2], &device)?;
/// cache.write(0, &row, &Array::new([[7, 8]], &device)?)?;
/// assert_eq!(cache.to_vec::<i32>()?, [0, 0, 7, 8]);
/// # Ok(()) }
/// ```
impl Array {
    /// Every element of `axis` `count` times in a row. Copies.
    #[track_caller]
    pub fn repeat(&self, axis: i32, count: usize) -> Result<Array> {
        let axis = self.axis("repeat", axis)?;
        let shape = self.shape();
        let (outer, inner) = (
            shape[..axis].iter().product::<usize>(),
            shape[axis + 1..].iter().product::<usize>(),
        );
        let each = self.reshape(&[outer, shape[axis], 1, inner])?;
        let mut lengths = shape.to_vec();
        lengths[axis] = shape[axis].saturating_mul(count);
        each.broadcast(&[outer, shape[axis], count, inner])?
            .reshape(&lengths)
    }

    /// Slices `ids` of `axis`, whose place the axes of `ids` take. `ids` are u32, u8 or i32, of
    /// which negative ones count from behind; one out of range gives NaN, or 0 for integers.
    #[track_caller]
    pub fn take_axis(&self, ids: &Array, axis: i32) -> Result<Array> {
        let axis = self.axis("take_axis", axis)?;
        let ids = ids.counted(self.shape()[axis])?;
        let mut lengths = self.shape().to_vec();
        lengths.splice(axis..axis + 1, ids.shape().iter().copied());
        let rows = self.move_axis(axis as i32, 0)?.take(&ids.flatten()?)?;
        rows.move_axis(0, axis as i32)?.reshape(&lengths)
    }

    /// Along `axis` the elements that `ids` number, for every place of the other axes its own:
    /// the shapes agree but for that axis. `ids` are as in [`Array::take_axis`].
    #[track_caller]
    pub fn take_along_axis(&self, ids: &Array, axis: i32) -> Result<Array> {
        let at = self.axis("take_along_axis", axis)?;
        let length = self.shape()[at];
        let fits = ids.shape().len() == self.shape().len()
            && ids.shape().with(at, length) == Some(self.shape());
        if !fits || u32::try_from(self.shape().elements()).is_err() {
            let expected = "ids of the same lengths but for the axis";
            return Err(refused("take_along_axis", expected, &[self, ids]));
        }
        let ids = ids.counted(length)?.move_axis(axis, -1)?;
        let table = self.move_axis(axis, -1)?.flatten()?;
        let rows = ids.shape().without_last().elements();
        let columns = ids.reshape(&[rows, ids.shape().last_axis()])?;
        let row = Array::arange(0, rows as u32, 1, DType::U32, self.device())?;
        let starts = row
            .reshape(&[rows, 1])?
            .with_number(Scalar::Mul, length as u32)?;
        // What is out of range must stay so, and not become an element of the next row.
        let outside =
            Array::full(0.0, DType::U32, &[1, 1], self.device())?.with_number(Scalar::Sub, 1)?;
        let inside = columns.with_number(Scalar::Less, length as u32)?;
        let places = inside.select(&(&columns + &starts)?, &outside)?;
        let picked = table.take(&places)?.reshape(&ids.shape())?;
        picked.move_axis(-1, axis)
    }

    /// These ids as u32, negative ones counted from `length`.
    #[track_caller]
    fn counted(&self, length: usize) -> Result<Array> {
        match self.dtype() {
            DType::U32 => Ok(self.clone()),
            DType::U8 => self.cast(DType::U32),
            DType::I32 => {
                let negative = self.with_number(Scalar::Less, 0)?;
                let behind = self.with_number(Scalar::Add, length as u32)?;
                negative.select(&behind, self)?.cast(DType::U32)
            }
            _ => self.invalid("take", "ids of u32, u8 or i32"),
        }
    }
}

/// Arrays one behind the other along `axis`, in their joint dtype; their other lengths agree.
/// Copies.
#[track_caller]
pub fn concat(parts: &[&Array], axis: i32) -> Result<Array> {
    let Some(first) = parts.first() else {
        return Err(refused("concat", "at least one array", parts));
    };
    let at = first.axis("concat", axis)?;
    let (mut dtype, mut total) = (first.dtype(), 0usize);
    for part in parts {
        let fits = part.shape().len() == first.shape().len()
            && part.shape().with(at, 0) == first.shape().with(at, 0);
        let Some(joint) = dtype.join(part.dtype()).filter(|_| fits) else {
            let expected = "arrays with a joint dtype whose lengths agree but for the axis";
            return Err(refused("concat", expected, parts));
        };
        dtype = joint;
        total = total.saturating_add(part.shape()[at]);
    }
    let shape = first.shape().with(at, total);
    let Some(shape) = shape.filter(|_| u32::try_from(total).is_ok()) else {
        return Err(refused(
            "concat",
            "arrays that fit in memory together",
            parts,
        ));
    };
    let mut result = Array::zeros(dtype, &shape, first.device())?.copy()?;
    let places = Array::arange(0, total as u32, 1, DType::U32, first.device())?;
    let mut start = 0;
    for part in parts {
        let end = start + part.shape()[at];
        result.write(at as i32, &places.slice(0, start..end)?, part)?;
        start = end;
    }
    Ok(result)
}

/// Arrays of one shape along a new axis in front of `axis`, in their joint dtype. Copies.
#[track_caller]
pub fn stack(parts: &[&Array], axis: i32) -> Result<Array> {
    let mut expanded = Vec::with_capacity(parts.len());
    for part in parts {
        expanded.push(part.expand(axis)?);
    }
    let rank = parts.first().map_or(0, |first| first.shape().len() as i32);
    let at = if axis < 0 { axis + rank + 1 } else { axis };
    concat(&expanded.iter().collect::<Vec<_>>(), at)
}
