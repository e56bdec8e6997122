//! Matmul for many tokens: weights are dequantised once, in blocks that stay in the cache, and
//! multiplied with panels of vectors by a register tile.

use super::matmul::{Finish, Sizes, Stored};
use super::{Kernel, Table, with_scratch};
use crate::memory::Memory;
use crate::simd::{Isa, Tile};
use std::ops::Range;

/// Register tiles stacked in a block of weight rows.
const STACK: usize = 8;
/// Inputs of a block: a multiple of every group size.
const DEPTH: usize = 512;
/// Tokens of a unit.
const TOKENS: usize = 512;
/// Floats between the end of a row of dequantised weights and the next: rows at a distance of a
/// power of two would share the same few lines of the nearest cache.
const GAP: usize = 16;

/// Stores vectors in panels of as many as the register tile has columns: first elements first.
/// A unit is a panel.
pub(crate) struct Pack {
    isa: &'static Isa,
    input: Table,
    sizes: Sizes,
    slot: u32,
}

impl Pack {
    /// The rows of `input` as panels in slot `slot`.
    pub(crate) fn new(isa: &'static Isa, input: Table, sizes: Sizes, slot: u32) -> Pack {
        Pack {
            isa,
            input,
            sizes,
            slot,
        }
    }

    fn columns(&self) -> usize {
        self.isa.tile_size().1
    }

    /// Bytes of the panels.
    pub(crate) fn bytes(&self) -> usize {
        4 * self.units() * self.sizes.k * self.columns()
    }
}

impl Kernel for Pack {
    fn units(&self) -> usize {
        self.sizes.batch * self.sizes.t.div_ceil(self.columns())
    }

    fn cost(&self) -> usize {
        self.sizes.k * self.columns()
    }

    fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
        let (Sizes { t, k, .. }, columns) = (self.sizes, self.columns());
        if k == 0 {
            return;
        }
        let panels = t.div_ceil(columns);
        with_scratch(8 * k, |rows| {
            for unit in range {
                let (batch, panel) = (unit / panels, unit % panels);
                let out =
                    memory.floats_mut(self.slot, unit * k * columns..(unit + 1) * k * columns);
                for first in (0..columns).step_by(8) {
                    for (lane, row) in rows.chunks_exact_mut(k.max(1)).enumerate() {
                        let token = panel * columns + first + lane;
                        if token < t {
                            let bytes = self.input.read(memory, batch * t + token);
                            self.isa.widen(self.input.dtype, bytes, row);
                        } else {
                            row.fill(0.0);
                        }
                    }
                    interleave(rows, k, &mut out[first..], columns);
                }
            }
        });
    }
}

/// Element `i` of eight rows of `k` goes to `out[i · stride..][..8]`.
pub(super) fn interleave(rows: &[f32], k: usize, out: &mut [f32], stride: usize) {
    for (i, out) in out.chunks_mut(stride).take(k).enumerate() {
        for (lane, out) in out[..8].iter_mut().enumerate() {
            *out = rows[lane * k + i];
        }
    }
}

/// Rows of `columns` elements become `columns` rows, `stride` apart.
fn turn(panel: &[f32], columns: usize, out: &mut [f32], stride: usize) {
    for (i, row) in panel.chunks_exact(columns).enumerate() {
        for (eight, row) in row.as_chunks::<8>().0.iter().enumerate() {
            let out = &mut out[8 * eight * stride + i..];
            for (lane, value) in row.iter().enumerate() {
                out[lane * stride] = *value;
            }
        }
    }
}

/// The products of many vectors. A unit is a block of weight rows and of tokens.
pub(crate) struct Gemm {
    isa: &'static Isa,
    sizes: Sizes,
    weights: Stored,
    finish: Finish,
    slot: u32,
    tile_rows: usize,
    columns: usize,
}

impl Gemm {
    /// The panels in slot `slot` times `weights`.
    pub(crate) fn new(
        isa: &'static Isa,
        sizes: Sizes,
        weights: Stored,
        finish: Finish,
        slot: u32,
    ) -> Gemm {
        let (tile_rows, columns) = isa.tile_size();
        Gemm {
            isa,
            sizes,
            weights,
            finish,
            slot,
            tile_rows,
            columns,
        }
    }

    /// Weight rows of a unit.
    fn rows(&self) -> usize {
        self.tile_rows * STACK
    }

    fn blocks(&self) -> (usize, usize) {
        (
            self.sizes.n.div_ceil(self.rows()),
            self.sizes.t.div_ceil(TOKENS),
        )
    }

    /// Inputs `start..start + depth` of weight rows `from..to`, in rows of `DEPTH + GAP`.
    fn dequantise(
        &self,
        memory: &Memory<'_>,
        (from, to): (usize, usize),
        (start, depth): (usize, usize),
        out: &mut [f32],
    ) {
        self.weights.blocks(memory, from, to, |at, count, weights| {
            for i in 0..count {
                let out = &mut out[(at + i) * (DEPTH + GAP)..][..depth];
                self.isa.dequantise(weights.row(i), start, out);
            }
        });
    }

    /// The products of one unit in tiles: of each panel, of each row, of each column.
    fn multiply(
        &self,
        memory: &Memory<'_>,
        rows: (usize, usize),
        panels: Range<usize>,
        weights: &mut [f32],
        sums: &mut [f32],
    ) {
        let (k, columns) = (self.sizes.k, self.columns);
        let vectors = memory.floats(self.slot);
        let tile_size = self.tile_rows * columns;
        let tiles = (rows.1 - rows.0).div_ceil(self.tile_rows);
        if k == 0 {
            sums.fill(0.0);
        }
        for start in (0..k).step_by(DEPTH) {
            let depth = DEPTH.min(k - start);
            self.dequantise(memory, rows, (start, depth), weights);
            for (panel, sums) in panels.clone().zip(sums.chunks_mut(STACK * tile_size)) {
                let panel = &vectors[(panel * k + start) * columns..][..depth * columns];
                for (number, out) in sums.chunks_exact_mut(tile_size).take(tiles).enumerate() {
                    let weights = &weights[number * self.tile_rows * (DEPTH + GAP)..];
                    let add = start > 0;
                    let tile = Tile {
                        k: depth,
                        weights,
                        stride: DEPTH + GAP,
                        panel,
                        add,
                    };
                    self.isa.tile(tile, out);
                }
            }
        }
    }
}

impl Kernel for Gemm {
    fn units(&self) -> usize {
        let (rows, tokens) = self.blocks();
        self.sizes.batch * rows * tokens
    }

    fn cost(&self) -> usize {
        self.rows() * self.sizes.k * self.sizes.t.min(TOKENS) / 30
    }

    fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
        let Sizes { t, n, .. } = self.sizes;
        let (rows, columns) = (self.rows(), self.columns);
        let (row_blocks, token_blocks) = self.blocks();
        let panels = TOKENS.min(t).div_ceil(columns);
        let sums = panels * rows * columns;
        let sizes = [
            rows * (DEPTH + GAP),
            sums,
            rows * columns,
            self.finish.room(),
        ];
        with_scratch(sizes.iter().sum(), |scratch| {
            let (weights, scratch) = scratch.split_at_mut(sizes[0]);
            let (sums, scratch) = scratch.split_at_mut(sizes[1]);
            let (values, room) = scratch.split_at_mut(sizes[2]);
            for unit in range {
                let (unit, row_block) = (unit / row_blocks, unit % row_blocks);
                let (batch, token_block) = (unit / token_blocks, unit % token_blocks);
                let (from, to) = (row_block * rows, ((row_block + 1) * rows).min(n));
                let tokens = token_block * TOKENS..((token_block + 1) * TOKENS).min(t);
                let first = batch * t.div_ceil(columns) + tokens.start / columns;
                let panels = first..first + tokens.len().div_ceil(columns);
                self.multiply(
                    memory,
                    (batch * n + from, batch * n + to),
                    panels,
                    weights,
                    sums,
                );
                for (panel, first) in tokens.clone().step_by(columns).enumerate() {
                    let panel = &sums[panel * rows * columns..][..(to - from) * columns];
                    turn(panel, columns, values, rows);
                    for (token, values) in (first..tokens.end).zip(values.chunks_mut(rows)) {
                        let values = &mut values[..to - from];
                        self.finish
                            .row(memory, batch * t + token, from, values, room);
                    }
                }
            }
        });
    }
}
