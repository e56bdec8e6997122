//! A plan as people and programs read it.

use crate::plan::{Job, Plan};
use kiln_formats::safetensors::Declared;
use serde::Serialize;

/// What becomes of one tensor of the source.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Planned {
    /// Its name in the source.
    pub source: String,
    /// How the source stores it: a type, or the format of a quantised layer.
    pub source_dtype: String,
    /// As stored, row-major; the pieces of a tensor that is divided among files joined.
    pub source_shape: Vec<usize>,
    /// The name it is written under; quantised ones have scales and biases beside it.
    pub name: String,
    /// What the weights are, row-major, however they are stored.
    pub shape: Vec<usize>,
    /// How it is written: a float type, or the mode of a quantised one: affine, mxfp4, …
    pub kind: String,
    /// Bits of a weight's code; `None` if it is not quantised.
    pub bits: Option<usize>,
    /// Weights per scale.
    pub group: Option<usize>,
    /// The rule that decided; `None` where none is about it.
    pub rule: Option<String>,
    /// Bytes written, with scales and biases.
    pub bytes: u64,
    /// Where bits were chosen by measuring: for each number of bits that was tried, the squared
    /// error of the weights over their squares.
    pub measured: Option<Vec<(usize, f64)>>,
}

impl Plan {
    /// Every tensor in the order in which they are written.
    pub fn tensors(&self) -> Vec<Planned> {
        self.jobs.iter().map(|job| self.planned(job)).collect()
    }

    fn planned(&self, job: &Job) -> Planned {
        let format = job.action.format();
        let dtype = job.outputs().first().map(|output| output.dtype.to_string());
        let kind = match format {
            Some(format) => crate::options::mode_name(format.mode()).to_owned(),
            None => dtype.unwrap_or_default(),
        };
        let rule = job.rule.and_then(|rule| self.rules.get(rule));
        Planned {
            source: job.source.name.clone(),
            source_dtype: job.stored_as(),
            source_shape: job.source.shape.clone(),
            name: self.layout.name(&job.name),
            shape: job.shape.clone(),
            kind,
            bits: format.map(|format| format.bits()),
            group: format.map(|format| format.group()),
            rule: rule.map(ToString::to_string),
            bytes: job.bytes(),
            measured: job.measured.as_ref().map(|measured| measured.to_vec()),
        }
    }

    /// The tensors that are written for a job, under the names of the layout.
    pub(crate) fn outputs(&self, job: &Job) -> Vec<Declared> {
        let mut outputs = job.outputs();
        for output in &mut outputs {
            output.name = self.layout.name(&output.name);
        }
        outputs
    }

    /// Weights of the model.
    pub fn parameters(&self) -> u64 {
        self.jobs.iter().map(Job::elements).sum()
    }

    /// Bytes of all tensors that are written: what a program needs that holds them.
    pub fn bytes(&self) -> u64 {
        self.jobs.iter().map(Job::bytes).sum()
    }

    /// `8 · bytes / parameters`.
    pub fn bits_per_weight(&self) -> f64 {
        8.0 * self.bytes() as f64 / self.parameters().max(1) as f64
    }

    /// Bytes that the conversion needs at most, the program included. Twice as many threads need
    /// twice as much; `Options::max_memory` lowers it.
    pub fn memory(&self) -> u64 {
        self.lanes.memory(&self.jobs)
    }

    /// The source's name, without its directory.
    pub(crate) fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        name.display().to_string()
    }

    /// What is not as it was in the source, and what is missing.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}
