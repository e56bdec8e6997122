//! From the steps of a plan to kernels.

use crate::Precision;
use crate::kernels::Kernel;
use crate::kernels::argmax::ArgMax;
use crate::kernels::argsort::ArgSort;
use crate::kernels::attention::Attention;
use crate::kernels::copy::Copy;
use crate::kernels::custom::Custom;
use crate::kernels::map::Map;
use crate::kernels::matmul::{self, Prepared};
use crate::kernels::norm::Norm;
use crate::kernels::reduce::Reduce;
use crate::kernels::rope::Rope;
use crate::kernels::softmax::Softmax;
use crate::kernels::take::Take;
use crate::kernels::write::Write;
use crate::simd::Isa;
use kiln_plan::{Op, Operand, Plan, Slot, Spec, Step};

/// A plan as kernels.
pub(crate) struct Lowered {
    /// In order.
    pub(crate) kernels: Vec<Box<dyn Kernel>>,
    /// For each kernel the step that it is part of.
    pub(crate) steps: Vec<usize>,
    /// Bytes of the scratch slot, which comes after the plan's own slots.
    pub(crate) scratch: usize,
    /// Slots whose rows must lie in one piece.
    pub(crate) joined: Vec<u32>,
    /// Slots that are written.
    pub(crate) written: Vec<u32>,
    /// Whether `Precision::Fast` rounds anything.
    pub(crate) rounds: bool,
}

/// Lowers every step. `None` where a step has no kernel, which `supports` has said.
pub(crate) fn lower(isa: &'static Isa, precision: Precision, plan: &Plan) -> Option<Lowered> {
    let scratch = plan.slots.len() as u32;
    let mut lowered = Lowered {
        kernels: Vec::new(),
        steps: Vec::new(),
        scratch: 0,
        joined: Vec::new(),
        written: Vec::new(),
        rounds: false,
    };
    let mut prepared: Option<Prepared> = None;
    for (number, step) in plan.steps.iter().enumerate() {
        if let Op::Matmul { epilogue } = &step.op {
            let place = (scratch, by_blocks(plan, step));
            let how = (isa, precision);
            let matmul = matmul::lower(how, epilogue.as_ref(), &step.inputs, &step.output, place);
            // Matmuls of one x share its prepared form.
            if prepared != Some(matmul.prepared) {
                lowered.kernels.push(matmul.prepare);
                prepared = Some(matmul.prepared);
            }
            lowered.kernels.push(matmul.products);
            lowered.rounds |= matmul.rounds;
            lowered.scratch = lowered.scratch.max(matmul.scratch);
        } else {
            lowered
                .kernels
                .push(kernel(isa, step, by_blocks(plan, step))?);
        }
        lowered.steps.resize(lowered.kernels.len(), number);
        if prepared.is_some_and(|p| p.reads(step.output.slot)) {
            prepared = None;
        }
        lowered.written.push(step.output.slot);
        lowered.joined.extend(reads_in_one_piece(plan, step));
    }
    for slots in [&mut lowered.written, &mut lowered.joined] {
        slots.sort_unstable();
        slots.dedup();
    }
    Some(lowered)
}

/// The operand whose rows a step reads block by block, wherever the blocks lie.
fn table(op: &Op) -> Option<usize> {
    match op {
        Op::Matmul { .. } => Some(1),
        Op::Take => Some(0),
        _ => None,
    }
}

/// Whether the rows of a step's table are also the rows of its slot: a view may have others.
fn by_blocks(plan: &Plan, step: &Step) -> bool {
    let Some(operand) = table(&step.op).and_then(|i| step.inputs.get(i)) else {
        return false;
    };
    let Some(Slot::External(spec)) = plan.slots.get(operand.slot as usize) else {
        return false;
    };
    let shape = operand.layout.shape();
    let row: usize = match step.op {
        Op::Matmul { .. } => shape.last_axis(),
        _ => shape.iter().skip(1).product(),
    };
    row > 0 && row == spec.shape.iter().skip(1).product()
}

/// The slots that a step does not read block by block.
fn reads_in_one_piece(plan: &Plan, step: &Step) -> impl Iterator<Item = u32> {
    let table = table(&step.op).filter(|_| by_blocks(plan, step));
    let inputs = step.inputs.iter().enumerate();
    inputs
        .filter(move |(i, _)| Some(*i) != table)
        .map(|(_, input)| input.slot)
}

fn kernel(isa: &'static Isa, step: &Step, by_blocks: bool) -> Option<Box<dyn Kernel>> {
    let (inputs, output) = (&step.inputs[..], &step.output);
    Some(match &step.op {
        Op::Map(expr) => Box::new(Map::new(isa, expr, inputs, output)),
        Op::Copy => Box::new(Copy::new(&inputs[0], output)),
        Op::Take => Box::new(Take::new(isa, [&inputs[0], &inputs[1], output], by_blocks)),
        Op::Write { axis } => {
            let axis = *axis as usize;
            Box::new(Write::new(axis, &inputs[0], &inputs[1], &inputs[2], output))
        }
        Op::Reduce { kind, axis } => {
            Box::new(Reduce::new(isa, *kind, *axis as usize, &inputs[0], output))
        }
        Op::ArgMax => Box::new(ArgMax::new(isa, &inputs[0], output)),
        Op::ArgSort => Box::new(ArgSort::new(&inputs[0], output)),
        Op::Softmax => Box::new(Softmax::new(isa, &inputs[0], output)),
        Op::RmsNorm { eps } | Op::LayerNorm { eps } => {
            Box::new(Norm::new(isa, eps.get(), inputs, output))
        }
        Op::Rope {
            pairing,
            heads,
            scale,
        } => Box::new(Rope::new(
            isa,
            (*pairing, *heads, scale.get()),
            inputs,
            output,
        )),
        Op::Attention { scale, window } => Box::new(Attention::new(
            isa,
            scale.get(),
            *window as usize,
            inputs,
            output,
        )),
        Op::Custom(custom) => {
            let specs: Vec<Spec> = inputs.iter().map(Operand::spec).collect();
            let function = custom.function(&specs)?;
            Box::new(Custom::new(isa, function, inputs, output))
        }
        Op::Matmul { .. } => return None,
    })
}
