//! Attention of many queries to one block of cache entries, by register tiles.

use super::attention::ENTRIES;
use super::attention_queries::Queries;
use crate::simd::{Isa, Tile, Turn};

/// From one row of weights to the next: not a power of two, see `gemm_floats`.
const STRIDE: usize = ENTRIES + 16;

/// Scratch memory for a block: panels of keys and of values, scores, one register tile.
pub(super) struct Tiles<'s> {
    isa: &'static Isa,
    d: usize,
    e: usize,
    keys: &'s mut [f32],
    values: &'s mut [f32],
    scores: &'s mut [f32],
    kept: &'s mut [f32],
    tile: &'s mut [f32],
}

fn sizes(isa: &Isa, rows: usize, d: usize, e: usize) -> [usize; 5] {
    let (tile_rows, columns) = isa.tile_size();
    let rows = rows.next_multiple_of(tile_rows);
    [
        ENTRIES * d,
        ENTRIES * e.next_multiple_of(columns),
        rows * STRIDE,
        rows,
        tile_rows * columns,
    ]
}

impl<'s> Tiles<'s> {
    /// Floats of scratch memory for `rows` queries of `d` elements and values of `e`.
    pub(super) fn room(isa: &Isa, rows: usize, d: usize, e: usize) -> usize {
        sizes(isa, rows, d, e).iter().sum()
    }

    /// Cuts up scratch memory.
    pub(super) fn new(
        isa: &'static Isa,
        (rows, d, e): (usize, usize, usize),
        room: &'s mut [f32],
    ) -> Tiles<'s> {
        let sizes = sizes(isa, rows, d, e);
        let (keys, room) = room.split_at_mut(sizes[0]);
        let (values, room) = room.split_at_mut(sizes[1]);
        let (scores, room) = room.split_at_mut(sizes[2]);
        let (kept, room) = room.split_at_mut(sizes[3]);
        Tiles {
            isa,
            d,
            e,
            keys,
            values,
            scores,
            kept,
            tile: &mut room[..sizes[4]],
        }
    }

    /// Stores a block's keys and values, `[ENTRIES, d]` and `[ENTRIES, e]`, in panels. All values
    /// are finite.
    pub(super) fn fill(&mut self, keys: &[f32], values: &[f32]) {
        let (_, columns) = self.isa.tile_size();
        for number in 0..ENTRIES / columns {
            let at = number * self.d * columns;
            let turn = Turn {
                rows: bytemuck::cast_slice(&keys[at..]),
                stride: self.d,
                columns,
                words: self.d,
            };
            self.isa
                .turn(turn, bytemuck::cast_slice_mut(&mut self.keys[at..]));
        }
        for (number, panel) in self.values.chunks_exact_mut(ENTRIES * columns).enumerate() {
            let from = number * columns;
            let count = columns.min(self.e - from);
            for (to, value) in panel
                .chunks_exact_mut(columns)
                .zip(values.chunks_exact(self.e))
            {
                to[..count].copy_from_slice(&value[from..from + count]);
                to[count..].fill(0.0);
            }
        }
    }

    /// The block's part in all queries; entry 0 of the block is number `start` of the cache.
    pub(super) fn block(&mut self, queries: &mut Queries<'_>, start: usize, scale: f32) {
        let (tile_rows, columns) = self.isa.tile_size();
        for first in (0..queries.seen.len()).step_by(tile_rows) {
            for number in 0..ENTRIES / columns {
                let panel = &self.keys[number * self.d * columns..][..self.d * columns];
                let tile = Tile {
                    k: self.d,
                    rows: &queries.q[first * self.d..],
                    stride: self.d,
                    panel,
                    add: false,
                    out_stride: STRIDE,
                };
                let scores = &mut self.scores[first * STRIDE + number * columns..];
                self.isa.tile(tile, scores);
            }
        }
        for row in 0..queries.seen.len() {
            let scores = &mut self.scores[row * STRIDE..][..ENTRIES];
            self.kept[row] = queries.weigh(self.isa, row, start, scale, scores);
        }
        self.mix(queries);
    }

    /// Adds the values by their weights.
    fn mix(&mut self, queries: &mut Queries<'_>) {
        let (tile_rows, columns) = self.isa.tile_size();
        let rows = queries.seen.len();
        for first in (0..rows).step_by(tile_rows) {
            for (number, panel) in self.values.chunks_exact(ENTRIES * columns).enumerate() {
                let tile = Tile {
                    k: ENTRIES,
                    rows: &self.scores[first * STRIDE..],
                    stride: STRIDE,
                    panel,
                    add: false,
                    out_stride: columns,
                };
                self.isa.tile(tile, self.tile);
                let count = columns.min(self.e - number * columns);
                for (row, tile) in (first..rows).zip(self.tile.chunks_exact(columns)) {
                    let sums = &mut queries.sums[row * self.e + number * columns..][..count];
                    let kept = self.kept[row];
                    sums.iter_mut()
                        .zip(tile)
                        .for_each(|(sum, new)| *sum = *sum * kept + new);
                }
            }
        }
    }
}
