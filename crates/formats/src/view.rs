//! Where a view's elements lie in a stretch of them.

use crate::dtype::elements;
use crate::{Tensor, Type};
use std::ops::Range;

/// A tensor as a view of stored elements.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) dtype: Type,
    pub(crate) shape: Vec<usize>,
    /// Elements from one index to the next in each dimension; as many as the shape has.
    pub(crate) strides: Vec<usize>,
    /// Elements before the first.
    pub(crate) offset: usize,
}

impl View {
    pub(crate) fn named(&self, name: &str) -> View {
        View {
            name: name.to_owned(),
            ..self.clone()
        }
    }

    /// The tensor whose elements lie so within `storage`, a range of bytes in `file`. `None` where
    /// the storage does not hold them, or holds fewer than the shape has.
    pub(crate) fn place(self, file: usize, storage: &Range<usize>) -> Option<Tensor> {
        let size = self.dtype.block_bytes();
        let count = elements(&self.shape)?;
        let span = span(&self.shape, &self.strides)?;
        if span < count {
            return None;
        }
        let start = storage.start.checked_add(self.offset.checked_mul(size)?)?;
        let end = start.checked_add(span.checked_mul(size)?)?;
        if end > storage.end {
            return None;
        }
        let plain = is_row_major(&self.shape, &self.strides);
        let sizes = self.shape.iter().zip(self.strides);
        // The stride of a dimension of size 1 may be any number.
        let strides = sizes.map(|(&size, stride)| if size == 1 { 0 } else { stride });
        let strides = (!plain).then(|| strides.collect());
        Some(Tensor {
            name: self.name,
            dtype: self.dtype,
            strides,
            shape: self.shape,
            file,
            range: start..end,
        })
    }
}

/// Elements from the first to the last, both included.
fn span(shape: &[usize], strides: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    let mut last = 0usize;
    for (size, stride) in shape.iter().zip(strides) {
        last = last.checked_add((size - 1).checked_mul(*stride)?)?;
    }
    last.checked_add(1)
}

/// The stride of a dimension of size 1 means nothing, and nor does any of a tensor without elements.
fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1usize;
    for (&size, &stride) in shape.iter().zip(strides).rev() {
        if size != 1 && stride != expected {
            return shape.contains(&0);
        }
        expected = expected.saturating_mul(size);
    }
    true
}

/// Strides of elements whose first dimension is the innermost.
pub(crate) fn column_major(shape: &[usize]) -> Option<Vec<usize>> {
    strides(shape.iter())
}

/// Strides of elements whose last dimension is the innermost.
pub(crate) fn row_major(shape: &[usize]) -> Option<Vec<usize>> {
    let mut all = strides(shape.iter().rev())?;
    all.reverse();
    Some(all)
}

fn strides<'a>(inner_first: impl Iterator<Item = &'a usize>) -> Option<Vec<usize>> {
    let mut next = 1usize;
    inner_first
        .map(|&size| {
            let stride = next;
            next = next.checked_mul(size.max(1))?;
            Some(stride)
        })
        .collect()
}
