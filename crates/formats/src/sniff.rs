//! What lies at a path, and what is wrong with it.

use crate::shards::{CONSOLIDATED, Family, PYTORCH, SAFETENSORS, WEIGHTS, names};
use crate::{Error, File, Result};
use std::fmt;
use std::io::Read;
use std::path::Path;

/// Something that can be read as a checkpoint. Of several in one directory, the first counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Source {
    /// A directory with safetensors files: Hugging Face's or MLX's layout.
    Directory,
    /// A directory with `pytorch_model*.bin`: Hugging Face's older layout.
    TorchDirectory,
    /// A directory with `consolidated.NN.pth`, as Meta and Mistral publish.
    Consolidated,
    /// A directory with `weights.npz` or `weights.NN.npz`, as MLX's example programs write.
    NpzDirectory,
    /// A GGUF file.
    Gguf,
    /// A safetensors file.
    Safetensors,
    /// A PyTorch file: a zip file, or the stream of pickles from before PyTorch 1.6.
    Torch,
    /// An npz file: a zip file of arrays.
    Npz,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Directory => "a directory of safetensors files",
            Source::TorchDirectory => "a directory of PyTorch files",
            Source::Consolidated => "a directory of consolidated PyTorch files",
            Source::NpzDirectory => "a directory of npz files",
            Source::Gguf => "a GGUF file",
            Source::Safetensors => "a safetensors file",
            Source::Torch => "a PyTorch file",
            Source::Npz => "an npz file",
        })
    }
}

/// What a path holds that cannot be read as a checkpoint. Prints as a message.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Unusable {
    /// There is nothing at the path.
    Missing,
    /// A file of no bytes.
    EmptyFile,
    /// A directory of no files.
    EmptyDirectory,
    /// A directory with files, none of them weights that can be read; the files' names.
    NoWeights(Vec<String>),
    /// A directory whose weights are GGUF files; their names.
    GgufInside(Vec<String>),
    /// The placeholder that Git leaves when Git LFS did not fetch the file.
    LfsPointer,
    /// A web page, usually a saved error message.
    Html,
    /// A file that begins like a checkpoint and ends too early.
    Truncated,
    /// A pickle, but not one that PyTorch wrote.
    Pickle,
    /// What PyTorch wrote before version 0.1.10, or another tar file.
    Tar,
    /// None of the formats that are known.
    Unknown,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Missing => f.write_str("no such file or directory"),
            Unusable::EmptyFile => f.write_str("the file is empty (0 bytes); download it again"),
            Unusable::EmptyDirectory => f.write_str("the directory is empty"),
            Unusable::NoWeights(names) => {
                write!(f, "expected {WEIGHT_FILES} in this directory, found ")?;
                list(f, names)
            }
            Unusable::GgufInside(names) => {
                write!(f, "expected {WEIGHT_FILES} in this directory, found ")?;
                list(f, names)?;
                f.write_str("; give the path of the GGUF file itself")
            }
            Unusable::LfsPointer => f.write_str(
                "this is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`",
            ),
            Unusable::Html => {
                f.write_str("this is a web page, not a checkpoint; the download went wrong")
            }
            Unusable::Truncated => {
                f.write_str("the file is cut short; the download was interrupted")
            }
            Unusable::Pickle => {
                f.write_str("this is a Python pickle, but not a checkpoint that PyTorch wrote")
            }
            Unusable::Tar => f.write_str(
                "tar files (PyTorch's before version 0.1.10) are not supported; save it again",
            ),
            Unusable::Unknown => f.write_str("neither safetensors, GGUF, PyTorch nor npz"),
        }
    }
}

/// The files that a directory is known by.
const WEIGHT_FILES: &str =
    "model*.safetensors, pytorch_model*.bin, consolidated.NN.pth or weights.npz";

/// Names the first five, and how many more there are.
fn list(f: &mut fmt::Formatter<'_>, names: &[String]) -> fmt::Result {
    f.write_str(&names[..names.len().min(5)].join(", "))?;
    if names.len() > 5 {
        write!(f, " and {} more", names.len() - 5)
    } else {
        Ok(())
    }
}

/// What a file of `length` bytes that begins with `start` is. 512 bytes of start are enough.
///
/// # Errors
/// What it is instead, if it is not a checkpoint.
pub fn sniff_bytes(start: &[u8], length: u64) -> std::result::Result<Source, Unusable> {
    if length == 0 {
        return Err(Unusable::EmptyFile);
    }
    if start.starts_with(b"GGUF") {
        return if length < 24 {
            Err(Unusable::Truncated)
        } else {
            Ok(Source::Gguf)
        };
    }
    if start.starts_with(b"version https://git-lfs") {
        return Err(Unusable::LfsPointer);
    }
    let text = start.trim_ascii_start();
    if is_html(text) {
        return Err(Unusable::Html);
    }
    // A safetensors header is a JSON object behind its length, so its ninth byte is a brace.
    if let Some((header, rest)) = start.split_first_chunk::<8>()
        && rest.first().is_none_or(|&byte| byte == b'{')
    {
        let header = u64::from_le_bytes(*header);
        if header <= crate::safetensors::HEADER_LIMIT {
            let cut = header.checked_add(8).is_none_or(|end| end > length);
            return if cut {
                Err(Unusable::Truncated)
            } else {
                Ok(Source::Safetensors)
            };
        }
    }
    if start.starts_with(b"PK\x03\x04") {
        return Ok(zip_kind(start));
    }
    if let [0x80, 0..=5, ..] = start {
        return if is_torch_stream(start) {
            Ok(Source::Torch)
        } else {
            Err(Unusable::Pickle)
        };
    }
    if start.get(257..262) == Some(b"ustar") {
        return Err(Unusable::Tar);
    }
    if length < 8 {
        Err(Unusable::Truncated)
    } else {
        Err(Unusable::Unknown)
    }
}

/// An npz file begins with an array; PyTorch's zip files do not hold any.
fn zip_kind(start: &[u8]) -> Source {
    let length = start.get(26..28).map_or(0, |bytes| {
        usize::from(u16::from_le_bytes([bytes[0], bytes[1]]))
    });
    match start.get(30..30 + length) {
        Some(name) if name.ends_with(b".npy") => Source::Npz,
        _ => Source::Torch,
    }
}

/// The first of the pickles that PyTorch wrote before version 1.6 is this number.
const STREAM: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

fn is_torch_stream(start: &[u8]) -> bool {
    let first = &start[..start.len().min(32)];
    first.windows(STREAM.len()).any(|bytes| bytes == STREAM)
}

fn is_html(text: &[u8]) -> bool {
    let begins = |with: &[u8]| {
        text.get(..with.len())
            .is_some_and(|text| text.eq_ignore_ascii_case(with))
    };
    begins(b"<!doctype") || begins(b"<html") || begins(b"<?xml") || begins(b"<head")
}

/// What lies at `path`. Reads at most 512 bytes of a file, or lists a directory.
///
/// # Errors
/// [`Error::Unusable`] with what it is instead; [`Error::Read`].
pub fn sniff(path: &Path) -> Result<Source> {
    let read = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let unusable = |reason| Error::Unusable {
        path: path.to_owned(),
        reason,
    };
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(unusable(Unusable::Missing));
        }
        other => other.map_err(read)?,
    };
    if metadata.is_dir() {
        return sniff_directory(path);
    }
    let mut start = Vec::with_capacity(512);
    let file = std::fs::File::open(path).map_err(read)?;
    file.take(512).read_to_end(&mut start).map_err(read)?;
    sniff_bytes(&start, metadata.len()).map_err(unusable)
}

/// Refuses a file that is not of the kind that a reader is for.
///
/// # Errors
/// What it is instead.
pub(crate) fn require(file: &File, kind: Source) -> Result<()> {
    let bytes = file.bytes();
    match sniff_bytes(&bytes[..bytes.len().min(512)], bytes.len() as u64) {
        Ok(found) if found == kind => Ok(()),
        Ok(found) => Err(Error::invalid(
            file.path(),
            None,
            kind.to_string(),
            found.to_string(),
        )),
        Err(reason) => Err(Error::Unusable {
            path: file.path().to_owned(),
            reason,
        }),
    }
}

fn sniff_directory(path: &Path) -> Result<Source> {
    let names = names(path)?;
    let kind = |name: &String| {
        let of = |family: &Family| family.holds(name) || name == family.index;
        match name {
            _ if of(&SAFETENSORS) => Some(Source::Directory),
            _ if of(&PYTORCH) => Some(Source::TorchDirectory),
            _ if CONSOLIDATED.holds(name) => Some(Source::Consolidated),
            _ if WEIGHTS.holds(name) => Some(Source::NpzDirectory),
            _ => None,
        }
    };
    if let Some(first) = names.iter().filter_map(kind).min() {
        return Ok(first);
    }
    let gguf: Vec<String> = names
        .iter()
        .filter(|name| name.ends_with(".gguf"))
        .cloned()
        .collect();
    let reason = match (names.is_empty(), gguf.is_empty()) {
        (true, _) => Unusable::EmptyDirectory,
        (false, false) => Unusable::GgufInside(gguf),
        (false, true) => Unusable::NoWeights(names),
    };
    Err(Error::Unusable {
        path: path.to_owned(),
        reason,
    })
}
