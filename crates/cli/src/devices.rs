//! `kiln devices`: what there is to run on.

use crate::exit::Code;
use crate::machine::Machine;
use crate::output;
use clap::Args;
use serde_json::json;

/// List the devices that models can run on
#[derive(Debug, Args)]
pub(crate) struct Devices {
    #[command(flatten)]
    machine: Machine,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn devices(task: &Devices) -> anyhow::Result<Code> {
    let cpu = task.machine.backend()?;
    let (isa, threads, sets) = (cpu.isa(), cpu.threads(), kiln_cpu::instruction_sets());
    if task.json {
        let device =
            json!({"name": "cpu", "isa": isa, "threads": threads, "instruction_sets": sets});
        output::write_json(&json!({"devices": [device]}))?;
    } else {
        let plural = if threads == 1 { "" } else { "s" };
        let sets = sets.join(", ");
        output::write(&format!(
            "cpu  {isa}, {threads} thread{plural}; KILN_ISA may be {sets}\n"
        ))?;
    }
    Ok(Code::Success)
}
