//! Turns a checkpoint into a directory in the MLX layout.
//!
//! [`convert`] reads a directory in Hugging Face's or MLX's layout, Meta's files, npz files or a GGUF
//! file, and writes safetensors with MLX's names, `config.json`, the tokenizer's files and a model
//! card. It goes in three steps: a *source* says, in Hugging Face's terms, what the checkpoint holds;
//! a [`Plan`] says for every tensor what happens to it, and is where everything that can be refused
//! is refused; then the tensors stream through, a block of rows at a time, into a directory beside
//! the destination that is renamed when it is complete.
//!
//! Weights are quantised as MLX does it on the CPU, bit for bit. Blocks of a GGUF file that
//! MLX's affine format with groups of 32 or mxfp4 holds (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, MXFP4) are kept
//! exactly, unless another dtype or quantisation is asked for; so are layers that MLX, GPTQ or AWQ has
//! quantised. FP8 becomes bf16.
//!
//! Which layers are quantised, and how, is said by [`Rule`]s: the user's own, those of a [`Recipe`],
//! one for all layers, or one for each layer where a budget of bits is to be kept.
//!
//! [`inspect`] says what a checkpoint holds, also one that cannot be converted.
#![forbid(unsafe_code)]

mod budget;
mod config;
mod directory;
mod error;
mod foreign;
mod gguf;
mod inspect;
mod meta;
mod names;
mod options;
mod output;
mod plan;
mod quantise;
mod recipes;
mod rows;
mod rules;
mod source;
mod stored;
mod write;

pub use error::{Error, Result};
pub use inspect::{Summary, TensorSummary, inspect};
pub use options::{Options, Quantise};
pub use plan::{Plan, Planned};
pub use quantise::{QuantiseError, Quantised, dequantise, quantise};
pub use recipes::Recipe;
pub use rules::Rule;
pub use write::{Progress, Report};

use kiln_formats::Bytes;
use std::ops::ControlFlow;
use std::path::Path;

/// Gives a file's contents. It is called once per file and once more per tensor, so it should map
/// the file rather than read it.
pub type Open<'a> = dyn Fn(&Path) -> std::io::Result<Bytes> + 'a;

/// Converts the checkpoint at `source` into a new directory `destination`.
///
/// Memory is what `open` maps of the largest tensor, a few megabytes of weights per thread, and a
/// tensor's scales. `progress` is called after each block of rows; when it breaks, so does the
/// conversion.
///
/// # Errors
/// Whatever does not fit (options, configuration, tensors, a destination that exists) is found
/// before any work is done. On any error nothing is left behind.
pub fn convert(
    source: &Path,
    destination: &Path,
    options: &Options,
    open: &Open<'_>,
    progress: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
) -> Result<Report> {
    output::check(source, destination, options.force)?;
    let plan = plan(source, options, open, progress)?;
    plan.write(destination, options.force, open, progress)
}

/// Decides what [`convert`] would do, and writes nothing.
///
/// # Errors
/// Whatever does not fit: options, configuration, tensors. `progress` is called, and no weights are
/// read, unless `options.target` asks for measurements.
pub fn plan(
    source: &Path,
    options: &Options,
    open: &Open<'_>,
    progress: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
) -> Result<Plan> {
    plan::plan(source::read(source, open)?, options, open, progress)
}

impl Plan {
    /// Carries the plan out, into a new directory `destination`; `force` replaces one that is there.
    /// The rest as for [`convert`].
    pub fn write(
        &self,
        destination: &Path,
        force: bool,
        open: &Open<'_>,
        progress: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Report> {
        output::check(&self.path, destination, force)?;
        let staging = output::Staging::new(destination)?;
        let mut report = write::write(self, staging.path(), open, progress)?;
        report.notes.extend(staging.commit(force)?);
        Ok(report)
    }
}
