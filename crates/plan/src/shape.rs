//! How many elements along each axis.

use crate::DType;
use std::array::from_fn;
use std::fmt;
use std::ops::Deref;

/// The largest number of axes.
pub const MAX_RANK: usize = 4;

/// The lengths of up to four axes, outermost first. The number of elements always fits in `isize`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    rank: u8,
}

impl Shape {
    /// The shape of a single number.
    pub const SCALAR: Shape = Shape {
        dims: [0; MAX_RANK],
        rank: 0,
    };

    /// `None` for more than four axes, or more elements than memory could address.
    pub fn new(dims: &[usize]) -> Option<Shape> {
        if dims.len() > MAX_RANK {
            return None;
        }
        let shape = Shape {
            dims: from_fn(|axis| dims.get(axis).copied().unwrap_or(0)),
            rank: dims.len() as u8,
        };
        // Zero-length axes must not hide an overflow of the others: strides are products too.
        let product = shape
            .dims
            .iter()
            .try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))?;
        (product <= isize::MAX as usize / 8).then_some(shape)
    }

    /// The lengths, with zeros for the axes that are not there.
    pub(crate) fn dims(&self) -> [usize; MAX_RANK] {
        self.dims
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.iter().product()
    }

    /// Length of the innermost axis; 1 for a single number.
    pub fn last_axis(&self) -> usize {
        self.last().copied().unwrap_or(1)
    }

    /// This shape with axis `axis` of length `length`, or `None` where there is no such axis or the
    /// result is too large.
    pub fn with(self, axis: usize, length: usize) -> Option<Shape> {
        let mut dims = self.dims;
        *dims[..self.rank as usize].get_mut(axis)? = length;
        Shape::new(&dims[..self.rank as usize])
    }

    /// This shape with axes `a` and `b` exchanged, or `None` where one is not there.
    pub fn swapped(self, a: usize, b: usize) -> Option<Shape> {
        let mut shape = self;
        (a.max(b) < self.len()).then(|| shape.dims.swap(a, b))?;
        Some(shape)
    }

    /// This shape without its innermost axis.
    pub fn without_last(self) -> Shape {
        let mut shape = self;
        if shape.rank > 0 {
            shape.rank -= 1;
            shape.dims[shape.rank as usize] = 0;
        }
        shape
    }

    /// The shape two arrays take when they meet elementwise: axes are matched from the innermost;
    /// a length of 1 stretches. `None` if two lengths differ.
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        if self == other {
            return Some(*self);
        }
        let rank = self.len().max(other.len());
        let mut dims = [0; MAX_RANK];
        for (i, dim) in dims[..rank].iter_mut().enumerate() {
            let of = |s: &Shape| (i + s.len()).checked_sub(rank).map_or(1, |at| s[at]);
            *dim = match (of(self), of(other)) {
                (a, b) if a == b => a,
                (1, b) => b,
                (a, 1) => a,
                _ => return None,
            };
        }
        Shape::new(&dims[..rank])
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.dims[..self.rank as usize]
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &**self)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is known of an array before its values: dtype and shape.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Spec {
    /// Type of the elements.
    pub dtype: DType,
    /// Lengths of the axes.
    pub shape: Shape,
}

impl Spec {
    /// Bytes of the values, laid out row after row.
    pub fn bytes(&self) -> usize {
        let last = self.shape.last_axis();
        let rows = self.shape.without_last().elements();
        rows * self.dtype.row_bytes(last)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_one_stretch() {
        let shape = |d: &[usize]| Shape::new(d).unwrap();
        assert_eq!(shape(&[3, 1]).broadcast(&shape(&[4])), Some(shape(&[3, 4])));
        assert_eq!(shape(&[]).broadcast(&shape(&[2, 5])), Some(shape(&[2, 5])));
        assert_eq!(shape(&[3]).broadcast(&shape(&[4])), None);
    }

    #[test]
    fn too_many_axes_or_elements_are_refused() {
        assert!(Shape::new(&[1; 5]).is_none());
        assert!(Shape::new(&[usize::MAX, 0]).is_none());
        assert!(Shape::new(&[1 << 40, 1 << 40]).is_none());
        assert_eq!(Shape::new(&[0, 7]).map(|s| s.elements()), Some(0));
    }
}
