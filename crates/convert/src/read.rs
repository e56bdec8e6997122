//! A tensor's bytes in the source.

use crate::plan::Job;
use crate::rows::Planes;
use crate::{Open, Result};
use kiln_formats::{Bytes, Checkpoint, Error, Tensor};
use std::path::Path;

/// A tensor's files, opened anew for each tensor, so that what was read of one does not stay in
/// memory.
pub(crate) struct Read<'a> {
    /// For the tensor, and where it is quantised its scales and biases.
    parts: Vec<(&'a Path, &'a Tensor, Bytes)>,
}

impl<'a> Read<'a> {
    pub(crate) fn new(
        checkpoint: &'a Checkpoint,
        job: &'a Job,
        open: &Open<'_>,
    ) -> Result<Read<'a>> {
        let packed = job.packed.as_ref();
        let planes = packed.map(|packed| [Some(&packed.scales), packed.biases.as_ref()]);
        let planes = planes.into_iter().flatten().flatten();
        let tensors = [&job.source].into_iter().chain(planes);
        let part = |tensor| {
            let path = checkpoint.path(tensor);
            let bytes = open(path).map_err(|source| read_error(path, source))?;
            Ok((path, tensor, bytes))
        };
        let parts = tensors.map(part).collect::<Result<_>>()?;
        Ok(Read { parts })
    }

    pub(crate) fn planes(&self) -> Result<Planes<'_>> {
        let plane = |number: usize| -> Result<&[u8]> {
            let Some((path, tensor, bytes)) = self.parts.get(number) else {
                return Ok(&[]);
            };
            let shorter = || read_error(path, std::io::Error::other("the file became shorter"));
            let bytes = (**bytes).as_ref().get(tensor.range.clone());
            Ok(bytes.ok_or_else(shorter)?)
        };
        Ok(Planes {
            stored: plane(0)?,
            scales: plane(1)?,
            biases: plane(2)?,
        })
    }
}

pub(crate) fn read_error(path: &Path, source: std::io::Error) -> Error {
    Error::Read {
        path: path.to_owned(),
        source,
    }
}
