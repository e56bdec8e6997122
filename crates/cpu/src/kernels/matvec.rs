//! Matmul for few tokens: every row of weights is read once, in place, one after the other.

use super::matmul::{Finish, Sizes, Stored};
use super::{Kernel, Table, with_scratch};
use crate::memory::Memory;
use crate::simd::{Elements, Isa, Order, Vector};
use std::ops::Range;

/// Weights of a unit.
const UNIT: usize = 32768;

/// Vectors in scratch memory: elements in a table's order, then their sums over groups.
#[derive(Clone, Copy)]
pub(crate) struct Few {
    slot: u32,
    order: Order,
    /// Floats that the elements take.
    elements: usize,
    sums: usize,
}

impl Few {
    fn stride(&self) -> usize {
        (self.elements + self.sums).next_multiple_of(16)
    }
}

/// Widens vectors and stores them as mat-vec wants them. A unit is a vector.
pub(crate) struct Arrange {
    isa: &'static Isa,
    input: Table,
    order: Order,
    group: Option<usize>,
    few: Few,
}

impl Arrange {
    /// The rows of `input` in `order`, with sums over groups of `group` elements if any, in slot
    /// `slot`.
    pub(crate) fn new(
        isa: &'static Isa,
        input: Table,
        order: Order,
        group: Option<usize>,
        slot: u32,
    ) -> Arrange {
        let elements = order.floats(input.n);
        let sums = group.map_or(0, |group| input.n.div_ceil(group).next_multiple_of(16));
        Arrange {
            isa,
            input,
            order,
            group,
            few: Few {
                slot,
                order,
                elements,
                sums,
            },
        }
    }

    /// Where the vectors are.
    pub(crate) fn few(&self) -> Few {
        self.few
    }

    /// Bytes of the vectors.
    pub(crate) fn bytes(&self) -> usize {
        4 * self.input.rows * self.few.stride()
    }
}

impl Kernel for Arrange {
    fn units(&self) -> usize {
        self.input.rows
    }

    fn cost(&self) -> usize {
        20 + self.input.n
    }

    fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
        let (k, stride) = (self.input.n, self.few.stride());
        with_scratch(k.next_multiple_of(self.order.piece()), |x| {
            for row in range {
                let out = memory.floats_mut(self.few.slot, row * stride..(row + 1) * stride);
                self.isa
                    .widen(self.input.dtype, self.input.read(memory, row), &mut x[..k]);
                x[k..].fill(0.0);
                let (out, sums) = out.split_at_mut(self.few.elements);
                match self.order.elements {
                    Elements::Floats => arrange(self.order, x, out, |x| x),
                    Elements::Halves => {
                        let out: &mut [u16] = bytemuck::cast_slice_mut(out);
                        arrange(self.order, x, out, |x| (x.to_bits() >> 16) as u16);
                    }
                    Elements::Integers(of) => self.isa.integers(self.order, of, x, out),
                }
                sums.fill(0.0);
                if let Some(group) = self.group {
                    for (sum, group) in sums.iter_mut().zip(x[..k].chunks(group)) {
                        *sum = self.isa.sum(group);
                    }
                }
            }
        });
    }
}

/// Elements in an order, each as `f` has it.
fn arrange<T>(order: Order, x: &[f32], out: &mut [T], f: impl Fn(f32) -> T) {
    let piece = order.piece();
    for (from, to) in x.chunks_exact(piece).zip(out.chunks_exact_mut(piece)) {
        match order.codes {
            1 => transpose::<1, T>(from, to, &f),
            2 => transpose::<2, T>(from, to, &f),
            4 => transpose::<4, T>(from, to, &f),
            8 => transpose::<8, T>(from, to, &f),
            16 => transpose::<16, T>(from, to, &f),
            _ => transpose::<32, T>(from, to, &f),
        }
    }
}

/// A matrix with `CODES` columns transposed.
fn transpose<const CODES: usize, T>(from: &[f32], to: &mut [T], f: impl Fn(f32) -> T) {
    let (rows, _) = from.as_chunks::<CODES>();
    for (code, column) in to.chunks_exact_mut(rows.len()).enumerate() {
        for (to, row) in column.iter_mut().zip(rows) {
            *to = f(row[code]);
        }
    }
}

/// The products of few vectors. A unit is a block of weight rows.
pub(crate) struct Matvec {
    isa: &'static Isa,
    sizes: Sizes,
    weights: Stored,
    few: Few,
    finish: Finish,
    rows: usize,
}

impl Matvec {
    /// The vectors `few` times `weights`.
    pub(crate) fn new(
        isa: &'static Isa,
        sizes: Sizes,
        weights: Stored,
        few: Few,
        finish: Finish,
    ) -> Matvec {
        let rows = (UNIT / sizes.k.max(1)).clamp(8, 512) / 8 * 8;
        Matvec {
            isa,
            sizes,
            weights,
            few,
            finish,
            rows,
        }
    }

    fn blocks(&self) -> usize {
        self.sizes.n.div_ceil(self.rows)
    }
}

impl Kernel for Matvec {
    fn units(&self) -> usize {
        if self.sizes.t == 0 {
            0
        } else {
            self.sizes.batch * self.blocks()
        }
    }

    fn cost(&self) -> usize {
        self.rows.min(self.sizes.n) * self.sizes.k * self.sizes.t / 10
    }

    fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
        let Sizes { t, n, .. } = self.sizes;
        let vectors = memory.floats(self.few.slot);
        let scales = Isa::matvec_room(self.weights.dtype(), self.sizes.k, self.rows);
        with_scratch(t * self.rows + scales + self.finish.room(), |scratch| {
            let (values, room) = scratch.split_at_mut(t * self.rows);
            let (scales, room) = room.split_at_mut(scales);
            for unit in range {
                let (batch, block) = (unit / self.blocks(), unit % self.blocks());
                let (from, to) = (block * self.rows, ((block + 1) * self.rows).min(n));
                let first = batch * n;
                self.weights
                    .blocks(memory, first + from, first + to, |at, count, weights| {
                        for token in 0..t {
                            let start = (batch * t + token) * self.few.stride();
                            let vector = &vectors[start..start + self.few.stride()];
                            let (x, sums) = vector.split_at(self.few.elements);
                            let out = &mut values[token * self.rows + at..][..count];
                            let vector = Vector {
                                x,
                                elements: self.few.order.elements,
                                sums: &sums[..self.few.sums],
                            };
                            self.isa.matvec(weights, vector, scales, out);
                        }
                    });
                for token in 0..t {
                    let values = &mut values[token * self.rows..][..to - from];
                    self.finish
                        .row(memory, batch * t + token, from, values, room);
                }
            }
        });
    }
}
