//! A device: a backend, its compiled programs, and what has happened on it.

use crate::schedule::Schedule;
use crate::{
    Backend, Buffer, Error, Graph, Operand, Origin, Place, Plan, Program, Result, Slot, Spec,
    Traced,
};
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// How many programs a device keeps; the least recently used goes first.
const PROGRAMS: usize = 8;

/// A backend with its program cache; cheap to clone. Arrays on one device can be used together.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kiln_array::{Array, Device, Op, Options, Plan, eval};
/// let cpu = kiln_cpu::Cpu::new(Default::default())?;
/// let watch = Box::new(|plan: &Plan| {
///     for step in &plan.steps {
///         println!("{} {} {:?}", step.op.name(), step.output.spec(), step.work(0));
///     }
///     println!("{} bytes, {} copies", plan.temporary_bytes(), plan.copies());
/// });
/// let device = Device::with(cpu, Options::default(), Some(watch));
/// let x = Array::new([1.0, 2.0], &device)?;
/// let y = Array::make(Op::Softmax, vec![x.clone()])?;
/// assert_eq!(y.spec(), x.spec());
/// assert_eq!(y.site().file(), file!());
/// y.eval()?;
/// eval(&[&x, &y])?;
/// assert_eq!(device.stats().evaluations, 1);
/// assert!(!device.queues());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    backend: Box<dyn Backend>,
    options: Options,
    observer: Option<Observer>,
    /// How many evaluations have begun.
    turn: Mutex<u64>,
    programs: Mutex<Vec<(Graph, Arc<Compiled>)>>,
    stats: Mutex<Stats>,
    failure: OnceLock<Error>,
}

/// Called with every plan that is compiled.
pub type Observer = Box<dyn Fn(&Plan) + Send + Sync>;

/// A graph's program, and where its results lie.
pub struct Compiled {
    /// How many nodes the graph has.
    nodes: usize,
    program: Box<dyn Program>,
    schedule: Schedule,
    plan: Plan,
}

impl Schedule {
    /// What a step of this schedule's plan does, for the nodes that were traced.
    fn place(&self, plan: &Plan, step: usize, traced: &impl Traced) -> Option<Place> {
        let (known, nodes) = (plan.steps.get(step)?, self.nodes.get(step)?);
        let mut origins: Vec<Origin> = Vec::new();
        for origin in nodes.iter().filter_map(|node| traced.origin(*node)) {
            if !origins.iter().any(|known| known.reads_as(&origin)) {
                origins.push(origin);
            }
        }
        Some(Place {
            step: Some(step),
            op: known.op.name(),
            inputs: known.inputs.iter().map(|input| input.spec()).collect(),
            output: known.output.spec(),
            origins,
        })
    }

    /// The error of a program that could not be compiled. For temporary memory that there is not,
    /// the first step is named that needs so much.
    fn refused(&self, error: Error, plan: &Plan, traced: &impl Traced) -> Error {
        let error = match error {
            Error::Memory { bytes, .. } => {
                let large = |output: &Operand| {
                    let slot = plan.slots.get(output.slot as usize);
                    slot == Some(&Slot::Temporary { bytes }) && output.spec().bytes() == bytes
                };
                match plan.steps.iter().position(|step| large(&step.output)) {
                    Some(step) => error.in_step(step),
                    None => error,
                }
            }
            other => other,
        };
        error.located(|step| self.place(plan, step, traced))
    }
}

impl Compiled {
    /// Dtype and shape of each buffer that the program fills.
    pub fn fresh(&self) -> &[Spec] {
        &self.schedule.fresh
    }

    /// In the order of the nodes, each that escapes and which external buffer it ends up in.
    pub fn results(&self) -> &[(u32, u32)] {
        &self.schedule.results
    }

    /// `error` with the place of the step that it names; `traced` is what the program is for.
    pub fn located(&self, error: Error, traced: &impl Traced) -> Error {
        error.located(|step| self.schedule.place(&self.plan, step, traced))
    }

    /// The step that makes what external buffer `slot` holds after a run.
    pub fn maker(&self, slot: usize) -> Option<usize> {
        let mut steps = self.plan.steps.iter();
        steps.position(|step| step.output.slot as usize == slot)
    }
}

/// What evaluation may do to be fast. No option changes a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Merge elementwise steps into each other and into matmuls.
    pub fuse: bool,
    /// Let temporaries share memory.
    pub reuse: bool,
    /// Keep programs for graphs of equal structure.
    pub cache: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            fuse: true,
            reuse: true,
            cache: true,
        }
    }
}

/// What has happened on a device since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Evaluations that had anything to do.
    pub evaluations: u64,
    /// Nodes they found pending.
    pub nodes: u64,
    /// Steps they ran.
    pub steps: u64,
    /// Steps that only moved elements.
    pub copies: u64,
    /// Graphs whose program had to be compiled.
    pub misses: u64,
    /// Requests that the memory pool could not serve from what it had.
    pub allocations: u64,
    /// Bytes that arrays and programs hold now, without mapped weights.
    pub bytes: usize,
    /// The most that `bytes` has been.
    pub peak_bytes: usize,
}

impl Device {
    /// A device on `backend`.
    pub fn new(backend: impl Backend + 'static) -> Device {
        Device::with(backend, Options::default(), None)
    }

    /// A device on `backend` with options, and somebody who wants to see its plans.
    pub fn with(
        backend: impl Backend + 'static,
        options: Options,
        observer: Option<Observer>,
    ) -> Device {
        Device(Arc::new(Inner {
            backend: Box::new(backend),
            options,
            observer,
            turn: Mutex::default(),
            programs: Mutex::default(),
            stats: Mutex::default(),
            failure: OnceLock::new(),
        }))
    }

    /// What has happened so far.
    pub fn stats(&self) -> Stats {
        let memory = self.0.backend.memory();
        Stats {
            allocations: memory.allocations,
            bytes: memory.bytes,
            peak_bytes: memory.peak_bytes,
            ..*lock(&self.0.stats)
        }
    }

    /// Whether evaluation returns before the work is done: submit what comes next before reading.
    pub fn queues(&self) -> bool {
        self.0.backend.queues()
    }

    /// How many rows at most are computed together as each would be alone: see
    /// [`Backend::together`].
    ///
    /// ```
    /// let device = kiln_cpu::device(Default::default())?;
    /// assert!(device.together() > 1);
    /// # Ok::<(), kiln_array::Error>(())
    /// ```
    pub fn together(&self) -> usize {
        self.0.backend.together().max(1)
    }

    /// The backend.
    pub fn backend(&self) -> &dyn Backend {
        &*self.0.backend
    }

    /// Begins an evaluation, once the one before has ended. An error if the device is broken.
    ///
    /// # Errors
    /// Also where this thread holds the turn already: a definition that reads an array would wait for
    /// the evaluation that asks for it.
    pub fn begin(&self) -> Result<Turn<'_>> {
        let this = Arc::as_ptr(&self.0) as usize;
        if HELD.with_borrow(|held| held.contains(&this)) {
            let reason = "an evaluation on it is asked for within another one".into();
            let device = self.to_string();
            return Err(Error::Device { device, reason });
        }
        let mut number = lock(&self.0.turn);
        *number += 1;
        match self.0.failure.get() {
            Some(failure) => Err(failure.clone()),
            None => {
                HELD.with_borrow_mut(|held| held.push(this));
                Ok(Turn {
                    device: self,
                    number,
                    thread: PhantomData,
                })
            }
        }
    }
}

thread_local! {
    /// The devices whose turn this thread holds.
    static HELD: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// An evaluation that has begun: there is one at a time on a device.
pub struct Turn<'d> {
    device: &'d Device,
    number: MutexGuard<'d, u64>,
    /// It ends on the thread that it began on.
    thread: PhantomData<*const ()>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let this = Arc::as_ptr(&self.device.0) as usize;
        HELD.with_borrow_mut(|held| held.retain(|&device| device != this));
    }
}

impl Turn<'_> {
    /// Whose turn it is.
    pub fn device(&self) -> &Device {
        self.device
    }

    /// How many evaluations had begun, this one included.
    pub fn number(&self) -> u64 {
        *self.number
    }

    /// How many nodes, edges and leaves the most recent graph had: the next one is often alike.
    pub fn sizes(&self) -> [usize; 3] {
        let programs = lock(&self.device.0.programs);
        programs.last().map_or([0; 3], |(graph, _)| {
            [graph.nodes.len(), graph.edges.len(), graph.leaves.len()]
        })
    }

    /// The program for what was traced: that of a graph of equal structure, or a new one.
    pub fn program(&self, traced: &impl Traced) -> Result<Arc<Compiled>> {
        let device = &self.device.0;
        let mut programs = lock(&device.programs);
        if let Some(at) = programs
            .iter()
            .rposition(|(graph, _)| traced.matches(graph))
        {
            let entry = programs.remove(at);
            let compiled = entry.1.clone();
            programs.push(entry);
            return Ok(compiled);
        }
        let graph = traced.graph();
        let (schedule, plan) = Schedule::new(&graph, device.options);
        if let Some(observer) = &device.observer {
            observer(&plan);
        }
        lock(&device.stats).misses += 1;
        if device.options.cache && programs.len() == PROGRAMS {
            programs.remove(0);
        }
        let program = device.backend.compile(&plan);
        let program = program.map_err(|error| schedule.refused(error, &plan, traced))?;
        let compiled = Arc::new(Compiled {
            nodes: graph.nodes.len(),
            program,
            schedule,
            plan,
        });
        if device.options.cache {
            programs.push((graph, compiled.clone()));
        }
        Ok(compiled)
    }

    /// Runs a program: `externals` are the leaves' buffers, then those of [`Compiled::fresh`]. Returns
    /// once the work is submitted (GPU) or done (CPU). If it fails or panics the device is broken:
    /// what its buffers hold is unknown.
    pub fn run(
        &self,
        compiled: &Compiled,
        externals: &[Buffer],
        traced: &impl Traced,
    ) -> Result<()> {
        let running = Running(self.device);
        let outcome = compiled.program.run(externals);
        std::mem::forget(running);
        outcome.map_err(|error| self.device.fail(compiled.located(error, traced)))?;
        let mut stats = lock(&self.device.0.stats);
        stats.evaluations += 1;
        stats.nodes += compiled.nodes as u64;
        stats.steps += compiled.plan.steps.len() as u64;
        stats.copies += compiled.plan.copies() as u64;
        Ok(())
    }
}

/// Breaks its device when it is dropped: a kernel panicked.
struct Running<'a>(&'a Device);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fail(Error::Device {
            device: self.0.to_string(),
            reason: "a kernel panicked".into(),
        });
    }
}

impl Device {
    /// Marks the device as broken.
    fn fail(&self, error: Error) -> Error {
        self.0.failure.get_or_init(|| error).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every guarded value is changed by single assignments or pushes: nothing is left half-made.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PartialEq for Device {
    fn eq(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Device {}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.backend.fmt(f)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.backend.fmt(f)
    }
}
