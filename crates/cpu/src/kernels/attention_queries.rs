//! The queries of a unit of attention, and their running softmax.

use super::attention::ENTRIES;
use crate::simd::Isa;
use std::ops::Range;

/// The queries of a unit in scratch memory, and what their softmax has come to so far.
pub(super) struct Queries<'s> {
    /// The queries, and room for as many as fill a register tile.
    pub(super) q: &'s mut [f32],
    /// Sums of values by weight.
    pub(super) sums: &'s mut [f32],
    pub(super) max: &'s mut [f32],
    pub(super) total: &'s mut [f32],
    /// Which entries each query sees.
    pub(super) seen: Vec<Range<usize>>,
}

impl Queries<'_> {
    /// The entries of the block at `start` that query `i` sees, counted from the block's first.
    pub(super) fn inside(&self, i: usize, start: usize) -> Range<usize> {
        let seen = &self.seen[i];
        let to = seen.end.saturating_sub(start).min(ENTRIES);
        (seen.start.max(start) - start).min(to)..to
    }

    /// Turns a block's products of query `i` with all keys into weights: 0 for what it does not
    /// see. The factor that what was summed before keeps.
    pub(super) fn weigh(
        &mut self,
        isa: &Isa,
        i: usize,
        start: usize,
        scale: f32,
        scores: &mut [f32],
    ) -> f32 {
        let inside = self.inside(i, start);
        scores[..inside.start].fill(0.0);
        scores[inside.end..].fill(0.0);
        let scores = &mut scores[inside];
        if scores.is_empty() {
            return 1.0;
        }
        scores.iter_mut().for_each(|score| *score *= scale);
        let before = self.max[i];
        let max = isa.max(&[before, isa.max(scores)]);
        let kept = kiln_plan::math::exp(before - max);
        self.max[i] = max;
        self.total[i] = self.total[i] * kept + isa.exp_sum(scores, max);
        kept
    }
}
