//! Matmul for many tokens in f32: weights are dequantised into panels.

use super::gemm::{DEPTH, Products};
use crate::simd::{Isa, Tile, Turn, Weights};
use kiln_array::DType;
use std::ops::Range;

/// Floats between the end of a row and the next: rows at a distance of a power of two would share
/// the same few lines of the nearest cache.
const GAP: usize = 16;

/// Vectors and weights of floats.
#[derive(Clone, Copy)]
pub(super) struct Floats {
    pub(super) isa: &'static Isa,
    /// Elements of a vector.
    pub(super) k: usize,
}

impl Floats {
    fn rows(&self) -> usize {
        self.tile().1 * (DEPTH + GAP)
    }
}

impl Products for Floats {
    fn tile(&self) -> (usize, usize) {
        self.isa.tile_size()
    }

    fn stride(&self) -> usize {
        self.k.next_multiple_of(2 * GAP) + GAP
    }

    fn pack(&self, dtype: DType, x: &[u8], row: &mut [f32]) {
        self.isa.widen(dtype, x, &mut row[..self.k]);
    }

    fn room(&self) -> usize {
        self.rows() + self.tile().1 * DEPTH
    }

    fn column(&self, column: usize, row: Weights<'_>, inputs: Range<usize>, room: &mut [f32]) {
        let out = &mut room[column * (DEPTH + GAP)..][..inputs.len()];
        self.isa.dequantise(row, inputs.start, out);
    }

    fn panel(&self, inputs: Range<usize>, room: &mut [f32]) {
        let (rows, panel) = room.split_at_mut(self.rows());
        let turn = Turn {
            rows: bytemuck::cast_slice(rows),
            stride: DEPTH + GAP,
            columns: self.tile().1,
            words: inputs.len(),
        };
        self.isa.turn(turn, bytemuck::cast_slice_mut(panel));
    }

    fn multiply(
        &self,
        x: &[f32],
        inputs: Range<usize>,
        room: &[f32],
        out: &mut [f32],
        out_stride: usize,
    ) {
        let (rows, stride) = (self.tile().0, self.stride());
        for first in (0..x.len() / stride).step_by(rows) {
            let tile = Tile {
                k: inputs.len(),
                rows: &x[first * stride + inputs.start..],
                stride,
                panel: &room[self.rows()..],
                add: inputs.start > 0,
                out_stride,
            };
            self.isa.tile(tile, &mut out[first * out_stride..]);
        }
    }
}
