//! `Reduce` and `ArgMax`: something of every row.

use super::{Dispatch, Lowering, Place, groups, per_word};
use crate::expr::type_of;
use crate::source::Kernel;
use kiln_plan::{Operand, Reduce, Result};

/// Rows at least this long are worth a workgroup.
const LONG: usize = 64;

impl Lowering<'_> {
    pub(super) fn reduce(
        &mut self,
        kind: Reduce,
        axis: usize,
        input: &Operand,
        output: &Operand,
    ) -> Result<()> {
        let shape = input.layout.shape();
        let (length, count) = (shape[axis], output.layout.shape().elements());
        let inner: usize = shape[axis + 1..].iter().product();
        let kind = match kind {
            Reduce::Sum => "sum",
            Reduce::Max => "max",
            Reduce::Mean => "mean",
        };
        let dtype = input.dtype;
        let kernel = |file| {
            Kernel::new(file)
                .set("KIND", kind)
                .set("X", dtype)
                .set("TYPE", type_of(dtype.kind()))
                .set("PER", per_word(dtype))
        };
        let offset = input.layout.offset() as u32;
        let from = self.place(input)?;
        let work = input.spec().bytes() as u64;
        if inner > 1 || length < LONG {
            self.push(Dispatch {
                kernel: kernel("reduce"),
                operands: vec![Place::Slot(output.slot, 0), from],
                parameters: vec![count as u32, length as u32, inner as u32, offset],
                groups: groups(count, dtype, 64),
                work,
            });
            return Ok(());
        }
        let target = self.wide_target(output);
        self.push(Dispatch {
            kernel: kernel("reduce_rows"),
            operands: vec![target.place, from],
            parameters: vec![count as u32, length as u32, offset],
            groups: count as u32,
            work,
        });
        self.pack(&target, output)
    }

    pub(super) fn argmax(&mut self, input: &Operand, output: &Operand) -> Result<()> {
        let length = input.layout.shape().last_axis();
        let count = output.layout.shape().elements();
        let dispatch = Dispatch {
            kernel: Kernel::new("argmax")
                .set("X", input.dtype)
                .set("TYPE", type_of(input.dtype.kind())),
            operands: vec![Place::Slot(output.slot, 0), self.place(input)?],
            parameters: vec![count as u32, length as u32, input.layout.offset() as u32],
            groups: count as u32,
            work: input.spec().bytes() as u64,
        };
        self.push(dispatch);
        Ok(())
    }
}
