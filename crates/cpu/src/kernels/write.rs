//! `Write`: slices stored at positions that are data, in place.

use super::walk::Walk;
use super::{Kernel, index};
use crate::memory::Memory;
use kiln_plan::Operand;
use std::ops::Range;

/// The kernel of `Op::Write`. A unit is everything below one index of the axes before the written
/// one, so that equal positions meet in one unit, in order.
pub(crate) struct Write {
    slot: u32,
    source: (u32, Walk),
    positions: Operand,
    size: usize,
    outer: usize,
    length: usize,
    inner: usize,
}

impl Write {
    /// `source`'s slices along `axis` stored in `target` at `positions`.
    pub(crate) fn new(
        axis: usize,
        target: &Operand,
        source: &Operand,
        positions: &Operand,
        output: &Operand,
    ) -> Write {
        debug_assert_eq!(target.slot, output.slot, "an updating step works in place");
        debug_assert_eq!(
            target.layout.offset(),
            0,
            "an updated operand is all of its slot"
        );
        let shape = target.layout.shape();
        Write {
            slot: output.slot,
            source: (source.slot, Walk::new(source, source.layout.shape())),
            positions: *positions,
            size: target.dtype.bytes(),
            outer: shape[..axis].iter().product(),
            length: shape[axis],
            inner: shape[axis + 1..].iter().product(),
        }
    }

    fn count(&self) -> usize {
        self.positions.layout.shape().elements()
    }
}

impl Kernel for Write {
    fn units(&self) -> usize {
        if self.count() == 0 { 0 } else { self.outer }
    }

    fn cost(&self) -> usize {
        self.count() * (10 + self.inner * self.size / 16)
    }

    fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
        let count = self.count();
        let plane = self.length * self.inner * self.size;
        let source = memory.read(self.source.0);
        let positions = memory.read(self.positions.slot);
        for outer in range {
            let target = memory.write(self.slot, outer * plane..(outer + 1) * plane);
            for i in 0..count {
                let position = index(positions, self.positions.layout.offset() + i);
                if position >= self.length {
                    continue;
                }
                let mut at = position * self.inner * self.size;
                let from = (outer * count + i) * self.inner;
                self.source.1.runs(from, self.inner, |run| {
                    for piece in pieces(run.start, run.stride, run.count) {
                        let bytes = piece.start * self.size..piece.end * self.size;
                        target[at..at + bytes.len()].copy_from_slice(&source[bytes.clone()]);
                        at += bytes.len();
                    }
                });
            }
        }
    }
}

/// A run as ranges of neighbours: one where they lie side by side, else one for each element.
fn pieces(start: usize, stride: usize, count: usize) -> impl Iterator<Item = Range<usize>> {
    let (number, length) = if stride == 1 { (1, count) } else { (count, 1) };
    (0..number).map(move |i| start + i * stride..start + i * stride + length)
}
