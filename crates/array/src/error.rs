//! What can go wrong, said so that the caller can act on it.

use crate::Spec;
use std::panic::Location;

/// `Result` with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why an array could not be made or evaluated.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation was given operands it has no meaning for.
    #[error("{op}: {expected}, given {} (at {}:{})", list(.inputs), .site.file(), .site.line())]
    Invalid {
        /// The operation's name.
        op: &'static str,
        /// What it needs.
        expected: String,
        /// Dtype and shape of every operand.
        inputs: Vec<Spec>,
        /// The call that made it.
        site: &'static Location<'static>,
    },
    /// A quantised format that does not exist.
    #[error("{0}")]
    Format(String),
    /// The device has no room.
    #[error("device {device} has no room for {bytes} bytes")]
    Memory {
        /// The device's name.
        device: String,
        /// What was asked for.
        bytes: usize,
    },
    /// The device failed; every later evaluation on it fails too.
    #[error("device {device} failed: {reason}")]
    Device {
        /// The device's name.
        device: String,
        /// What it said.
        reason: String,
    },
}

fn list(inputs: &[Spec]) -> String {
    if inputs.is_empty() {
        return "nothing".into();
    }
    inputs
        .iter()
        .map(Spec::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
