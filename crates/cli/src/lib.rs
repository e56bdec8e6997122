//! The programs: `kiln` with its subcommands, and the doors `kiln-convert` and `kiln-run`.
//!
//! Each subcommand is a file: its arguments, and a function that carries them out. Standard output
//! carries a command's result and nothing else; everything that is said beside goes to standard
//! error (`output`). Every error has an exit code (`exit`).

#![forbid(unsafe_code)]

mod bench;
mod convert;
mod devices;
mod diff;
mod exit;
#[cfg(feature = "wgpu")]
mod gpu;
#[cfg(not(feature = "wgpu"))]
#[path = "no_gpu.rs"]
mod gpu;
#[cfg(feature = "hub")]
mod hub;
#[cfg(not(feature = "hub"))]
#[path = "no_hub.rs"]
mod hub;
mod inspect;
mod interrupt;
mod machine;
mod output;
mod progress;
mod run;
mod selftest;
mod timed;
mod trace;

use clap::{Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::process::ExitCode;

/// Convert and run language models.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, propagate_version = true)]
struct Kiln {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    Convert(convert::Convert),
    Run(Box<run::Run>),
    Inspect(inspect::Inspect),
    Diff(diff::Differ),
    Bench(bench::Bench),
    Devices(devices::Devices),
    Selftest(selftest::Selftest),
}

/// The program `kiln`.
pub fn kiln() -> ExitCode {
    start::<Kiln>(Kiln::command(), |kiln| match kiln.task {
        Task::Convert(task) => convert::convert(&task),
        Task::Run(task) => run::run(&task),
        Task::Inspect(task) => inspect::inspect(&task),
        Task::Diff(task) => diff::diff(&task),
        Task::Bench(task) => bench::bench(&task),
        Task::Devices(task) => devices::devices(&task),
        Task::Selftest(task) => selftest::selftest(&task),
    })
}

/// The program `kiln-convert`: `kiln convert` under a name of its own.
pub fn kiln_convert() -> ExitCode {
    start::<convert::Convert>(door::<convert::Convert>("kiln-convert"), |task| {
        convert::convert(&task)
    })
}

/// The program `kiln-run`: `kiln run` under a name of its own.
pub fn kiln_run() -> ExitCode {
    start::<run::Run>(door::<run::Run>("kiln-run"), |task| run::run(&task))
}

fn door<A: Args>(name: &'static str) -> Command {
    A::augment_args(Command::new(name).version(env!("CARGO_PKG_VERSION")))
}

/// Reads the command line, carries it out, and turns what came of it into an exit code.
fn start<A: FromArgMatches>(
    command: Command,
    task: impl FnOnce(A) -> anyhow::Result<exit::Code>,
) -> ExitCode {
    exit::report_faults();
    let help = exit::help();
    let command = command.mut_subcommands(|task| task.after_long_help(help.clone()));
    let command = command.after_long_help(help);
    let parsed = command
        .try_get_matches()
        .and_then(|matches| A::from_arg_matches(&matches));
    match parsed {
        Ok(arguments) => exit::finish(task(arguments)),
        Err(error) => {
            // Nobody is left to tell if even this cannot be printed.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::Code::Usage as u8))
        }
    }
}
