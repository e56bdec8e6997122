//! Scales and biases of the panels of a gemm whose tiles hold codes: they meet the sums of groups.

use super::gemm::{Block, DEPTH};
use crate::simd::{Isa, Weights};
use kiln_plan::Format;
use std::ops::Range;

/// Groups that a panel's inputs may have.
const GROUPS: usize = DEPTH / 32;

/// The groups of `depth` inputs from `start` on.
pub(super) fn inside(format: Format, start: usize, depth: usize) -> Range<usize> {
    start / format.group()..(start + depth) / format.group()
}

/// Floats of a plane: for each group of a panel's inputs all columns of all panels.
pub(super) fn plane(format: Format, columns: usize) -> usize {
    columns * (DEPTH / format.group())
}

/// Widens scales and biases of one weight row into column `column` of `columns` of both planes.
pub(super) fn widen(
    isa: &Isa,
    format: Format,
    block: Block,
    row: Weights<'_>,
    (column, columns): (usize, usize),
    planes: [&mut [f32]; 2],
) {
    let groups = inside(format, block.start, block.depth);
    let bytes = groups.start * format.scale_bytes()..groups.end * format.scale_bytes();
    for (plane, out) in [row.scales, row.biases].into_iter().zip(planes) {
        let mut wide = [0.0; GROUPS];
        let wide = &mut wide[..groups.len()];
        isa.widen(format.dequantised(), &plane[bytes.clone()], wide);
        for (out, value) in out[column..].iter_mut().step_by(columns).zip(wide) {
            *out = *value;
        }
    }
}

/// The sums of a vector's elements from `start` on over the groups that they fill.
pub(super) fn sums(isa: &Isa, format: Format, start: usize, x: &[f32], out: &mut [f32]) {
    let groups = inside(format, start, x.len());
    for (sum, group) in out[groups].iter_mut().zip(x.chunks(format.group())) {
        *sum = isa.sum(group);
    }
}
