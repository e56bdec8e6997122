//! Matmul for many tokens by products of bytes: codes as they are, and vectors rounded to multiples
//! of a unit, one for each group of their elements. What biases meet is the sum of the elements
//! themselves. Only for who has allowed it (`Precision::Fast`).

use super::gemm::{Block, DEPTH, Products};
use super::gemm_scales as groups;
use crate::simd::{Isa, PairBlock, Quads, Scaled, Turn, Weights};
use kiln_plan::{DType, Format, Mode};

/// As in `gemm_floats`.
const GAP: usize = 16;

/// Vectors and weights of bytes.
#[derive(Clone, Copy)]
pub(super) struct Bytes {
    isa: &'static Isa,
    quads: &'static Quads,
    /// Elements of a vector.
    k: usize,
    /// The weights' format.
    format: Format,
}

impl Bytes {
    /// For vectors of `k` elements and weights of dtype `w`, where tiles serve these.
    pub(super) fn new(isa: &'static Isa, k: usize, w: DType) -> Option<Bytes> {
        let quads = isa.quads()?;
        let DType::Quantised(format) = w else {
            return None;
        };
        // Tiles sum up 64 inputs at a time.
        let served = format.mode() == Mode::Affine && format.group().is_multiple_of(64);
        served.then_some(Bytes {
            isa,
            quads,
            k,
            format,
        })
    }

    fn groups(&self) -> usize {
        self.k / self.format.group()
    }

    /// Where the units begin in a stored tile, and where the sums do.
    fn planes(&self) -> [usize; 2] {
        let rows = self.tile().0;
        let units = rows * self.k / 4;
        [units, units + rows * self.groups()]
    }

    /// Floats of the next panel's columns, the panels, their scales and their biases.
    fn sizes(&self, panels: usize) -> [usize; 4] {
        let columns = self.tile().1;
        let plane = groups::plane(self.format, panels * columns);
        [
            columns * (DEPTH / 4 + GAP),
            panels * columns * DEPTH / 4,
            plane,
            plane,
        ]
    }
}

impl Products for Bytes {
    fn tile(&self) -> (usize, usize) {
        self.quads.tile()
    }

    fn stored(&self) -> usize {
        let rows = self.tile().0;
        (self.planes()[1] + rows * self.groups()).next_multiple_of(16)
    }

    fn pack(&self, row: usize, x: Option<(DType, &[u8])>, tile: &mut [f32]) {
        let (rows, [units, sums]) = (self.tile().0, self.planes());
        let (bytes, planes) = tile.split_at_mut(units);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(bytes);
        let (units, sums) = planes.split_at_mut(sums - units);
        let here = row * self.groups()..(row + 1) * self.groups();
        let (units, sums) = (&mut units[here.clone()], &mut sums[here]);
        let mut wide = [0.0; DEPTH];
        for start in (0..self.k).step_by(DEPTH) {
            let depth = DEPTH.min(self.k - start);
            let wide = &mut wide[..depth];
            match x {
                None => wide.fill(0.0),
                Some((dtype, x)) => {
                    let bytes = dtype.row_bytes(start)..dtype.row_bytes(start + depth);
                    self.isa.widen(dtype, &x[bytes], wide);
                }
            }
            groups::sums(self.isa, self.format, start, wide, sums);
            let units = &mut units[groups::inside(self.format, start, depth)];
            let bytes = &mut bytes[rows * start + row * depth..][..depth];
            let group = self.format.group();
            let parts = wide.chunks(group).zip(bytes.chunks_mut(group));
            for (unit, (x, out)) in units.iter_mut().zip(parts) {
                *unit = self.quads.whole(x, out);
            }
        }
    }

    fn room(&self, panels: usize) -> usize {
        self.sizes(panels).iter().sum()
    }

    fn column(&self, block: Block, at: (usize, usize), row: Weights<'_>, room: &mut [f32]) {
        let (panel, column) = at;
        let (columns, sizes) = (self.tile().1, self.sizes(block.panels));
        let (rows, room) = room.split_at_mut(sizes[0] + sizes[1]);
        let (scales, biases) = room.split_at_mut(sizes[2]);
        let out: &mut [u8] = bytemuck::cast_slice_mut(&mut rows[column * (DEPTH / 4 + GAP)..]);
        let bits = self.format.bits();
        let bytes = block.start * bits / 8..(block.start + block.depth) * bits / 8;
        self.quads
            .codes(bits, &row.data[bytes], &mut out[..block.depth]);
        let place = (panel * columns + column, block.panels * columns);
        groups::widen(self.isa, self.format, block, row, place, [scales, biases]);
    }

    fn panel(&self, block: Block, panel: usize, room: &mut [f32]) {
        let columns = self.tile().1;
        let (rows, panels) = room.split_at_mut(self.sizes(block.panels)[0]);
        let turn = Turn {
            rows: bytemuck::cast_slice(rows),
            stride: DEPTH / 4 + GAP,
            columns,
            words: block.depth / 4,
        };
        let panel = &mut panels[panel * columns * DEPTH / 4..];
        self.isa.turn(turn, bytemuck::cast_slice_mut(panel));
    }

    fn multiply(&self, block: Block, x: &[f32], room: &[f32], out: &mut [f32], stride: usize) {
        let ((rows, columns), sizes) = (self.tile(), self.sizes(block.panels));
        let (_, room) = room.split_at(sizes[0]);
        let (panels, room) = room.split_at(sizes[1]);
        let (scales, biases) = room.split_at(sizes[2]);
        let [units, sums] = self.planes();
        let first = block.start / self.format.group();
        let block = PairBlock {
            tiles: x.len() / self.stored().max(1),
            x: &bytemuck::cast_slice(x)[rows * block.start / 2..],
            tile: 2 * self.stored(),
            stride: block.depth / 2,
            term: 0,
            terms: 1,
            panels: block.panels,
            panel: bytemuck::cast_slice(panels),
            panel_stride: columns * DEPTH / 4,
            pairs: block.depth / 4,
            groups: Some(Scaled {
                group: self.format.group() / 4,
                scales,
                biases,
                sums: &x[sums + first..],
                units: Some(&x[units + first..]),
                tile: self.stored(),
                stride: self.groups(),
            }),
            add: block.start > 0,
            out_stride: stride,
        };
        self.quads.multiply(block, out);
    }
}
