//! Matmul for many tokens by products of bf16. Codes are exact in bf16; so are the weights of
//! formats without biases, and a float as a sum of up to three. Products are exact in f32, so
//! nothing is rounded but their sums. A group's scale and bias, which do not fit, meet its sum.
//! An infinite weight that meets a float of several parts gives NaN, because some of these are 0.

use super::gemm::{Block, DEPTH, Products};
use super::gemm_scales as groups;
use crate::simd::{Isa, PairBlock, Pairs, Scaled, Turn, Weights};
use kiln_plan::{DType, Format};

/// As in `gemm_floats`.
const GAP: usize = 16;
/// Elements that lengths are filled up to with zeros.
const PIECE: usize = 32;

/// Vectors and weights of bf16.
#[derive(Clone, Copy)]
pub(super) struct Halves {
    isa: &'static Isa,
    pairs: &'static Pairs,
    /// Elements of a vector.
    k: usize,
    /// Into how many bf16 they are split.
    terms: usize,
    /// The weights' format, if groups have scales and biases of their own.
    format: Option<Format>,
}

/// The planes of some panels in scratch memory.
struct Room<'a> {
    /// The columns of the next panel.
    columns: &'a mut [f32],
    panels: &'a mut [f32],
    scales: &'a mut [f32],
    biases: &'a mut [f32],
}

impl Halves {
    /// For vectors of `k` elements of dtype `x` and weights of dtype `w`, where this is exact and
    /// faster than products of floats.
    pub(super) fn new(isa: &'static Isa, k: usize, x: DType, w: DType) -> Option<Halves> {
        let pairs = isa.pairs()?;
        let terms = match x {
            DType::BF16 => 1,
            DType::F16 => 2,
            _ => 3,
        };
        let format = match w {
            DType::Quantised(format) => Some(format).filter(|format| format.has_biases()),
            DType::BF16 => None,
            _ => return None,
        };
        (terms <= pairs.terms()).then_some(Halves {
            isa,
            pairs,
            k,
            terms,
            format,
        })
    }

    /// Elements of one term of a vector.
    fn term(&self) -> usize {
        padded(self.k)
    }

    fn groups(&self) -> usize {
        self.format.map_or(0, |format| self.k / format.group())
    }

    /// Floats of the planes of some panels.
    fn sizes(&self, panels: usize) -> [usize; 4] {
        let columns = self.tile().1;
        let plane = |format| groups::plane(format, panels * columns);
        let plane = self.format.map_or(0, plane);
        [
            columns * (DEPTH / 2 + GAP),
            panels * columns * DEPTH / 2,
            plane,
            plane,
        ]
    }

    fn cut<'a>(&self, panels: usize, room: &'a mut [f32]) -> Room<'a> {
        let sizes = self.sizes(panels);
        let (columns, room) = room.split_at_mut(sizes[0]);
        let (panels, room) = room.split_at_mut(sizes[1]);
        let (scales, room) = room.split_at_mut(sizes[2]);
        Room {
            columns,
            panels,
            scales,
            biases: &mut room[..sizes[3]],
        }
    }

    /// Where the rows' sums over groups begin in a stored tile.
    fn sums(&self) -> usize {
        self.tile().0 * self.terms * self.term() / 2
    }
}

impl Products for Halves {
    fn tile(&self) -> (usize, usize) {
        self.pairs.tile()
    }

    fn stored(&self) -> usize {
        (self.sums() + self.tile().0 * self.groups()).next_multiple_of(16)
    }

    fn pack(&self, row: usize, x: Option<(DType, &[u8])>, tile: &mut [f32]) {
        let rows = self.tile().0;
        let (halves, sums) = tile.split_at_mut(self.sums());
        let halves: &mut [u16] = bytemuck::cast_slice_mut(halves);
        let mut wide = [0.0; DEPTH];
        for start in (0..self.term()).step_by(DEPTH) {
            let padded = DEPTH.min(self.term() - start);
            let depth = padded.min(self.k - start);
            let wide = &mut wide[..padded];
            wide.fill(0.0);
            if let Some((dtype, x)) = x {
                let bytes = dtype.row_bytes(start)..dtype.row_bytes(start + depth);
                self.isa.widen(dtype, &x[bytes], &mut wide[..depth]);
            }
            if let Some(format) = self.format {
                let sums = &mut sums[row * self.groups()..(row + 1) * self.groups()];
                groups::sums(self.isa, format, start, &wide[..depth], sums);
            }
            let at = (rows * start + row * padded) * self.terms;
            for term in halves[at..at + self.terms * padded].chunks_exact_mut(padded) {
                self.pairs.split(wide, term);
            }
        }
    }

    fn room(&self, panels: usize) -> usize {
        self.sizes(panels).iter().sum()
    }

    fn column(
        &self,
        block: Block,
        (panel, column): (usize, usize),
        row: Weights<'_>,
        room: &mut [f32],
    ) {
        let columns = self.tile().1;
        let room = self.cut(block.panels, room);
        let out = &mut room.columns[column * (DEPTH / 2 + GAP)..][..DEPTH / 2];
        let out: &mut [u16] = bytemuck::cast_slice_mut(out);
        let (out, rest) = out.split_at_mut(block.depth);
        rest[..padded(block.depth) - block.depth].fill(0);
        match (self.format, row.dtype) {
            (Some(format), _) => {
                let bits = format.bits();
                let bytes = block.start * bits / 8..(block.start + block.depth) * bits / 8;
                self.pairs.codes(bits, &row.data[bytes], out);
                let place = (panel * columns + column, block.panels * columns);
                let planes = [room.scales, room.biases];
                groups::widen(self.isa, format, block, row, place, planes);
            }
            (None, DType::BF16) => {
                let bytes = &row.data[2 * block.start..2 * (block.start + block.depth)];
                bytemuck::cast_slice_mut(out).copy_from_slice(bytes);
            }
            (None, _) => {
                let mut wide = [0.0; DEPTH];
                let wide = &mut wide[..block.depth];
                self.isa.dequantise(row, block.start, wide);
                self.pairs.split(wide, out);
            }
        }
    }

    fn panel(&self, block: Block, panel: usize, room: &mut [f32]) {
        let columns = self.tile().1;
        let room = self.cut(block.panels, room);
        let turn = Turn {
            rows: bytemuck::cast_slice(room.columns),
            stride: DEPTH / 2 + GAP,
            columns,
            words: padded(block.depth) / 2,
        };
        let panel = &mut room.panels[panel * columns * DEPTH / 2..];
        self.isa.turn(turn, bytemuck::cast_slice_mut(panel));
    }

    fn multiply(&self, block: Block, x: &[f32], room: &[f32], out: &mut [f32], stride: usize) {
        let ((rows, columns), sizes) = (self.tile(), self.sizes(block.panels));
        let (_, room) = room.split_at(sizes[0]);
        let (panels, room) = room.split_at(sizes[1]);
        let (scales, biases) = room.split_at(sizes[2]);
        let padded = padded(block.depth);
        let groups = self.format.map(|format| Scaled {
            group: format.group() / 2,
            scales,
            biases,
            sums: &x[self.sums() + block.start / format.group()..],
            units: None,
            tile: self.stored(),
            stride: self.groups(),
        });
        let block = PairBlock {
            tiles: x.len() / self.stored().max(1),
            x: &bytemuck::cast_slice(x)[rows * self.terms * block.start..],
            tile: 2 * self.stored(),
            stride: self.terms * padded,
            term: padded,
            terms: self.terms,
            panels: block.panels,
            panel: bytemuck::cast_slice(panels),
            panel_stride: columns * DEPTH / 2,
            pairs: padded / 2,
            groups,
            add: block.start > 0,
            out_stride: stride,
        };
        self.pairs.multiply(block, out);
    }
}

/// So many elements filled up with zeros.
fn padded(depth: usize) -> usize {
    depth.next_multiple_of(PIECE)
}
