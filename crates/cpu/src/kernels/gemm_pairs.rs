//! Matmul for many tokens by products of bf16. Codes are exact in bf16; so are the weights of
//! formats without biases, and a float as a sum of up to three. Products are exact in f32, so
//! nothing is rounded but their sums. A group's scale and bias, which do not fit, meet its sum.

use super::gemm::{DEPTH, Products};
use crate::simd::{Isa, PairBlock, Pairs, Scaled, Turn, Weights};
use kiln_array::{DType, Format};
use std::ops::Range;

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

/// The planes of a panel in scratch memory.
struct Room<'a> {
    rows: &'a mut [f32],
    panel: &'a mut [f32],
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
        self.k.next_multiple_of(PIECE)
    }

    fn groups(&self) -> usize {
        self.format.map_or(0, |format| self.k / format.group())
    }

    fn sizes(&self) -> [usize; 4] {
        let columns = self.tile().1;
        let groups = self.format.map_or(0, |format| DEPTH / format.group());
        [
            columns * (DEPTH / 2 + GAP),
            columns * DEPTH / 2,
            columns * groups,
            columns * groups,
        ]
    }

    fn cut<'a>(&self, room: &'a mut [f32]) -> Room<'a> {
        let sizes = self.sizes();
        let (rows, room) = room.split_at_mut(sizes[0]);
        let (panel, room) = room.split_at_mut(sizes[1]);
        let (scales, room) = room.split_at_mut(sizes[2]);
        Room {
            rows,
            panel,
            scales,
            biases: &mut room[..sizes[3]],
        }
    }

    /// The groups that inputs are.
    fn inside(format: Format, inputs: &Range<usize>) -> Range<usize> {
        inputs.start / format.group()..inputs.end / format.group()
    }
}

impl Products for Halves {
    fn tile(&self) -> (usize, usize) {
        self.pairs.tile()
    }

    fn stride(&self) -> usize {
        let floats = self.terms * self.term() / 2 + self.groups();
        floats.next_multiple_of(2 * GAP) + GAP
    }

    fn pack(&self, dtype: DType, x: &[u8], row: &mut [f32]) {
        let (halves, sums) = row.split_at_mut(self.terms * self.term() / 2);
        let halves: &mut [u16] = bytemuck::cast_slice_mut(halves);
        let mut wide = [0.0; DEPTH];
        for start in (0..self.term()).step_by(DEPTH) {
            let end = (start + DEPTH).min(self.term());
            let (wide, inputs) = (&mut wide[..end - start], start..end.min(self.k));
            let (given, rest) = wide.split_at_mut(inputs.len());
            let bytes = dtype.row_bytes(inputs.start)..dtype.row_bytes(inputs.end);
            self.isa.widen(dtype, &x[bytes], given);
            rest.fill(0.0);
            if let Some(format) = self.format {
                let sums = &mut sums[Halves::inside(format, &inputs)];
                for (sum, group) in sums.iter_mut().zip(given.chunks(format.group())) {
                    *sum = self.isa.sum(group);
                }
            }
            for term in halves.chunks_exact_mut(self.term()) {
                split(wide, &mut term[start..end]);
            }
        }
    }

    fn room(&self) -> usize {
        self.sizes().iter().sum()
    }

    fn column(&self, column: usize, row: Weights<'_>, inputs: Range<usize>, room: &mut [f32]) {
        let columns = self.tile().1;
        let room = self.cut(room);
        let out = &mut room.rows[column * (DEPTH / 2 + GAP)..][..DEPTH / 2];
        let out: &mut [u16] = bytemuck::cast_slice_mut(out);
        let (out, rest) = out.split_at_mut(inputs.len());
        let to_piece = inputs.len().next_multiple_of(PIECE) - inputs.len();
        rest[..to_piece].fill(0);
        match (self.format, row.dtype) {
            (Some(format), _) => {
                let bits = format.bits();
                let bytes = inputs.start * bits / 8..inputs.end * bits / 8;
                self.pairs.codes(bits, &row.data[bytes], out);
                for (number, group) in Halves::inside(format, &inputs).enumerate() {
                    room.scales[number * columns + column] = format.scale(row.scales, group);
                    room.biases[number * columns + column] = format.scale(row.biases, group);
                }
            }
            (None, DType::BF16) => {
                let bytes = &row.data[2 * inputs.start..2 * inputs.end];
                bytemuck::cast_slice_mut(out).copy_from_slice(bytes);
            }
            (None, _) => {
                let mut wide = [0.0; DEPTH];
                let wide = &mut wide[..inputs.len()];
                self.isa.dequantise(row, inputs.start, wide);
                split(wide, out);
            }
        }
    }

    fn panel(&self, inputs: Range<usize>, room: &mut [f32]) {
        let room = self.cut(room);
        let turn = Turn {
            rows: bytemuck::cast_slice(room.rows),
            stride: DEPTH / 2 + GAP,
            columns: self.tile().1,
            words: inputs.len().next_multiple_of(PIECE) / 2,
        };
        self.isa.turn(turn, bytemuck::cast_slice_mut(room.panel));
    }

    fn multiply(
        &self,
        x: &[f32],
        inputs: Range<usize>,
        room: &[f32],
        out: &mut [f32],
        out_stride: usize,
    ) {
        let sizes = self.sizes();
        let (_, room) = room.split_at(sizes[0]);
        let (panel, room) = room.split_at(sizes[1]);
        let (scales, biases) = room.split_at(sizes[2]);
        let groups = self.format.map(|format| Scaled {
            group: format.group() / 2,
            scales,
            biases,
            sums: &x[self.terms * self.term() / 2 + inputs.start / format.group()..],
            stride: self.stride(),
        });
        let block = PairBlock {
            rows: x.len() / self.stride(),
            x: &bytemuck::cast_slice(x)[inputs.start..],
            stride: 2 * self.stride(),
            terms: self.terms,
            term: self.term(),
            panel: bytemuck::cast_slice(panel),
            pairs: inputs.len().next_multiple_of(PIECE) / 2,
            groups,
            add: inputs.start > 0,
            out_stride,
        };
        self.pairs.multiply(block, out);
    }
}

/// The leading bf16 of floats; what they leave remains. Of what is not finite nothing remains.
fn split(values: &mut [f32], out: &mut [u16]) {
    for (value, out) in values.iter_mut().zip(out) {
        let quiet = if value.is_nan() { 0x0040_0000 } else { 0 };
        let high = (value.to_bits() | quiet) & 0xffff_0000;
        *out = (high >> 16) as u16;
        let rest = *value - f32::from_bits(high);
        *value = if rest.is_nan() { 0.0 } else { rest };
    }
}
