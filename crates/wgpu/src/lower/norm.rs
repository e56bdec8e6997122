//! `Softmax`, `RmsNorm` and `LayerNorm`: a workgroup for each row.

use super::{Dispatch, Lowering, per_word};
use crate::source::Kernel;
use kiln_plan::{Operand, Result};

impl Lowering<'_> {
    /// The lanes of a subgroup as a value for kernels: 0 where they must do without.
    pub(super) fn subgroup(&self) -> u32 {
        self.context.subgroup.unwrap_or(0)
    }

    pub(super) fn softmax(&mut self, input: &Operand, output: &Operand) -> Result<()> {
        let length = output.layout.shape().last_axis();
        let count = output.layout.shape().elements() / length;
        let target = self.target(output, length);
        self.push(Dispatch {
            kernel: Kernel::new("softmax")
                .set("X", input.dtype)
                .set("Y", target.dtype)
                .set("PER", per_word(target.dtype))
                .set("SUBGROUP", self.subgroup()),
            operands: vec![target.place, self.place(input)?],
            parameters: vec![count as u32, length as u32, input.layout.offset() as u32],
            groups: count as u32,
            work: 2 * input.spec().bytes() as u64,
        });
        self.pack(&target, output)
    }

    /// `inputs` are x, weight and, of a centred norm, bias.
    pub(super) fn norm(&mut self, eps: f32, inputs: &[Operand], output: &Operand) -> Result<()> {
        let length = output.layout.shape().last_axis();
        let count = output.layout.shape().elements() / length;
        let centred = inputs.len() > 2;
        let target = self.target(output, length);
        let mut kernel = Kernel::new("norm")
            .set("CENTRED", u32::from(centred))
            .set("Y", target.dtype)
            .set("ROUND", output.dtype)
            .set("PER", per_word(target.dtype))
            .set("SUBGROUP", self.subgroup());
        let mut operands = vec![target.place];
        let mut parameters = vec![count as u32, length as u32, eps.to_bits()];
        for (name, input) in ["X", "W", "B"].into_iter().zip(inputs) {
            kernel = kernel.set(name, input.dtype);
            operands.push(self.place(input)?);
            parameters.push(input.layout.offset() as u32);
        }
        // The field of an operand that is not there.
        parameters.resize(6, 0);
        self.push(Dispatch {
            kernel,
            operands,
            parameters,
            groups: count as u32,
            work: 2 * output.spec().bytes() as u64,
        });
        self.pack(&target, output)
    }
}
