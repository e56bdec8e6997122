//! `ArgMax`: where the largest element of each row is.

use super::{Kernel, Table, with_scratch};
use crate::memory::Memory;
use crate::simd::Isa;
use kiln_plan::{Kind, Operand};
use std::ops::Range;

/// Elements that are looked at together.
const BLOCK: usize = 1024;

/// The kernel of `Op::ArgMax`.
pub(crate) struct ArgMax {
    isa: &'static Isa,
    input: Table,
    output: u32,
}

impl ArgMax {
    /// The positions of the largest elements of `input`'s rows, stored in `output`.
    pub(crate) fn new(isa: &'static Isa, input: &Operand, output: &Operand) -> ArgMax {
        ArgMax {
            isa,
            input: Table::new(input),
            output: output.slot,
        }
    }

    fn floats(&self, row: &[u8]) -> usize {
        let size = self.input.dtype.bytes();
        let mut best = (f32::NEG_INFINITY, 0);
        with_scratch(BLOCK.min(self.input.n), |room| {
            for (number, bytes) in row.chunks(BLOCK * size).enumerate() {
                let block = &mut room[..bytes.len() / size];
                self.isa.widen(self.input.dtype, bytes, block);
                let max = self.isa.max(block);
                let position = |found: Option<usize>| number * BLOCK + found.unwrap_or(0);
                if max.is_nan() {
                    best = (max, position(block.iter().position(|v| v.is_nan())));
                    return;
                }
                if max > best.0 {
                    best = (max, position(block.iter().position(|&v| v == max)));
                }
            }
        });
        best.1
    }

    fn integers(&self, row: &[u8]) -> usize {
        let size = self.input.dtype.bytes();
        let mut best = (i64::MIN, 0);
        for (i, bytes) in row.chunks_exact(size).enumerate() {
            let mut word = [0];
            self.isa.load(self.input.dtype, bytes, &mut word);
            let value = match self.input.dtype.kind() {
                Kind::I32 => i64::from(word[0] as i32),
                _ => i64::from(word[0]),
            };
            if value > best.0 {
                best = (value, i);
            }
        }
        best.1
    }
}

impl Kernel for ArgMax {
    fn units(&self) -> usize {
        self.input.rows
    }

    fn cost(&self) -> usize {
        20 + self.input.n / 4
    }

    fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
        for row in range {
            let bytes = self.input.read(memory, row);
            let found = match self.input.dtype.kind() {
                Kind::Float => self.floats(bytes),
                _ => self.integers(bytes),
            };
            let out = memory.write(self.output, 4 * row..4 * row + 4);
            out.copy_from_slice(&(found as u32).to_le_bytes());
        }
    }
}
