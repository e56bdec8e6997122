//! `Attention`: causal attention over a cache, by blocks of entries with a running softmax.

use super::attention_pairs::PairTiles;
use super::attention_queries::Queries;
use super::attention_tiles::Tiles;
use super::{Kernel, index, with_scratch};
use crate::memory::Memory;
use crate::simd::{Isa, Pairs, Strided};
use kiln_plan::{DType, Operand};
use std::ops::Range;

/// Cache entries of a block. Blocks begin at its multiples, so that what a query gets does not
/// depend on the queries it runs with.
pub(super) const ENTRIES: usize = 64;
/// Tokens of a unit, where there are that many.
const TOKENS: usize = 16;
/// The same for register tiles of bf16.
const PAIR_TOKENS: usize = 32;

/// The kernel of `Op::Attention`. A unit is some heads of one group and some tokens.
pub(crate) struct Attention {
    isa: &'static Isa,
    scale: f32,
    window: usize,
    q: Operand,
    keys: Operand,
    values: Operand,
    positions: Operand,
    output: Operand,
    /// Heads and tokens of a unit.
    unit: (usize, usize),
    way: Way,
}

/// How the queries of a unit meet a block.
#[derive(Clone, Copy)]
enum Way {
    /// One after the other.
    Single,
    /// In register tiles of floats.
    Floats,
    /// In register tiles of bf16.
    Pairs(&'static Pairs),
}

/// A way's scratch memory.
enum Tiled<'s> {
    Single,
    Floats(Tiles<'s>),
    Pairs(PairTiles<'s>),
}

/// Tokens, heads, and elements of keys and of values.
struct Sizes {
    t: usize,
    h: usize,
    d: usize,
    e: usize,
}

impl Attention {
    /// The attention of `inputs` (q, keys, values, positions), stored in `output`.
    pub(crate) fn new(
        isa: &'static Isa,
        scale: f32,
        window: usize,
        inputs: &[Operand],
        output: &Operand,
    ) -> Attention {
        let (q, keys) = (inputs[0].layout.shape(), inputs[1].layout.shape());
        let way = way(isa, inputs);
        let unit = match way {
            Way::Single => (1, q[0].min(TOKENS)),
            Way::Floats => (q[1] / keys[0], TOKENS),
            Way::Pairs(_) => (q[1] / keys[0], PAIR_TOKENS),
        };
        Attention {
            isa,
            scale,
            window,
            q: inputs[0],
            keys: inputs[1],
            values: inputs[2],
            positions: inputs[3],
            output: *output,
            unit,
            way,
        }
    }

    fn sizes(&self) -> Sizes {
        let q = self.q.layout.shape();
        Sizes {
            t: q[0],
            h: q[1],
            d: q[2],
            e: self.values.layout.shape()[2],
        }
    }

    /// So many queries filled up to whole register tiles.
    fn rows(&self, count: usize) -> usize {
        match self.way {
            Way::Single => count,
            Way::Floats => count.next_multiple_of(self.isa.tile_size().0),
            Way::Pairs(pairs) => count.next_multiple_of(pairs.tile().0),
        }
    }

    /// Floats of scratch memory for the tiles of `count` queries.
    fn tiled_room(&self, count: usize) -> usize {
        let Sizes { d, e, .. } = self.sizes();
        match self.way {
            Way::Single => 0,
            Way::Floats => Tiles::room(self.isa, count, d, e),
            Way::Pairs(_) => PairTiles::room(self.rows(count), d, e),
        }
    }

    fn tiled<'s>(&self, queries: &[f32], count: usize, room: &'s mut [f32]) -> Tiled<'s> {
        let Sizes { d, e, .. } = self.sizes();
        match self.way {
            Way::Single => Tiled::Single,
            Way::Floats => Tiled::Floats(Tiles::new(self.isa, (count, d, e), room)),
            Way::Pairs(pairs) => {
                let sizes = (self.rows(count), d, e);
                let mut tiles = PairTiles::new(self.isa, pairs, sizes, room);
                tiles.ask(queries);
                Tiled::Pairs(tiles)
            }
        }
    }

    /// The innermost elements of a view at `at` of its first two axes, in f32.
    fn vector(&self, memory: &Memory<'_>, of: &Operand, at: [usize; 2], out: &mut [f32]) {
        // Vectors of no elements may lie anywhere, also past the end.
        if out.is_empty() {
            return;
        }
        let strides = of.layout.strides();
        let start = of.layout.offset() + at[0] * strides[0] + at[1] * strides[1];
        let bytes = memory.read(of.slot);
        if strides[2] == 1 || out.len() == 1 {
            let range = of.dtype.row_bytes(start)..of.dtype.row_bytes(start + out.len());
            return self.isa.widen(of.dtype, &bytes[range], out);
        }
        for (i, out) in out.chunks_mut(1).enumerate() {
            let at = start + i * strides[2];
            let range = of.dtype.row_bytes(at)..of.dtype.row_bytes(at + 1);
            self.isa.widen(of.dtype, &bytes[range], out);
        }
    }

    /// The entries that a token sees.
    fn seen(&self, memory: &Memory<'_>, token: usize) -> Range<usize> {
        let capacity = self.keys.layout.shape()[1];
        let offset = self.positions.layout.offset();
        let position = index(memory.read(self.positions.slot), offset + token).min(capacity - 1);
        let first = match self.window {
            0 => 0,
            window => (position + 1).saturating_sub(window),
        };
        first..position + 1
    }

    /// One block of entries for all queries of a unit, one query after the other.
    fn block(
        &self,
        queries: &mut Queries<'_>,
        start: usize,
        [keys, values]: [Strided<'_>; 2],
        scores: &mut [f32],
    ) {
        let Sizes { d, e, .. } = self.sizes();
        for i in 0..queries.seen.len() {
            let inside = queries.inside(i, start);
            if inside.is_empty() {
                continue;
            }
            let q = &queries.q[i * d..(i + 1) * d];
            self.isa
                .dots(keys.from(inside.start), q, &mut scores[inside.clone()]);
            let kept = queries.weigh(self.isa, i, start, self.scale, scores);
            let sums = &mut queries.sums[i * e..(i + 1) * e];
            if kept != 1.0 {
                sums.iter_mut().for_each(|sum| *sum *= kept);
            }
            self.isa
                .mix(values.from(inside.start), &scores[inside], sums);
        }
    }

    /// The entries of one group from `start` on as rows where they lie, if their elements are
    /// neighbours.
    fn entries<'m>(
        &self,
        memory: &'m Memory<'_>,
        of: &Operand,
        group: usize,
        start: usize,
    ) -> Option<Strided<'m>> {
        let (shape, strides) = (of.layout.shape(), of.layout.strides());
        if strides[2] != 1 && shape[2] != 1 {
            return None;
        }
        let first = of.layout.offset() + group * strides[0] + start * strides[1];
        let bytes = memory.read(of.slot).get(of.dtype.row_bytes(first)..)?;
        Some(Strided {
            dtype: of.dtype,
            bytes,
            // Rows of no elements may lie anywhere, also past the end.
            stride: of.dtype.row_bytes(strides[1]) * usize::from(shape[2] > 0),
        })
    }

    /// The keys and values of the block at `start` that any query sees, in f32. Whether register
    /// tiles may be used: they multiply what a query does not see by 0, so it must be finite.
    fn load(
        &self,
        memory: &Memory<'_>,
        group: usize,
        (start, seen): (usize, Range<usize>),
        (keys, values): (&mut [f32], &mut [f32]),
    ) -> bool {
        let Sizes { d, e, .. } = self.sizes();
        let mut finite = true;
        for at in 0..ENTRIES {
            let (key, value) = (
                &mut keys[at * d..(at + 1) * d],
                &mut values[at * e..(at + 1) * e],
            );
            if seen.contains(&(start + at)) {
                self.vector(memory, &self.keys, [group, start + at], key);
                self.vector(memory, &self.values, [group, start + at], value);
                finite &= self.isa.sum_squares(value).is_finite();
            } else {
                key.fill(0.0);
                value.fill(0.0);
            }
        }
        finite
    }

    fn unit(&self, memory: &Memory<'_>, heads: Range<usize>, tokens: Range<usize>, s: &mut [f32]) {
        let Sizes { h, d, e, .. } = self.sizes();
        let group = heads.start * self.keys.layout.shape()[0] / h;
        let count = heads.len() * tokens.len();
        let rows = self.rows(count);
        let (q, s) = s.split_at_mut(rows * d);
        let (sums, s) = s.split_at_mut(rows * e);
        let (max, s) = s.split_at_mut(count);
        let (total, s) = s.split_at_mut(count);
        let (keys, s) = s.split_at_mut(ENTRIES * d);
        let (values, s) = s.split_at_mut(ENTRIES * e);
        let (scores, s) = s.split_at_mut(ENTRIES);
        sums.fill(0.0);
        max.fill(f32::NEG_INFINITY);
        total.fill(0.0);
        let all = || {
            heads
                .clone()
                .flat_map(|head| tokens.clone().map(move |token| (token, head)))
        };
        for (i, (token, head)) in all().enumerate() {
            self.vector(memory, &self.q, [token, head], &mut q[i * d..(i + 1) * d]);
        }
        q[count * d..].fill(0.0);
        let mut tiled = self.tiled(q, count, s);
        let seen: Vec<_> = all().map(|(token, _)| self.seen(memory, token)).collect();
        let from = seen.iter().map(|seen| seen.start).min().unwrap_or(0);
        let to = seen.iter().map(|seen| seen.end).max().unwrap_or(0);
        let mut queries = Queries {
            q,
            sums,
            max,
            total,
            seen,
        };
        for start in (from / ENTRIES * ENTRIES..to).step_by(ENTRIES) {
            let stored =
                [&self.keys, &self.values].map(|of| self.entries(memory, of, group, start));
            match (&mut tiled, stored) {
                (Tiled::Pairs(tiles), [Some(keys), Some(values)]) => {
                    let inside = from.max(start) - start..to.min(start + ENTRIES) - start;
                    if tiles.fill([keys, values], inside) {
                        tiles.block(&mut queries, start, self.scale);
                    } else {
                        self.block(&mut queries, start, [keys, values], scores);
                    }
                    continue;
                }
                (Tiled::Single, [Some(keys), Some(values)]) => {
                    self.block(&mut queries, start, [keys, values], scores);
                    continue;
                }
                _ => {}
            }
            let finite = self.load(memory, group, (start, from..to), (keys, values));
            match &mut tiled {
                Tiled::Floats(tiles) if finite => {
                    tiles.fill(keys, values);
                    tiles.block(&mut queries, start, self.scale);
                }
                _ => {
                    let rows = [Strided::floats(keys, d), Strided::floats(values, e)];
                    self.block(&mut queries, start, rows, scores);
                }
            }
        }
        for (i, (token, head)) in all().enumerate() {
            let sums = &mut queries.sums[i * e..(i + 1) * e];
            let total = queries.total[i];
            sums.iter_mut().for_each(|sum| *sum /= total);
            let at = (token * h + head) * e;
            let dtype = self.output.dtype;
            let out = memory.write(
                self.output.slot,
                dtype.row_bytes(at)..dtype.row_bytes(at + e),
            );
            self.isa.narrow(dtype, sums, out);
        }
    }
}

impl Kernel for Attention {
    fn units(&self) -> usize {
        let Sizes { t, h, e, .. } = self.sizes();
        if t * e == 0 {
            0
        } else {
            h / self.unit.0 * t.div_ceil(self.unit.1)
        }
    }

    fn cost(&self) -> usize {
        // How much of the cache is seen is data; half of up to 1024 entries is a guess.
        let Sizes { d, e, .. } = self.sizes();
        let entries = self.keys.layout.shape()[1].min(1024) / 2;
        100 + self.unit.0 * self.unit.1 * entries * (d + e) / 16
    }

    fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
        let Sizes { t, h, d, e } = self.sizes();
        let count = self.unit.0 * self.unit.1;
        let rows = self.rows(count);
        let room = rows * (d + e) + 2 * count + ENTRIES * (d + e + 1) + self.tiled_room(count);
        let blocks = h / self.unit.0;
        with_scratch(room, |scratch| {
            for unit in range {
                let (block, head) = (unit / blocks, unit % blocks * self.unit.0);
                let tokens = block * self.unit.1..((block + 1) * self.unit.1).min(t);
                self.unit(memory, head..head + self.unit.0, tokens, scratch);
            }
        });
    }
}

/// How the queries of `inputs` meet entries: by register tiles if there are enough.
fn way(isa: &'static Isa, inputs: &[Operand]) -> Way {
    let [q, keys, values] = [&inputs[0], &inputs[1], &inputs[2]];
    let (t, d) = (q.layout.shape()[0], q.layout.shape()[2]);
    let e = values.layout.shape()[2];
    if t < TOKENS || d * e == 0 {
        return Way::Single;
    }
    let halves = [q, keys, values].iter().all(|x| x.dtype == DType::BF16);
    let rows = [keys, values].iter().all(|x| x.layout.strides()[2] == 1);
    match PairTiles::serve(isa, d, e) {
        Some(pairs) if halves && rows => Way::Pairs(pairs),
        _ => Way::Floats,
    }
}
