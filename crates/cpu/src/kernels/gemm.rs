//! Matmul for many tokens: blocks of weights become panels that stay in the cache and are
//! multiplied with rows of vectors by register tiles.

use super::matmul::{Finish, Sizes, Stored};
use super::{Kernel, Table, with_scratch};
use crate::memory::Memory;
use crate::simd::Weights;
use kiln_plan::DType;
use std::ops::Range;

/// Inputs of a panel: a multiple of every group size.
pub(super) const DEPTH: usize = 256;
/// Weight rows of a unit: what is read of the vectors serves all of them.
const ROWS: usize = 256;
/// Tokens of a unit.
const TOKENS: usize = 512;
/// Units that a matmul should have, so that threads end together.
const ENOUGH: usize = 16;

/// Which part of the weights panels are made of.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    /// The first input.
    pub(super) start: usize,
    /// How many inputs, at most `DEPTH`.
    pub(super) depth: usize,
    /// How many panels.
    pub(super) panels: usize,
}

/// How vectors and panels of weights are stored, and multiplied. As many vectors as a register tile
/// has rows are stored together, of these the first `DEPTH` inputs, then the next: what is read
/// together lies together.
pub(crate) trait Products: Send + Sync {
    /// Rows and columns of a register tile: vectors, weight rows.
    fn tile(&self) -> (usize, usize);
    /// Floats that a tile of vectors takes, a multiple of 16.
    fn stored(&self) -> usize;
    /// Stores a vector as row `row` of a tile; without one, zeros.
    fn pack(&self, row: usize, x: Option<(DType, &[u8])>, tile: &mut [f32]);
    /// Floats of scratch memory for some panels.
    fn room(&self, panels: usize) -> usize;
    /// Inputs of one weight row are to be column `column` of the panel that is made next.
    fn column(&self, block: Block, at: (usize, usize), row: Weights<'_>, room: &mut [f32]);
    /// Makes panel `panel` of its columns.
    fn panel(&self, block: Block, panel: usize, room: &mut [f32]);
    /// The products of tiles of vectors with the panels, in rows that are `stride` apart; they are
    /// added unless the inputs are the first.
    fn multiply(&self, block: Block, x: &[f32], room: &[f32], out: &mut [f32], stride: usize);
}

/// Stores vectors. A unit is as many as a register tile has rows.
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
        4 * self.units() * self.products.stored()
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
        let (rows, stored) = (self.products.tile().0, self.products.stored());
        let t = self.sizes.t;
        for unit in range {
            let (batch, tile) = (unit / self.tiles(), unit % self.tiles());
            let out = memory.floats_mut(self.slot, unit * stored..(unit + 1) * stored);
            for row in 0..rows {
                let token = tile * rows + row;
                let x = (token < t).then(|| self.input.read(memory, batch * t + token));
                self.products
                    .pack(row, x.map(|x| (self.input.dtype, x)), out);
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
        let units = |rows| sizes.batch * sizes.n.div_ceil(rows) * sizes.t.div_ceil(TOKENS);
        let mut rows = ROWS;
        while rows > columns && units(rows) < ENOUGH {
            rows /= 2;
        }
        Gemm {
            sizes,
            weights,
            finish,
            slot,
            rows,
            products,
        }
    }

    /// Blocks of weight rows and of tokens. Blocks of tokens are whole tiles, some of which hold a
    /// few more than `TOKENS`.
    fn blocks(&self) -> (usize, usize) {
        let tile = self.products.tile().0;
        (
            self.sizes.n.div_ceil(self.rows),
            self.sizes.t.div_ceil(TOKENS.next_multiple_of(tile)),
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
            let block = Block {
                start,
                depth: DEPTH.min(k - start),
                panels: rows.len().div_ceil(columns),
            };
            for panel in 0..block.panels {
                let first = rows.start + panel * columns;
                let end = (first + columns).min(rows.end);
                self.weights
                    .blocks(memory, first, end, |at, count, weights| {
                        for i in 0..count {
                            let row = weights.row(i);
                            self.products.column(block, (panel, at + i), row, room);
                        }
                    });
                self.products.panel(block, panel, room);
            }
            self.products.multiply(block, x, room, sums, self.rows);
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
        let (tile, columns) = self.products.tile();
        let stored = self.products.stored();
        let (row_blocks, token_blocks) = self.blocks();
        let tiles = t.div_ceil(tile);
        let block_tiles = TOKENS.div_ceil(tile);
        let sums = block_tiles.min(tiles) * tile * self.rows;
        let room = self.products.room(self.rows / columns);
        with_scratch(room + sums + self.finish.room(), |scratch| {
            let (room, scratch) = scratch.split_at_mut(room);
            let (sums, scratch) = scratch.split_at_mut(sums);
            for unit in range {
                let (unit, row_block) = (unit / row_blocks, unit % row_blocks);
                let (batch, token_block) = (unit / token_blocks, unit % token_blocks);
                let (from, to) = (row_block * self.rows, ((row_block + 1) * self.rows).min(n));
                let first = token_block * block_tiles;
                let here = first..(first + block_tiles).min(tiles);
                let tokens = here.start * tile..(here.end * tile).min(t);
                let x = batch * tiles + here.start..batch * tiles + here.end;
                let x = &memory.floats(self.slot)[x.start * stored..x.end * stored];
                let sums = &mut sums[..here.len() * tile * self.rows];
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
