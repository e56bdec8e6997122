//! npz: a zip file of arrays, each with a header that says type and shape.
//!
//! Entries are stored, as MLX's `savez` and NumPy's write them, or deflated. Column-major arrays and
//! MLX's way to write bfloat16 (`V2`: two bytes of anything) are understood.

mod header;
mod writer;

pub use writer::Writer;

use crate::view::{self, View};
use crate::zip::{self, Entry};
use crate::{Checkpoint, Error, File, Result, Source, Tensor, sniff};
use std::collections::BTreeMap;
use std::ops::Range;

/// Reads one file, or the files of one checkpoint. The name of an array is that of its entry without
/// `.npy`. Stored arrays are not copied; deflated ones are unpacked, and take their size in memory as
/// long as the checkpoint lives.
///
/// # Errors
/// A file that is something else, an entry or header that breaks a rule, big-endian numbers, a type
/// that is not known, a name that two files hold.
pub fn read(files: Vec<File>) -> Result<Checkpoint> {
    let mut tensors = Vec::new();
    let mut made = Vec::new();
    for (index, file) in files.iter().enumerate() {
        sniff::require(file, Source::Npz)?;
        for entry in zip::entries(file)? {
            if entry.deflated {
                array_name(file, entry.name)?;
                let index = files.len() + made.len();
                let unpacked = File::made(file.path(), unpack(file, &entry)?);
                let range = 0..unpacked.bytes().len();
                tensors.push(array(&unpacked, entry.name, index, range)?);
                made.push(unpacked);
            } else {
                tensors.push(array(file, entry.name, index, entry.range)?);
            }
        }
    }
    let files = files.into_iter().chain(made).collect();
    Checkpoint::new(files, tensors, BTreeMap::new())
}

/// Weights are deflated to more than half of their size. Deflate could make a thousand bytes of one,
/// and what is unpacked stays in memory.
const MOST: usize = 16;

/// What a small array of equal numbers may become all the same.
const LEAST: usize = 1 << 20;

fn unpack(file: &File, entry: &Entry<'_>) -> Result<Vec<u8>> {
    let packed = &file.bytes()[entry.range.clone()];
    let limit = packed.len().saturating_mul(MOST).saturating_add(LEAST);
    if entry.size > limit {
        let expected = format!("at most {limit} bytes in {} deflated ones", packed.len());
        let found = format!("{} bytes; save the file without compression", entry.size);
        return Err(Error::invalid(
            file.path(),
            Some(entry.name),
            expected,
            found,
        ));
    }
    match miniz_oxide::inflate::decompress_to_vec_with_limit(packed, entry.size) {
        Ok(bytes) if bytes.len() == entry.size && entry.is_whole(&bytes) => Ok(bytes),
        _ => {
            let expected = format!("deflated data of {} bytes", entry.size);
            let found = "others; the file is damaged";
            Err(Error::invalid(
                file.path(),
                Some(entry.name),
                expected,
                found,
            ))
        }
    }
}

/// The name of an array, without what NumPy puts behind it.
fn array_name<'n>(file: &File, name: &'n str) -> Result<&'n str> {
    name.strip_suffix(".npy").ok_or_else(|| {
        let expected = "arrays alone (names that end with .npy)";
        Error::invalid(file.path(), Some(name), expected, "another entry")
    })
}

/// The array whose header and data are `range` of a file.
fn array(file: &File, name: &str, index: usize, range: Range<usize>) -> Result<Tensor> {
    let short = array_name(file, name)?;
    let header = header::parse(&file.bytes()[range.clone()])
        .map_err(|fault| fault.name(file.path(), name))?;
    let strides = if header.column_major {
        view::column_major(&header.shape)
    } else {
        view::row_major(&header.shape)
    };
    let data = range.start + header.length..range.end;
    let found = format!("shape {:?} and {} bytes", header.shape, data.len());
    let view = strides.map(|strides| View {
        name: short.to_owned(),
        dtype: header.dtype,
        shape: header.shape,
        strides,
        offset: 0,
    });
    view.and_then(|view| view.place(index, &data))
        .filter(|tensor| tensor.range == data || tensor.elements() == 0 && data.is_empty())
        .ok_or_else(|| {
            let expected = "as many bytes as type and shape ask for";
            Error::invalid(file.path(), Some(short), expected, found)
        })
}
