//! A checkpoint of any kind in memory, as a conversion would write it.

use crate::plan::{Job, Plan};
use crate::write::Progress;
use crate::{Error, Open, Options, Result, rows};
use kiln_formats::{Checkpoint, File, Tensor};
use kiln_model::Config;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Reads a checkpoint of any of the kinds that can be converted, with Hugging Face's names and rows,
/// for `kiln_model::Model::new`. Nothing is rounded. Costs memory for all of its weights.
///
/// # Errors
/// A checkpoint that could not be converted.
pub fn load(
    path: &Path,
    open: &Open<'_>,
    progress: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
) -> Result<(Config, Checkpoint)> {
    let plan = crate::plan(path, &Options::default(), open, progress)?;
    let total = plan.jobs.iter().map(Job::stored_bytes).sum();
    let mut done = 0;
    let checkpoint = in_memory(&plan, plan.jobs.iter(), &mut |job| {
        done += job.stored_bytes();
        let tensor = &job.name;
        progress(&Progress {
            tensor,
            done,
            total,
        })
    })?;
    Ok((config(&plan)?, checkpoint))
}

/// What the plan's configuration says.
pub(crate) fn config(plan: &Plan) -> Result<Config> {
    let text = serde_json::Value::Object(plan.config.clone()).to_string();
    Ok(Config::parse(&plan.path.join("config.json"), &text).map_err(Box::new)?)
}

/// Carries jobs out in memory. `tell` is called after each, and may end it.
pub(crate) fn in_memory<'a>(
    plan: &Plan,
    jobs: impl Iterator<Item = &'a Job>,
    tell: &mut dyn FnMut(&Job) -> ControlFlow<()>,
) -> Result<Checkpoint> {
    let (mut files, mut tensors) = (Vec::new(), Vec::new());
    for job in jobs {
        let mut codes = Vec::new();
        let rest = rows::convert(job, plan.lanes, &mut |bytes| {
            codes.extend_from_slice(bytes);
            Ok(())
        })?;
        let planes = [codes, rest.scales, rest.biases];
        for (declared, bytes) in job.outputs().into_iter().zip(planes) {
            tensors.push(Tensor {
                name: declared.name,
                dtype: declared.dtype,
                shape: declared.shape,
                strides: None,
                file: files.len(),
                range: 0..bytes.len(),
            });
            files.push(File::new(&plan.path, Arc::new(bytes)));
        }
        if tell(job).is_break() {
            return Err(Error::Interrupted);
        }
    }
    Ok(Checkpoint::new(files, tensors, BTreeMap::new())?)
}
