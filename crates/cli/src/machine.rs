//! Where a model runs, and how much memory that took.

use clap::{Args, ValueEnum};
use kiln::{CpuOptions, Device};
use kiln_array::{Backend, Observer, Options};
use kiln_cpu::Cpu;

/// What to run on.
#[derive(Debug, Args)]
pub(crate) struct Machine {
    /// Where to run
    #[arg(long, value_enum, default_value_t = Kind::Cpu, env = "KILN_DEVICE")]
    device: Kind,

    /// Threads [default: the physical cores that may be used]
    #[arg(long, value_name = "N", env = "KILN_THREADS")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// This machine's processor
    Cpu,
}

impl Machine {
    /// Starts the backend.
    pub(crate) fn backend(&self) -> anyhow::Result<Cpu> {
        match self.device {
            Kind::Cpu => {
                let threads = self.threads.map(usize::from);
                Ok(Cpu::new(CpuOptions {
                    threads,
                    ..CpuOptions::default()
                })?)
            }
        }
    }

    /// Starts the backend and makes a device of it.
    pub(crate) fn open(&self) -> anyhow::Result<Device> {
        Ok(device(self.backend()?))
    }
}

/// A device that prints the plans it compiles where `KILN_PLAN` asks for it.
pub(crate) fn device(backend: impl Backend + 'static) -> Device {
    let wanted = std::env::var_os("KILN_PLAN").is_some_and(|v| !v.is_empty() && v != "0");
    let observer: Option<Observer> =
        wanted.then(|| -> Observer { Box::new(|plan| crate::output::say(plan)) });
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
