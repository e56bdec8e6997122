//! GGUF: typed metadata, then tensor descriptions, then aligned data.
//!
//! `"GGUF"`, version, number of tensors, number of metadata entries, the entries, the descriptions,
//! padding, data. Everything is little endian. Dimensions are stored fastest first; a [`Tensor`]'s
//! shape is the other way round, row-major.

mod blocks;
mod cursor;
mod metadata;
mod pack;
mod writer;

pub use blocks::{dequantise, fives, is_readable};
pub use metadata::{Array, Metadata, Strings, Value};
pub use pack::quantise;
pub use writer::{Entry, Writer};

use crate::{Checkpoint, Error, File, Result, Source, Tensor, Type, sniff};
use cursor::Cursor;
use std::collections::BTreeMap;
use std::ops::Range;

/// The data's alignment where the metadata names none.
const ALIGNMENT: u64 = 32;

/// The most dimensions that a tensor has.
const RANK: usize = 4;

/// The fewest bytes of a tensor's description: empty name, no dimensions, type, offset.
const DESCRIPTION: usize = 8 + 4 + 4 + 8;

/// A GGUF file's contents.
#[derive(Clone, Debug)]
pub struct Gguf {
    /// 2 or 3.
    pub version: u32,
    /// What the data is aligned to, in bytes.
    pub alignment: u64,
    metadata: Metadata,
    checkpoint: Checkpoint,
}

impl Gguf {
    /// The typed metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }
}

/// Reads a GGUF file, version 2 or 3, little endian. Copies the metadata but no tensor.
///
/// # Errors
/// A file that is something else, a part that breaks a rule or ends early, a type that is not known.
pub fn read(file: File) -> Result<Gguf> {
    sniff::require(&file, Source::Gguf)?;
    let mut cursor = Cursor::new(&file);
    cursor.skip("magic", 4)?;
    let version = cursor.u32("version")?;
    if version.swap_bytes() == 2 || version.swap_bytes() == 3 {
        return Err(Error::unsupported(
            file.path(),
            None,
            "a big-endian GGUF file",
        ));
    }
    if !matches!(version, 2 | 3) {
        return Err(Error::unsupported(
            file.path(),
            None,
            format!("GGUF version {version}"),
        ));
    }
    let tensor_count = cursor.u64("number of tensors")?;
    let entry_count = cursor.u64("number of metadata entries")?;
    let metadata = metadata::read(&mut cursor, entry_count)?;
    let alignment = alignment(&metadata, &file)?;
    let tensors = descriptions(&mut cursor, tensor_count)?;
    let start = (cursor.position() as u64).next_multiple_of(alignment);
    let tensors = place(tensors, start, alignment, &file)?;
    let checkpoint = Checkpoint::new(vec![file], tensors, BTreeMap::new())?;
    Ok(Gguf {
        version,
        alignment,
        metadata,
        checkpoint,
    })
}

fn alignment(metadata: &Metadata, file: &File) -> Result<u64> {
    let key = "general.alignment";
    let Some(value) = metadata.get(key) else {
        return Ok(ALIGNMENT);
    };
    match *value {
        Value::U32(alignment) if alignment.is_power_of_two() => Ok(u64::from(alignment)),
        // Another type has another length, which readers that look for none of it differ on.
        _ => Err(Error::invalid(
            file.path(),
            Some(key),
            "a power of two of type u32",
            value.summary(),
        )),
    }
}

/// A tensor's description as it stands in the file.
struct Description {
    name: String,
    dtype: Type,
    shape: Vec<usize>,
    offset: u64,
}

fn descriptions(cursor: &mut Cursor<'_>, count: u64) -> Result<Vec<Description>> {
    let count = cursor.count("number of tensors", count, DESCRIPTION)?;
    let mut descriptions = Vec::new();
    for _ in 0..count {
        let name = cursor.string("tensor name")?.to_owned();
        let rank = cursor.u32(&name)? as usize;
        if rank > RANK {
            let expected = format!("at most {RANK} dimensions");
            let found = format!("{rank}");
            return Err(Error::invalid(cursor.path(), Some(&name), expected, found));
        }
        let mut shape = vec![0; rank];
        for size in shape.iter_mut().rev() {
            *size = cursor.size(&name)?;
        }
        let number = cursor.u32(&name)?;
        let dtype = Type::from_gguf(number).ok_or_else(|| {
            Error::unsupported(
                cursor.path(),
                Some(&name),
                format!("tensor type number {number}"),
            )
        })?;
        let offset = cursor.u64(&name)?;
        descriptions.push(Description {
            name,
            dtype,
            shape,
            offset,
        });
    }
    Ok(descriptions)
}

/// Turns offsets into ranges and checks that they are aligned and do not overlap.
fn place(
    descriptions: Vec<Description>,
    start: u64,
    alignment: u64,
    file: &File,
) -> Result<Vec<Tensor>> {
    let mut tensors = Vec::new();
    for description in descriptions {
        let Description {
            name,
            dtype,
            shape,
            offset,
        } = description;
        let invalid = |expected: String, found: String| {
            Err(Error::invalid(file.path(), Some(&name), expected, found))
        };
        let Some(bytes) = dtype.bytes(&shape) else {
            let expected = format!("rows of whole {dtype} blocks ({})", dtype.block());
            return invalid(expected, format!("shape {shape:?}"));
        };
        if !offset.is_multiple_of(alignment) {
            return invalid(
                format!("an offset divisible by {alignment}"),
                format!("{offset}"),
            );
        }
        let Some(range) = range(start, offset, bytes) else {
            return invalid("an offset within the file".into(), format!("{offset}"));
        };
        tensors.push(Tensor {
            name,
            dtype,
            shape,
            strides: None,
            file: 0,
            range,
        });
    }
    let mut order: Vec<&Tensor> = tensors.iter().filter(|t| !t.range.is_empty()).collect();
    order.sort_by_key(|tensor| tensor.range.start);
    for pair in order.windows(2) {
        if pair[1].range.start < pair[0].range.end {
            let expected = format!("data that begins at or after {}", pair[0].range.end);
            let found = format!("{}: it overlaps {:?}", pair[1].range.start, pair[0].name);
            return Err(Error::invalid(
                file.path(),
                Some(&pair[1].name),
                expected,
                found,
            ));
        }
    }
    Ok(tensors)
}

fn range(start: u64, offset: u64, bytes: usize) -> Option<Range<usize>> {
    let begin = usize::try_from(start.checked_add(offset)?).ok()?;
    Some(begin..begin.checked_add(bytes)?)
}
