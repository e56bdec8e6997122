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
//! A [`Receipt`] says what a conversion did, and how far every tensor is from what it was; [`diff`]
//! compares any two checkpoints in the same way. [`inspect`] says what a checkpoint holds, also one
//! that cannot be converted.
#![forbid(unsafe_code)]

mod blocks;
mod budget;
mod card;
mod config;
mod diff;
mod directory;
mod error;
mod file;
mod foreign;
mod gguf;
mod inspect;
mod journal;
mod layout;
mod load;
mod measure;
mod meta;
mod metadata;
mod names;
mod options;
mod output;
mod plan;
mod quantise;
mod receipt;
mod recipes;
mod rows;
mod rules;
mod shards;
mod source;
mod staging;
mod stored;
mod verify;
mod write;

pub use diff::{Compared, Diff, diff};
pub use error::{Error, Result};
pub use file::Hashed;
pub use inspect::{Summary, TensorSummary, inspect};
pub use layout::Layout;
pub use load::load;
pub use measure::Distance;
pub use options::{Options, Quantise};
pub use output::vacant;
pub use plan::{Plan, Planned};
pub use quantise::{QuantiseError, Quantised, dequantise, quantise};
pub use receipt::{Converted, Receipt, RoundTrip};
pub use recipes::Recipe;
pub use rules::Rule;
pub use verify::{Verified, Verify};
pub use write::{Progress, Report};

use kiln_formats::{Bytes, File, Sums};
use staging::Staging;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

/// Gives the contents of a file, once for each file of the source: headers and configurations are
/// read from it. It should map the file rather than read it. Weights are read by position, from the
/// same path.
pub type Open<'a> = dyn Fn(&Path) -> std::io::Result<Bytes> + 'a;

/// Converts the checkpoint at `source` into a new directory `destination`.
///
/// Memory is a few megabytes of weights per thread and a tensor's scales, whatever the size of the
/// model. `progress` is called after each block of rows; when it breaks, so does the conversion.
///
/// The destination is absent until it is complete, also where the process is killed; what is done
/// lies beside it then, for a run with `options.resume`.
///
/// # Errors
/// Whatever does not fit (options, configuration, tensors, a destination that exists) is found
/// before any work is done. On any error nothing is left behind, unless `options.resume` says so.
pub fn convert(
    source: &Path,
    destination: &Path,
    options: &Options,
    open: &Open<'_>,
    progress: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
) -> Result<Report> {
    output::vacant(source, destination, options.force)?;
    let plan = plan(source, options, open, progress)?;
    plan.write(destination, options, open, progress)
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
    let opened = RefCell::new(BTreeMap::new());
    let open = |path: &Path| {
        let bytes = open(path)?;
        opened.borrow_mut().insert(path.to_owned(), bytes.clone());
        Ok(bytes)
    };
    let model = source::read(source, &open)?;
    let sums = |(path, bytes)| {
        let sums = Sums::of(&File::new(&path, bytes))?;
        Ok((path, sums))
    };
    let opened: Result<_> = opened.take().into_iter().map(sums).collect();
    plan::plan(model, options, opened?, progress)
}

impl Plan {
    /// Carries the plan out, into a new directory `destination`. The rest as for [`convert`].
    ///
    /// # Errors
    /// Those of [`convert`] that are not of its plan.
    pub fn write(
        &self,
        destination: &Path,
        options: &Options,
        open: &Open<'_>,
        progress: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Report> {
        output::vacant(&self.path, destination, options.force)?;
        let mut staging = Staging::begin(destination, options.resume)?;
        // Once more: a killed run's destination may have come back.
        output::vacant(&self.path, destination, options.force)?;
        let written = write::write(self, &mut staging, progress)?;
        let verified = match &options.verify {
            Some(verify) => Some(verify::verify(
                self,
                staging.path(),
                verify,
                open,
                progress,
            )?),
            None => None,
        };
        let mut report = write::conclude(self, staging.path(), written, verified)?;
        report.notes.extend(staging.commit(options.force)?);
        Ok(report)
    }
}
