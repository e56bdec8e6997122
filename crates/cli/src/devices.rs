//! `kiln devices`: what there is to run on.

use crate::exit::Code;
use crate::machine::Threads;
use crate::{gpu, output};
use clap::Args;
use kiln_cpu::Cpu;
use serde_json::{Value, json};

/// List the devices that models can run on
///
/// The names are what --device takes.
#[derive(Debug, Args)]
pub(crate) struct Devices {
    #[command(flatten)]
    threads: Threads,

    /// Open every GPU that can be used, and say what its kernels use
    #[arg(short, long)]
    verbose: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A device, told to people and to programs.
pub(crate) struct Entry {
    /// What `--device` takes.
    pub(crate) name: String,
    pub(crate) lines: Vec<String>,
    pub(crate) facts: Value,
}

pub(crate) fn devices(task: &Devices) -> anyhow::Result<Code> {
    let mut entries = vec![processor(&task.threads.start()?)];
    match gpu::entries(task.verbose) {
        Ok(gpus) => entries.extend(gpus),
        Err(reason) => output::say(format_args!("note: {reason}")),
    }
    if task.json {
        let facts: Value = entries.into_iter().map(|entry| entry.facts).collect();
        output::write_json(&json!({ "devices": facts }))?;
    } else {
        let texts: Vec<String> = entries.iter().map(text).collect();
        output::write(&output::plain(&texts.concat()))?;
    }
    Ok(Code::Success)
}

/// What is known of the processor.
pub(crate) fn processor(cpu: &Cpu) -> Entry {
    let (isa, threads, sets) = (cpu.isa(), cpu.threads(), kiln_cpu::instruction_sets());
    let plural = if threads == 1 { "" } else { "s" };
    let list = sets.join(", ");
    Entry {
        name: "cpu".into(),
        lines: vec![format!(
            "{isa}, {threads} thread{plural}; KILN_ISA may be {list}"
        )],
        facts: json!({"name": "cpu", "isa": isa, "threads": threads, "instruction_sets": sets}),
    }
}

/// The name before the first line, the others below it.
pub(crate) fn text(entry: &Entry) -> String {
    let names = std::iter::once(entry.name.as_str()).chain(std::iter::repeat(""));
    let lines = names.zip(&entry.lines);
    lines
        .map(|(name, line)| format!("{name:<7}{line}\n"))
        .collect()
}
