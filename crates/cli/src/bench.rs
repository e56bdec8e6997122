//! `kiln bench`: how fast prompts are read and tokens generated.

mod limits;
mod profile;
mod synthetic;
mod table;

use crate::exit::{Code, Refused};
use crate::machine::{Machine, Opened, peak_memory};
use crate::output;
use anyhow::Result;
use clap::Args;
use kiln::{Array, Cache, DType, Model};
use kiln_array::Stats;
use kiln_cpu::Limits;
use profile::{Profile, Sums};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Measure how fast a model reads prompts (pp) and generates tokens (tg)
///
/// Prints the table that llama-bench prints. Neither the tokenizer nor the sampler is part of what
/// is measured. With --device gpu:noop nothing is computed: what is left is the host's share of a
/// GPU's time.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The model's directory
    #[arg(short, long, visible_alias = "model-path", value_name = "DIR")]
    #[arg(default_value = "mlx_model")]
    model: PathBuf,

    /// Instead of a model: random weights of the shape of SmolLM2-135M, TinyLlama-1.1B, Mistral-7B
    #[arg(long, value_enum, value_name = "SIZE", conflicts_with = "model")]
    synthetic: Option<synthetic::Size>,

    /// How random weights are stored: f32, f16, bf16, q4, q8, q4g32, q4g32-f16, mxfp4, …
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "q4",
        requires = "synthetic",
        conflicts_with = "model"
    )]
    #[arg(value_parser = synthetic::format)]
    format: DType,

    /// Lengths of prompts to read; 0 for none
    #[arg(
        short = 'p',
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "512"
    )]
    n_prompt: Vec<u32>,

    /// Numbers of tokens to generate; 0 for none
    #[arg(
        short = 'n',
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "128"
    )]
    n_gen: Vec<u32>,

    /// How many tokens come before
    #[arg(
        short = 'd',
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "0"
    )]
    n_depth: Vec<u32>,

    /// How often each test runs
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,

    /// Tell where the time goes, operation by operation, and how near that is to what the processor
    /// can do. Noting when each piece of work begins and ends takes some time, too
    #[arg(long)]
    profile: bool,

    /// Instead of a model: what the processor can do, memory bandwidth and products per second.
    /// Takes 1 GiB of memory for each thread, at most 4
    #[arg(long, conflicts_with_all = ["model", "synthetic", "profile"])]
    limits: bool,

    #[command(flatten)]
    machine: Machine,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A model, and the machine it is on.
struct Bed {
    model: Model,
    machine: Opened,
    profile: Option<Profile>,
    name: String,
    parameters: u64,
    load: Duration,
}

/// What all tests told.
struct Outcome {
    rows: Vec<Row>,
    /// The most memory that the process has had.
    peak: Option<u64>,
    /// What the processor can do, where a profile is compared with it.
    limits: Option<Limits>,
}

/// One row of the table.
#[derive(Debug)]
struct Row {
    test: String,
    /// Tokens per second of each repetition.
    rates: Vec<f64>,
    /// Where tokens were generated one by one, what they took.
    tokens: Option<Tokens>,
    /// Where the time went, if that was asked.
    sums: Option<Sums>,
}

/// What generated tokens took.
#[derive(Debug, Default)]
struct Tokens {
    /// Of each token, the time for building its graph.
    build: Vec<Duration>,
    /// Of each token, the host's time until the work begins: building the graph, finding its
    /// program, handing it its buffers; on a GPU also encoding and queueing its commands.
    host: Vec<Duration>,
    /// Of each token, on a GPU, the time for encoding and queueing its commands.
    encode: Vec<Duration>,
    /// What the device counted meanwhile.
    counts: Counts,
}

/// How much the device's counters grew.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    nodes: u64,
    steps: u64,
    copies: u64,
    misses: u64,
    allocations: u64,
}

pub(crate) fn bench(task: &Bench) -> Result<Code> {
    if task.limits {
        return limits::limits(task);
    }
    let bed = Bed::new(task)?;
    let tests = tests(task);
    for &(tokens, depth, prompt) in &tests {
        bed.require_room(tokens, depth, prompt)?;
    }
    if !task.json {
        output::write(&table::head())?;
    }
    let mut rows = Vec::with_capacity(tests.len());
    for (tokens, depth, prompt) in tests {
        let row = bed.row(tokens, depth, prompt, task.repetitions)?;
        if !task.json {
            output::write(&table::row(&bed, &row))?;
        }
        rows.push(row);
    }
    let outcome = Outcome {
        rows,
        peak: peak_memory(),
        // Takes memory that is not the tests'.
        limits: match task.profile {
            true => task.machine.limits()?,
            false => None,
        },
    };
    if let Some(note) = bed.machine.note_exact() {
        output::say(note);
    }
    if task.json {
        output::write_json(&table::json(&bed, &outcome))?;
    } else {
        for row in &outcome.rows {
            output::write(&table::profile(row, outcome.limits.as_ref()))?;
        }
        table::remarks(&bed, &outcome);
    }
    Ok(Code::Success)
}

/// Tokens, depth, and whether they are a prompt.
fn tests(task: &Bench) -> Vec<(usize, usize, bool)> {
    let mut tests = Vec::new();
    for &depth in &task.n_depth {
        for (lengths, prompt) in [(&task.n_prompt, true), (&task.n_gen, false)] {
            let lengths = lengths.iter().filter(|length| **length > 0);
            tests.extend(lengths.map(|&length| (length as usize, depth as usize, prompt)));
        }
    }
    tests
}

impl Bed {
    fn new(task: &Bench) -> Result<Bed> {
        match task.synthetic {
            Some(size) => Bed::synthetic(task, size),
            None => Bed::stored(task),
        }
    }

    /// A model from files.
    fn stored(task: &Bench) -> Result<Bed> {
        let summary = kiln::convert::inspect(&task.model, &kiln::map)?;
        let (machine, profile) = open(task)?;
        let start = Instant::now();
        let model = Model::load(&task.model, &machine.device)?;
        let load = start.elapsed();
        let kind = &model.config().model_type;
        Ok(Bed {
            name: format!("{kind}, {:.2} bits", summary.bits_per_weight),
            parameters: summary.parameters,
            model,
            machine,
            profile,
            load,
        })
    }

    /// A model that is made up. A GPU copies what it loads, so that there weights can share bytes.
    fn synthetic(task: &Bench, size: synthetic::Size) -> Result<Bed> {
        let (machine, profile) = open(task)?;
        let made = synthetic::make(size, task.format, copies(&machine))?;
        let start = Instant::now();
        let model = Model::new(made.config, &made.checkpoint, &machine.device)?;
        Ok(Bed {
            name: made.name,
            parameters: made.parameters,
            model,
            machine,
            profile,
            load: start.elapsed(),
        })
    }

    /// Fails if a test does not fit the model's context.
    fn require_room(&self, tokens: usize, depth: usize, prompt: bool) -> Result<()> {
        let context = self.model.config().context;
        if depth + tokens <= context {
            return Ok(());
        }
        let new = if prompt { 0 } else { tokens };
        Err(kiln::Error::Context {
            prompt: depth + tokens - new,
            new,
            context,
        }
        .into())
    }

    /// Runs one test: first to warm up, then `repetitions` times.
    fn row(&self, tokens: usize, depth: usize, prompt: bool, repetitions: u32) -> Result<Row> {
        let mut cache = self.model.cache(depth + tokens)?;
        if depth > 0 {
            self.prefill(depth, &mut cache)?;
        }
        let logits = if prompt {
            self.prefill(tokens, &mut cache)?
        } else {
            self.decode(tokens.min(2), &mut cache, &mut Tokens::default())?
        };
        if let Some(logit) = logits.iter().find(|logit| !logit.is_finite()) {
            let message = format!("a logit is {logit}: there is nothing to measure");
            return Err(Refused::new(Code::Verification, message).into());
        }
        let mut rates = Vec::with_capacity(repetitions as usize);
        let mut taken = Tokens::default();
        for _ in 0..repetitions {
            cache.truncate(depth);
            if let Some(profile) = &self.profile {
                profile.start(depth);
            }
            let start = Instant::now();
            if prompt {
                self.prefill(tokens, &mut cache)?;
            } else {
                self.decode(tokens, &mut cache, &mut taken)?;
            }
            rates.push(tokens as f64 / start.elapsed().as_secs_f64().max(1e-9));
            if let Some(profile) = &self.profile {
                profile.stop(if prompt { 1 } else { tokens as u64 });
            }
        }
        let kind = if prompt { "pp" } else { "tg" };
        let at = if depth > 0 {
            format!(" @ d{depth}")
        } else {
            String::new()
        };
        let tokens = format!("{kind}{tokens}{at}");
        Ok(Row {
            test: tokens,
            rates,
            tokens: (!prompt).then_some(taken),
            sums: self.profile.as_ref().map(Profile::take),
        })
    }

    /// Reads a prompt; gives the logits after it.
    fn prefill(&self, tokens: usize, cache: &mut Cache) -> Result<Vec<f32>> {
        let ids: Vec<u32> = (0..tokens).map(|at| self.id(at)).collect();
        self.logits(&self.model.prefill(&ids, cache)?)
    }

    /// Logits as a sampler gets them. Waits: evaluation alone is not the end of a GPU's work.
    fn logits(&self, logits: &Array) -> Result<Vec<f32>> {
        Ok(logits.cast(DType::F32)?.to_vec()?)
    }

    /// Generates tokens one by one and notes what they took; gives the logits of the last one.
    fn decode(&self, tokens: usize, cache: &mut Cache, taken: &mut Tokens) -> Result<Vec<f32>> {
        let device = &self.machine.device;
        let before = device.stats();
        // A device that queues gets the next token's work before the last one's result is read.
        let mut ahead: Option<Array> = None;
        let mut last = Vec::new();
        for _ in 0..tokens {
            let (ran, start) = (self.machine.clock.read(), Instant::now());
            let logits = self.model.forward(&[self.id(cache.len())], cache)?;
            let logits = logits.cast(DType::F32)?;
            taken.build.push(start.elapsed());
            logits.eval()?;
            let (evaluated, ran) = (start.elapsed(), self.machine.clock.read() - ran);
            match self.machine.threads {
                Some(_) => taken.host.push(evaluated.saturating_sub(ran)),
                None => {
                    taken.host.push(evaluated);
                    taken.encode.push(ran);
                }
            }
            if !device.queues() {
                last = self.logits(&logits)?;
            } else if let Some(before) = ahead.replace(logits) {
                last = self.logits(&before)?;
            }
        }
        if let Some(logits) = ahead {
            last = self.logits(&logits)?;
        }
        taken.counts.add(before, device.stats());
        Ok(last)
    }

    /// Which token stands at a position: any will do, as long as they differ.
    fn id(&self, at: usize) -> u32 {
        (at.wrapping_mul(7919) % self.model.config().vocab) as u32
    }
}

/// The machine, and what makes a profile where one is asked for.
fn open(task: &Bench) -> Result<(Opened, Option<Profile>)> {
    let profile = task.profile.then(Profile::default);
    let recorder = profile.as_ref().map(Profile::recorder);
    Ok((task.machine.open_recorded(recorder)?, profile))
}

/// Whether the device copies what it loads, as GPUs do but for Apple's.
fn copies(machine: &Opened) -> bool {
    machine.threads.is_none() && !cfg!(target_os = "macos")
}

impl Counts {
    fn add(&mut self, before: Stats, after: Stats) {
        self.nodes += after.nodes - before.nodes;
        self.steps += after.steps - before.steps;
        self.copies += after.copies - before.copies;
        self.misses += after.misses - before.misses;
        self.allocations += after.allocations - before.allocations;
    }
}

/// The median in microseconds: unlike the mean it does not tell of what else the machine did.
fn median(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    times
        .get(times.len() / 2)
        .map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

impl Row {
    fn mean(&self) -> f64 {
        self.rates.iter().sum::<f64>() / self.rates.len().max(1) as f64
    }

    /// The sample's standard deviation; 0 for a single repetition.
    fn deviation(&self) -> f64 {
        if self.rates.len() < 2 {
            return 0.0;
        }
        let mean = self.mean();
        let squares: f64 = self.rates.iter().map(|rate| (rate - mean).powi(2)).sum();
        (squares / (self.rates.len() - 1) as f64).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_the_samples() {
        let row = |rates: &[f64]| Row {
            test: String::new(),
            rates: rates.to_vec(),
            tokens: None,
            sums: None,
        };
        assert_eq!(row(&[5.0]).deviation(), 0.0);
        assert_eq!(row(&[2.0, 4.0, 4.0, 4.0, 6.0]).mean(), 4.0);
        assert!((row(&[2.0, 4.0, 4.0, 4.0, 6.0]).deviation() - 2f64.sqrt()).abs() < 1e-12);
    }
}
