//! safetensors: a JSON header, then the tensors' bytes.
//!
//! `length of the header: u64 little endian`, the header, the data. The header maps each name to
//! `{"dtype", "shape", "data_offsets"}`; offsets count from the end of the header, and the tensors
//! cover the data without hole or overlap. Nothing aligns the data to anything.

mod directory;
mod header;
mod writer;

pub use directory::{Index, files_of, open, plan_shards, shard_name};
pub(crate) use directory::{is_weights, names};
pub use writer::{Declared, Writer};

use crate::{Checkpoint, Error, File, Result, Source, Tensor, sniff_bytes};
use std::collections::BTreeMap;

/// Headers longer than this are not read: 100 MB, as everywhere.
pub const HEADER_LIMIT: u64 = 100_000_000;

/// The name of the index beside the shards.
pub const INDEX: &str = "model.safetensors.index.json";

/// Reads one file, or the shards of one checkpoint. Copies no tensor; takes time and memory in
/// proportion to the headers.
///
/// # Errors
/// A file that is something else, a header that breaks a rule, a type that is not known, a tensor
/// that two files hold.
pub fn read(files: Vec<File>) -> Result<Checkpoint> {
    let mut tensors = Vec::new();
    let mut metadata = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        let header = header::parse(header_bytes(file)?, file)?;
        metadata.extend(header.metadata);
        let start = header.data;
        tensors.extend(header.entries.into_iter().map(|entry| Tensor {
            name: entry.name,
            dtype: entry.dtype,
            shape: entry.shape,
            file: index,
            range: start + entry.offsets.start..start + entry.offsets.end,
        }));
    }
    Checkpoint::new(files, tensors, metadata)
}

/// The header of a file that looks like safetensors.
fn header_bytes(file: &File) -> Result<&[u8]> {
    let bytes = file.bytes();
    let start = &bytes[..bytes.len().min(512)];
    match sniff_bytes(start, bytes.len() as u64) {
        Ok(Source::Safetensors) => {}
        Ok(_) => {
            return Err(Error::invalid(
                file.path(),
                None,
                "a safetensors file",
                "GGUF",
            ));
        }
        Err(reason) => {
            return Err(Error::Unusable {
                path: file.path().to_owned(),
                reason,
            });
        }
    }
    let header = bytes.split_first_chunk::<8>().and_then(|(length, rest)| {
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        rest.get(..length)
    });
    header.ok_or_else(|| Error::invalid(file.path(), None, "a header", "the end of the file"))
}
