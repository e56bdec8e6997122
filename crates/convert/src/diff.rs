//! Two checkpoints, compared as the receipt compares a conversion with its source.

use crate::blocks::Lanes;
use crate::measure::Distance;
use crate::plan::{Job, Plan};
use crate::write::Progress;
use crate::{Error, Open, Options, Result, rows};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

/// Keys of a configuration that say nothing about the model.
const ASIDE: [&str; 2] = ["_name_or_path", "transformers_version"];

/// What two checkpoints have in common, and what not.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Diff {
    /// The same tensors, stored the same way, with the same numbers, and the same configuration.
    pub equal: bool,
    /// Tensors that both have, in the model's order.
    pub tensors: Vec<Compared>,
    /// Names of tensors that only the first has.
    pub only_first: Vec<String>,
    /// Names of tensors that only the second has.
    pub only_second: Vec<String>,
    /// Keys of the configuration with different values, both of which are given.
    pub config: Vec<(String, [Option<Value>; 2])>,
}

/// A tensor that both have.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Compared {
    /// Its name, as Hugging Face has it.
    pub name: String,
    /// How each stores it: a type, or the format of a quantised layer.
    pub stored: [String; 2],
    /// What the weights are in each, row-major.
    pub shapes: [Vec<usize>; 2],
    /// How far the second's weights are from the first's; `None` where shapes differ.
    pub error: Option<Distance>,
}

impl Compared {
    /// The same numbers, stored the same way.
    pub fn equal(&self) -> bool {
        let [first, second] = &self.stored;
        first == second && self.error == Some(Distance::NONE)
    }
}

/// Compares two checkpoints of any of the kinds that can be converted. Weights are compared as the
/// numbers that they stand for; memory is that of a conversion. `progress` counts bytes read.
///
/// # Errors
/// A checkpoint that could not be converted either.
pub fn diff(
    first: &Path,
    second: &Path,
    open: &Open<'_>,
    progress: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
) -> Result<Diff> {
    let options = Options::default();
    let plans = [
        crate::plan(first, &options, open, progress)?,
        crate::plan(second, &options, open, progress)?,
    ];
    let [first, second] = &plans;
    let (pairs, only_first) = paired(first, second);
    let (_, only_second) = paired(second, first);
    let total = pairs
        .iter()
        .map(|(one, other)| one.stored_bytes() + other.stored_bytes());
    let total = total.sum();
    let mut done = 0;
    let mut tensors = Vec::with_capacity(pairs.len());
    for (one, other) in pairs {
        tensors.push(compared(one, other, first.lanes)?);
        done += one.stored_bytes() + other.stored_bytes();
        let tensor = &one.name;
        if progress(&Progress {
            tensor,
            done,
            total,
        })
        .is_break()
        {
            return Err(Error::Interrupted);
        }
    }
    let config = config(first, second);
    let alone = only_first.len() + only_second.len();
    Ok(Diff {
        equal: alone + config.len() == 0 && tensors.iter().all(Compared::equal),
        tensors,
        only_first,
        only_second,
        config,
    })
}

/// The tensors that both plans have, and the names of those that only `one` has.
fn paired<'a>(one: &'a Plan, other: &'a Plan) -> (Vec<(&'a Job, &'a Job)>, Vec<String>) {
    let (mut pairs, mut alone) = (Vec::new(), Vec::new());
    for job in &one.jobs {
        match other.jobs.iter().find(|other| other.name == job.name) {
            Some(other) => pairs.push((job, other)),
            None => alone.push(job.name.clone()),
        }
    }
    (pairs, alone)
}

fn compared(one: &Job, other: &Job, lanes: Lanes) -> Result<Compared> {
    let both = [one, other];
    let error = match one.shape == other.shape {
        true => Some(rows::compare(one, other, lanes)?),
        false => None,
    };
    Ok(Compared {
        name: one.name.clone(),
        stored: both.map(Job::stored_as),
        shapes: both.map(|job| job.shape.clone()),
        error,
    })
}

fn config(first: &Plan, second: &Plan) -> Vec<(String, [Option<Value>; 2])> {
    let keys: BTreeSet<&String> = first.config.keys().chain(second.config.keys()).collect();
    let keys = keys
        .into_iter()
        .filter(|key| !ASIDE.contains(&key.as_str()));
    let values = keys.map(|key| {
        let of = |plan: &Plan| {
            plan.config
                .get(key)
                .filter(|value| !value.is_null())
                .cloned()
        };
        (key.clone(), [of(first), of(second)])
    });
    values
        .filter(|(_, [first, second])| first != second)
        .collect()
}
