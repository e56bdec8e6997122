//! `Matmul`: which way it is computed, how its vectors are stored for that, and what happens to
//! the products.

use super::gemm::{Gemm, Pack, Products};
use super::gemm_bytes::Bytes;
use super::gemm_floats::Floats;
use super::gemm_pairs::Halves;
use super::map::Interpreter;
use super::matvec::{Arrange, Matvec};
use super::{Kernel, Table};
use crate::Precision;
use crate::memory::{Memory, Rows};
use crate::simd::{Isa, Weights};
use kiln_plan::{DType, Expr, Operand};

/// Up to this many tokens, a block of weights is used once for each of them while it is in a near
/// cache; more are worth making panels of weights. Measured on Granite Rapids with SmolLM2 and all of
/// its tables.
fn few(weights: DType) -> usize {
    match weights {
        DType::Quantised(_) => 8,
        _ => TOGETHER,
    }
}

/// Tokens that are few whatever the weights are: each has the bits that it has alone.
pub(crate) const TOGETHER: usize = 5;

/// The sizes of a matmul: `batch` times `x[t, k] · w[n, k]ᵀ`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) t: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

impl Sizes {
    fn new(x: &Operand, w: &Operand) -> Sizes {
        let (x, w) = (x.layout.shape(), w.layout.shape());
        let rows: usize = x.iter().rev().skip(1).product();
        let batch = w.iter().rev().skip(2).product();
        Sizes {
            batch,
            t: rows / usize::max(batch, 1),
            n: w[w.len() - 2],
            k: w.last_axis(),
        }
    }
}

/// How the vectors lie in scratch memory: what two matmuls must agree on to share them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Prepared {
    x: Operand,
    batch: usize,
    way: Way,
}

impl Prepared {
    /// Whether this is made from slot `slot`.
    pub(crate) fn reads(&self, slot: u32) -> bool {
        self.x.slot == slot
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// One after the other, in the order that mat-vec wants, with sums over groups of this size.
    Arranged(crate::simd::Order, Option<usize>),
    /// One after the other, as `Floats` wants them.
    Floats,
    /// One after the other, as `Halves` wants them, with sums over groups of this size.
    Halves(Option<usize>),
    /// One after the other, as `Bytes` wants them, in groups of this size.
    Bytes(Option<usize>),
}

/// A matmul as kernels: the vectors' preparation, which may be shared, and the products.
pub(crate) struct Lowered {
    /// What `prepare` leaves in the scratch slot.
    pub(crate) prepared: Prepared,
    /// Bytes of the scratch slot.
    pub(crate) scratch: usize,
    /// Fills the scratch slot.
    pub(crate) prepare: Box<dyn Kernel>,
    /// Reads it.
    pub(crate) products: Box<dyn Kernel>,
    /// Whether vectors are rounded.
    pub(crate) rounds: bool,
}

/// Lowers a matmul of `inputs` (x, weights, and the epilogue's other operands) to `output`, with
/// vectors prepared in slot `scratch`; `by_blocks` where the weights' rows are those of their slot.
pub(crate) fn lower(
    (isa, precision): (&'static Isa, Precision),
    epilogue: Option<&Expr>,
    inputs: &[Operand],
    output: &Operand,
    (scratch, by_blocks): (u32, bool),
) -> Lowered {
    let [x, w] = [inputs[0], inputs[1]];
    let sizes = Sizes::new(&x, &w);
    let finish = Finish::new(isa, epilogue, inputs, output, sizes.n);
    let weights = Stored::new(&w, sizes, by_blocks);
    let input = Table::new(&x);
    let group = match w.dtype {
        DType::Quantised(format) if format.has_biases() => Some(format.group()),
        _ => None,
    };
    let prepared = |way| Prepared {
        x,
        batch: sizes.batch,
        way,
    };
    if sizes.t > few(w.dtype) {
        let parts = (input, sizes, weights, finish, scratch);
        let fast = (precision == Precision::Fast).then(|| Bytes::new(isa, sizes.k, w.dtype));
        if let Some(bytes) = fast.flatten() {
            let lowered = many(prepared(Way::Bytes(group)), bytes, parts);
            return Lowered {
                rounds: true,
                ..lowered
            };
        }
        return match Halves::new(isa, sizes.k, x.dtype, w.dtype) {
            Some(halves) => many(prepared(Way::Halves(group)), halves, parts),
            None => many(prepared(Way::Floats), Floats { isa, k: sizes.k }, parts),
        };
    }
    let order = isa.order(w.dtype, x.dtype);
    let arrange = Arrange::new(isa, input, order, group, scratch);
    let few = arrange.few();
    Lowered {
        prepared: prepared(Way::Arranged(order, group)),
        scratch: arrange.bytes(),
        prepare: Box::new(arrange),
        products: Box::new(Matvec::new(isa, sizes, weights, few, finish)),
        rounds: false,
    }
}

/// A matmul for many tokens.
fn many<P: Products + Copy + 'static>(
    prepared: Prepared,
    products: P,
    (input, sizes, weights, finish, slot): (Table, Sizes, Stored, Finish, u32),
) -> Lowered {
    let pack = Pack::new(products, input, sizes, slot);
    Lowered {
        prepared,
        scratch: pack.bytes(),
        prepare: Box::new(pack),
        products: Box::new(Gemm::new(products, sizes, weights, finish, slot)),
        rounds: false,
    }
}

/// Where the weights are.
#[derive(Clone, Copy)]
pub(crate) struct Stored {
    slot: u32,
    dtype: DType,
    k: usize,
    first: usize,
    by_blocks: bool,
}

impl Stored {
    fn new(w: &Operand, sizes: Sizes, by_blocks: bool) -> Stored {
        // A view of weights cuts whole rows off.
        let first = w.layout.offset() / sizes.k.max(1);
        Stored {
            slot: w.slot,
            dtype: w.dtype,
            k: sizes.k,
            first,
            by_blocks,
        }
    }

    /// The weights' dtype.
    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    /// Calls `each` with the blocks that rows `from..to` lie in: their number counted from
    /// `from`, how many, and the rows.
    pub(crate) fn blocks(
        &self,
        memory: &Memory<'_>,
        from: usize,
        to: usize,
        mut each: impl FnMut(usize, usize, Weights<'_>),
    ) {
        let mut at = from;
        while at < to {
            let rows = memory.rows(self.slot, self.first + at, self.by_blocks);
            let end = rows.end.saturating_sub(self.first).min(to);
            debug_assert!(end > at, "rows inside the weights");
            each(
                at - from,
                end - at,
                self.cut(rows, self.first + at, end - at),
            );
            at = end;
        }
    }

    fn cut<'m>(&self, rows: Rows<'m>, from: usize, count: usize) -> Weights<'m> {
        let (data, scale) = match self.dtype {
            DType::Quantised(format) => (format.code_row(self.k), format.scale_row(self.k)),
            plain => (plain.row_bytes(self.k), 0),
        };
        let at = from - rows.first;
        let cut = |plane: &'m [u8], bytes: usize| -> &'m [u8] {
            if plane.is_empty() {
                plane
            } else {
                &plane[at * bytes..(at + count) * bytes]
            }
        };
        Weights {
            dtype: self.dtype,
            k: self.k,
            data: cut(rows.data, data),
            scales: cut(rows.scales, scale),
            biases: cut(rows.biases, scale),
        }
    }
}

/// What happens to the products: they are rounded, the epilogue is applied, and they are stored.
pub(crate) struct Finish {
    isa: &'static Isa,
    product: DType,
    epilogue: Option<Interpreter>,
    output: Operand,
    n: usize,
}

impl Finish {
    fn new(
        isa: &'static Isa,
        epilogue: Option<&Expr>,
        inputs: &[Operand],
        output: &Operand,
        n: usize,
    ) -> Finish {
        let product = product(inputs[0].dtype, inputs[1].dtype);
        let shape = output.layout.shape();
        let operands: Vec<Option<Operand>> = std::iter::once(None)
            .chain(inputs[2..].iter().copied().map(Some))
            .collect();
        let epilogue = epilogue.map(|expr| Interpreter::new(isa, expr, &operands, product, shape));
        Finish {
            isa,
            product,
            epilogue,
            output: *output,
            n,
        }
    }

    /// Registers of scratch that [`Finish::row`] needs.
    pub(crate) fn room(&self) -> usize {
        self.epilogue.as_ref().map_or(0, Interpreter::room)
    }

    /// Stores the products of result row `row` from column `column` on.
    pub(crate) fn row(
        &self,
        memory: &Memory<'_>,
        row: usize,
        column: usize,
        values: &mut [f32],
        room: &mut [f32],
    ) {
        let from = row * self.n + column;
        let dtype = self.output.dtype;
        let bytes = dtype.row_bytes(from)..dtype.row_bytes(from + values.len());
        let out = memory.write(self.output.slot, bytes);
        match &self.epilogue {
            None => self.isa.narrow(dtype, values, out),
            Some(epilogue) => {
                self.isa.round(self.product, values);
                let given = bytemuck::cast_slice(values);
                epilogue.run(memory, from, given, bytemuck::cast_slice_mut(room), out);
            }
        }
    }
}

/// The dtype of the products, as `Op::infer` has it.
fn product(x: DType, w: DType) -> DType {
    let weights = match w {
        DType::Quantised(format) if format.has_biases() => format.dequantised(),
        DType::Quantised(_) => x,
        plain => plain,
    };
    x.join(weights).unwrap_or(x)
}
