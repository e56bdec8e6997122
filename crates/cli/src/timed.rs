//! A backend that measures how long its programs run.

use kiln_array::{Backend, Buffer, Memory, Op, Part, Plan, Program, Result, Spec};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The time that a backend's programs have run, in all. A GPU's programs only queue their work.
#[derive(Clone, Default)]
pub(crate) struct Clock(Arc<AtomicU64>);

impl Clock {
    pub(crate) fn read(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// `backend` with a clock.
pub(crate) struct Timed {
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) clock: Clock,
}

struct TimedProgram {
    program: Box<dyn Program>,
    clock: Clock,
}

impl Backend for Timed {
    fn supports(&self, op: &Op, inputs: &[Spec]) -> bool {
        self.backend.supports(op, inputs)
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        self.backend.alloc(bytes)
    }

    fn load(&self, spec: &Spec, rows: Vec<Part>) -> Result<Buffer> {
        self.backend.load(spec, rows)
    }

    fn read(&self, buffer: &Buffer, from: usize, out: &mut [u8]) -> Result<()> {
        self.backend.read(buffer, from, out)
    }

    fn compile(&self, plan: &Plan) -> Result<Box<dyn Program>> {
        let (program, clock) = (self.backend.compile(plan)?, self.clock.clone());
        Ok(Box::new(TimedProgram { program, clock }))
    }

    fn memory(&self) -> Memory {
        self.backend.memory()
    }

    fn queues(&self) -> bool {
        self.backend.queues()
    }

    fn together(&self) -> usize {
        self.backend.together()
    }
}

impl fmt::Display for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.backend.fmt(f)
    }
}

impl Program for TimedProgram {
    fn run(&self, externals: &[Buffer]) -> Result<()> {
        let start = Instant::now();
        let result = self.program.run(externals);
        let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.clock.0.fetch_add(nanoseconds, Ordering::Relaxed);
        result
    }
}
