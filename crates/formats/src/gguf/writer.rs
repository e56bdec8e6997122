//! Writing: metadata and descriptions first, then the tensors' bytes as they come.

use crate::safetensors::Declared;
use crate::{BlockType, Error, Result, Type};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What each tensor's data is aligned to.
const ALIGNMENT: u64 = 32;

/// A value to write.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "the names are the format's own")]
pub enum Entry {
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Integers(Vec<i32>),
    Floats(Vec<f32>),
}

/// Writes one GGUF file, version 3. Tensors are declared first and their bytes follow in the same
/// order, in pieces of any size, so that no tensor need be in memory.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    path: PathBuf,
    /// What is to be written, the next one last: names and bytes.
    rest: Vec<(String, u64)>,
    current: Option<(String, u64)>,
    /// Bytes of data.
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Writes what comes before the data. `path` is what messages call the file.
    ///
    /// # Errors
    /// A type that GGUF cannot hold, a size that overflows; [`Error::Write`].
    pub fn new(
        out: W,
        path: &Path,
        metadata: &[(String, Entry)],
        tensors: &[Declared],
    ) -> Result<Writer<W>> {
        let mut head = Head(b"GGUF".to_vec());
        head.word(3)
            .long(tensors.len() as u64)
            .long(metadata.len() as u64);
        for (key, entry) in metadata {
            head.text(key).entry(entry);
        }
        let (mut rest, mut at) = (Vec::with_capacity(tensors.len()), 0u64);
        for tensor in tensors {
            let name = Some(tensor.name.as_str());
            let what = || format!("{} in GGUF", tensor.dtype);
            let kind =
                number(tensor.dtype).ok_or_else(|| Error::unsupported(path, name, what()))?;
            let found = || format!("shape {:?}", tensor.shape);
            let bytes = tensor.bytes().map(|bytes| bytes as u64);
            let bytes = bytes.ok_or_else(|| Error::invalid(path, name, "whole blocks", found()))?;
            head.text(&tensor.name).word(tensor.shape.len() as u32);
            for &size in tensor.shape.iter().rev() {
                head.long(size as u64);
            }
            head.word(kind).long(at);
            rest.push((tensor.name.clone(), bytes));
            at = (at + bytes).next_multiple_of(ALIGNMENT);
        }
        let length = (head.0.len() as u64).next_multiple_of(ALIGNMENT);
        head.0.resize(length as usize, 0);
        rest.reverse();
        let mut writer = Writer {
            out,
            path: path.to_owned(),
            rest,
            current: None,
            written: 0,
        };
        writer.put(&head.0)?;
        writer.written = 0;
        Ok(writer)
    }

    /// What it writes to; bytes of the tensors go through [`Writer::write`].
    pub fn output(&mut self) -> &mut W {
        &mut self.out
    }

    /// Writes the next piece of the current tensor; after its last byte comes the next tensor.
    ///
    /// # Errors
    /// Bytes of another tensor than the next one declared, or more of them; [`Error::Write`].
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.go_on()?;
        let length = bytes.len() as u64;
        match &mut self.current {
            Some((tensor, left)) if tensor == name && *left >= length => *left -= length,
            current => {
                let expected = current
                    .as_ref()
                    .map_or("the end".to_owned(), |(tensor, left)| {
                        format!("at most {left} bytes of {tensor:?}")
                    });
                let found = format!("{length} bytes");
                return Err(Error::invalid(&self.path, Some(name), expected, found));
            }
        }
        self.put(bytes)
    }

    /// Fills up tensors that are complete and begins the next, until one lacks bytes.
    fn go_on(&mut self) -> Result<()> {
        while self.current.as_ref().is_none_or(|(_, left)| *left == 0) {
            let gap = self.written.next_multiple_of(ALIGNMENT) - self.written;
            self.put(&[0; ALIGNMENT as usize][..gap as usize])?;
            self.current = self.rest.pop();
            if self.current.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Checks that every tensor is complete, flushes, and gives the output back.
    ///
    /// # Errors
    /// The first tensor that lacks bytes; [`Error::Write`].
    pub fn finish(mut self) -> Result<W> {
        self.go_on()?;
        if let Some((tensor, left)) = &self.current {
            let expected = format!("{left} bytes more");
            return Err(Error::invalid(
                &self.path,
                Some(tensor),
                expected,
                "the end",
            ));
        }
        let flushed = self.out.flush();
        flushed.map_err(|source| self.write_error(source))?;
        Ok(self.out)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.out.write_all(bytes);
        written.map_err(|source| self.write_error(source))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn write_error(&self, source: std::io::Error) -> Error {
        let path = self.path.clone();
        Error::Write { path, source }
    }
}

/// The number of a type that can be written.
fn number(dtype: Type) -> Option<u32> {
    Some(match dtype {
        Type::F32 => 0,
        Type::F16 => 1,
        Type::Gguf(BlockType::Q4_0) => 2,
        Type::Gguf(BlockType::Q4_1) => 3,
        Type::Gguf(BlockType::Q8_0) => 8,
        Type::BF16 => 30,
        _ => return None,
    })
}

/// Little-endian numbers, and texts with their lengths.
struct Head(Vec<u8>);

impl Head {
    fn word(&mut self, number: u32) -> &mut Head {
        self.0.extend(number.to_le_bytes());
        self
    }

    fn long(&mut self, number: u64) -> &mut Head {
        self.0.extend(number.to_le_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut Head {
        self.long(text.len() as u64);
        self.0.extend(text.bytes());
        self
    }

    /// The number of the type, and the value; an array's elements have a type and a count.
    fn entry(&mut self, entry: &Entry) -> &mut Head {
        match entry {
            Entry::U32(number) => self.word(4).word(*number),
            Entry::I32(number) => self.word(5).word(*number as u32),
            Entry::F32(number) => self.word(6).word(number.to_bits()),
            Entry::Bool(flag) => {
                self.word(7).0.push(u8::from(*flag));
                self
            }
            Entry::Text(text) => self.word(8).text(text),
            Entry::Texts(texts) => {
                self.word(9).word(8).long(texts.len() as u64);
                texts.iter().fold(self, |head, text| head.text(text))
            }
            Entry::Integers(numbers) => {
                self.word(9).word(5).long(numbers.len() as u64);
                numbers
                    .iter()
                    .fold(self, |head, &number| head.word(number as u32))
            }
            Entry::Floats(numbers) => {
                self.word(9).word(6).long(numbers.len() as u64);
                numbers
                    .iter()
                    .fold(self, |head, number| head.word(number.to_bits()))
            }
        }
    }
}
