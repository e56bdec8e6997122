//! Bits for each layer, so that the whole stays within a budget and the error is small.

use crate::blocks::Lanes;
use crate::plan::{Job, Planner, layer};
use crate::rules::{Origin, Rule, Target};
use crate::write::Progress;
use crate::{Error, Quantise, Result, rows};
use kiln_plan::{Format, Mode};
use std::ops::ControlFlow;

/// The bits that a layer may get.
const CANDIDATES: [usize; 6] = [2, 3, 4, 5, 6, 8];

/// For each of the candidates: bits, and the squared error of the weights over their squares.
pub(crate) type Measured = [(usize, f64); CANDIDATES.len()];

/// What was chosen.
pub(crate) struct Chosen {
    /// One rule for each layer that was free.
    pub(crate) rules: Vec<Rule>,
    /// What was measured, for each job.
    pub(crate) measured: Vec<Option<Measured>>,
    pub(crate) note: String,
}

/// A layer whose bits are to be chosen.
struct Layer {
    job: usize,
    measured: Measured,
    /// How much its error counts.
    weight: f64,
    /// Bytes with each candidate.
    bytes: [u64; CANDIDATES.len()],
    /// The candidate chosen so far.
    chosen: usize,
}

/// Measures every layer that no rule is about, and chooses.
pub(crate) fn choose(
    planner: &Planner<'_>,
    jobs: &[Job],
    target: f64,
    lanes: Lanes,
    progress: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
) -> Result<Chosen> {
    let option = format!("--target-bpw {target}");
    let free = |job: &Job| job.shape.len() == 2 && job.rule.is_none();
    let mut layers = Vec::new();
    let mut least = 0;
    for (number, job) in jobs.iter().enumerate() {
        if free(job) {
            let layer = layer_of(planner, job, number, &option)?;
            least += layer.bytes[0];
            layers.push(layer);
        } else {
            least += job.bytes();
        }
    }
    let parameters: u64 = jobs.iter().map(Job::elements).sum();
    let bits = |bytes: u64| 8.0 * bytes as f64 / parameters.max(1) as f64;
    if target.is_nan() || bits(least) > target {
        let least = bits(least);
        return Err(Error::Budget { target, least });
    }
    measure(planner, jobs, &mut layers, lanes, progress)?;
    let spent = spend(&mut layers, least, &|bytes| bits(bytes) <= target);
    let mut measured = vec![None; jobs.len()];
    let mut rules = Vec::new();
    for one in &layers {
        measured[one.job] = Some(one.measured);
        let format = Target::Quantised(quantise(planner, CANDIDATES[one.chosen]));
        let path = layer(&jobs[one.job].name);
        rules.push(Rule::made(path, format, Origin::Option(option.clone()))?);
    }
    let note = format!(
        "bits of {} layers chosen for {target} bits per weight, reached {:.3}: each layer's squared \
         error relative to its weights was measured at 2, 3, 4, 5, 6 and 8 bits, and bytes went \
         where they lower the sum of these errors most, that of the embedding and of the head \
         counted {} times",
        layers.len(),
        bits(spent),
        planner.layers,
    );
    Ok(Chosen {
        rules,
        measured,
        note,
    })
}

fn quantise(planner: &Planner<'_>, bits: usize) -> Quantise {
    Quantise {
        mode: Mode::Affine,
        bits: Some(bits),
        group: planner.options.group(),
    }
}

fn formats(planner: &Planner<'_>, job: &Job) -> Result<[Format; CANDIDATES.len()]> {
    let mut formats = [Format::MXFP4; CANDIDATES.len()];
    for (format, bits) in formats.iter_mut().zip(CANDIDATES) {
        *format = quantise(planner, bits).format(planner.dtype(job))?;
    }
    Ok(formats)
}

/// A layer that has not been measured, in the fewest bits.
fn layer_of(planner: &Planner<'_>, job: &Job, number: usize, option: &str) -> Result<Layer> {
    let formats = formats(planner, job)?;
    planner.check_group(job, formats[0], option)?;
    Ok(Layer {
        job: number,
        measured: CANDIDATES.map(|bits| (bits, 0.0)),
        weight: weight(job, planner.layers),
        bytes: formats.map(|format| (job.rows * format.row(job.k)) as u64),
        chosen: 0,
    })
}

fn measure(
    planner: &Planner<'_>,
    jobs: &[Job],
    layers: &mut [Layer],
    lanes: Lanes,
    progress: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
) -> Result<()> {
    let total = layers.iter().map(|one| jobs[one.job].stored_bytes()).sum();
    let mut done = 0;
    for one in layers {
        let job = &jobs[one.job];
        let (formats, dtype) = (formats(planner, job)?, planner.dtype(job));
        let (errors, squares) = rows::errors(job, lanes, &formats, dtype)?;
        for (measured, error) in one.measured.iter_mut().zip(errors) {
            // Weights that are all zero have no error.
            measured.1 = if squares > 0.0 { error / squares } else { 0.0 };
        }
        done += job.stored_bytes();
        let state = Progress {
            tensor: &job.name,
            done,
            total,
        };
        if progress(&state).is_break() {
            return Err(Error::Interrupted);
        }
    }
    Ok(())
}

/// How much the error of a layer counts. The layers of the stack each add their part to what the
/// embedding began and the head reads, so these two count as much as the stack.
fn weight(job: &Job, layers: usize) -> f64 {
    match job.name.contains(".layers.") {
        true => 1.0,
        false => layers as f64,
    }
}

/// From the least bits on, takes the step that lowers the sum of errors most for its bytes, of
/// those that fit, until none does. Of equal steps the first layer's smallest. Gives the bytes
/// spent.
fn spend(layers: &mut [Layer], mut spent: u64, fits: &dyn Fn(u64) -> bool) -> u64 {
    loop {
        let mut best: Option<(f64, usize, usize)> = None;
        for (number, layer) in layers.iter().enumerate() {
            for next in layer.chosen + 1..CANDIDATES.len() {
                let gain = layer.weight * (layer.measured[layer.chosen].1 - layer.measured[next].1);
                let cost = layer.bytes[next] - layer.bytes[layer.chosen];
                let worth = gain / cost.max(1) as f64;
                let better = best.is_none_or(|(most, _, _)| worth > most);
                if gain > 0.0 && better && fits(spent + cost) {
                    best = Some((worth, number, next));
                }
            }
        }
        let Some((_, number, next)) = best else {
            return spent;
        };
        let layer = &mut layers[number];
        spent += layer.bytes[next] - layer.bytes[layer.chosen];
        layer.chosen = next;
    }
}
