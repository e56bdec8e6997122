//! `Softmax` along the innermost axis.

use super::{Kernel, Table, with_scratch};
use crate::memory::Memory;
use crate::simd::Isa;
use kiln_plan::Operand;
use std::ops::Range;

/// The kernel of `Op::Softmax`. A unit is a row.
pub(crate) struct Softmax {
    isa: &'static Isa,
    input: Table,
    output: Table,
}

impl Softmax {
    /// The softmax of `input`'s rows, stored in `output`.
    pub(crate) fn new(isa: &'static Isa, input: &Operand, output: &Operand) -> Softmax {
        Softmax {
            isa,
            input: Table::new(input),
            output: Table::new(output),
        }
    }
}

impl Kernel for Softmax {
    fn units(&self) -> usize {
        self.input.rows
    }

    fn cost(&self) -> usize {
        20 + self.input.n
    }

    fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
        with_scratch(self.input.n, |values| {
            for row in range {
                self.isa
                    .widen(self.input.dtype, self.input.read(memory, row), values);
                let max = self.isa.max(values);
                let sum = self.isa.exp_sum(values, max);
                values.iter_mut().for_each(|v| *v /= sum);
                self.isa
                    .narrow(self.output.dtype, values, self.output.write(memory, row));
            }
        });
    }
}
