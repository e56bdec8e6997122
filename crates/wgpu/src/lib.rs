//! The GPU backend of Kiln, on wgpu: Metal, Vulkan, DX12.
//!
//! [`device`] gives a device on a chosen adapter. A plan becomes a list of dispatches when it is
//! compiled; running it encodes them into one pass and submits it without waiting; reading waits.
//! Kernels are the WGSL files in `kernels/`, whose README says how they are written.

#![deny(unsafe_code)]

mod adapter;
mod context;
mod expr;
mod lower;
mod mapped;
mod memory;
#[cfg(all(target_os = "macos", target_arch = "aarch64"))]
mod metal;
mod program;
mod read;
mod source;

pub use adapter::{Adapter, Choice, Error, NOOP, adapters};

use context::Context;
pub use context::{Counter, Counts, Facts};
use kiln_plan::{Backend, Buffer, Device, Op, Part, Plan, Program, Recorder, Result, Spec};
use memory::{Pool, Stored};
use read::Staging;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// How to set the backend up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Which adapter.
    pub adapter: Choice,
    /// Use subgroups where the adapter has them.
    pub subgroups: bool,
    /// Use cooperative matrices where the adapter has them.
    pub matrices: bool,
    /// See no more than this many bytes of a buffer, even where the adapter could.
    pub binding: Option<u64>,
    /// Leave weights of at least this many bytes in the file that they are mapped from. By default
    /// 16 MiB on Apple's processors, and none elsewhere, where pages are copied: only tests want
    /// that.
    pub map: Option<usize>,
    /// Let the driver check every index. Slower.
    pub checked: bool,
    /// Fill fresh memory with NaN and watch the bytes behind it. For tests; slow.
    pub poison: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            adapter: Choice::Best,
            subgroups: true,
            matrices: true,
            binding: None,
            map: None,
            checked: false,
            poison: false,
        }
    }
}

/// A device on a GPU.
pub fn device(options: &Options) -> std::result::Result<Device, Error> {
    Ok(Device::new(Gpu::new(options)?))
}

/// The kernels that a plan would run on a device of which these facts are true: their names and WGSL
/// texts, each once. Needs no GPU.
pub fn kernels(plan: &Plan, facts: &Facts) -> Result<Vec<(&'static str, String)>> {
    let mut kernels = Vec::new();
    for dispatch in lower::lower(facts, plan, &HashMap::new())?.dispatches {
        let text = dispatch.kernel.text();
        let text = text.map_err(|error| facts.failed(error))?;
        let named = (dispatch.kernel.file, text);
        if !kernels.contains(&named) {
            kernels.push(named);
        }
    }
    Ok(kernels)
}

/// The backend.
pub struct Gpu {
    shared: Arc<Shared>,
}

/// What the backend and its programs have in common.
pub(crate) struct Shared {
    pub(crate) context: Arc<Context>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) staging: Arc<Staging>,
    /// Who wants to know what runs take.
    pub(crate) recorder: OnceLock<Recorder>,
}

impl Gpu {
    /// Takes the adapter and makes its device. An error where there is no such adapter, or where
    /// it lacks something that Kiln needs.
    pub fn new(options: &Options) -> std::result::Result<Gpu, Error> {
        let context = Arc::new(Context::new(options)?);
        Ok(Gpu {
            shared: Arc::new(Shared {
                pool: Pool::new(context.clone()),
                staging: Staging::new(context.clone()),
                recorder: OnceLock::new(),
                context,
            }),
        })
    }

    /// Tells `recorder` of every run of plans that are compiled from now on: one span for all of its
    /// steps, from when they are queued. Such a run waits for its work, so the host's share of the
    /// time is not hidden behind it. Only the first recorder is told.
    pub fn record(&self, recorder: Recorder) {
        self.shared.recorder.get_or_init(|| recorder);
    }

    /// The adapter.
    pub fn adapter(&self) -> &Adapter {
        &self.shared.context.about
    }

    /// What it has been asked to do. The counter goes on counting when the backend has become a
    /// device.
    pub fn counter(&self) -> Counter {
        self.shared.context.counter.clone()
    }

    /// The number of lanes in a subgroup, where kernels use subgroups.
    pub fn subgroup(&self) -> Option<u32> {
        self.shared.context.facts.subgroup
    }

    /// The size of the cooperative matrices, where kernels use them.
    pub fn matrix(&self) -> Option<u32> {
        self.shared.context.facts.matrix
    }
}

impl Shared {
    pub(crate) fn stored<'b>(&self, buffer: &'b Buffer) -> Result<&'b Stored> {
        let stored = buffer.0.as_any().downcast_ref();
        stored.ok_or_else(|| self.context.failed("a buffer of another device"))
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.context.fmt(f)
    }
}

impl Backend for Gpu {
    fn supports(&self, op: &Op, inputs: &[Spec]) -> bool {
        lower::supports(op, inputs)
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        let raw = self.shared.pool.take(bytes)?;
        Ok(Buffer(Arc::new(Stored::new(raw))))
    }

    fn load(&self, spec: &Spec, rows: Vec<Part>) -> Result<Buffer> {
        self.shared.context.check()?;
        let stored = Stored::load(&self.shared.pool, spec, &rows)?;
        Ok(Buffer(Arc::new(stored)))
    }

    fn read(&self, buffer: &Buffer, from: usize, out: &mut [u8]) -> Result<()> {
        self.shared.read(buffer, from, out)
    }

    fn compile(&self, plan: &Plan) -> Result<Box<dyn Program>> {
        let compiled = program::Compiled::new(self.shared.clone(), plan)?;
        Ok(Box::new(compiled))
    }

    fn memory(&self) -> kiln_plan::Memory {
        self.shared.pool.memory()
    }

    fn queues(&self) -> bool {
        true
    }

    fn together(&self) -> usize {
        lower::TOGETHER
    }
}
