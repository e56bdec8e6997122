//! safetensors: a JSON header, then the tensors' bytes.
//!
//! `length of the header: u64 little endian`, the header, the data. The header maps each name to
//! `{"dtype", "shape", "data_offsets"}`; offsets count from the end of the header, and the tensors
//! cover the data without hole or overlap. Nothing aligns the data to anything.

mod header;
mod split;
mod writer;

pub use split::{plan_shards, shard_name};
pub use writer::{Declared, Writer};

use crate::shards::SAFETENSORS;
use crate::{Bytes, Checkpoint, Error, File, Result, Source, Tensor, sniff};
use std::collections::BTreeMap;
use std::path::Path;

/// Headers longer than this are not read: 100 MB, as everywhere.
pub const HEADER_LIMIT: u64 = 100_000_000;

/// The name of the index beside the shards.
pub const INDEX: &str = SAFETENSORS.index;

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
            strides: None,
            file: index,
            range: start + entry.offsets.start..start + entry.offsets.end,
        }));
    }
    Checkpoint::new(files, tensors, metadata)
}

/// Reads the checkpoint of a directory: `model*.safetensors`. `open` gives a file's contents: mapped
/// or read.
///
/// # Errors
/// A shard that is missing or left over, an index that does not parse or fit, and as [`read`].
pub fn open(
    directory: &Path,
    open: &dyn Fn(&Path) -> std::io::Result<Bytes>,
) -> Result<Checkpoint> {
    SAFETENSORS.open(directory, open, read)
}

/// The header of a file that looks like safetensors.
fn header_bytes(file: &File) -> Result<&[u8]> {
    sniff::require(file, Source::Safetensors)?;
    let bytes = file.bytes();
    let header = bytes.split_first_chunk::<8>().and_then(|(length, rest)| {
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        rest.get(..length)
    });
    header.ok_or_else(|| Error::invalid(file.path(), None, "a header", "the end of the file"))
}
