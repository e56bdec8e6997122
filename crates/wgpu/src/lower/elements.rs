//! `Map` and `Copy`: element by element.

use super::{Dispatch, Lowering, Place, Target, dims, groups, per_word, view};
use crate::expr;
use crate::source::Kernel;
use kiln_plan::{DType, Expr, Layout, Operand, Result, Shape};

/// How a kernel finds an operand's element.
fn mode(layout: &Layout) -> &'static str {
    let shape = layout.shape();
    let mut strides = shape.iter().zip(layout.strides());
    if layout.is_contiguous() {
        "flat"
    } else if strides.all(|(&length, &stride)| length == 1 || stride == 0) {
        "one"
    } else {
        "strided"
    }
}

impl Lowering<'_> {
    pub(super) fn map(&mut self, expr: &Expr, inputs: &[Operand], output: &Operand) -> Result<()> {
        let inputs: Vec<(Place, DType, Layout)> = inputs
            .iter()
            .map(|input| Ok((self.place(input)?, input.dtype, input.layout)))
            .collect::<Result<_>>()?;
        let to = Place::Slot(output.slot, 0);
        self.apply(expr, &inputs, (to, output.dtype, output.layout.shape()))
    }

    pub(super) fn pack_elements(&mut self, target: &Target, output: &Operand) -> Result<()> {
        let shape = output.layout.shape();
        let from = [(target.place, target.dtype, Layout::contiguous(shape))];
        let to = Place::Slot(output.slot, 0);
        self.apply(&Expr::cast(output.dtype), &from, (to, output.dtype, shape))
    }

    fn apply(
        &mut self,
        expr: &Expr,
        inputs: &[(Place, DType, Layout)],
        (to, dtype, shape): (Place, DType, Shape),
    ) -> Result<()> {
        let dtypes: Vec<DType> = inputs.iter().map(|(_, dtype, _)| *dtype).collect();
        let body = expr::function(expr, &dtypes)
            .ok_or_else(|| self.context.failed(format!("{expr} is no program")))?;
        let mut kernel = Kernel::new("map")
            .set("BODY", body)
            .set("Y", dtype)
            .set("TYPE", expr::type_of(dtype.kind()))
            .set("PER", per_word(dtype))
            .set("INPUTS", inputs.len())
            .set("CONSTANTS", expr.constants().len());
        let [d1, d2, d3] = dims(&shape);
        let mut parameters = vec![shape.elements() as u32, d1, d2, d3];
        let mut operands = vec![to];
        let mut strided = false;
        let mut bytes = dtype.row_bytes(shape.elements());
        for (i, (place, dtype, layout)) in inputs.iter().enumerate() {
            operands.push(*place);
            let mode = mode(layout);
            strided |= mode == "strided";
            bytes += dtype.row_bytes(shape.elements());
            kernel = kernel
                .set(format!("X{i}"), dtype)
                .set(format!("MODE{i}"), mode)
                .set(format!("BINDING{i}"), i + 1);
            parameters.extend(view(layout));
        }
        parameters.extend(expr.constants().iter().map(|constant| constant.bits));
        let dispatch = Dispatch {
            kernel: kernel.set("STRIDED", u32::from(strided)),
            operands,
            parameters,
            groups: groups(shape.elements(), dtype, 64),
            work: bytes as u64,
        };
        self.push(dispatch);
        Ok(())
    }

    pub(super) fn copy(&mut self, input: &Operand, output: &Operand) -> Result<()> {
        let shape = output.layout.shape();
        let [d1, d2, d3] = dims(&shape);
        let mut parameters = vec![shape.elements() as u32, d1, d2, d3];
        parameters.extend(view(&input.layout));
        let dispatch = Dispatch {
            kernel: Kernel::new("copy").set("WIDTH", output.dtype.bytes()),
            operands: vec![Place::Slot(output.slot, 0), self.place(input)?],
            parameters,
            groups: groups(shape.elements(), output.dtype, 64),
            work: 2 * output.spec().bytes() as u64,
        };
        self.push(dispatch);
        Ok(())
    }
}
