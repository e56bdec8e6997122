//! `RmsNorm` and `LayerNorm`.

use super::{Kernel, Table, with_scratch};
use crate::memory::Memory;
use crate::simd::Isa;
use kiln_plan::Operand;
use std::ops::Range;

/// The kernel of both. A unit is a row.
pub(crate) struct Norm {
    isa: &'static Isa,
    input: Table,
    weight: Table,
    bias: Option<Table>,
    output: Table,
    eps: f32,
}

impl Norm {
    /// `x / √(mean(x²) + eps) · weight`, or with a bias, the same of `x - mean`, plus the bias.
    /// `operands` are x, weight and maybe bias.
    pub(crate) fn new(isa: &'static Isa, eps: f32, operands: &[Operand], output: &Operand) -> Norm {
        Norm {
            isa,
            input: Table::new(&operands[0]),
            weight: Table::new(&operands[1]),
            bias: operands.get(2).map(Table::new),
            output: Table::new(output),
            eps,
        }
    }

    fn row(&self, x: &mut [f32], weight: &[f32], bias: Option<&[f32]>) {
        let n = x.len() as f32;
        if bias.is_some() {
            let mean = self.isa.sum(x) / n;
            x.iter_mut().for_each(|x| *x -= mean);
        }
        let factor = 1.0 / (self.isa.sum_squares(x) / n + self.eps).sqrt();
        x.iter_mut().for_each(|x| *x *= factor);
        let dtype = self.output.dtype;
        self.isa.round(dtype, x);
        x.iter_mut()
            .zip(weight)
            .for_each(|(x, weight)| *x *= weight);
        if let Some(bias) = bias {
            self.isa.round(dtype, x);
            x.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
        }
    }
}

impl Kernel for Norm {
    fn units(&self) -> usize {
        self.input.rows
    }

    fn cost(&self) -> usize {
        20 + self.input.n / 2
    }

    fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
        let n = self.input.n;
        with_scratch(3 * n, |room| {
            let (x, rest) = room.split_at_mut(n);
            let (weight, bias) = rest.split_at_mut(n);
            self.isa
                .widen(self.weight.dtype, self.weight.read(memory, 0), weight);
            if let Some(table) = &self.bias {
                self.isa.widen(table.dtype, table.read(memory, 0), bias);
            }
            for row in range {
                self.isa
                    .widen(self.input.dtype, self.input.read(memory, row), x);
                self.row(x, weight, self.bias.is_some().then_some(&*bias));
                self.isa
                    .narrow(self.output.dtype, x, self.output.write(memory, row));
            }
        });
    }
}
