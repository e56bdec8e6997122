//! A backend whose every result is looked at: the first that is not finite is an error.

use crate::numbers;
use crate::steps::{Single, Temporaries};
use kiln_array::{
    Backend, Buffer, Error, Layout, Memory, Op, Operand, Part, Plan, Program, Result, Spec,
};
use std::fmt;
use std::sync::Arc;

/// `backend`, but a step that gives NaN fails with [`Error::NotFinite`], as does one that gives an
/// infinity of operands that hold none. Slow: each step waits, and its result is copied to the host.
pub struct Finite(Arc<dyn Backend>);

impl Finite {
    /// `backend`, watched.
    pub fn new(backend: Box<dyn Backend>) -> Finite {
        Finite(backend.into())
    }
}

impl fmt::Display for Finite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Backend for Finite {
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
        let compile = |step: Single| {
            let program = self.0.compile(&step.plan());
            let program = program.map_err(|error| step.failed(&error))?;
            Ok((step, program))
        };
        Ok(Box::new(Compiled {
            steps: Single::all(plan).map(compile).collect::<Result<_>>()?,
            temporaries: Temporaries::new(plan, self)?,
            backend: self.0.clone(),
        }))
    }

    fn memory(&self) -> Memory {
        self.0.memory()
    }

    fn queues(&self) -> bool {
        false
    }

    fn together(&self) -> usize {
        self.0.together()
    }
}

struct Compiled {
    backend: Arc<dyn Backend>,
    steps: Vec<(Single, Box<dyn Program>)>,
    temporaries: Temporaries,
}

impl Program for Compiled {
    fn run(&self, externals: &[Buffer]) -> Result<()> {
        for (step, program) in &self.steps {
            let device = self.backend.to_string();
            let buffers = self.temporaries.buffers(step, externals, &device)?;
            let outcome = program.run(&buffers);
            let outcome = outcome.and_then(|()| self.look(step, &buffers));
            outcome.map_err(|error| step.failed(&error))?;
        }
        Ok(())
    }
}

impl Compiled {
    /// An error for a result that is not finite.
    fn look(&self, single: &Single, buffers: &[Buffer]) -> Result<()> {
        let step = &single.step;
        let values = self.values(&step.output, buffers)?;
        let at = |wanted: fn(f64) -> bool| values.iter().position(|value| wanted(*value));
        let (nan, first) = (at(f64::is_nan), at(|value| !value.is_finite()));
        let Some(first) = nan.or(first) else {
            return Ok(());
        };
        let mut operand = None;
        // What a step updates is not there any more.
        for (number, input) in step
            .inputs
            .iter()
            .enumerate()
            .skip(usize::from(step.op.updates()))
        {
            let found = self
                .values(input, buffers)?
                .iter()
                .any(|value| !value.is_finite());
            operand = operand.or(found.then_some(number));
        }
        if nan.is_none() && operand.is_some() {
            return Ok(());
        }
        Err(Error::NotFinite {
            index: index(first, &step.output.layout.shape()),
            value: values[first] as f32,
            operand,
        })
    }

    /// The elements of an operand, row after row; none if they are not floats.
    fn values(&self, operand: &Operand, buffers: &[Buffer]) -> Result<Vec<f64>> {
        let (dtype, layout) = (operand.dtype, operand.layout);
        let Some(buffer) = buffers.get(operand.slot as usize) else {
            return Ok(Vec::new());
        };
        if !dtype.is_float() || layout.shape().elements() == 0 {
            return Ok(Vec::new());
        }
        let size = dtype.bytes();
        let mut bytes = vec![0; size * (reach(&layout) - layout.offset())];
        self.backend
            .read(buffer, size * layout.offset(), &mut bytes)?;
        let all = numbers::decode(dtype, &bytes);
        if layout.is_contiguous() {
            return Ok(all);
        }
        let shape = layout.shape();
        let element = |number| {
            let index = index(number, &shape);
            let steps = index.iter().zip(layout.strides());
            all[steps.map(|(at, stride)| at * stride).sum::<usize>()]
        };
        Ok((0..shape.elements()).map(element).collect())
    }
}

/// The element after the last one that a view with elements reaches.
fn reach(layout: &Layout) -> usize {
    let shape = layout.shape();
    let axes = shape.iter().zip(layout.strides());
    layout.offset()
        + axes
            .map(|(length, stride)| (length - 1) * stride)
            .sum::<usize>()
        + 1
}

/// Where element `number` of an array lies along each axis.
fn index(mut number: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (at, length) in index.iter_mut().zip(shape).rev() {
        (*at, number) = (number % length, number / length);
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_array::{Array, DType, Device, label};

    fn device() -> Device {
        let cpu = kiln_cpu::Cpu::new(Default::default()).unwrap();
        Device::new(Finite::new(Box::new(cpu)))
    }

    #[test]
    fn the_first_step_that_is_not_finite_is_named_with_its_line() {
        let device = device();
        let x = [1.0f32, 0.0, 3.0, 4.0, 5.0, -6.0];
        let x = Array::from_slice(&x, &[2, 3], &device).unwrap();
        let sum = x.transpose(0, 1).unwrap().sum(0).unwrap();
        let line = line!() + 1;
        let root = label("layer", 7, || (&x - 2.0).unwrap().rsqrt()).unwrap();
        let product = (root * sum.reshape(&[2, 1]).unwrap()).unwrap();
        let error = product.softmax(-1).unwrap().eval().unwrap_err();
        let Error::At { place, source } = &error else {
            panic!("{error}");
        };
        let Error::NotFinite {
            index,
            value,
            operand,
        } = &**source
        else {
            panic!("{error}");
        };
        assert_eq!(
            (&index[..], value.is_nan(), *operand),
            (&[0, 0][..], true, None)
        );
        let origin = |line| format!("layer 7, {}:{line}", file!());
        assert!(
            place.origins.iter().any(|o| o.to_string() == origin(line)),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .contains("f32[2, 3], f32[2, 3] giving f32[2, 3]"),
            "{error}"
        );
    }

    #[test]
    fn infinities_that_were_there_may_stay_and_nan_may_not() {
        let device = device();
        let of = |x: &[f32]| Array::from_slice(x, &[1, x.len()], &device).unwrap();
        let masked = of(&[f32::NEG_INFINITY, 1.0]);
        assert_eq!(
            (&masked + 1.0).unwrap().to_vec::<f32>().unwrap(),
            [f32::NEG_INFINITY, 2.0]
        );
        assert_eq!(
            masked.softmax(-1).unwrap().to_vec::<f32>().unwrap(),
            [0.0, 1.0]
        );
        let error = (of(&[1.0, f32::NAN]) + of(&[1.0, 2.0]))
            .unwrap()
            .eval()
            .unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("element [0, 1] is NaN; operand 0 already has one"),
            "{error}"
        );
    }

    #[test]
    fn what_overflows_is_found_in_every_dtype() {
        for dtype in [DType::F16, DType::BF16, DType::F32] {
            let device = device();
            let x = Array::full(1e4, dtype, &[1], &device).unwrap();
            let mut power = (&x * &x).unwrap();
            for _ in 0..4 {
                power = (&power * &power).unwrap();
            }
            let error = power.eval().unwrap_err();
            assert!(error.to_string().ends_with("element [0] is inf"), "{error}");
        }
    }
}
