//! A tensor's bytes in the source.

use crate::plan::Job;
use crate::stored::Opened;
use crate::{Open, Result};
use kiln_formats::Error;
use std::path::Path;

/// A tensor's contents; for one that MLX has quantised its codes, scales and biases. The files are
/// opened anew for each tensor, so that what was read of one does not stay in memory.
pub(crate) struct Planes<'a> {
    pub(crate) stored: Opened<'a>,
    pub(crate) scales: Option<Opened<'a>>,
    pub(crate) biases: Option<Opened<'a>>,
}

impl<'a> Planes<'a> {
    pub(crate) fn open(job: &'a Job, open: &Open<'_>) -> Result<Planes<'a>> {
        let packed = job.packed.as_ref();
        let scales = packed.map(|packed| packed.scales.open(open));
        let biases = packed.and_then(|packed| packed.biases.as_ref());
        Ok(Planes {
            stored: job.source.open(open)?,
            scales: scales.transpose()?,
            biases: biases.map(|biases| biases.open(open)).transpose()?,
        })
    }
}

pub(crate) fn read_error(path: &Path, source: std::io::Error) -> Error {
    Error::Read {
        path: path.to_owned(),
        source,
    }
}
