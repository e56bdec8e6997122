//! What lies at a path, and what is wrong with it.

use crate::{Error, Result};
use std::fmt;
use std::io::Read;
use std::path::Path;

/// Something that can be read as a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A directory with safetensors files: Hugging Face's or MLX's layout.
    Directory,
    /// A GGUF file.
    Gguf,
    /// A safetensors file.
    Safetensors,
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
    /// A zip or pickle file, as PyTorch writes.
    Pickle,
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
                f.write_str("expected model*.safetensors in this directory, found ")?;
                list(f, names)
            }
            Unusable::GgufInside(names) => {
                f.write_str("expected model*.safetensors in this directory, found ")?;
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
            Unusable::Pickle => f.write_str(
                "PyTorch files (zip, pickle) are not supported; use a safetensors version",
            ),
            Unusable::Unknown => f.write_str("neither safetensors nor GGUF"),
        }
    }
}

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
    if start.starts_with(b"PK\x03\x04") || (start.len() > 1 && start[0] == 0x80 && start[1] <= 5) {
        return Err(Unusable::Pickle);
    }
    if length < 8 {
        Err(Unusable::Truncated)
    } else {
        Err(Unusable::Unknown)
    }
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

fn sniff_directory(path: &Path) -> Result<Source> {
    let names = crate::safetensors::names(path)?;
    let is_weights = |name: &&String| crate::safetensors::is_weights(name);
    if names
        .iter()
        .any(|name| is_weights(&name) || name == crate::safetensors::INDEX)
    {
        return Ok(Source::Directory);
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
