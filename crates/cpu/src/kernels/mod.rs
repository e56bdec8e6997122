//! The kernels: what the steps of a plan are lowered to.

pub(crate) mod argmax;
pub(crate) mod argsort;
pub(crate) mod attention;
mod attention_pairs;
mod attention_queries;
mod attention_tiles;
pub(crate) mod copy;
pub(crate) mod custom;
pub(crate) mod gemm;
mod gemm_bytes;
mod gemm_floats;
mod gemm_pairs;
mod gemm_scales;
pub(crate) mod map;
pub(crate) mod matmul;
pub(crate) mod matvec;
pub(crate) mod norm;
pub(crate) mod reduce;
pub(crate) mod rope;
pub(crate) mod softmax;
pub(crate) mod take;
pub(crate) mod walk;
pub(crate) mod write;

use crate::memory::Memory;
use kiln_plan::{DType, Operand};
use std::cell::Cell;
use std::ops::Range;

/// A step's work, cut into units. How it is cut depends on the step alone, never on the number of
/// threads, and each element of the result is computed by one unit in a fixed order.
pub(crate) trait Kernel: Send + Sync {
    /// Independent pieces of work; each writes its own part of the output.
    fn units(&self) -> usize;
    /// Roughly how many nanoseconds one unit takes on one core.
    fn cost(&self) -> usize;
    /// Runs the pieces in `range`. Called concurrently with disjoint ranges.
    fn run(&self, memory: &Memory<'_>, range: Range<usize>);
}

/// Number `i` of an array of u32 at any alignment.
pub(crate) fn index(bytes: &[u8], i: usize) -> usize {
    let bytes = &bytes[4 * i..4 * i + 4];
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
}

/// Contiguous rows of a plain dtype along the innermost axis.
#[derive(Clone, Copy)]
pub(crate) struct Table {
    slot: u32,
    /// The elements' type.
    pub(crate) dtype: DType,
    offset: usize,
    /// How many rows.
    pub(crate) rows: usize,
    /// Elements of a row.
    pub(crate) n: usize,
}

impl Table {
    /// The rows of a contiguous operand.
    pub(crate) fn new(operand: &Operand) -> Table {
        let shape = operand.layout.shape();
        debug_assert!(
            operand.layout.is_contiguous(),
            "the planner copies other views"
        );
        let n = shape.last_axis();
        Table {
            slot: operand.slot,
            dtype: operand.dtype,
            offset: operand.layout.offset(),
            rows: shape.iter().rev().skip(1).product(),
            n,
        }
    }

    /// Which bytes row `row` is.
    pub(crate) fn bytes(&self, row: usize) -> Range<usize> {
        let start = self.offset + row * self.n;
        self.dtype.row_bytes(start)..self.dtype.row_bytes(start + self.n)
    }

    /// Row `row`.
    pub(crate) fn read<'m>(&self, memory: &'m Memory<'_>, row: usize) -> &'m [u8] {
        &memory.read(self.slot)[self.bytes(row)]
    }

    /// Row `row`, to write.
    pub(crate) fn write<'m>(&self, memory: &'m Memory<'_>, row: usize) -> &'m mut [u8] {
        memory.write(self.slot, self.bytes(row))
    }
}

thread_local! {
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Runs `f` with `len` floats of this thread's scratch memory, 64-byte aligned, of undefined
/// contents.
pub(crate) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut floats = SCRATCH.take();
    if floats.len() < len + 16 {
        floats.resize(len + 16, 0.0);
    }
    if cfg!(debug_assertions) {
        floats.fill(f32::NAN);
    }
    let skip = floats.as_ptr().align_offset(64).min(16);
    let result = f(&mut floats[skip..skip + len]);
    SCRATCH.set(floats);
    result
}
