//! `kiln bench --limits`: what the processor can do.

use super::Bench;
use crate::exit::{Code, Refused};
use crate::output;
use anyhow::Result;
use kiln_cpu::Limits;
use serde_json::{Map, Value, json};

/// Measures and prints the limits.
pub(super) fn limits(task: &Bench) -> Result<Code> {
    let Some(limits) = task.machine.limits()? else {
        let message = "--limits measures the processor, and needs 1 GiB for each of its threads";
        return Err(Refused::new(Code::Device, message).into());
    };
    if task.json {
        output::write_json(&json(&limits))?;
    } else {
        output::write(&(line(&limits) + "\n"))?;
    }
    Ok(Code::Success)
}

/// The limits, for reading.
pub(super) fn line(limits: &Limits) -> String {
    let products = limits.operations.iter();
    let products = products.map(|(name, rate)| format!(", {name} {:.0} Gop/s", rate / 1e9));
    format!(
        "memory {:.1} GB/s{} on {} threads",
        limits.bandwidth / 1e9,
        products.collect::<String>(),
        limits.threads,
    )
}

/// Bytes, multiplications and additions per second.
pub(super) fn json(limits: &Limits) -> Value {
    let operations = limits.operations.iter();
    let operations = operations.map(|(name, rate)| ((*name).to_owned(), json!(rate)));
    json!({
        "threads": limits.threads,
        "bandwidth": limits.bandwidth,
        "bytes": limits.bytes,
        "operations": operations.collect::<Map<String, Value>>(),
    })
}
