//! `kiln selftest`: whether a device computes what it should.

use crate::exit::Code;
use crate::machine::{Machine, Opened, Threads};
use crate::{devices, output};
use anyhow::Result;
use clap::Args;
use kiln::{Cache, DType, Device, Model};
use kiln_conformance::{Finding, selftest as findings};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Tokens that a model generates.
const TOKENS: usize = 64;

/// Check a device against the processor
///
/// Runs Kiln's conformance list on the device and on the processor: every operation with every
/// dtype and format, on random operands. Tells for each the worst distance of a result, and fails
/// with exit code 7 if one is not what it may be.
#[derive(Debug, Args)]
pub(crate) struct Selftest {
    #[command(flatten)]
    machine: Machine,

    /// A model to generate 64 tokens with, on both
    #[arg(short, long, visible_alias = "model-path", value_name = "DIR")]
    model: Option<PathBuf>,

    /// How many of the list's random cases to run, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    share: u32,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn selftest(task: &Selftest) -> Result<Code> {
    task.machine.refuse_fast("kiln selftest")?;
    let Opened { device, about, .. } = task.machine.open()?;
    let reference = Device::new(Threads::default().start()?);
    output::say(format_args!("testing {device} against {reference}"));
    let found = findings(&device, &reference, task.share, &mut |case| {
        output::say(format_args!("{case}"));
    });
    let generated = match &task.model {
        Some(path) => Some(generate(
            &Model::load(path, &device)?,
            &Model::load(path, &reference)?,
        )?),
        None => None,
    };
    let failed = found.iter().filter(|f| f.failure.is_some()).count()
        + usize::from(generated.as_ref().is_some_and(|g| !g.agrees()));
    if task.json {
        output::write_json(&json!({
            "device": device.to_string(),
            "about": about.facts,
            "reference": reference.to_string(),
            "results": found.iter().map(facts).collect::<Value>(),
            "model": generated.as_ref().map(Generated::facts),
            "failed": failed,
        }))?;
    } else {
        output::write(&output::plain(&devices::text(&about)))?;
        output::write(&table(&found))?;
        if let Some(generated) = &generated {
            output::write(&generated.text())?;
        }
        let verdict = match failed {
            0 => "passed".into(),
            1 => "FAILED: 1 result is not what it may be".into(),
            n => format!("FAILED: {n} results are not what they may be"),
        };
        output::write(&format!("{device}: {verdict}\n"))?;
    }
    for finding in &found {
        if let Some(failure) = &finding.failure {
            output::say(format_args!(
                "{} {}: {failure}",
                finding.case, finding.dtype
            ));
        }
    }
    Ok(if failed == 0 {
        Code::Success
    } else {
        Code::Verification
    })
}

fn facts(finding: &Finding) -> Value {
    json!({
        "case": finding.case,
        "dtype": finding.dtype.to_string(),
        "cases": finding.cases,
        "ulp": finding.ulp,
        "nmse": finding.nmse,
        "failure": finding.failure,
    })
}

fn table(found: &[Finding]) -> String {
    let mut text = format!(
        "{:<18}{:<6}{:>6}{:>14}{:>12}\n",
        "case", "dtype", "cases", "worst ulp", "worst nmse"
    );
    for finding in found {
        let verdict = if finding.failure.is_some() {
            "  FAILED"
        } else {
            ""
        };
        text += &format!(
            "{:<18}{:<6}{:>6}{:>14.1}{:>12.1e}{verdict}\n",
            finding.case,
            finding.dtype.to_string(),
            finding.cases,
            finding.ulp,
            finding.nmse
        );
    }
    text
}

/// What came of generating on both devices.
struct Generated {
    /// Tokens that were equal, from the first on.
    equal: usize,
    /// How far the logits were apart at most, as far as tokens were equal and one step further.
    noise: f32,
    /// The reference's margin between its token and the device's at the first difference.
    margin: Option<f32>,
}

impl Generated {
    /// Whether the tokens are equal, or differ where the two best are closer than the noise.
    fn agrees(&self) -> bool {
        self.margin.is_none_or(|margin| margin <= 2.0 * self.noise)
    }

    fn facts(&self) -> Value {
        json!({
            "tokens": TOKENS,
            "equal": self.equal,
            "logit_noise": self.noise,
            "margin": self.margin,
        })
    }

    fn text(&self) -> String {
        let Generated {
            equal,
            noise,
            margin,
        } = self;
        let difference = match margin {
            Some(margin) => {
                format!("; then the two best logits of the reference are {margin:.1e} apart")
            }
            None => String::new(),
        };
        format!(
            "model: {equal} of {TOKENS} greedy tokens equal, logits at most {noise:.1e} apart{difference}\n"
        )
    }
}

/// Greedy tokens on both devices, from the same few ids.
fn generate(model: &Model, reference: &Model) -> Result<Generated> {
    let vocab = model.config().vocab as u32;
    let prompt: Vec<u32> = (1..=16).map(|i| i * 97 % vocab).collect();
    let mut caches = [
        model.cache(prompt.len() + TOKENS)?,
        reference.cache(prompt.len() + TOKENS)?,
    ];
    let logits = |model: &Model, ids: &[u32], cache: &mut Cache| -> Result<Vec<f32>> {
        let logits = model.forward(ids, cache)?;
        Ok(logits.cast(DType::F32)?.to_vec::<f32>()?)
    };
    let best = |logits: &[f32]| {
        let largest = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        largest.unwrap_or(0)
    };
    let mut generated = Generated {
        equal: 0,
        noise: 0.0,
        margin: None,
    };
    let mut ids = prompt;
    while generated.equal < TOKENS {
        let found = logits(model, &ids, &mut caches[0])?;
        let wanted = logits(reference, &ids, &mut caches[1])?;
        let apart = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs());
        generated.noise = apart.fold(generated.noise, f32::max);
        let (own, right) = (best(&found), best(&wanted));
        if own != right || found.iter().any(|logit| logit.is_nan()) {
            generated.margin = Some(wanted[right] - wanted[own]);
            break;
        }
        generated.equal += 1;
        ids = vec![right as u32];
    }
    Ok(generated)
}
