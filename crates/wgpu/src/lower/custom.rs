//! `Custom`: an element's text from outside.

use super::{Dispatch, Lowering, Place, groups, per_word};
use crate::expr::type_of;
use crate::source::{CUSTOM, Kernel};
use kiln_plan::{Custom, Operand, Result, Spec};

impl Lowering<'_> {
    pub(super) fn custom(
        &mut self,
        custom: &Custom,
        inputs: &[Operand],
        output: &Operand,
    ) -> Result<()> {
        let specs: Vec<Spec> = inputs.iter().map(Operand::spec).collect();
        let body = custom.wgsl(&specs).ok_or_else(|| {
            let name = custom.0.name();
            self.context.failed(format!("{name} has no kernel"))
        })?;
        let (dtype, count) = (output.dtype, output.layout.shape().elements());
        let mut kernel = Kernel::new(CUSTOM)
            .set("BODY", body)
            .set("Y", dtype)
            .set("PER", per_word(dtype))
            .set("INPUTS", inputs.len());
        let mut parameters = vec![count as u32];
        let mut operands = vec![Place::Slot(output.slot, 0)];
        let mut bytes = output.spec().bytes();
        for (i, input) in inputs.iter().enumerate() {
            kernel = kernel
                .set(format!("X{i}"), input.dtype)
                .set(format!("TYPE{i}"), type_of(input.dtype.kind()))
                .set(format!("BINDING{i}"), i + 1);
            parameters.push(input.layout.offset() as u32);
            operands.push(self.place(input)?);
            bytes += input.spec().bytes();
        }
        self.push(Dispatch {
            kernel,
            operands,
            parameters,
            groups: groups(count, dtype, 64),
            work: bytes as u64,
        });
        Ok(())
    }
}
