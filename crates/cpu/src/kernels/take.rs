//! `Take`: rows of a table, dequantised where they are quantised.

use super::{Kernel, index, with_scratch};
use crate::memory::Memory;
use crate::simd::{Isa, Weights};
use kiln_plan::{DType, Operand};
use std::ops::Range;

/// The kernel of `Op::Take`.
pub(crate) struct Take {
    isa: &'static Isa,
    table: Operand,
    ids: Operand,
    output: Operand,
    rows: usize,
    n: usize,
    by_blocks: bool,
}

impl Take {
    /// The rows of `table` that `ids` name, stored in `output`. `by_blocks` where the table's rows
    /// are those of its slot.
    pub(crate) fn new(
        isa: &'static Isa,
        [table, ids, output]: [&Operand; 3],
        by_blocks: bool,
    ) -> Take {
        let shape = table.layout.shape();
        let rows = shape.first().copied().unwrap_or(0);
        let n = shape.iter().skip(1).product();
        Take {
            isa,
            table: *table,
            ids: *ids,
            output: *output,
            rows,
            n,
            by_blocks,
        }
    }

    fn row(&self, memory: &Memory<'_>, row: usize, out: &mut [u8]) {
        // A view of a table cuts whole rows off.
        let row = row + self.table.layout.offset() / self.n.max(1);
        let rows = memory.rows(self.table.slot, row, self.by_blocks);
        let at = row - rows.first;
        let DType::Quantised(format) = self.table.dtype else {
            let bytes = self.table.dtype.row_bytes(self.n);
            return out.copy_from_slice(&rows.data[at * bytes..(at + 1) * bytes]);
        };
        let cut = |plane: &'_ [u8], bytes: usize| -> Range<usize> {
            if plane.is_empty() {
                0..0
            } else {
                at * bytes..(at + 1) * bytes
            }
        };
        let scale_row = format.scale_row(self.n);
        let weights = Weights {
            dtype: self.table.dtype,
            k: self.n,
            data: &rows.data[cut(rows.data, format.code_row(self.n))],
            scales: &rows.scales[cut(rows.scales, scale_row)],
            biases: &rows.biases[cut(rows.biases, scale_row)],
        };
        with_scratch(self.n, |values| {
            self.isa.dequantise(weights, 0, values);
            self.isa.narrow(self.output.dtype, values, out);
        });
    }
}

impl Kernel for Take {
    fn units(&self) -> usize {
        if self.n == 0 {
            0
        } else {
            self.ids.layout.shape().elements()
        }
    }

    fn cost(&self) -> usize {
        20 + self.n / 4
    }

    fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
        let bytes = self.output.dtype.row_bytes(self.n);
        for i in range {
            let id = index(memory.read(self.ids.slot), self.ids.layout.offset() + i);
            let out = memory.write(self.output.slot, i * bytes..(i + 1) * bytes);
            if id < self.rows {
                self.row(memory, id, out);
            } else {
                missing(self.output.dtype, out);
            }
        }
    }
}

/// What a row outside the table holds: NaN, or 0 for what is no float.
fn missing(dtype: DType, out: &mut [u8]) {
    let nan: &[u8] = match dtype {
        DType::F16 => &[0x00, 0x7e],
        DType::BF16 => &[0xc0, 0x7f],
        DType::F32 => &[0x00, 0x00, 0xc0, 0x7f],
        _ => &[0],
    };
    out.chunks_exact_mut(nan.len())
        .for_each(|element| element.copy_from_slice(nan));
}
