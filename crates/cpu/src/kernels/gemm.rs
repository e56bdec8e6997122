//! Matmul for many tokens: blocks of weights become panels that stay in the cache and are
//! multiplied with rows of vectors by register tiles.

use super::matmul::{Finish, Sizes, Stored};
use super::{Kernel, Table, with_scratch};
use crate::memory::Memory;
use crate::simd::Weights;
use kiln_array::DType;
use std::ops::Range;

/// Inputs of a panel: a multiple of every group size.
pub(super) const DEPTH: usize = 256;
/// Weight rows of a unit.
const ROWS: usize = 64;
/// Tokens of a unit.
const TOKENS: usize = 512;
/// Units that a matmul should have, so that threads end together; blocks of fewer rows are less
/// efficient.
const ENOUGH: usize = 24;

/// How vectors and panels of weights are stored, and multiplied.
pub(crate) trait Products: Send + Sync {
    /// Rows and columns of a register tile: vectors, weight rows.
    fn tile(&self) -> (usize, usize);
    /// Floats that a stored vector takes.
    fn stride(&self) -> usize;
    /// Stores a vector.
    fn pack(&self, dtype: DType, x: &[u8], row: &mut [f32]);
    /// Floats of scratch memory for a panel.
    fn room(&self) -> usize;
    /// Inputs `start..start + depth` of one weight row become column `column` of a panel.
    fn column(&self, column: usize, row: Weights<'_>, inputs: Range<usize>, room: &mut [f32]);
    /// When all columns are there.
    fn panel(&self, inputs: Range<usize>, room: &mut [f32]);
    /// The products of stored vectors, as many as fill tiles, with a panel of these inputs, the
    /// rows of which are `stride` apart; they are added unless the inputs are the first.
    fn multiply(
        &self,
        x: &[f32],
        inputs: Range<usize>,
        room: &[f32],
        out: &mut [f32],
        stride: usize,
    );
}

/// Stores vectors one after the other. A unit is as many as a register tile has rows.
pub(crate) struct Pack<P> {
    products: P,
    input: Table,
    sizes: Sizes,
    slot: u32,
}

impl<P: Products> Pack<P> {
    /// The rows of `input`, stored in slot `slot`.
    pub(super) fn new(products: P, input: Table, sizes: Sizes, slot: u32) -> Pack<P> {
        Pack {
            products,
            input,
            sizes,
            slot,
        }
    }

    fn tiles(&self) -> usize {
        self.sizes.t.div_ceil(self.products.tile().0)
    }

    /// Bytes of the stored vectors.
    pub(crate) fn bytes(&self) -> usize {
        4 * self.units() * self.products.tile().0 * self.products.stride()
    }
}

impl<P: Products> Kernel for Pack<P> {
    fn units(&self) -> usize {
        self.sizes.batch * self.tiles()
    }

    fn cost(&self) -> usize {
        self.sizes.k * self.products.tile().0 / 4
    }

    fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
        let (rows, stride) = (self.products.tile().0, self.products.stride());
        let t = self.sizes.t;
        for unit in range {
            let (batch, tile) = (unit / self.tiles(), unit % self.tiles());
            let from = unit * rows * stride;
            let out = memory.floats_mut(self.slot, from..from + rows * stride);
            for (token, row) in (tile * rows..).zip(out.chunks_exact_mut(stride)) {
                if token < t {
                    let bytes = self.input.read(memory, batch * t + token);
                    self.products.pack(self.input.dtype, bytes, row);
                } else {
                    row.fill(0.0);
                }
            }
        }
    }
}

/// The products of many vectors. A unit is a block of weight rows and of tokens.
pub(crate) struct Gemm<P> {
    products: P,
    sizes: Sizes,
    weights: Stored,
    finish: Finish,
    slot: u32,
    /// Weight rows of a unit.
    rows: usize,
}

impl<P: Products> Gemm<P> {
    /// The vectors stored in slot `slot` times `weights`.
    pub(super) fn new(
        products: P,
        sizes: Sizes,
        weights: Stored,
        finish: Finish,
        slot: u32,
    ) -> Gemm<P> {
        let columns = products.tile().1;
        let units = sizes.batch * sizes.n.div_ceil(ROWS) * sizes.t.div_ceil(TOKENS);
        Gemm {
            sizes,
            weights,
            finish,
            slot,
            rows: if units < ENOUGH { columns } else { ROWS },
            products,
        }
    }

    fn blocks(&self) -> (usize, usize) {
        (
            self.sizes.n.div_ceil(self.rows),
            self.sizes.t.div_ceil(TOKENS),
        )
    }

    /// The products of one unit: rows `rows` of the weights with the stored vectors `x`.
    fn multiply(
        &self,
        memory: &Memory<'_>,
        rows: Range<usize>,
        x: &[f32],
        room: &mut [f32],
        sums: &mut [f32],
    ) {
        let (k, columns) = (self.sizes.k, self.products.tile().1);
        if k == 0 {
            sums.fill(0.0);
        }
        for start in (0..k).step_by(DEPTH) {
            let inputs = start..(start + DEPTH).min(k);
            for first in rows.clone().step_by(columns) {
                let end = (first + columns).min(rows.end);
                self.weights
                    .blocks(memory, first, end, |at, count, weights| {
                        for i in 0..count {
                            let row = weights.row(i);
                            self.products.column(at + i, row, inputs.clone(), room);
                        }
                    });
                self.products.panel(inputs.clone(), room);
                let sums = &mut sums[first - rows.start..];
                self.products
                    .multiply(x, inputs.clone(), room, sums, self.rows);
            }
        }
    }
}

impl<P: Products> Kernel for Gemm<P> {
    fn units(&self) -> usize {
        let (rows, tokens) = self.blocks();
        self.sizes.batch * rows * tokens
    }

    fn cost(&self) -> usize {
        self.rows * self.sizes.k * self.sizes.t.min(TOKENS) / 30
    }

    fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
        let Sizes { t, n, .. } = self.sizes;
        let (tile, stride) = (self.products.tile().0, self.products.stride());
        let (row_blocks, token_blocks) = self.blocks();
        let padded = t.next_multiple_of(tile);
        let sums = TOKENS.min(t).next_multiple_of(tile) * self.rows;
        let room = self.products.room();
        with_scratch(room + sums + self.finish.room(), |scratch| {
            let (room, scratch) = scratch.split_at_mut(room);
            let (sums, scratch) = scratch.split_at_mut(sums);
            for unit in range {
                let (unit, row_block) = (unit / row_blocks, unit % row_blocks);
                let (batch, token_block) = (unit / token_blocks, unit % token_blocks);
                let (from, to) = (row_block * self.rows, ((row_block + 1) * self.rows).min(n));
                let tokens = token_block * TOKENS..((token_block + 1) * TOKENS).min(t);
                let first = batch * padded + tokens.start;
                let count = tokens.len().next_multiple_of(tile);
                let x = &memory.floats(self.slot)[first * stride..(first + count) * stride];
                let sums = &mut sums[..count * self.rows];
                self.multiply(memory, batch * n + from..batch * n + to, x, room, sums);
                for (token, values) in tokens.zip(sums.chunks_exact_mut(self.rows)) {
                    let values = &mut values[..to - from];
                    self.finish
                        .row(memory, batch * t + token, from, values, scratch);
                }
            }
        });
    }
}
