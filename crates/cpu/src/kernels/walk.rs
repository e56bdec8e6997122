//! Walks over views in the row-major order of a result, in runs of equal distance.

use kiln_plan::{Layout, MAX_RANK, Operand, Shape};

/// A view stretched to a result's shape, its axes merged where their elements lie alike.
#[derive(Clone, Copy)]
pub(crate) struct Walk {
    dims: [usize; MAX_RANK],
    strides: [usize; MAX_RANK],
    rank: usize,
    offset: usize,
}

/// A piece of a walk: `count` elements from position `start` on, `stride` apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) start: usize,
    pub(crate) stride: usize,
    pub(crate) count: usize,
}

impl Walk {
    /// `operand`, whose shape broadcasts to `shape`.
    pub(crate) fn new(operand: &Operand, shape: Shape) -> Walk {
        Walk::over(&operand.layout, shape)
    }

    fn over(layout: &Layout, shape: Shape) -> Walk {
        let own = layout.shape();
        let missing = shape.len() - own.len();
        let mut walk = Walk {
            dims: [1; MAX_RANK],
            strides: [0; MAX_RANK],
            rank: 0,
            offset: layout.offset(),
        };
        for (axis, &length) in shape.iter().enumerate() {
            if length == 1 {
                continue;
            }
            let stride = match axis.checked_sub(missing) {
                Some(at) if own[at] != 1 => layout.strides()[at],
                _ => 0,
            };
            let inner = walk.rank.wrapping_sub(1);
            if walk.rank > 0 && walk.strides[inner] == stride * length {
                walk.dims[inner] *= length;
                walk.strides[inner] = stride;
            } else {
                walk.dims[walk.rank] = length;
                walk.strides[walk.rank] = stride;
                walk.rank += 1;
            }
        }
        walk.rank = walk.rank.max(1);
        walk
    }

    /// The runs that elements `from..from + count` of the result are, in order.
    pub(crate) fn runs(&self, from: usize, count: usize, mut each: impl FnMut(Run)) {
        let inner = self.rank - 1;
        let (length, stride) = (self.dims[inner], self.strides[inner]);
        let (mut at, end) = (from, from + count);
        while at < end {
            let (mut row, column) = (at / length, at % length);
            let mut start = self.offset + column * stride;
            for axis in (0..inner).rev() {
                start += row % self.dims[axis] * self.strides[axis];
                row /= self.dims[axis];
            }
            let count = (length - column).min(end - at);
            each(Run {
                start,
                stride,
                count,
            });
            at += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_plan::DType;

    fn positions(walk: &Walk, from: usize, count: usize) -> Vec<usize> {
        let mut all = Vec::new();
        walk.runs(from, count, |run| {
            all.extend((0..run.count).map(|i| run.start + i * run.stride));
        });
        all
    }

    #[test]
    fn runs_visit_what_the_layout_says() {
        let shape = Shape::new(&[2, 3, 4, 5]).unwrap();
        let layout = Layout::contiguous(shape);
        let operand = Operand {
            slot: 0,
            dtype: DType::F32,
            layout,
        };
        let walk = Walk::new(&operand, shape);
        assert_eq!(walk.rank, 1);
        let expected: Vec<usize> = (7..77).map(|i| layout.position(i)).collect();
        assert_eq!(positions(&walk, 7, 70), expected);
    }

    #[test]
    fn missing_axes_repeat() {
        let row = Layout::contiguous(Shape::new(&[3]).unwrap());
        let operand = Operand {
            slot: 0,
            dtype: DType::F32,
            layout: row,
        };
        let walk = Walk::new(&operand, Shape::new(&[2, 3]).unwrap());
        assert_eq!(positions(&walk, 1, 4), [1, 2, 0, 1]);
        let column = Layout::contiguous(Shape::new(&[2, 1]).unwrap());
        let operand = Operand {
            layout: column,
            ..operand
        };
        let walk = Walk::new(&operand, Shape::new(&[2, 3]).unwrap());
        assert_eq!(positions(&walk, 0, 6), [0, 0, 0, 1, 1, 1]);
    }
}
