//! `Reduce`: sum, largest element and mean along any axis.

use super::{Kernel, with_scratch};
use crate::memory::Memory;
use crate::simd::Isa;
use kiln_plan::{DType, Kind, Operand, Reduce as How};
use std::ops::Range;

/// Columns of a unit, where the summarised axis is not the innermost.
const COLUMNS: usize = 512;

/// The kernel of `Op::Reduce`.
pub(crate) struct Reduce {
    isa: &'static Isa,
    how: How,
    input: Operand,
    output: u32,
    outer: usize,
    length: usize,
    inner: usize,
}

impl Reduce {
    /// `input` summarised along `axis`, stored in `output`.
    pub(crate) fn new(
        isa: &'static Isa,
        how: How,
        axis: usize,
        input: &Operand,
        output: &Operand,
    ) -> Reduce {
        let shape = input.layout.shape();
        Reduce {
            isa,
            how,
            input: *input,
            output: output.slot,
            outer: shape[..axis].iter().product(),
            length: shape[axis],
            inner: shape[axis + 1..].iter().product(),
        }
    }

    fn blocks(&self) -> usize {
        self.inner.div_ceil(COLUMNS)
    }

    fn load(&self, bytes: &[u8], from: usize, out: &mut [f32]) {
        let dtype = self.input.dtype;
        let from = self.input.layout.offset() + from;
        let range = dtype.row_bytes(from)..dtype.row_bytes(from + out.len());
        self.isa
            .load(dtype, &bytes[range], bytemuck::cast_slice_mut(out));
    }

    /// One row along the innermost axis.
    fn row(&self, bytes: &[u8], from: usize, row: &mut [f32]) -> u32 {
        self.load(bytes, from, row);
        match (self.input.dtype.kind(), self.how) {
            (Kind::Float, How::Sum) => self.isa.sum(row).to_bits(),
            (Kind::Float, How::Mean) => (self.isa.sum(row) / self.length as f32).to_bits(),
            (Kind::Float, How::Max) => self.isa.max(row).to_bits(),
            (kind, how) => {
                let words = bytemuck::cast_slice::<f32, u32>(row).iter().copied();
                words.reduce(|a, b| integer(kind, how, a, b)).unwrap_or(0)
            }
        }
    }

    /// Columns `from..` of one outer index, in `total`.
    fn columns(&self, bytes: &[u8], from: usize, total: &mut [f32], row: &mut [f32]) {
        let kind = self.input.dtype.kind();
        total.fill(0.0);
        for i in 0..self.length {
            let from = from + i * self.inner;
            if i == 0 {
                self.load(bytes, from, total);
                continue;
            }
            self.load(bytes, from, row);
            match (kind, self.how) {
                (Kind::Float, How::Max) => total.iter_mut().zip(&*row).for_each(|(a, &b)| {
                    *a = if *a > b || a.is_nan() { *a } else { b };
                }),
                (Kind::Float, _) => total.iter_mut().zip(&*row).for_each(|(a, b)| *a += b),
                (kind, how) => {
                    let total = bytemuck::cast_slice_mut::<f32, u32>(total);
                    let row = bytemuck::cast_slice::<f32, u32>(row);
                    total
                        .iter_mut()
                        .zip(row)
                        .for_each(|(a, &b)| *a = integer(kind, how, *a, b));
                }
            }
        }
        if self.how == How::Mean {
            total.iter_mut().for_each(|a| *a /= self.length as f32);
        }
    }
}

fn integer(kind: Kind, how: How, a: u32, b: u32) -> u32 {
    match (how, kind) {
        (How::Max, Kind::I32) => (a as i32).max(b as i32) as u32,
        (How::Max, _) => a.max(b),
        _ => a.wrapping_add(b),
    }
}

impl Kernel for Reduce {
    fn units(&self) -> usize {
        self.outer * self.blocks()
    }

    fn cost(&self) -> usize {
        20 + self.length * self.inner.min(COLUMNS) / 4
    }

    fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
        let bytes = memory.read(self.input.slot);
        let dtype: DType = self.input.dtype;
        for unit in range {
            let (outer, block) = (unit / self.blocks(), unit % self.blocks());
            let column = block * COLUMNS;
            let count = COLUMNS.min(self.inner - column);
            let from = outer * self.length * self.inner + column;
            let to = outer * self.inner + column;
            let out = memory.write(
                self.output,
                dtype.row_bytes(to)..dtype.row_bytes(to + count),
            );
            if self.inner == 1 {
                let total = with_scratch(self.length, |row| self.row(bytes, from, row));
                self.isa.store(dtype, &[total], out);
            } else {
                with_scratch(2 * count, |room| {
                    let (total, row) = room.split_at_mut(count);
                    self.columns(bytes, from, total, row);
                    self.isa.store(dtype, bytemuck::cast_slice(total), out);
                });
            }
        }
    }
}
