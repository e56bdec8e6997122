//! What can go wrong, said so that the caller can act on it.

use crate::{Place, Spec};
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
    /// What a backend says of a step that it could not compile or run; evaluation says which one
    /// that is, as [`Error::At`].
    #[error("step {step}: {source}")]
    Step {
        /// The step's number in its plan.
        step: usize,
        /// What went wrong.
        source: Box<Error>,
    },
    /// An evaluation failed at an operation.
    #[error("{place}: {source}")]
    At {
        /// Which operation, and the line that it was written in.
        place: Box<Place>,
        /// What went wrong.
        source: Box<Error>,
    },
    /// A result is not finite, though its operands are; said by a backend that looks.
    #[error("element {index:?} is {value}{}", .operand.map_or(String::new(), from))]
    NotFinite {
        /// The first element that is not.
        index: Vec<usize>,
        /// What it is.
        value: f32,
        /// The operand that already was not finite, if one was.
        operand: Option<usize>,
    },
}

impl Error {
    /// This error, of a plan's step. One that tells its place already stays as it is.
    ///
    /// ```
    /// # use kiln_array::Error;
    /// let error = Error::Memory { device: "cpu".into(), bytes: 8 }.in_step(3);
    /// assert!(matches!(error.cause(), Error::Memory { bytes: 8, .. }));
    /// assert!(matches!(error.located(|_| None), Error::Step { step: 3, .. }));
    /// ```
    pub fn in_step(self, step: usize) -> Error {
        match self {
            Error::Step { .. } | Error::At { .. } => self,
            source => Error::Step {
                step,
                source: Box::new(source),
            },
        }
    }

    /// This error, at what `place` tells of a step's number.
    pub fn located(self, place: impl Fn(usize) -> Option<Place>) -> Error {
        match self {
            Error::Step { step, source } => match place(step) {
                Some(place) => source.at(place),
                None => Error::Step { step, source },
            },
            other => other,
        }
    }

    /// This error, at `place`.
    pub fn at(self, place: Place) -> Error {
        Error::At {
            place: Box::new(place),
            source: Box::new(self),
        }
    }

    /// What went wrong, without where.
    pub fn cause(&self) -> &Error {
        match self {
            Error::Step { source, .. } | Error::At { source, .. } => source.cause(),
            other => other,
        }
    }
}

fn from(operand: usize) -> String {
    format!("; operand {operand} already has one")
}

pub(crate) fn list(inputs: &[Spec]) -> String {
    if inputs.is_empty() {
        return "nothing".into();
    }
    inputs
        .iter()
        .map(Spec::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
