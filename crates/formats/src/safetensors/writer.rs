//! Writing: the header first, then the tensors' bytes as they come.

use crate::{Error, Result, Type};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The data begins at a multiple of this, so that whoever maps the file finds it aligned.
const ALIGNMENT: usize = 64;

/// A tensor that will be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Declared {
    /// The name in the file.
    pub name: String,
    /// How elements are stored; not a GGUF block format.
    pub dtype: Type,
    /// Row-major.
    pub shape: Vec<usize>,
}

impl Declared {
    /// The number of bytes that will be written. `None` on overflow.
    pub fn bytes(&self) -> Option<usize> {
        self.dtype.bytes(&self.shape)
    }
}

/// Writes one safetensors file. The tensors are declared first and their bytes follow in the same
/// order, in pieces of any size, so that no tensor need be in memory.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    path: PathBuf,
    ends: Ends,
    /// Tensors that are complete.
    complete: usize,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header. `path` is what messages call the file; `out` should be buffered if the
    /// pieces are small.
    ///
    /// # Errors
    /// A name that occurs twice, a type that safetensors cannot hold, a size that overflows;
    /// [`Error::Write`].
    pub fn new(mut out: W, path: &Path, tensors: &[Declared]) -> Result<Writer<W>> {
        let (header, ends) = declare(path, tensors)?;
        out.write_all(&header)
            .map_err(|error| write_error(path, error))?;
        Ok(Writer {
            out,
            path: path.to_owned(),
            ends,
            complete: 0,
            written: 0,
        })
    }

    /// Goes on with a file of these tensors that is `length` bytes long, to which `out` appends.
    ///
    /// # Errors
    /// As for [`Writer::new`]; a length that ends before the header does, or after the tensors.
    pub fn resume(out: W, path: &Path, tensors: &[Declared], length: u64) -> Result<Writer<W>> {
        let (header, ends) = declare(path, tensors)?;
        let (header, data) = (header.len() as u64, ends.last().map_or(0, |(_, end)| *end));
        if length < header || length > header + data {
            let expected = format!("{header} to {} bytes", header + data);
            let found = length.to_string();
            return Err(Error::invalid(path, None, expected, found));
        }
        Ok(Writer {
            out,
            path: path.to_owned(),
            ends,
            complete: 0,
            written: length - header,
        })
    }

    /// What it writes to; bytes of the tensors go through [`Writer::write`].
    pub fn output(&mut self) -> &mut W {
        &mut self.out
    }
    /// Writes the next piece of the current tensor; after its last byte comes the next tensor.
    /// `name` is the tensor that the bytes belong to.
    ///
    /// # Errors
    /// Bytes of another tensor than the next one declared, or more of them; [`Error::Write`].
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.skip_complete();
        let Some((next, end)) = self.ends.get(self.complete) else {
            return Err(Error::invalid(
                &self.path,
                Some(name),
                "the end",
                "more bytes",
            ));
        };
        if next != name {
            let expected = format!("bytes of {next:?} next");
            return Err(Error::invalid(
                &self.path,
                Some(name),
                expected,
                "bytes of this one",
            ));
        }
        let left = end - self.written;
        if bytes.len() as u64 > left {
            let found = format!("{}", bytes.len());
            let expected = format!("at most {left} bytes more");
            return Err(Error::invalid(&self.path, Some(name), expected, found));
        }
        self.out
            .write_all(bytes)
            .map_err(|error| write_error(&self.path, error))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn skip_complete(&mut self) {
        while self
            .ends
            .get(self.complete)
            .is_some_and(|(_, end)| *end <= self.written)
        {
            self.complete += 1;
        }
    }

    /// Checks that every tensor is complete, flushes, and gives the output back.
    ///
    /// # Errors
    /// The first tensor that lacks bytes; [`Error::Write`].
    pub fn finish(mut self) -> Result<W> {
        self.skip_complete();
        if let Some((name, end)) = self.ends.get(self.complete) {
            let expected = format!("{} bytes more", end - self.written);
            return Err(Error::invalid(&self.path, Some(name), expected, "the end"));
        }
        self.out
            .flush()
            .map_err(|error| write_error(&self.path, error))?;
        Ok(self.out)
    }
}

/// Names, and how many bytes of data there are once each is written.
type Ends = Vec<(String, u64)>;

/// The header, and where tensors end.
fn declare(path: &Path, tensors: &[Declared]) -> Result<(Vec<u8>, Ends)> {
    let mut entries = BTreeMap::new();
    let mut ends = Vec::with_capacity(tensors.len());
    let mut end = 0u64;
    for tensor in tensors {
        let start = end;
        let Declared { name, dtype, shape } = tensor;
        let text = dtype.safetensors().ok_or_else(|| {
            Error::unsupported(path, Some(name), format!("{dtype} in safetensors"))
        })?;
        let bytes = tensor
            .bytes()
            .and_then(|bytes| start.checked_add(bytes as u64));
        end = bytes.ok_or_else(|| {
            let found = format!("shape {shape:?}");
            Error::invalid(path, Some(name), "a size that fits the file", found)
        })?;
        ends.push((name.clone(), end));
        let entry =
            serde_json::json!({"data_offsets": [start, end], "dtype": text, "shape": shape});
        if name == super::header::METADATA || entries.insert(name.as_str(), entry).is_some() {
            let expected = "a name that is free";
            return Err(Error::invalid(path, Some(name), expected, "one in use"));
        }
    }
    entries.insert(
        super::header::METADATA,
        serde_json::json!({"format": "mlx"}),
    );
    let header = header(&entries).map_err(|error| write_error(path, error.into()))?;
    Ok((header, ends))
}

fn write_error(path: &Path, source: std::io::Error) -> Error {
    Error::Write {
        path: path.to_owned(),
        source,
    }
}

/// The header with its length, filled up with spaces.
fn header(entries: &BTreeMap<&str, serde_json::Value>) -> serde_json::Result<Vec<u8>> {
    let mut header = vec![0; 8];
    serde_json::to_writer(&mut header, entries)?;
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    let length = (header.len() - 8) as u64;
    header[..8].copy_from_slice(&length.to_le_bytes());
    Ok(header)
}
