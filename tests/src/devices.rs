//! The devices that cases run on.

use kiln_array::{
    Backend, Buffer, Device, Memory, Observer, Op, Options, Part, Plan, Program, Result, Spec,
};
use kiln_cpu::Cpu;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The processor as it is used. More than one thread, so that work is split.
#[allow(clippy::expect_used, reason = "without a device there is no test")]
fn cpu(options: kiln_cpu::Options<'_>) -> Cpu {
    let threads = options.threads.or(Some(2));
    Cpu::new(kiln_cpu::Options { threads, ..options }).expect("the processor is a device")
}

/// The best instruction set, everything switched on.
pub fn best() -> Vec<Device> {
    vec![Device::new(cpu(kiln_cpu::Options::default()))]
}

/// Every other instruction set that this machine has.
pub fn each_isa() -> Vec<Device> {
    let of = |isa| {
        Device::new(cpu(kiln_cpu::Options {
            isa: Some(isa),
            ..Default::default()
        }))
    };
    kiln_cpu::instruction_sets()
        .into_iter()
        .skip(1)
        .map(of)
        .collect()
}

/// No fusion, no reuse of memory, no kept programs.
pub fn plain() -> Vec<Device> {
    vec![with(Options {
        fuse: false,
        reuse: false,
        cache: false,
    })]
}

/// Fresh memory holds NaN, and the bytes behind it are watched.
pub fn poisoned() -> Vec<Device> {
    vec![Device::new(cpu(kiln_cpu::Options {
        poison: true,
        ..Default::default()
    }))]
}

/// Every composite operation as its decomposition says.
pub fn decomposed() -> Vec<Device> {
    vec![Device::new(Disguised {
        backend: cpu(kiln_cpu::Options::default()),
        composite: false,
        queues: false,
        log: Log::default(),
    })]
}

/// The processor, said to return from a run before its work is done, as a GPU does.
pub fn queued() -> Device {
    logged().0
}

/// What a device was asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// A program's run.
    Run,
    /// A buffer's bytes.
    Read,
}

/// Calls, in order.
pub type Log = Arc<Mutex<Vec<Call>>>;

/// [`queued`], with what it is asked to do.
pub fn logged() -> (Device, Log) {
    let log = Log::default();
    let device = Device::new(Disguised {
        backend: cpu(kiln_cpu::Options::default()),
        composite: true,
        queues: true,
        log: log.clone(),
    });
    (device, log)
}

/// The best instruction set with any number of threads and any options: results have the same bits.
pub fn alike() -> Vec<Device> {
    let threads = [1, 2, 3, 7].map(threads);
    threads
        .into_iter()
        .chain(plain())
        .chain(poisoned())
        .collect()
}

/// The GPU as it is used.
pub fn gpu() -> Vec<Device> {
    gpu_with(kiln_wgpu::Options::default())
}

/// The GPU without what only some have: subgroups, cooperative matrices.
pub fn gpu_bare() -> Vec<Device> {
    gpu_with(kiln_wgpu::Options {
        subgroups: false,
        matrices: false,
        ..Default::default()
    })
}

/// The GPU with fresh memory full of NaN and watched bytes behind every buffer.
pub fn gpu_poisoned() -> Vec<Device> {
    gpu_with(kiln_wgpu::Options {
        poison: true,
        ..Default::default()
    })
}

/// The GPU with every weight left in its file that can be.
pub fn gpu_mapped() -> Vec<Device> {
    gpu_with(kiln_wgpu::Options {
        map: Some(0),
        ..Default::default()
    })
}

/// A GPU that takes every command and executes none.
pub fn noop() -> kiln_wgpu::Options {
    kiln_wgpu::Options {
        adapter: kiln_wgpu::Choice::Name(kiln_wgpu::NOOP.into()),
        ..Default::default()
    }
}

/// A GPU with these options, if there is to be one.
pub fn gpu_with(options: kiln_wgpu::Options) -> Vec<Device> {
    gpu_backend(&options).map(Device::new).into_iter().collect()
}

/// A GPU: the best hardware, else the first software adapter. None where `KILN_NO_GPU` is 1.
#[allow(clippy::panic, reason = "without a device there is no test")]
pub fn gpu_backend(options: &kiln_wgpu::Options) -> Option<kiln_wgpu::Gpu> {
    if std::env::var("KILN_NO_GPU").is_ok_and(|v| v == "1") {
        return None;
    }
    let first = kiln_wgpu::Options {
        adapter: kiln_wgpu::Choice::Index(0),
        ..options.clone()
    };
    match kiln_wgpu::Gpu::new(options).or_else(|_| kiln_wgpu::Gpu::new(&first)) {
        Ok(gpu) => Some(gpu),
        Err(error) => panic!("no GPU to test on, and KILN_NO_GPU is not 1: {error}"),
    }
}

/// The processor with these options.
pub fn with(options: Options) -> Device {
    Device::with(cpu(kiln_cpu::Options::default()), options, None)
}

/// The processor with these options and somebody who sees its plans.
pub fn watched(options: Options, observer: Observer) -> Device {
    Device::with(cpu(kiln_cpu::Options::default()), options, Some(observer))
}

/// The processor with this many threads.
pub fn threads(count: usize) -> Device {
    Device::new(cpu(kiln_cpu::Options {
        threads: Some(count),
        ..Default::default()
    }))
}

struct Logged {
    program: Box<dyn Program>,
    log: Log,
}

impl Program for Logged {
    fn run(&self, externals: &[Buffer]) -> Result<()> {
        note(&self.log, Call::Run);
        self.program.run(externals)
    }
}

fn note(log: &Log, call: Call) {
    log.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(call);
}

/// A backend that shows less, or more, than it has.
struct Disguised<B> {
    backend: B,
    /// Whether it has kernels for what can be composed.
    composite: bool,
    queues: bool,
    log: Log,
}

impl<B: Backend> fmt::Display for Disguised<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernels = if self.composite { "" } else { ", decomposed" };
        let queue = if self.queues { ", queued" } else { "" };
        write!(f, "{}{kernels}{queue}", self.backend)
    }
}

impl<B: Backend> Backend for Disguised<B> {
    fn supports(&self, op: &Op, inputs: &[Spec]) -> bool {
        match op {
            Op::Map(_) | Op::Copy | Op::Take | Op::Write { .. } => true,
            Op::Reduce { .. } | Op::ArgMax | Op::Matmul { .. } => true,
            _ => self.composite && self.backend.supports(op, inputs),
        }
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        self.backend.alloc(bytes)
    }

    fn load(&self, spec: &Spec, rows: Vec<Part>) -> Result<Buffer> {
        self.backend.load(spec, rows)
    }

    fn read(&self, buffer: &Buffer, from: usize, out: &mut [u8]) -> Result<()> {
        note(&self.log, Call::Read);
        self.backend.read(buffer, from, out)
    }

    fn compile(&self, plan: &Plan) -> Result<Box<dyn Program>> {
        let (program, log) = (self.backend.compile(plan)?, self.log.clone());
        Ok(Box::new(Logged { program, log }))
    }

    fn memory(&self) -> Memory {
        self.backend.memory()
    }

    fn queues(&self) -> bool {
        self.queues
    }

    fn together(&self) -> usize {
        self.backend.together()
    }
}
