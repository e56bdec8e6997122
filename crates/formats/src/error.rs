//! What can be wrong with a file.

use crate::Unusable;
use std::path::{Path, PathBuf};

/// The result of reading or writing checkpoint files.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused to read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The system refused to write.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// This is not a checkpoint at all.
    #[error("{}: {reason}", path.display())]
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// What it is instead.
        reason: Unusable,
    },
    /// The contents break the format's rules.
    #[error("{}: {}expected {expected}, found {found}", path.display(), of(tensor))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The tensor or metadata key, where one is to blame.
        tensor: Option<String>,
        /// What the format asks for.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The contents are well-formed, but of a kind that is not supported.
    #[error("{}: {}{what} is not supported", path.display(), of(tensor))]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The tensor or metadata key, where one is to blame.
        tensor: Option<String>,
        /// What is not supported.
        what: String,
    },
    /// A pickle asks for what a checkpoint has no need of. It is not done.
    #[error(
        "{}: opcode {opcode} at byte {at} of the pickle asks for {asked:?}; a checkpoint is read as \
         data, and nothing is imported or called for it", path.display()
    )]
    Refused {
        /// The file.
        path: PathBuf,
        /// The pickle's instruction.
        opcode: &'static str,
        /// Where the instruction is in the pickle.
        at: usize,
        /// The module and name that it asks for.
        asked: String,
    },
}

fn of(tensor: &Option<String>) -> String {
    tensor
        .as_ref()
        .map(|name| format!("{name:?}: "))
        .unwrap_or_default()
}

/// Names longer than this are cut in messages, so that a file cannot blow a message up.
const NAME: usize = 200;

fn short(name: &str) -> String {
    match name.char_indices().nth(NAME) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

impl Error {
    /// The contents of `path` break a rule.
    pub fn invalid(
        path: &Path,
        tensor: Option<&str>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Error {
        Error::Invalid {
            path: path.to_owned(),
            tensor: tensor.map(short),
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// The pickle in `path` asks for what is never given.
    pub(crate) fn refused(path: &Path, opcode: &'static str, at: usize, asked: &str) -> Error {
        Error::Refused {
            path: path.to_owned(),
            opcode,
            at,
            asked: short(asked),
        }
    }

    /// The contents of `path` are of a kind that is not supported.
    pub fn unsupported(path: &Path, tensor: Option<&str>, what: impl Into<String>) -> Error {
        Error::Unsupported {
            path: path.to_owned(),
            tensor: tensor.map(short),
            what: what.into(),
        }
    }
}
