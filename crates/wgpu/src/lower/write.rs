//! `Write`: slices stored at positions that are data, in place.

use super::{Dispatch, Lowering, Place, dims, groups, per_word, view};
use crate::source::Kernel;
use kiln_plan::{Operand, Result};

impl Lowering<'_> {
    pub(super) fn write(
        &mut self,
        axis: usize,
        inputs: &[Operand],
        output: &Operand,
    ) -> Result<()> {
        let [_, source, positions] = inputs else {
            return Err(self.context.failed("write has three operands"));
        };
        let shape = output.layout.shape();
        let count = positions.layout.shape().elements();
        let inner: usize = shape[axis + 1..].iter().product();
        let outer: usize = shape[..axis].iter().product();
        let per = per_word(output.dtype);
        let whole = inner.is_multiple_of(per);
        let (file, words) = if whole {
            ("write", outer * count * inner)
        } else {
            ("write_odd", shape.elements())
        };
        if count == 0 {
            return Ok(());
        }
        let [d1, d2, d3] = dims(&source.layout.shape());
        let mut parameters = vec![
            count as u32,
            (if whole { inner / per } else { inner }) as u32,
            (if whole { outer } else { shape.elements() }) as u32,
            shape[axis] as u32,
            positions.layout.offset() as u32,
            d1,
            d2,
            d3,
        ];
        parameters.extend(view(&source.layout));
        let dispatch = Dispatch {
            kernel: Kernel::new(file).set("WIDTH", output.dtype.bytes()),
            operands: vec![
                Place::Slot(output.slot, 0),
                self.place(source)?,
                self.place(positions)?,
            ],
            parameters,
            groups: groups(words, output.dtype, 64),
            work: 2 * source.spec().bytes() as u64,
        };
        self.push(dispatch);
        Ok(())
    }
}
