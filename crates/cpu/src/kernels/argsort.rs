//! `ArgSort`: in which places the elements of each row lie in rising order.

use super::{Kernel, Table, index};
use crate::memory::Memory;
use kiln_plan::Operand;
use std::ops::Range;

/// The kernel of `Op::ArgSort`.
pub(crate) struct ArgSort {
    input: Table,
    output: u32,
}

impl ArgSort {
    /// The places of the elements of `input`'s rows of u32, stored in `output`.
    pub(crate) fn new(input: &Operand, output: &Operand) -> ArgSort {
        ArgSort {
            input: Table::new(input),
            output: output.slot,
        }
    }
}

impl Kernel for ArgSort {
    fn units(&self) -> usize {
        self.input.rows
    }

    fn cost(&self) -> usize {
        let n = self.input.n;
        20 + 2 * n * n.max(1).ilog2() as usize
    }

    fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
        let n = self.input.n;
        // A key above its place: numbers that all differ, whose order is the wanted one.
        let mut keys: Vec<u64> = Vec::with_capacity(n);
        for row in range {
            let bytes = self.input.read(memory, row);
            keys.clear();
            keys.extend((0..n).map(|i| ((index(bytes, i) as u64) << 32) | i as u64));
            keys.sort_unstable();
            let out = memory.write(self.output, 4 * n * row..4 * n * (row + 1));
            for (place, key) in out.chunks_exact_mut(4).zip(&keys) {
                place.copy_from_slice(&(*key as u32).to_le_bytes());
            }
        }
    }
}
