//! `Custom`: a function from outside.

use super::{Kernel, with_scratch};
use crate::memory::Memory;
use crate::simd::Isa;
use kiln_plan::{DType, Elements, Function, Operand, Spec};
use std::ops::Range;

/// The kernel of `Op::Custom`. A unit is what one call fills.
pub(crate) struct Custom {
    isa: &'static Isa,
    function: Function,
    inputs: Vec<Contiguous>,
    slot: u32,
    dtype: DType,
    elements: usize,
}

/// Where an operand's elements lie.
struct Contiguous {
    slot: u32,
    bytes: Range<usize>,
    spec: Spec,
}

impl Custom {
    /// What `function` makes of `inputs`, stored in `output`.
    pub(crate) fn new(
        isa: &'static Isa,
        function: Function,
        inputs: &[Operand],
        output: &Operand,
    ) -> Custom {
        let contiguous = |input: &Operand| {
            let (spec, from) = (input.spec(), input.layout.offset());
            let to = from + spec.shape.elements();
            Contiguous {
                slot: input.slot,
                bytes: spec.dtype.row_bytes(from)..spec.dtype.row_bytes(to),
                spec,
            }
        };
        Custom {
            isa,
            function,
            inputs: inputs.iter().map(contiguous).collect(),
            slot: output.slot,
            dtype: output.dtype,
            elements: output.layout.shape().elements(),
        }
    }
}

impl Kernel for Custom {
    fn units(&self) -> usize {
        self.elements.div_ceil(self.function.unit)
    }

    fn cost(&self) -> usize {
        let unit = self.function.unit.min(self.elements);
        unit.saturating_mul(self.function.cost)
    }

    fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
        let elements = |input: &Contiguous| Elements {
            spec: input.spec,
            bytes: &memory.read(input.slot)[input.bytes.clone()],
        };
        let inputs: Vec<Elements<'_>> = self.inputs.iter().map(elements).collect();
        let unit = self.function.unit;
        with_scratch(unit.min(self.elements), |values| {
            for number in range {
                let from = number * unit;
                let to = from.saturating_add(unit).min(self.elements);
                let values = &mut values[..to - from];
                values.fill(0.0);
                (self.function.fill)(&inputs, from, values);
                let bytes = self.dtype.row_bytes(from)..self.dtype.row_bytes(to);
                let out = memory.write(self.slot, bytes);
                self.isa.narrow(self.dtype, values, out);
            }
        });
    }
}
