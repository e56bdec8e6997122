//! Why a model could not be loaded or run.

use kiln_array::Error as ArrayError;
use std::ops::Range;
use std::path::PathBuf;

/// `Result` with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A configuration that contradicts itself or the weights.
    #[error("{path}: {key}: expected {expected}, found {found}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The key, dotted.
        key: String,
        /// What it should hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// Something that this version cannot run.
    #[error("{path}: {what} {found:?} is not supported; supported: {supported}")]
    Unsupported {
        /// The file that asks for it.
        path: PathBuf,
        /// What kind of thing: `model_type`, `rope_type`, ….
        what: &'static str,
        /// Which one.
        found: String,
        /// What would work.
        supported: &'static str,
    },
    /// A tensor that is missing or not as the configuration says.
    #[error("{path}: tensor {name}: expected {expected}, found {found}")]
    Tensor {
        /// The file, or the directory for a missing tensor.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What the configuration asks for.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// Tensors that the model has no place for.
    #[error("{path}: {count} tensors have no place in a {model} model: {names}")]
    Unmapped {
        /// The directory.
        path: PathBuf,
        /// The model type.
        model: String,
        /// How many.
        count: usize,
        /// The first few.
        names: String,
    },
    /// More tokens than the model's context holds.
    #[error(
        "a prompt of {prompt} tokens and {new} new ones exceed the context of {context} tokens; \
         ask for fewer, or allow truncation"
    )]
    Context {
        /// Tokens in the prompt.
        prompt: usize,
        /// Tokens asked for.
        new: usize,
        /// What fits.
        context: usize,
    },
    /// A request that asks for nothing, or for ids that do not exist.
    #[error("{0}")]
    Request(String),
    /// A checkpoint file is broken.
    #[error(transparent)]
    Formats(#[from] kiln_formats::Error),
    /// An array could not be computed.
    #[error(transparent)]
    Array(#[from] kiln_array::Error),
    /// A step gave a value that is not finite, on a device that looks.
    #[error("{tokens}: {source}")]
    NotFinite {
        /// Which token, counted from the start of the sequence, or which tokens: `token 3`.
        tokens: String,
        /// Which step, with its line and its layer.
        source: kiln_array::Error,
    },
    /// No token could be chosen.
    #[error(transparent)]
    Sample(#[from] kiln_sample::Error),
}

impl Error {
    /// This error, if it is of a value that is not finite, with the token that has it; the tokens that
    /// were computed are those at `positions`.
    pub(crate) fn among(self, positions: Range<usize>) -> Error {
        let Error::Array(ArrayError::At { place, source }) = &self else {
            return self;
        };
        let ArrayError::NotFinite { index, .. } = &**source else {
            return self;
        };
        let rows = place.output.shape.first().copied().unwrap_or(1);
        let row = index.first().copied().unwrap_or(0);
        let tokens = match positions.len() {
            count if count == rows => format!("token {}", positions.start + row),
            count if count == 1 || rows == 1 => format!("token {}", positions.end - 1),
            _ => format!("tokens {} to {}", positions.start, positions.end - 1),
        };
        match self {
            Error::Array(source) => Error::NotFinite { tokens, source },
            other => other,
        }
    }
}
