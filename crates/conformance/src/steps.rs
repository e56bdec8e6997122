//! A plan cut into plans of one step each, for backends that look at what every step gives.

use kiln_array::{Backend, Buffer, DType, Error, Operand, Plan, Result, Shape, Slot, Spec, Step};

/// A step as a plan of its own.
pub(crate) struct Single {
    /// Its number in the plan.
    pub(crate) number: usize,
    /// The step, its operands in the slots of the list below.
    pub(crate) step: Step,
    /// The plan's slots that are the step's, and what they hold.
    pub(crate) slots: Vec<(u32, Spec)>,
}

impl Single {
    /// The steps of a plan, in order.
    pub(crate) fn all(plan: &Plan) -> impl Iterator<Item = Single> {
        let steps = plan.steps.iter().enumerate();
        steps.map(|(number, step)| Single::new(plan, number, step))
    }

    fn new(plan: &Plan, number: usize, step: &Step) -> Single {
        let mut slots: Vec<(u32, Spec)> = Vec::new();
        for operand in step.inputs.iter().chain([&step.output]) {
            if !slots.iter().any(|(slot, _)| *slot == operand.slot) {
                slots.push((operand.slot, spec(plan, operand.slot)));
            }
        }
        let place = |operand: &Operand| {
            let at = slots.iter().position(|(slot, _)| *slot == operand.slot);
            Operand {
                slot: at.unwrap_or(0) as u32,
                ..*operand
            }
        };
        let step = Step {
            op: step.op.clone(),
            inputs: step.inputs.iter().map(place).collect(),
            output: place(&step.output),
        };
        Single {
            number,
            step,
            slots,
        }
    }

    /// The plan of this step alone. All its slots are external.
    pub(crate) fn plan(&self) -> Plan {
        let slots = self.slots.iter().map(|(_, spec)| Slot::External(*spec));
        Plan {
            steps: vec![self.step.clone()],
            slots: slots.collect(),
        }
    }

    /// An error of the step's own plan, as one of this step.
    pub(crate) fn failed(&self, error: &Error) -> Error {
        error.cause().clone().in_step(self.number)
    }

    /// Which of its slots the result lies in.
    pub(crate) fn result(&self) -> usize {
        self.step.output.slot as usize
    }
}

/// What a slot holds: of a temporary one only its size is known.
fn spec(plan: &Plan, slot: u32) -> Spec {
    let bytes = match plan.slots.get(slot as usize) {
        Some(Slot::External(spec)) => return *spec,
        Some(Slot::Temporary { bytes }) => *bytes,
        None => 0,
    };
    Spec {
        dtype: DType::U8,
        shape: Shape::new(&[bytes]).unwrap_or(Shape::SCALAR),
    }
}

/// Memory for the temporary slots of a plan that is run step by step.
pub(crate) struct Temporaries(Vec<Option<Buffer>>);

impl Temporaries {
    /// From `backend`.
    pub(crate) fn new(plan: &Plan, backend: &dyn Backend) -> Result<Temporaries> {
        let temporary = |slot: &Slot| match slot {
            Slot::External(_) => Ok(None),
            Slot::Temporary { bytes } => backend.alloc(*bytes).map(Some),
        };
        Ok(Temporaries(
            plan.slots.iter().map(temporary).collect::<Result<_>>()?,
        ))
    }

    /// The buffers of a step's slots in a run of the plan on `device`.
    pub(crate) fn buffers(
        &self,
        step: &Single,
        externals: &[Buffer],
        device: &str,
    ) -> Result<Vec<Buffer>> {
        let buffer = |(slot, _): &(u32, Spec)| {
            let own = self.0.get(*slot as usize).and_then(Option::as_ref);
            let found = own.or_else(|| externals.get(*slot as usize));
            found.cloned().ok_or_else(|| Error::Device {
                device: device.into(),
                reason: "a plan names memory that is not there".into(),
            })
        };
        step.slots.iter().map(buffer).collect()
    }
}
