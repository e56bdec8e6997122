//! Where a model runs, and how much memory that took.

use crate::devices::{self, Entry};
use crate::exit::{Code, Refused};
use crate::gpu;
use crate::timed::{Clock, Timed};
use crate::trace;
use clap::{Args, ValueEnum};
use kiln::{CpuOptions, Device};
use kiln_array::{Backend, Observer, Options, Recorder, Run};
use kiln_conformance::{Finite, Verified};
use kiln_cpu::{Cpu, Limits};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What to run on.
#[derive(Debug, Args)]
pub(crate) struct Machine {
    /// Where to run: cpu, gpu (the best one), gpu:INDEX or gpu:NAME; kiln devices lists them
    #[arg(long, default_value = "cpu", env = "KILN_DEVICE")]
    device: Place,

    #[command(flatten)]
    threads: Threads,

    /// What may be rounded: exact, nothing but sums; fast, prompts of the cpu that meet 1 to 8 bit weights
    /// in groups of 64 or 128, to bytes
    #[arg(long, value_enum, value_name = "PRECISION", default_value = "exact")]
    precision: Precision,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
enum Precision {
    #[default]
    Exact,
    Fast,
}

impl From<Precision> for kiln_cpu::Precision {
    fn from(precision: Precision) -> kiln_cpu::Precision {
        match precision {
            Precision::Exact => kiln_cpu::Precision::Exact,
            Precision::Fast => kiln_cpu::Precision::Fast,
        }
    }
}

/// How to use the processor.
#[derive(Debug, Default, Args)]
pub(crate) struct Threads {
    /// Threads of the cpu [default: the physical cores that may be used]
    #[arg(long, value_name = "N", env = "KILN_THREADS")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Place {
    Cpu,
    Gpu(Which),
}

/// Which of the GPUs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    Best,
    Index(usize),
    Name(String),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        let which = match text.split_once(':') {
            None if text == "cpu" => return Ok(Place::Cpu),
            None if text == "gpu" => Which::Best,
            Some(("gpu", name)) if !name.trim().is_empty() => match name.parse() {
                Ok(index) => Which::Index(index),
                Err(_) => Which::Name(name.trim().into()),
            },
            _ => return Err("expected cpu, gpu, gpu:INDEX or gpu:NAME".into()),
        };
        Ok(Place::Gpu(which))
    }
}

/// A device, ready to run.
pub(crate) struct Opened {
    pub(crate) device: Device,
    /// How long the device's programs have run. On a GPU that is the time for queueing their work.
    pub(crate) clock: Clock,
    /// What computes: CPU, or what drives the GPU.
    pub(crate) backend: String,
    /// The processor's threads; `None` where a GPU computes.
    pub(crate) threads: Option<usize>,
    /// What is known of the device.
    pub(crate) about: Entry,
    rounds: Option<Arc<AtomicBool>>,
}

impl Opened {
    /// What to say where `--precision fast` was asked for and nothing so far could be rounded.
    pub(crate) fn note_exact(&self) -> Option<&'static str> {
        let rounds = self.rounds.as_ref()?;
        (!rounds.load(Ordering::Relaxed)).then_some(
            "note: --precision fast rounded nothing: it needs prompts of more than 8 tokens, and weights of 1 to \
             8 bits in groups of 64 or 128",
        )
    }
}

impl Threads {
    /// Starts the processor's backend, which computes exactly.
    pub(crate) fn start(&self) -> anyhow::Result<Cpu> {
        self.start_with(Precision::Exact)
    }

    fn start_with(&self, precision: Precision) -> anyhow::Result<Cpu> {
        Ok(Cpu::new(CpuOptions {
            threads: self.threads.map(usize::from),
            precision: precision.into(),
            ..CpuOptions::default()
        })?)
    }
}

impl Machine {
    /// Whether more may be rounded than sums.
    pub(crate) fn is_fast(&self) -> bool {
        self.precision == Precision::Fast
    }

    /// An error for fast results where exact ones are compared with others.
    pub(crate) fn refuse_fast(&self, who: &str) -> anyhow::Result<()> {
        let message = || format!("{who} compares exact results: leave --precision fast out");
        match self.is_fast() {
            true => Err(Refused::new(Code::Usage, message()).into()),
            false => Ok(()),
        }
    }

    /// Starts the backend and makes a device of it.
    pub(crate) fn open(&self) -> anyhow::Result<Opened> {
        self.open_recorded(None)
    }

    /// What the processor can do at most; `None` for a GPU, or without the memory to measure it.
    pub(crate) fn limits(&self) -> anyhow::Result<Option<Limits>> {
        Ok(match &self.device {
            Place::Cpu => self.threads.start()?.limits(),
            Place::Gpu(_) => None,
        })
    }

    /// As [`Machine::open`]; tells `recorder` of what runs.
    pub(crate) fn open_recorded(&self, recorder: Option<Recorder>) -> anyhow::Result<Opened> {
        let mut rounds = None;
        let (backend, name, threads, about): (Box<dyn Backend>, _, _, _) = match &self.device {
            Place::Cpu => {
                let cpu = self.threads.start_with(self.precision)?;
                let threads = cpu.threads();
                rounds = self.is_fast().then(|| cpu.rounds());
                if let Some(recorder) = recorders(recorder, Some(threads))? {
                    cpu.record(recorder);
                }
                let about = devices::processor(&cpu);
                let name = match self.precision {
                    Precision::Exact => "CPU",
                    Precision::Fast => "CPU fast",
                };
                (Box::new(cpu), name.into(), Some(threads), about)
            }
            Place::Gpu(_) if self.is_fast() => {
                let message = "--precision fast is for the cpu: GPUs compute exactly";
                return Err(Refused::new(Code::Usage, message).into());
            }
            Place::Gpu(which) => {
                let (gpu, driver, about) = gpu::start(which, recorders(recorder, None)?)?;
                (gpu, driver, None, about)
            }
        };
        let backend: Box<dyn Backend> = if asked("KILN_VERIFY") {
            self.refuse_fast("KILN_VERIFY")?;
            Box::new(Verified::new(backend, Box::new(self.reference()?)))
        } else {
            backend
        };
        let backend: Box<dyn Backend> = if asked("KILN_NAN_CHECK") {
            Box::new(Finite::new(backend))
        } else {
            backend
        };
        let clock = Clock::default();
        Ok(Opened {
            device: device(Timed {
                backend,
                clock: clock.clone(),
            }),
            clock,
            backend: name,
            threads,
            about,
            rounds,
        })
    }
}

impl Machine {
    /// What watches the device where `KILN_VERIFY` asks for it: the processor; of a processor, its
    /// plainest instructions.
    fn reference(&self) -> anyhow::Result<Cpu> {
        let isa = (self.device == Place::Cpu).then_some("scalar");
        Ok(Cpu::new(CpuOptions {
            isa,
            ..CpuOptions::default()
        })?)
    }
}

/// `recorder` and the one that `KILN_TRACE` asks for, as one.
fn recorders(
    recorder: Option<Recorder>,
    threads: Option<usize>,
) -> anyhow::Result<Option<Recorder>> {
    let path = std::env::var_os("KILN_TRACE").filter(|path| !path.is_empty());
    let trace = path.map(|path| trace::recorder(path.as_ref(), threads));
    Ok(match (recorder, trace.transpose()?) {
        (Some(first), Some(second)) => Some(Arc::new(move |run: &Run<'_>| {
            first(run);
            second(run);
        })),
        (first, second) => first.or(second),
    })
}

/// Whether an environment variable asks for something.
fn asked(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|v| !v.is_empty() && v != "0")
}

/// A device that prints the plans it compiles where `KILN_PLAN` asks for it.
fn device(backend: impl Backend + 'static) -> Device {
    let observer: Option<Observer> =
        asked("KILN_PLAN").then(|| -> Observer { Box::new(|plan| crate::output::say(plan)) });
    Device::with(backend, Options::default(), observer)
}

/// The most memory that this process has had, mapped files included; `None` where the system does
/// not say.
pub(crate) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_the_cpu_or_a_gpu_that_is_best_numbered_or_named() {
        let gpu = |which| Ok(Place::Gpu(which));
        assert_eq!("cpu".parse(), Ok(Place::Cpu));
        assert_eq!("gpu".parse(), gpu(Which::Best));
        assert_eq!("gpu:0".parse(), gpu(Which::Index(0)));
        assert_eq!("gpu:12".parse(), gpu(Which::Index(12)));
        assert_eq!("gpu:llvmpipe".parse(), gpu(Which::Name("llvmpipe".into())));
        assert_eq!(
            "gpu:Card 4: big".parse(),
            gpu(Which::Name("Card 4: big".into()))
        );
        for wrong in ["", "abacus", "GPU", "gpu:", "gpu: ", "cpu:0", ":0", "gpu0"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
