//! The CPU backend of Kiln.
//!
//! [`device`] gives a device on which arrays are computed by the processor's own vector
//! instructions, chosen at run time, on a private team of threads. Results have the same bits for
//! every number of threads. Loaded rows stay where they are, at any alignment.
//!
//! ```
//! use kiln_array::Array;
//!
//! # fn main() -> kiln_array::Result<()> {
//! let device = kiln_cpu::device(Default::default())?;
//! let x = Array::from_slice(&[3.0f32, 4.0], &[1, 2], &device)?;
//! assert_eq!(x.matmul(&x)?.item::<f32>()?, 25.0);
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

mod cores;
mod kernels;
#[allow(unsafe_code)]
mod limits;
mod lower;
#[allow(unsafe_code)]
mod memory;
mod pages;
mod program;
mod recorded;
#[allow(unsafe_code)]
mod simd;
mod storage;
mod team;
#[allow(unsafe_code)]
mod widest;

pub use limits::Limits;
pub use pages::large_pages;
pub use widest::{Work, widest};

use kiln_plan::{Backend, Buffer, Device, Op, Part, Plan, Program, Recorder, Result, Spec};
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use storage::{Loaded, Stored};

/// How to set the backend up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options<'a> {
    /// How many threads; by default as many as there are physical cores that may be used.
    pub threads: Option<usize>,
    /// The instruction set's name, see [`instruction_sets`]; by default what the environment
    /// variable `KILN_ISA` names, or the best one of this machine.
    pub isa: Option<&'a str>,
    /// What may be rounded on the way to a result.
    pub precision: Precision,
    /// Fills fresh memory with NaN and watches the bytes behind it. For tests; slow.
    pub poison: bool,
}

/// What may be rounded on the way to a result, besides sums.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Precision {
    /// Nothing.
    #[default]
    Exact,
    /// The vectors that quantised weights meet where there are more than eight of them (a prompt): to
    /// multiples of a 127th of the largest element of each group. For affine formats in groups of 64 or
    /// 128; all else is exact. A group with an element that is not finite counts as NaN. Needs an
    /// instruction set with products of bytes.
    Fast,
}

/// Why the backend cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No instruction set has this name.
    #[error("no instruction set is called {name}; there are {}", .known.join(", "))]
    UnknownIsa {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// This machine cannot run these instructions.
    #[error("this machine has no {name}; it has {}", .available.join(", "))]
    MissingIsa {
        /// What was asked for.
        name: String,
        /// What this machine can run.
        available: Vec<&'static str>,
    },
    /// These instructions have nothing for [`Precision::Fast`].
    #[error(
        "precision fast needs products of bytes, which {isa} has not{}",
        list(others)
    )]
    NoFast {
        /// The instruction set.
        isa: &'static str,
        /// What this machine can run that has them.
        others: Vec<&'static str>,
    },
    /// Threads could not be started.
    #[error("{threads} threads could not be started: {reason}")]
    Threads {
        /// How many.
        threads: usize,
        /// What the system said.
        reason: String,
    },
}

fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [name] => format!("; {name} has"),
        names => format!("; {} have", names.join(", ")),
    }
}

impl From<Error> for kiln_plan::Error {
    fn from(error: Error) -> kiln_plan::Error {
        kiln_plan::Error::Device {
            device: "cpu".into(),
            reason: error.to_string(),
        }
    }
}

/// A device on this machine's processor.
pub fn device(options: Options<'_>) -> std::result::Result<Device, Error> {
    Ok(Device::new(Cpu::new(options)?))
}

/// The names of the instruction sets that this machine can run, best first.
pub fn instruction_sets() -> Vec<&'static str> {
    simd::Isa::all().map(|isa| isa.name()).collect()
}

/// The backend.
pub struct Cpu {
    shared: Arc<Shared>,
}

/// What the backend and its programs have in common.
pub(crate) struct Shared {
    isa: &'static simd::Isa,
    precision: Precision,
    team: team::Team,
    pool: Arc<memory::Pool>,
    /// Held while a program runs or a buffer is read: kernels write what others may see.
    turn: Mutex<()>,
    /// Whether a plan was compiled that rounds vectors.
    rounds: Arc<AtomicBool>,
    /// Who wants to know what steps take.
    recorder: OnceLock<Recorder>,
}

impl Cpu {
    /// Chooses the instruction set and starts the threads. An error for an instruction set that
    /// does not exist or that this machine lacks, and where threads cannot be started.
    pub fn new(options: Options<'_>) -> std::result::Result<Cpu, Error> {
        let variable = std::env::var("KILN_ISA")
            .ok()
            .filter(|name| !name.is_empty());
        let name = options.isa.or(variable.as_deref());
        let isa = simd::find(name).map_err(|absent| {
            let name = name.unwrap_or("instruction set").to_string();
            match absent {
                simd::Absent::Unknown => Error::UnknownIsa {
                    name,
                    known: simd::names(),
                },
                simd::Absent::Unavailable => Error::MissingIsa {
                    name,
                    available: instruction_sets(),
                },
            }
        })?;
        let precision = options.precision;
        if precision == Precision::Fast && isa.quads().is_none() {
            let others = simd::Isa::all().filter(|isa| isa.quads().is_some());
            return Err(Error::NoFast {
                isa: isa.name(),
                others: others.map(|isa| isa.name()).collect(),
            });
        }
        let threads = options
            .threads
            .unwrap_or_else(cores::default_threads)
            .max(1);
        let team = team::Team::new(threads).map_err(|error| Error::Threads {
            threads,
            reason: error.to_string(),
        })?;
        let pool = memory::Pool::new(options.poison);
        Ok(Cpu {
            shared: Arc::new(Shared {
                isa,
                precision,
                team,
                pool,
                turn: Mutex::new(()),
                rounds: Arc::default(),
                recorder: OnceLock::new(),
            }),
        })
    }

    /// Tells `recorder` of every run of plans that are compiled from now on: a span for each piece
    /// of a kernel, its lane the thread's number. Only the first recorder is told.
    pub fn record(&self, recorder: Recorder) {
        self.shared.recorder.get_or_init(|| recorder);
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.shared.team.threads()
    }

    /// What may be rounded.
    pub fn precision(&self) -> Precision {
        self.shared.precision
    }

    /// Tells from now on whether anything that was compiled is rounded as [`Precision::Fast`] allows.
    pub fn rounds(&self) -> Arc<AtomicBool> {
        self.shared.rounds.clone()
    }

    /// The instruction set's name.
    pub fn isa(&self) -> &'static str {
        self.shared.isa.name()
    }
}

impl Shared {
    fn failed(&self, reason: &str) -> kiln_plan::Error {
        kiln_plan::Error::Device {
            device: self.to_string(),
            reason: reason.into(),
        }
    }

    fn no_room(&self, bytes: usize) -> kiln_plan::Error {
        kiln_plan::Error::Memory {
            device: self.to_string(),
            bytes,
        }
    }

    fn take(&self, bytes: usize) -> Result<memory::Block> {
        self.pool.take(bytes).ok_or_else(|| self.no_room(bytes))
    }

    fn stored<'b>(&self, buffer: &'b Buffer) -> Result<&'b Stored> {
        let stored = buffer.0.as_any().downcast_ref();
        stored.ok_or_else(|| self.failed("a buffer of another device"))
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = self.team.threads();
        let plural = if threads == 1 { "" } else { "s" };
        let precision = match self.precision {
            Precision::Exact => "",
            Precision::Fast => ", precision fast",
        };
        write!(
            f,
            "cpu ({}, {threads} thread{plural}{precision})",
            self.isa.name()
        )
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl Backend for Cpu {
    fn supports(&self, op: &Op, inputs: &[Spec]) -> bool {
        match op {
            Op::Custom(custom) => custom.function(inputs).is_some(),
            _ => true,
        }
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        let block = self.shared.take(bytes)?;
        Ok(Buffer(Arc::new(Stored::Owned(
            block,
            AtomicBool::new(false),
        ))))
    }

    fn load(&self, _: &Spec, rows: Vec<Part>) -> Result<Buffer> {
        Ok(Buffer(Arc::new(Stored::Loaded(Loaded::new(rows)))))
    }

    fn read(&self, buffer: &Buffer, from: usize, out: &mut [u8]) -> Result<()> {
        let _turn = memory::lock(&self.shared.turn);
        match self.shared.stored(buffer)? {
            Stored::Owned(block, _) => {
                let bytes = block
                    .as_slice()
                    .get(from..)
                    .and_then(|b| b.get(..out.len()));
                let bytes =
                    bytes.ok_or_else(|| self.shared.failed("a read past a buffer's end"))?;
                out.copy_from_slice(bytes);
            }
            Stored::Loaded(loaded) => loaded.read(from, out),
        }
        Ok(())
    }

    fn compile(&self, plan: &Plan) -> Result<Box<dyn Program>> {
        Ok(Box::new(program::Compiled::new(self.shared.clone(), plan)?))
    }

    fn memory(&self) -> kiln_plan::Memory {
        self.shared.pool.memory()
    }

    fn queues(&self) -> bool {
        false
    }

    fn together(&self) -> usize {
        kernels::matmul::TOGETHER
    }
}
