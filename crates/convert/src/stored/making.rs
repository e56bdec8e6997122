//! Tensors whose bytes are made of others.

use super::{Opened, Stored};
use crate::Result;
use std::path::Path;
use std::sync::Arc;

/// Of what, and how, bytes are made that no file has as they are needed. They are made as a whole
/// when the tensor is opened.
#[derive(Clone)]
pub(crate) struct Making {
    pub(super) of: Vec<Stored>,
    how: Arc<How>,
}

/// The bytes, row after row.
type How = dyn Fn(&[Opened<'_>]) -> Result<Vec<u8>> + Send + Sync;

impl Making {
    pub(crate) fn new(
        of: Vec<Stored>,
        how: impl Fn(&[Opened<'_>]) -> Result<Vec<u8>> + Send + Sync + 'static,
    ) -> Making {
        let how = Arc::new(how);
        Making { of, how }
    }

    /// What messages call the file of the first of the parts.
    pub(super) fn path(&self) -> &Path {
        self.of.first().map_or(Path::new(""), Stored::path)
    }

    pub(super) fn make(&self, name: &str, length: usize) -> Result<Vec<u8>> {
        let parts = self.of.iter().map(Stored::open);
        let made = (self.how)(&parts.collect::<Result<Vec<_>>>()?)?;
        if made.len() == length {
            return Ok(made);
        }
        let expected = format!("parts of which {length} bytes are made");
        let found = format!("parts of {}", made.len());
        Err(kiln_formats::Error::invalid(self.path(), Some(name), expected, found).into())
    }
}

impl std::fmt::Debug for Making {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Making").field(&self.of).finish()
    }
}
