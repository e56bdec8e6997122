//! `Attention`: causal attention over a cache, by blocks of entries with a running softmax.

use super::{Kernel, index, with_scratch};
use crate::memory::Memory;
use crate::simd::Isa;
use kiln_array::{DType, Operand};
use std::ops::Range;

/// Cache entries of a block. Blocks begin at its multiples, so that what a query gets does not
/// depend on the queries it runs with.
const ENTRIES: usize = 64;
/// Tokens of a unit, where there are that many.
const TOKENS: usize = 8;

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
}

/// The queries of a unit in scratch memory, and what their softmax has come to so far.
struct Queries<'s> {
    q: &'s mut [f32],
    sums: &'s mut [f32],
    max: &'s mut [f32],
    total: &'s mut [f32],
    seen: Vec<Range<usize>>,
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
        let unit = if q[0] < TOKENS {
            (1, q[0])
        } else {
            (q[1] / keys[0], TOKENS)
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
        }
    }

    fn sizes(&self) -> (usize, usize, usize, usize) {
        let q = self.q.layout.shape();
        (q[0], q[1], q[2], self.values.layout.shape()[2])
    }

    /// The innermost elements of a view at `at` of its first two axes, in f32.
    fn vector(&self, memory: &Memory<'_>, of: &Operand, at: [usize; 2], out: &mut [f32]) {
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
        let position = index(memory.read(self.positions.slot), offset + token);
        let first = match self.window {
            0 => 0,
            window => (position + 1).saturating_sub(window),
        };
        first..(position + 1).min(capacity)
    }

    /// One block of entries for all queries of a unit.
    fn block(
        &self,
        queries: &mut Queries<'_>,
        start: usize,
        keys: &[f32],
        values: &[f32],
        scores: &mut [f32],
    ) {
        let (_, _, d, e) = self.sizes();
        for (i, seen) in queries.seen.iter().enumerate() {
            let from = seen.start.max(start) - start;
            let to = seen.end.saturating_sub(start).min(ENTRIES);
            if from >= to {
                continue;
            }
            let q = &queries.q[i * d..(i + 1) * d];
            for (score, entry) in scores[from..to].iter_mut().zip(from..) {
                let key = bytemuck::cast_slice(&keys[entry * d..(entry + 1) * d]);
                *score = self.scale * self.isa.dot(DType::F32, key, q);
            }
            let scores = &mut scores[from..to];
            let before = queries.max[i];
            let max = self.isa.max(&[before, self.isa.max(scores)]);
            let kept = kiln_array::math::exp(before - max);
            queries.max[i] = max;
            queries.total[i] = queries.total[i] * kept + self.isa.exp_sum(scores, max);
            let sums = &mut queries.sums[i * e..(i + 1) * e];
            sums.iter_mut().for_each(|sum| *sum *= kept);
            for (score, entry) in scores.iter().zip(from..) {
                let value = bytemuck::cast_slice(&values[entry * e..(entry + 1) * e]);
                self.isa.add_scaled(DType::F32, *score, value, sums);
            }
        }
    }

    fn unit(&self, memory: &Memory<'_>, heads: Range<usize>, tokens: Range<usize>, s: &mut [f32]) {
        let (_, h, d, e) = self.sizes();
        let group = heads.start * self.keys.layout.shape()[0] / h;
        let count = heads.len() * tokens.len();
        let (q, s) = s.split_at_mut(count * d);
        let (sums, s) = s.split_at_mut(count * e);
        let (max, s) = s.split_at_mut(count);
        let (total, s) = s.split_at_mut(count);
        let (keys, s) = s.split_at_mut(ENTRIES * d);
        let (values, scores) = s.split_at_mut(ENTRIES * e);
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
            for entry in from.max(start)..to.min(start + ENTRIES) {
                let at = entry - start;
                self.vector(
                    memory,
                    &self.keys,
                    [group, entry],
                    &mut keys[at * d..(at + 1) * d],
                );
                let value = &mut values[at * e..(at + 1) * e];
                self.vector(memory, &self.values, [group, entry], value);
            }
            self.block(&mut queries, start, keys, values, scores);
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
        let (t, h, ..) = self.sizes();
        if t == 0 {
            0
        } else {
            h / self.unit.0 * t.div_ceil(self.unit.1)
        }
    }

    fn cost(&self) -> usize {
        // How much of the cache is seen is data; half of up to 1024 entries is a guess.
        let (.., d, e) = self.sizes();
        let entries = self.keys.layout.shape()[1].min(1024) / 2;
        100 + self.unit.0 * self.unit.1 * entries * (d + e) / 16
    }

    fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
        let (t, h, d, e) = self.sizes();
        let count = self.unit.0 * self.unit.1;
        let room = count * (d + e + 2) + ENTRIES * (d + e + 1);
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
