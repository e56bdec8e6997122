//! What a run has to say at its end: statistics, or the JSON object.

use super::Run;
use crate::machine::{self, Opened};
use crate::output;
use kiln::{Device, Finish, Generation, Logprobs};
use serde_json::{Value, json};
use std::time::Duration;

/// What came out, beside what the generation knows.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) text: String,
    pub(super) interrupted: bool,
    /// Tokens with their log-probabilities, if these were asked for.
    pub(super) logprobs: Vec<(u32, Logprobs)>,
    pub(super) timings: Timings,
}

/// How long it took.
#[derive(Clone, Copy, Default)]
pub(super) struct Timings {
    pub(super) load: Duration,
    pub(super) prompt: Duration,
    /// Tokens of the prompt that were computed in that time.
    pub(super) prompt_tokens: usize,
    pub(super) generation: Duration,
}

/// Prints statistics to standard error, and with `--json` the object to standard output.
pub(super) fn report(
    task: &Run,
    generation: &Generation<'_>,
    machine: &Opened,
    outcome: &Outcome,
) -> anyhow::Result<()> {
    let device = &machine.device;
    if !task.quiet {
        statistics(generation, outcome);
        if task.machine.is_fast() {
            output::say(machine.note_exact().unwrap_or("precision: fast"));
        }
    }
    if task.verbose {
        output::say(format_args!(
            "load: {:.3} s",
            outcome.timings.load.as_secs_f64()
        ));
        output::say(format_args!("seed: {}", task.sampling.seed));
        output::say(format_args!("device: {device}"));
        output::say(format_args!("finish: {}", finish(generation, outcome)));
        let stats = device.stats();
        output::say(format_args!(
            "evaluations: {} of {} nodes in {} steps, {} copies, {} compiled, {} allocations, peak {}",
            stats.evaluations,
            stats.nodes,
            stats.steps,
            stats.copies,
            stats.misses,
            stats.allocations,
            output::size(stats.peak_bytes as u64),
        ));
    }
    if task.json {
        output::write_json(&object(task, generation, device, outcome))?;
    }
    Ok(())
}

fn statistics(generation: &Generation<'_>, outcome: &Outcome) {
    let Timings {
        prompt,
        prompt_tokens,
        generation: rest,
        ..
    } = outcome.timings;
    let lines = [
        ("prompt", prompt_tokens, prompt),
        ("generation", generation.tokens().len(), rest),
    ];
    for (what, tokens, time) in lines {
        output::say(format_args!(
            "{what}: {tokens} tokens, {:.2} tok/s",
            rate(tokens, time)
        ));
    }
    if let Some(bytes) = machine::peak_memory() {
        output::say(format_args!("peak memory: {} MB", bytes / 1_000_000));
    }
}

fn object(task: &Run, generation: &Generation<'_>, device: &Device, outcome: &Outcome) -> Value {
    let Timings {
        load,
        prompt,
        prompt_tokens,
        generation: rest,
    } = outcome.timings;
    let tokens = generation.tokens();
    let mut object = json!({
        "text": outcome.text,
        "prompt_ids": generation.prompt(),
        "token_ids": tokens,
        "finish_reason": finish(generation, outcome),
        "seed": task.sampling.seed,
        "device": device.to_string(),
        "timings": {
            "load_s": load.as_secs_f64(),
            "prompt_tokens": prompt_tokens,
            "prompt_tps": rate(prompt_tokens, prompt),
            "generation_tokens": tokens.len(),
            "generation_tps": rate(tokens.len(), rest),
            "peak_memory_bytes": machine::peak_memory(),
        },
    });
    if task.top_logprobs.is_some() {
        let entries = outcome
            .logprobs
            .iter()
            .map(|(id, of)| json!({"token_id": id, "logprob": of.chosen, "top": of.top}));
        object["logprobs"] = entries.collect();
    }
    object
}

fn finish(generation: &Generation<'_>, outcome: &Outcome) -> &'static str {
    match generation.finish() {
        Some(Finish::Stop) => "stop",
        Some(Finish::Length) => "length",
        None if outcome.interrupted => "interrupted",
        None => "unfinished",
    }
}

fn rate(tokens: usize, time: Duration) -> f64 {
    if time.is_zero() {
        0.0
    } else {
        tokens as f64 / time.as_secs_f64()
    }
}
