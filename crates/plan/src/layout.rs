//! Where the elements of a view lie in its node's result.

use crate::Shape;
use crate::shape::MAX_RANK;
use std::array::from_fn;
use std::ops::Range;

/// ```
/// use kiln_array::{DType, Layout, Shape, Spec};
/// let shape = Shape::new(&[2, 3]).unwrap();
/// let layout = Layout::contiguous(shape);
/// assert_eq!((layout.strides(), layout.offset()), (&[3, 1][..], 0));
/// assert!(layout.is_contiguous() && layout.covers(6));
/// assert_eq!(layout.position(4), 4);
/// let columns = layout.slice(1, 1..3).and_then(|view| view.transpose(0, 1)).unwrap();
/// assert_eq!(*columns.shape(), [2, 2]);
/// assert_eq!(columns.reshape(Shape::new(&[4]).unwrap()), None);
/// assert_eq!(layout.step(1, 2).unwrap().strides(), [3, 2]);
/// let stretched = Layout::contiguous(Shape::new(&[3]).unwrap()).broadcast(shape);
/// assert_eq!(stretched.unwrap().strides(), [0, 1]);
/// assert_eq!(shape.with(0, 5).and_then(|shape| shape.swapped(0, 1)), Shape::new(&[3, 5]));
/// assert_eq!(*shape.without_last(), [2]);
/// assert_eq!((layout.shape().elements(), shape.last_axis()), (6, 3));
/// assert_eq!(shape.broadcast(&Shape::SCALAR), Some(shape));
/// assert_eq!(Spec { dtype: DType::F16, shape }.bytes(), 12);
/// ```
///
/// A view: element `[i, j, …]` lies at `offset + i·strides[0] + j·strides[1] + …`, in elements.
/// A stride of 0 repeats. Views are made only by the methods here, so they never leave their node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Layout {
    shape: Shape,
    strides: [usize; MAX_RANK],
    offset: usize,
}

impl Layout {
    /// The view of everything, row after row.
    pub fn contiguous(shape: Shape) -> Layout {
        let [_, b, c, d] = shape.dims().map(|length| length.max(1));
        let steps = [b * c * d, c * d, d, 1];
        Layout {
            shape,
            strides: from_fn(|axis| if axis < shape.len() { steps[axis] } else { 0 }),
            offset: 0,
        }
    }

    /// Lengths of the axes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Distance between neighbours along each axis, in elements.
    pub fn strides(&self) -> &[usize] {
        &self.strides[..self.shape.len()]
    }

    /// Where element `[0, 0, …]` lies.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Whether the elements lie row after row without gaps, wherever the first one is.
    pub fn is_contiguous(&self) -> bool {
        let mut stride = 1;
        for (&length, &step) in self.shape.iter().zip(self.strides()).rev() {
            if length != 1 && step != stride {
                return self.shape.elements() == 0;
            }
            stride *= length;
        }
        true
    }

    /// Whether this view is all of a result of `elements` elements, in order.
    pub fn covers(&self, elements: usize) -> bool {
        self.offset == 0 && self.shape.elements() == elements && self.is_contiguous()
    }

    /// Elements `range` of `axis`, or `None` where they are not inside.
    pub fn slice(mut self, axis: usize, range: Range<usize>) -> Option<Layout> {
        let length = *self.shape.get(axis)?;
        if range.start > range.end || range.end > length {
            return None;
        }
        if !range.is_empty() {
            self.offset += range.start * self.strides[axis];
        }
        self.shape = self.shape.with(axis, range.len())?;
        if self.shape.elements() == 0 {
            // What holds nothing starts at the start: there may be no element to point at.
            self.offset = 0;
        }
        Some(self)
    }

    /// Every `step`th element of `axis`, from the first on, or `None` where that is no axis or no step.
    pub fn step(mut self, axis: usize, step: usize) -> Option<Layout> {
        let all = self.shape.get(axis).filter(|_| step > 0)?;
        let length = all.div_ceil(step);
        self.shape = self.shape.with(axis, length)?;
        // Of one element, or of none, no distance counts.
        let stride = self.strides[axis];
        self.strides[axis] = if length > 1 { stride * step } else { 0 };
        Some(self)
    }

    /// Axes `a` and `b` exchanged, or `None` where one is not there.
    pub fn transpose(mut self, a: usize, b: usize) -> Option<Layout> {
        self.shape = self.shape.swapped(a, b)?;
        self.strides.swap(a, b);
        Some(self)
    }

    /// Repeats axes of length 1 so that the shape becomes `shape`, or `None` where this one does not
    /// stretch to it.
    pub fn broadcast(self, shape: Shape) -> Option<Layout> {
        if self.shape.broadcast(&shape) != Some(shape) {
            return None;
        }
        let missing = shape.len() - self.shape.len();
        let dims = self.shape.dims();
        let step = |axis: usize| {
            if dims[axis] == 1 {
                0
            } else {
                self.strides[axis]
            }
        };
        Some(Layout {
            shape,
            strides: match missing {
                0 => from_fn(step),
                _ => from_fn(|axis| axis.checked_sub(missing).map_or(0, step)),
            },
            offset: self.offset,
        })
    }

    /// The same elements in the same order under another shape of as many elements. `None` if no
    /// strides express it: then the elements have to be copied.
    pub fn reshape(self, shape: Shape) -> Option<Layout> {
        if shape.elements() != self.shape.elements() {
            return None;
        }
        if self.is_contiguous() {
            return Some(Layout {
                offset: self.offset,
                ..Layout::contiguous(shape)
            });
        }
        // Runs of axes that lie without gaps are one axis; each new axis must divide such a run.
        let mut runs: Vec<(usize, usize)> = Vec::with_capacity(MAX_RANK);
        for (&length, &stride) in self.shape.iter().zip(self.strides()) {
            match runs.last_mut() {
                _ if length == 1 => {}
                Some(run) if run.1 == length * stride && stride != 0 => {
                    *run = (run.0 * length, stride)
                }
                _ => runs.push((length, stride)),
            }
        }
        let mut strides = [0; MAX_RANK];
        let mut run = runs.pop().unwrap_or((1, 1));
        let mut taken = 1;
        for axis in (0..shape.len()).rev() {
            if shape[axis] == 1 {
                continue;
            }
            if taken == run.0 {
                run = runs.pop()?;
                taken = 1;
            }
            strides[axis] = taken * run.1;
            taken *= shape[axis];
            if !run.0.is_multiple_of(taken) {
                return None;
            }
        }
        Some(Layout {
            shape,
            strides,
            offset: self.offset,
        })
    }

    /// Where the element with row-major number `index` lies.
    pub fn position(&self, mut index: usize) -> usize {
        let mut position = self.offset;
        for (&length, &stride) in self.shape.iter().zip(self.strides()).rev() {
            position += index % length.max(1) * stride;
            index /= length.max(1);
        }
        position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(dims: &[usize]) -> Layout {
        Layout::contiguous(Shape::new(dims).unwrap())
    }

    fn positions(layout: Layout) -> Vec<usize> {
        (0..layout.shape().elements())
            .map(|i| layout.position(i))
            .collect()
    }

    #[test]
    fn views_compose() {
        let view = layout(&[3, 4])
            .slice(1, 1..3)
            .and_then(|v| v.transpose(0, 1))
            .unwrap();
        assert_eq!(positions(view), [1, 5, 9, 2, 6, 10]);
        assert!(!view.is_contiguous());
        assert!(layout(&[3, 4]).slice(0, 1..3).unwrap().is_contiguous());
    }

    #[test]
    fn reshape_keeps_the_order_or_declines() {
        let shapes: [&[usize]; 6] = [&[12], &[3, 4], &[2, 6], &[4, 3], &[2, 2, 3], &[1, 12, 1]];
        let sources = [
            layout(&[3, 4]),
            layout(&[3, 8]).slice(1, 2..6).unwrap(),
            layout(&[4, 3]).transpose(0, 1).unwrap(),
            layout(&[2, 3, 4])
                .slice(1, 0..2)
                .and_then(|v| v.slice(2, 1..4))
                .unwrap(),
            layout(&[1, 4])
                .broadcast(Shape::new(&[3, 4]).unwrap())
                .unwrap(),
            layout(&[2, 3, 2]).transpose(0, 1).unwrap(),
        ];
        let mut expressed = 0;
        for source in sources {
            for shape in shapes {
                if let Some(view) = source.reshape(Shape::new(shape).unwrap()) {
                    assert_eq!(
                        positions(view),
                        positions(source),
                        "{source:?} as {shape:?}"
                    );
                    expressed += 1;
                }
            }
        }
        assert_eq!(expressed, 10);
    }

    #[test]
    fn what_is_not_inside_is_no_view() {
        let view = layout(&[3, 4]);
        let shape = |dims: &[usize]| Shape::new(dims).unwrap();
        for refused in [
            view.slice(1, 2..5),
            #[allow(clippy::reversed_empty_ranges, reason = "what callers may get wrong")]
            view.slice(0, 2..1),
            view.slice(2, 0..1),
            view.step(0, 0),
            view.step(2, 1),
            view.transpose(0, 2),
            view.broadcast(shape(&[3, 8])),
            view.broadcast(shape(&[4])),
            view.reshape(shape(&[3, 5])),
        ] {
            assert_eq!(refused, None);
        }
    }

    #[test]
    fn splitting_heads_of_a_wider_row_is_a_view() {
        let view = layout(&[5, 12])
            .slice(1, 4..12)
            .and_then(|rows| rows.reshape(Shape::new(&[5, 2, 4]).unwrap()));
        assert_eq!(view.map(|v| v.strides().to_vec()), Some(vec![12, 4, 1]));
    }
}
