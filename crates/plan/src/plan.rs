//! What a backend is given: steps over slots.

use crate::{DType, Layout, Op, Spec};
use std::fmt;

/// A list of steps, run in order. In a finished plan an updating step's output slot is its first
/// operand's, no slot is both written and read by other operands of one step, and every step's
/// operands have the layouts that its operation takes.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// What to do.
    pub steps: Vec<Step>,
    /// The memory it is done in: external slots first.
    pub slots: Vec<Slot>,
}

/// A piece of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// Given to each run: a leaf, or a fresh buffer for a result that outlives the run.
    External(Spec),
    /// Owned by the program, reused from run to run. Its contents are undefined before a step of
    /// the same run writes it.
    Temporary {
        /// Size.
        bytes: usize,
    },
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Step {
    /// What is computed.
    pub op: Op,
    /// From what.
    pub inputs: Vec<Operand>,
    /// Where to; contiguous from the slot's start.
    pub output: Operand,
}

/// A view of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Operand {
    /// Which slot.
    pub slot: u32,
    /// The elements' type.
    pub dtype: DType,
    /// Where the elements lie in the slot.
    pub layout: Layout,
}

impl Operand {
    /// Dtype and shape.
    pub fn spec(&self) -> Spec {
        Spec {
            dtype: self.dtype,
            shape: self.layout.shape(),
        }
    }
}

impl Plan {
    /// How many steps only move elements.
    pub fn copies(&self) -> usize {
        self.steps.iter().filter(|step| step.op == Op::Copy).count()
    }

    /// Bytes of the temporary slots.
    pub fn temporary_bytes(&self) -> usize {
        let bytes = |slot: &Slot| match slot {
            Slot::External(_) => 0,
            Slot::Temporary { bytes } => *bytes,
        };
        self.slots.iter().map(bytes).sum()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let temporary = self
            .slots
            .iter()
            .filter(|s| matches!(s, Slot::Temporary { .. }))
            .count();
        writeln!(
            f,
            "{} steps, {} copies, {} external and {temporary} temporary slots of {} bytes",
            self.steps.len(),
            self.copies(),
            self.slots.len() - temporary,
            self.temporary_bytes(),
        )?;
        writeln!(f, "{:>5}  {:<10} {:<40} operands", "step", "op", "result")?;
        for (i, step) in self.steps.iter().enumerate() {
            let operand = |o: &Operand| {
                let gap = if o.layout.is_contiguous() { "" } else { "~" };
                format!("{}{gap}@{}", o.spec(), o.slot)
            };
            let inputs = step
                .inputs
                .iter()
                .map(operand)
                .collect::<Vec<_>>()
                .join(" ");
            write!(
                f,
                "{i:>5}  {:<10} {:<40} {inputs}",
                step.op.name(),
                operand(&step.output)
            )?;
            match &step.op {
                Op::Map(expr)
                | Op::Matmul {
                    epilogue: Some(expr),
                } => writeln!(f, "  {expr}")?,
                _ => writeln!(f)?,
            }
        }
        Ok(())
    }
}
