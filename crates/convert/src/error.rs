//! What can stop a conversion.

use crate::quantise::QuantiseError;
use kiln_plan::DType;
use std::path::PathBuf;

/// The result of a conversion.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a checkpoint was not converted. Nothing is left behind in any of these cases.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written, breaks a rule, or is of a kind that is not supported.
    #[error(transparent)]
    File(#[from] kiln_formats::Error),
    /// The tokenizer inside a GGUF file cannot be written as files.
    #[error(transparent)]
    Tokenizer(#[from] kiln_tokenizer::Error),
    /// A configuration that no model could be loaded with.
    #[error(transparent)]
    Model(#[from] Box<kiln_model::Error>),
    /// Options that do not go together.
    #[error("{0}")]
    Options(String),
    /// There is something at the destination.
    #[error("{}: already exists; {advice}", path.display())]
    Exists {
        /// The destination.
        path: PathBuf,
        /// What to do about it.
        advice: &'static str,
    },
    /// A rule that cannot be read, or decides nothing.
    #[error("rule {rule:?}: {why}")]
    Rule {
        /// The rule.
        rule: String,
        /// What is wrong with it.
        why: String,
    },
    /// A group size does not divide the rows of a tensor.
    #[error(
        "{}: {tensor:?}: group size {group} does not divide rows of {k} (decided by {rule}); give \
         another --q-group-size, or a rule of its own to this layer", path.display()
    )]
    Group {
        /// The source.
        path: PathBuf,
        /// The first tensor that does not fit.
        tensor: String,
        /// The group size asked for.
        group: usize,
        /// Elements of its rows.
        k: usize,
        /// The rule that asked for it.
        rule: String,
    },
    /// No choice of bits is small enough.
    #[error(
        "{target} bits per weight cannot be reached: with 2 bits wherever no rule says otherwise \
         the model has {least:.3}"
    )]
    Budget {
        /// The bits per weight asked for.
        target: f64,
        /// The least that there are.
        least: f64,
    },
    /// A finite weight is infinite in the dtype asked for.
    #[error(
        "{}: {tensor:?}: {value} is too large for {dtype}; give --dtype bfloat16 or float32",
        path.display()
    )]
    Overflow {
        /// The source.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The weight.
        value: f32,
        /// The dtype it does not fit.
        dtype: DType,
    },
    /// Weights that cannot be quantised.
    #[error("{}: {tensor:?}: {source}", path.display())]
    Quantise {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong with them.
        source: QuantiseError,
    },
    /// The progress callback asked to stop.
    #[error("interrupted")]
    Interrupted,
}
