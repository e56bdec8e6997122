//! `Rope`: rotary position embedding, in place.

use super::{Kernel, index, with_scratch};
use crate::memory::Memory;
use crate::simd::Isa;
use kiln_plan::{DType, Operand, Pairing, math};
use std::ops::Range;

/// The kernel of `Op::Rope`. A unit is a token.
pub(crate) struct Rope {
    isa: &'static Isa,
    pairing: Pairing,
    heads: usize,
    scale: f32,
    output: Operand,
    positions: Operand,
    frequencies: Operand,
}

impl Rope {
    /// The first `heads` heads of `operands[0]` turned. `operands` are x, positions, frequencies.
    pub(crate) fn new(
        isa: &'static Isa,
        (pairing, heads, scale): (Pairing, u32, f32),
        operands: &[Operand],
        output: &Operand,
    ) -> Rope {
        debug_assert_eq!(
            operands[0].slot, output.slot,
            "an updating step works in place"
        );
        Rope {
            isa,
            pairing,
            heads: heads as usize,
            scale,
            output: *output,
            positions: operands[1],
            frequencies: operands[2],
        }
    }

    fn pairs(&self) -> usize {
        self.frequencies.layout.shape().elements()
    }

    fn angles(&self, memory: &Memory<'_>, token: usize, cos: &mut [f32], sin: &mut [f32]) {
        let offset = self.positions.layout.offset();
        let position = index(memory.read(self.positions.slot), offset + token) as f32;
        let from = DType::F32.row_bytes(self.frequencies.layout.offset());
        let bytes = &memory.read(self.frequencies.slot)[from..];
        self.isa.widen(DType::F32, &bytes[..4 * cos.len()], cos);
        for (cos, sin) in cos.iter_mut().zip(sin) {
            (*sin, *cos) = math::sin_cos(position * *cos);
        }
    }

    fn turn(&self, head: &mut [f32], cos: &[f32], sin: &[f32]) {
        let pairs = cos.len();
        let turned = |a: f32, b: f32, i: usize| {
            let (x, y) = (a * cos[i] - b * sin[i], a * sin[i] + b * cos[i]);
            (self.scale * x, self.scale * y)
        };
        match self.pairing {
            Pairing::Halves => {
                let (first, second) = head.split_at_mut(pairs);
                for (i, (a, b)) in first.iter_mut().zip(second).take(pairs).enumerate() {
                    (*a, *b) = turned(*a, *b, i);
                }
            }
            Pairing::Neighbours => {
                let (neighbours, _) = head.as_chunks_mut::<2>();
                for (i, [a, b]) in neighbours.iter_mut().take(pairs).enumerate() {
                    (*a, *b) = turned(*a, *b, i);
                }
            }
        }
    }
}

impl Kernel for Rope {
    fn units(&self) -> usize {
        let shape = self.output.layout.shape();
        if self.heads * self.pairs() == 0 {
            0
        } else {
            shape[0]
        }
    }

    fn cost(&self) -> usize {
        5 * self.pairs() + self.heads * self.output.layout.shape()[2]
    }

    fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
        let shape = self.output.layout.shape();
        let (dtype, size) = (self.output.dtype, shape[2]);
        let (token, turning, pairs) = (shape[1] * size, self.heads * size, self.pairs());
        with_scratch(turning + 2 * pairs, |room| {
            let (heads, angles) = room.split_at_mut(turning);
            let (cos, sin) = angles.split_at_mut(pairs);
            for i in range {
                self.angles(memory, i, cos, sin);
                let bytes = dtype.row_bytes(i * token)..dtype.row_bytes(i * token + turning);
                let bytes = memory.write(self.output.slot, bytes);
                self.isa.widen(dtype, bytes, heads);
                for head in heads.chunks_exact_mut(size) {
                    self.turn(head, cos, sin);
                }
                self.isa.narrow(dtype, heads, bytes);
            }
        });
    }
}
