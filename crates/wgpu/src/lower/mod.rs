//! From the steps of a plan to dispatches.

mod attention;
mod custom;
mod elements;
mod matmul;
mod matvec;
mod norm;
mod rope;
mod rows;
mod table;
mod tiles;
mod write;

use crate::context::Facts;
use crate::mapped::Block;
use crate::memory::pieces;
use crate::source::Kernel;
use kiln_plan::{DType, Kind, Layout, Op, Operand, Plan, Result, Slot, Spec, Step};
use std::collections::HashMap;

/// One kernel launch.
#[derive(Debug)]
pub(crate) struct Dispatch {
    /// What runs.
    pub(crate) kernel: Kernel,
    /// The operands, the result first.
    pub(crate) operands: Vec<Place>,
    /// The fields of the kernel's `Params`, in order.
    pub(crate) parameters: Vec<u32>,
    /// How many workgroups.
    pub(crate) groups: u32,
    /// An estimate of the work, in bytes moved or eight sums of products.
    pub(crate) work: u64,
}

/// Where an operand lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// A slot of the plan; of a table in several pieces, this one.
    Slot(u32, usize),
    /// Memory that lasts for one step.
    Scratch(usize),
}

/// A plan as dispatches.
pub(crate) struct Lowered {
    /// In order.
    pub(crate) dispatches: Vec<Dispatch>,
    /// For each dispatch the step that it is part of.
    pub(crate) steps: Vec<usize>,
    /// Bytes of each piece of scratch memory.
    pub(crate) scratch: [usize; 2],
}

/// How many lines a product takes with the kernel for one.
pub(crate) const TOGETHER: usize = matmul::FEW;

/// Whether `op` has a kernel.
pub(crate) fn supports(op: &Op, inputs: &[Spec]) -> bool {
    match op {
        Op::Custom(custom) => custom.wgsl(inputs).is_some(),
        Op::ArgSort => false,
        _ => true,
    }
}

/// The tables among a plan's external slots that lie in mapped files, and where.
pub(crate) type Files<'f> = HashMap<u32, &'f [Block]>;

/// The external slots that steps use as tables of the rows that were loaded, and as nothing else:
/// only these may be among the [`Files`].
pub(crate) fn tables(plan: &Plan) -> Vec<u32> {
    let row = |slot: &Slot| match slot {
        Slot::External(spec) => Some(spec.shape.last_axis()),
        Slot::Temporary { .. } => None,
    };
    let mut rows: Vec<Option<usize>> = plan.slots.iter().map(row).collect();
    for step in &plan.steps {
        for (number, input) in step.inputs.iter().enumerate() {
            let table = matches!((&step.op, number), (Op::Matmul { .. }, 1) | (Op::Take, 0));
            let shape = input.layout.shape();
            let alike = |row: &usize| table && shape.len() == 2 && *row == shape.last_axis();
            if let Some(row) = rows.get_mut(input.slot as usize) {
                *row = row.filter(alike);
            }
        }
    }
    let found = (0u32..).zip(rows).filter(|(_, row)| row.is_some());
    found.map(|(slot, _)| slot).collect()
}

/// Lowers every step.
pub(crate) fn lower(context: &Facts, plan: &Plan, files: &Files<'_>) -> Result<Lowered> {
    let mut lowering = Lowering {
        context,
        plan,
        files,
        dispatches: Vec::new(),
        scratch: [0; 2],
    };
    let mut steps = Vec::new();
    for (number, step) in plan.steps.iter().enumerate() {
        if step.output.layout.shape().elements() > 0 {
            lowering.step(step).map_err(|error| error.in_step(number))?;
        }
        steps.resize(lowering.dispatches.len(), number);
    }
    Ok(Lowered {
        dispatches: lowering.dispatches,
        steps,
        scratch: lowering.scratch,
    })
}

struct Lowering<'p> {
    context: &'p Facts,
    plan: &'p Plan,
    files: &'p Files<'p>,
    dispatches: Vec<Dispatch>,
    scratch: [usize; 2],
}

/// Where a kernel stores its result: in the result's slot, or, where rows are no whole words, as
/// elements of four bytes in scratch memory, from where they are packed.
struct Target {
    place: Place,
    dtype: DType,
}

impl Lowering<'_> {
    fn step(&mut self, step: &Step) -> Result<()> {
        let (inputs, output) = (&step.inputs[..], &step.output);
        match &step.op {
            Op::Map(expr) => self.map(expr, inputs, output),
            Op::Copy => self.copy(&inputs[0], output),
            Op::Take => self.take(&inputs[0], &inputs[1], output),
            Op::Write { axis } => self.write(*axis as usize, inputs, output),
            Op::Reduce { kind, axis } => self.reduce(*kind, *axis as usize, &inputs[0], output),
            Op::ArgMax => self.argmax(&inputs[0], output),
            Op::ArgSort => Err(self.context.failed("argsort has no kernel here")),
            Op::Softmax => self.softmax(&inputs[0], output),
            Op::RmsNorm { eps } | Op::LayerNorm { eps } => self.norm(eps.get(), inputs, output),
            Op::Rope {
                pairing,
                heads,
                scale,
            } => self.rope((*pairing, *heads as usize, scale.get()), inputs, output),
            Op::Matmul { epilogue } => self.matmul(epilogue.as_ref(), inputs, output),
            Op::Attention { scale, window } => self.attention(scale.get(), *window, inputs, output),
            Op::Custom(custom) => self.custom(custom, inputs, output),
        }
    }

    /// The place of an operand that a kernel sees whole.
    fn place(&self, operand: &Operand) -> Result<Place> {
        let slot = operand.slot;
        if let Some(Slot::External(spec)) = self.plan.slots.get(slot as usize)
            && pieces(spec, self.context.binding).is_none_or(|pieces| pieces.len() > 1)
        {
            return Err(self.context.failed(format!(
                "{spec} has {} bytes; a kernel other than take and matmul sees {} at most",
                spec.bytes(),
                self.context.binding
            )));
        }
        Ok(Place::Slot(slot, 0))
    }

    /// Where the rows of `output`, of this many elements, are stored.
    fn target(&mut self, output: &Operand, row: usize) -> Target {
        let place = Place::Slot(output.slot, 0);
        let dtype = output.dtype;
        if row.is_multiple_of(per_word(dtype)) {
            return Target { place, dtype };
        }
        self.wide_target(output)
    }

    /// A target of four-byte elements.
    fn wide_target(&mut self, output: &Operand) -> Target {
        let dtype = match output.dtype.kind() {
            Kind::Float => DType::F32,
            Kind::I32 => DType::I32,
            Kind::U32 | Kind::Bool => DType::U32,
        };
        if dtype == output.dtype {
            let place = Place::Slot(output.slot, 0);
            return Target { place, dtype };
        }
        let place = self.scratch(1, 4 * output.layout.shape().elements());
        Target { place, dtype }
    }

    /// Brings what a kernel stored in `target` to `output`.
    fn pack(&mut self, target: &Target, output: &Operand) -> Result<()> {
        match target.place {
            Place::Slot(..) => Ok(()),
            Place::Scratch(_) => self.pack_elements(target, output),
        }
    }

    /// Scratch memory number `which`.
    fn scratch(&mut self, which: usize, bytes: usize) -> Place {
        self.scratch[which] = self.scratch[which].max(bytes);
        Place::Scratch(which)
    }

    fn push(&mut self, dispatch: Dispatch) {
        if dispatch.groups > 0 {
            self.dispatches.push(dispatch);
        }
    }
}

/// How many elements a word holds.
fn per_word(dtype: DType) -> usize {
    4 / dtype.bytes().clamp(1, 4)
}

/// The lengths of the last three of four axes, as `d1`, `d2`, `d3`.
fn dims(shape: &[usize]) -> [u32; 3] {
    let mut all = [1; 4];
    all[4 - shape.len()..].copy_from_slice(shape);
    [all[1] as u32, all[2] as u32, all[3] as u32]
}

/// Offset and the strides of four axes.
fn view(layout: &Layout) -> [u32; 5] {
    let shape = layout.shape();
    let strides = &layout.strides()[..shape.len()];
    let mut all = [0; 5];
    all[0] = layout.offset() as u32;
    for (to, (&stride, &length)) in all[5 - strides.len()..]
        .iter_mut()
        .zip(strides.iter().zip(shape.iter()))
    {
        *to = if length == 1 { 0 } else { stride as u32 };
    }
    all
}

/// Workgroups of `lanes` threads for this many words of `dtype`.
fn groups(elements: usize, dtype: DType, lanes: usize) -> u32 {
    elements.div_ceil(per_word(dtype)).div_ceil(lanes) as u32
}
