//! `Copy`: a view's elements, row after row.

use super::Kernel;
use super::walk::Walk;
use crate::memory::Memory;
use kiln_plan::Operand;
use std::ops::Range;

/// Elements of a unit.
const UNIT: usize = 16384;

/// The kernel of `Op::Copy`.
pub(crate) struct Copy {
    from: u32,
    to: u32,
    walk: Walk,
    size: usize,
    elements: usize,
}

impl Copy {
    /// The elements of `input`, stored in `output`.
    pub(crate) fn new(input: &Operand, output: &Operand) -> Copy {
        let shape = output.layout.shape();
        Copy {
            from: input.slot,
            to: output.slot,
            walk: Walk::new(input, shape),
            size: input.dtype.bytes(),
            elements: shape.elements(),
        }
    }
}

impl Kernel for Copy {
    fn units(&self) -> usize {
        self.elements.div_ceil(UNIT)
    }

    fn cost(&self) -> usize {
        self.elements.min(UNIT) / 2
    }

    fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
        let (from, to) = (range.start * UNIT, (range.end * UNIT).min(self.elements));
        let bytes = memory.read(self.from);
        let mut out = memory.write(self.to, from * self.size..to * self.size);
        self.walk.runs(from, to - from, |run| {
            let (head, tail) = std::mem::take(&mut out).split_at_mut(run.count * self.size);
            out = tail;
            match self.size {
                _ if run.stride == 1 => {
                    let start = run.start * self.size;
                    head.copy_from_slice(&bytes[start..start + head.len()]);
                }
                1 => strided::<1>(bytes, run.start, run.stride, head),
                2 => strided::<2>(bytes, run.start, run.stride, head),
                _ => strided::<4>(bytes, run.start, run.stride, head),
            }
        });
    }
}

fn strided<const SIZE: usize>(bytes: &[u8], start: usize, stride: usize, out: &mut [u8]) {
    let elements = bytes.as_chunks::<SIZE>().0;
    if stride == 0 && !out.is_empty() {
        return out.as_chunks_mut::<SIZE>().0.fill(elements[start]);
    }
    for (i, out) in out.as_chunks_mut::<SIZE>().0.iter_mut().enumerate() {
        *out = elements[start + i * stride];
    }
}
