//! Matmul for many tokens in f32: weights are dequantised into panels.

use super::gemm::{Block, DEPTH, Products};
use crate::simd::{Isa, Tile, Turn, Weights};
use kiln_plan::DType;

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
    /// Floats of a panel's columns before they are turned.
    fn columns(&self) -> usize {
        self.tile().1 * (DEPTH + GAP)
    }
}

impl Products for Floats {
    fn tile(&self) -> (usize, usize) {
        self.isa.tile_size()
    }

    fn stored(&self) -> usize {
        (self.tile().0 * self.k).next_multiple_of(16)
    }

    fn pack(&self, row: usize, x: Option<(DType, &[u8])>, tile: &mut [f32]) {
        for start in (0..self.k).step_by(DEPTH) {
            let depth = DEPTH.min(self.k - start);
            let out = &mut tile[self.tile().0 * start + row * depth..][..depth];
            match x {
                None => out.fill(0.0),
                Some((dtype, x)) => {
                    let bytes = dtype.row_bytes(start)..dtype.row_bytes(start + depth);
                    self.isa.widen(dtype, &x[bytes], out);
                }
            }
        }
    }

    fn room(&self, panels: usize) -> usize {
        self.columns() + panels * self.tile().1 * DEPTH
    }

    fn column(&self, block: Block, at: (usize, usize), row: Weights<'_>, room: &mut [f32]) {
        let out = &mut room[at.1 * (DEPTH + GAP)..][..block.depth];
        self.isa.dequantise(row, block.start, out);
    }

    fn panel(&self, block: Block, panel: usize, room: &mut [f32]) {
        let (rows, panels) = room.split_at_mut(self.columns());
        let columns = self.tile().1;
        let turn = Turn {
            rows: bytemuck::cast_slice(rows),
            stride: DEPTH + GAP,
            columns,
            words: block.depth,
        };
        let panel = &mut panels[panel * columns * DEPTH..];
        self.isa.turn(turn, bytemuck::cast_slice_mut(panel));
    }

    fn multiply(&self, block: Block, x: &[f32], room: &[f32], out: &mut [f32], stride: usize) {
        let (rows, columns) = self.tile();
        for (number, x) in x.chunks_exact(self.stored().max(1)).enumerate() {
            for panel in 0..block.panels {
                let tile = Tile {
                    k: block.depth,
                    rows: &x[rows * block.start..],
                    stride: block.depth,
                    panel: &room[self.columns() + panel * columns * DEPTH..],
                    add: block.start > 0,
                    out_stride: stride,
                };
                let at = number * rows * stride + panel * columns;
                self.isa.tile(tile, &mut out[at..]);
            }
        }
    }
}
