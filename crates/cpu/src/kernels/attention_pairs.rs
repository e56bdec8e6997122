//! Attention of many queries to one block of cache entries, all bf16, by register tiles of these.
//! A softmax's weights become three bf16 each, which add up to them.

use super::attention::ENTRIES;
use super::attention_queries::Queries;
use crate::simd::{Isa, PairBlock, Pairs, Strided, Turn};
use std::ops::Range;

/// bf16 that a weight is split into.
const TERMS: usize = 3;
/// From one row of scores to the next, as in `attention_tiles`.
const STRIDE: usize = ENTRIES + 16;

/// Queries, and scratch memory for a block: keys and values as rows, in panels, scores, and these as
/// weights.
pub(super) struct PairTiles<'s> {
    isa: &'static Isa,
    pairs: &'static Pairs,
    d: usize,
    e: usize,
    q: &'s mut [u16],
    rows: &'s mut [u16],
    keys: &'s mut [u32],
    values: &'s mut [u32],
    scores: &'s mut [f32],
    weights: &'s mut [u16],
}

/// Floats of each plane.
fn sizes(rows: usize, d: usize, e: usize) -> [usize; 6] {
    [
        rows * d / 2,
        ENTRIES * d.max(e) / 2,
        ENTRIES * d / 2,
        ENTRIES * e / 2,
        rows * STRIDE,
        rows * TERMS * ENTRIES / 2,
    ]
}

impl<'s> PairTiles<'s> {
    /// The register tile for queries and keys of `d` elements and values of `e`, if it serves them.
    pub(super) fn serve(isa: &'static Isa, d: usize, e: usize) -> Option<&'static Pairs> {
        let columns = |pairs: &Pairs| pairs.tile().1;
        isa.pairs().filter(|pairs| {
            pairs.terms() >= TERMS
                && d.is_multiple_of(32)
                && e.is_multiple_of(columns(pairs))
                && ENTRIES.is_multiple_of(columns(pairs))
        })
    }

    /// Floats of scratch memory for so many rows of queries.
    pub(super) fn room(rows: usize, d: usize, e: usize) -> usize {
        sizes(rows, d, e).iter().sum()
    }

    /// Cuts up scratch memory.
    pub(super) fn new(
        isa: &'static Isa,
        pairs: &'static Pairs,
        (rows, d, e): (usize, usize, usize),
        room: &'s mut [f32],
    ) -> PairTiles<'s> {
        let sizes = sizes(rows, d, e);
        let (q, room) = room.split_at_mut(sizes[0]);
        let (entries, room) = room.split_at_mut(sizes[1]);
        let (keys, room) = room.split_at_mut(sizes[2]);
        let (values, room) = room.split_at_mut(sizes[3]);
        let (scores, room) = room.split_at_mut(sizes[4]);
        PairTiles {
            isa,
            pairs,
            d,
            e,
            q: bytemuck::cast_slice_mut(q),
            rows: bytemuck::cast_slice_mut(entries),
            keys: bytemuck::cast_slice_mut(keys),
            values: bytemuck::cast_slice_mut(values),
            scores,
            weights: bytemuck::cast_slice_mut(&mut room[..sizes[5]]),
        }
    }

    /// Takes queries, bf16 in f32.
    pub(super) fn ask(&mut self, queries: &[f32]) {
        let halves = self.q.iter_mut().zip(queries);
        halves.for_each(|(half, q)| *half = (q.to_bits() >> 16) as u16);
    }

    /// Stores entries `inside` of a block in panels; the others, which nobody sees, are zeros.
    /// Whether all values are finite.
    pub(super) fn fill(&mut self, [keys, values]: [Strided<'_>; 2], inside: Range<usize>) -> bool {
        let columns = self.pairs.tile().1;
        copy(keys, inside.clone(), self.d, self.rows);
        for number in 0..ENTRIES / columns {
            let turn = Turn {
                rows: bytemuck::cast_slice(&self.rows[number * columns * self.d..]),
                stride: self.d / 2,
                columns,
                words: self.d / 2,
            };
            let panel = number * columns * self.d / 2;
            self.isa.turn(turn, &mut self.keys[panel..]);
        }
        copy(values, inside, self.e, self.rows);
        let rows = &self.rows[..ENTRIES * self.e];
        for (number, panel) in self
            .values
            .chunks_exact_mut(ENTRIES / 2 * columns)
            .enumerate()
        {
            let pairs = rows.chunks_exact(2 * self.e);
            for (line, pair) in panel.chunks_exact_mut(columns).zip(pairs) {
                let (low, high) = pair.split_at(self.e);
                let at = number * columns..(number + 1) * columns;
                let pair = low[at.clone()].iter().zip(&high[at]);
                for (word, (low, high)) in line.iter_mut().zip(pair) {
                    *word = u32::from(*high) << 16 | u32::from(*low);
                }
            }
        }
        rows.iter().all(|value| value & 0x7f80 != 0x7f80)
    }

    /// The block's part in all queries; entry 0 of the block is number `start` of the cache.
    pub(super) fn block(&mut self, queries: &mut Queries<'_>, start: usize, scale: f32) {
        let (rows, columns) = self.pairs.tile();
        let products = PairBlock {
            tiles: self.scores.len() / STRIDE / rows,
            x: self.q,
            tile: rows * self.d,
            stride: self.d,
            term: 0,
            terms: 1,
            panels: ENTRIES / columns,
            panel: self.keys,
            panel_stride: columns * self.d / 2,
            pairs: self.d / 2,
            groups: None,
            add: false,
            out_stride: STRIDE,
        };
        self.pairs.multiply(products, self.scores);
        let weights = self.weights.chunks_exact_mut(TERMS * ENTRIES);
        for (row, terms) in weights.enumerate().take(queries.seen.len()) {
            let scores = &mut self.scores[row * STRIDE..][..ENTRIES];
            let kept = queries.weigh(self.isa, row, start, scale, scores);
            if kept != 1.0 {
                let sums = &mut queries.sums[row * self.e..][..self.e];
                sums.iter_mut().for_each(|sum| *sum *= kept);
            }
            for term in terms.chunks_exact_mut(ENTRIES) {
                self.pairs.split(scores, term);
            }
        }
        let mixed = PairBlock {
            x: self.weights,
            tile: rows * TERMS * ENTRIES,
            stride: TERMS * ENTRIES,
            term: ENTRIES,
            terms: TERMS,
            panels: self.e / columns,
            panel: self.values,
            panel_stride: columns * ENTRIES / 2,
            pairs: ENTRIES / 2,
            add: true,
            out_stride: self.e,
            ..products
        };
        self.pairs.multiply(mixed, queries.sums);
    }
}

/// Rows `inside` of `of` as rows of `n` elements; the others are zeros.
fn copy(of: Strided<'_>, inside: Range<usize>, n: usize, out: &mut [u16]) {
    for (at, row) in out.chunks_exact_mut(n).take(ENTRIES).enumerate() {
        if inside.contains(&at) {
            let bytes = &of.bytes[at * of.stride..][..2 * n];
            bytemuck::cast_slice_mut(row).copy_from_slice(bytes);
        } else {
            row.fill(0);
        }
    }
}
