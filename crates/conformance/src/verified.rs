//! A backend that is watched by another one: every step of every plan runs on both.

use crate::steps::{Single, Temporaries};
use crate::{difference, numbers};
use kiln_array::{
    Backend, Buffer, DType, Error, Layout, Memory, Op, Operand, Part, Plan, Program, Result, Slot,
    Spec, Step, Storage,
};
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// `backend`, whose every step is done again by `reference` with the same operands. A step whose
/// results differ by more than rounding fails with its number, operation and operands. Slow: each
/// step waits, and its operands are copied to the host.
pub struct Verified {
    pair: Arc<Pair>,
}

struct Pair {
    backend: Box<dyn Backend>,
    reference: Box<dyn Backend>,
}

/// A buffer of the watched backend, and what was loaded into it.
struct Watched {
    buffer: Buffer,
    loaded: Option<Vec<Part>>,
}

impl Storage for Watched {
    fn bytes(&self) -> usize {
        self.buffer.0.bytes()
    }

    fn writable(&self) -> bool {
        self.buffer.0.writable()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Verified {
    /// `backend`, watched by `reference`.
    pub fn new(backend: Box<dyn Backend>, reference: Box<dyn Backend>) -> Verified {
        Verified {
            pair: Arc::new(Pair { backend, reference }),
        }
    }
}

impl Pair {
    fn failed(&self, reason: String) -> Error {
        Error::Device {
            device: self.backend.to_string(),
            reason,
        }
    }

    fn watched<'b>(&self, buffer: &'b Buffer) -> Result<&'b Watched> {
        let watched = buffer.0.as_any().downcast_ref();
        watched.ok_or_else(|| self.failed("a buffer of another device".into()))
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pair { backend, reference } = &*self.pair;
        write!(f, "{backend}, verified by {reference}")
    }
}

impl Backend for Verified {
    fn supports(&self, op: &Op, inputs: &[Spec]) -> bool {
        self.pair.backend.supports(op, inputs)
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        Ok(Buffer(Arc::new(Watched {
            buffer: self.pair.backend.alloc(bytes)?,
            loaded: None,
        })))
    }

    fn load(&self, spec: &Spec, rows: Vec<Part>) -> Result<Buffer> {
        Ok(Buffer(Arc::new(Watched {
            buffer: self.pair.backend.load(spec, rows.clone())?,
            loaded: Some(rows),
        })))
    }

    fn read(&self, buffer: &Buffer, from: usize, out: &mut [u8]) -> Result<()> {
        let watched = self.pair.watched(buffer)?;
        self.pair.backend.read(&watched.buffer, from, out)
    }

    fn compile(&self, plan: &Plan) -> Result<Box<dyn Program>> {
        Ok(Box::new(Compiled {
            steps: Single::all(plan)
                .map(|step| Twin::new(&self.pair, step))
                .collect::<Result<_>>()?,
            temporaries: Temporaries::new(plan, self)?,
            pair: self.pair.clone(),
        }))
    }

    fn memory(&self) -> Memory {
        self.pair.backend.memory()
    }

    fn queues(&self) -> bool {
        self.pair.backend.queues()
    }

    fn together(&self) -> usize {
        self.pair.backend.together()
    }
}

struct Compiled {
    pair: Arc<Pair>,
    steps: Vec<Twin>,
    temporaries: Temporaries,
}

/// A step for both backends.
struct Twin {
    step: Single,
    own: Box<dyn Program>,
    reference: Box<dyn Program>,
}

impl Twin {
    fn new(pair: &Pair, single: Single) -> Result<Twin> {
        let Single { step, slots, .. } = &single;
        // What the reference is given it may not write to, so its result lies elsewhere.
        let result = Operand {
            slot: slots.len() as u32,
            layout: Layout::contiguous(step.output.layout.shape()),
            ..step.output
        };
        let mut twin = step.clone();
        twin.output = result;
        let mut steps = Vec::new();
        if step.op.updates() {
            steps.push(Step {
                op: Op::Copy,
                inputs: vec![step.inputs[0]],
                output: result,
            });
            twin.inputs[0] = result;
        }
        steps.push(twin);
        let mut plan = single.plan();
        let own = pair.backend.compile(&plan);
        let own = own.map_err(|error| single.failed(&error))?;
        plan.slots.push(Slot::External(step.output.spec()));
        plan.steps = steps;
        Ok(Twin {
            own,
            reference: pair.reference.compile(&plan)?,
            step: single,
        })
    }

    fn run(&self, pair: &Pair, buffers: &[Buffer]) -> Result<()> {
        let (mut own, mut twins) = (Vec::new(), Vec::new());
        let (step, at) = (&self.step.step, self.step.result());
        for (number, ((_, spec), buffer)) in self.step.slots.iter().zip(buffers).enumerate() {
            let watched = pair.watched(buffer)?;
            own.push(watched.buffer.clone());
            // What is only written is not read before.
            let result = number == at && !step.op.updates();
            let parts = match &watched.loaded {
                Some(parts) => parts.clone(),
                None => {
                    let mut bytes = vec![0; spec.bytes()];
                    if !result {
                        pair.backend.read(&watched.buffer, 0, &mut bytes)?;
                    }
                    let rows = spec.shape.first().copied().unwrap_or(1);
                    vec![Part::plain(rows, bytes.into())]
                }
            };
            twins.push(pair.reference.load(spec, parts)?);
        }
        let size = step.output.spec().bytes();
        let result = pair.reference.alloc(size)?;
        twins.push(result.clone());
        self.own.run(&own)?;
        self.reference.run(&twins)?;
        let (mut found, mut wanted) = (vec![0; size], vec![0; size]);
        pair.backend.read(&own[at], 0, &mut found)?;
        pair.reference.read(&result, 0, &mut wanted)?;
        let dtype = step.output.dtype;
        let (found, wanted) = (
            numbers::decode(dtype, &found),
            numbers::decode(dtype, &wanted),
        );
        let (ulp, nmse) = difference(dtype, &found, &wanted);
        if nmse <= bound(dtype) {
            return Ok(());
        }
        Err(pair.failed(format!(
            "it differs from {}: normalised mean square error {nmse:.1e}, at most {ulp:.0} last places",
            pair.reference
        )))
    }
}

/// What rounding explains of a normalised mean square error: a last place of a 16-bit dtype, the
/// order of a long sum in f32. Integers are equal.
fn bound(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 1e-8,
        DType::F16 => 1e-6,
        DType::BF16 => 5e-5,
        _ => 0.0,
    }
}

impl Program for Compiled {
    fn run(&self, externals: &[Buffer]) -> Result<()> {
        for twin in &self.steps {
            let device = self.pair.backend.to_string();
            let buffers = self.temporaries.buffers(&twin.step, externals, &device)?;
            let outcome = twin.run(&self.pair, &buffers);
            outcome.map_err(|error| twin.step.failed(&error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_array::{Array, Device};
    use kiln_cpu::Cpu;

    /// A processor whose norm is wrong.
    struct Wrong(Cpu);

    impl fmt::Display for Wrong {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("wrong")
        }
    }

    impl Backend for Wrong {
        fn supports(&self, op: &Op, inputs: &[Spec]) -> bool {
            self.0.supports(op, inputs)
        }
        fn alloc(&self, bytes: usize) -> Result<Buffer> {
            self.0.alloc(bytes)
        }
        fn load(&self, spec: &Spec, rows: Vec<Part>) -> Result<Buffer> {
            self.0.load(spec, rows)
        }
        fn read(&self, buffer: &Buffer, from: usize, out: &mut [u8]) -> Result<()> {
            self.0.read(buffer, from, out)
        }
        fn compile(&self, plan: &Plan) -> Result<Box<dyn Program>> {
            let mut plan = plan.clone();
            for step in &mut plan.steps {
                if let Op::RmsNorm { eps } = &mut step.op {
                    *eps = 0.1.into();
                }
            }
            self.0.compile(&plan)
        }
        fn memory(&self) -> Memory {
            self.0.memory()
        }

        fn queues(&self) -> bool {
            self.0.queues()
        }
    }

    fn cpu() -> Cpu {
        Cpu::new(Default::default()).unwrap()
    }

    /// A softmax of a norm of a cache that is written in place.
    fn result(device: &Device) -> Result<Vec<f32>> {
        let mut cache = Array::zeroed(DType::F32, &[4, 8], device)?;
        let rows: Vec<f32> = (0..16).map(|i| i as f32 / 7.0).collect();
        let rows = Array::from_slice(&rows, &[2, 8], device)?;
        let at = Array::from_slice(&[1u32, 3], &[2], device)?;
        cache.write(0, &at, &(rows * 2.0)?)?;
        let weight = Array::from_slice(&[1.0f32; 8], &[8], device)?;
        let normal = cache.rms_norm(&weight, 1e-5)?;
        normal.matmul(&normal)?.softmax(-1)?.to_vec()
    }

    #[test]
    fn what_is_right_passes_and_gives_the_same() {
        let plain = Device::new(cpu());
        let verified = Device::new(Verified::new(Box::new(cpu()), Box::new(cpu())));
        assert_eq!(result(&verified).unwrap(), result(&plain).unwrap());
    }

    #[test]
    fn the_first_step_that_differs_is_named() {
        let device = Device::new(Verified::new(Box::new(Wrong(cpu())), Box::new(cpu())));
        let error = result(&device).unwrap_err().to_string();
        assert!(
            error.contains("rms_norm of f32[4, 8], f32[8] giving f32[4, 8]")
                && error.contains("it differs from"),
            "{error}"
        );
    }
}
