//! `Rope`: pairs turned in place.

use super::{Dispatch, Lowering, Place, Target, per_word};
use crate::source::Kernel;
use kiln_plan::{DType, Operand, Pairing, Result};

impl Lowering<'_> {
    /// `inputs` are x, positions and frequencies.
    pub(super) fn rope(
        &mut self,
        (pairing, turned, scale): (Pairing, usize, f32),
        inputs: &[Operand],
        output: &Operand,
    ) -> Result<()> {
        let [_, positions, frequencies] = inputs else {
            return Err(self.context.failed("rope has three operands"));
        };
        let shape = output.layout.shape();
        let (tokens, heads, size) = (shape[0], shape[1], shape[2]);
        let pairs = frequencies.layout.shape().elements();
        if turned * pairs == 0 {
            return Ok(());
        }
        let per = per_word(output.dtype);
        let (name, unit) = match pairing {
            Pairing::Halves => ("halves", per),
            Pairing::Neighbours => ("neighbours", 1),
        };
        let whole = size.is_multiple_of(per) && pairs.is_multiple_of(unit);
        let parameters = vec![
            tokens as u32,
            heads as u32,
            turned as u32,
            size as u32,
            pairs as u32,
            scale.to_bits(),
            positions.layout.offset() as u32,
            frequencies.layout.offset() as u32,
        ];
        let (x, at, by) = (
            Place::Slot(output.slot, 0),
            self.place(positions)?,
            self.place(frequencies)?,
        );
        let kernel = |file| {
            Kernel::new(file)
                .set("Y", output.dtype)
                .set("PER", per)
                .set("UNIT", unit)
                .set("PAIRING", name)
        };
        let work = 2 * output.spec().bytes() as u64;
        if whole {
            self.push(Dispatch {
                kernel: kernel("rope"),
                operands: vec![x, at, by],
                parameters,
                groups: (tokens * turned * (pairs / unit)).div_ceil(64) as u32,
                work,
            });
            return Ok(());
        }
        let place = self.scratch(1, 4 * shape.elements());
        self.push(Dispatch {
            kernel: kernel("rope_odd"),
            operands: vec![place, at, by, x],
            parameters,
            groups: shape.elements().div_ceil(64) as u32,
            work,
        });
        let dtype = DType::F32;
        self.pack(&Target { place, dtype }, output)
    }
}
