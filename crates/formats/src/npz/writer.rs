//! Writing: entries that are stored, one after the other, and the directory last.

use crate::safetensors::Declared;
use crate::{Error, Result, Type};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Data begins at a multiple of this, so that whoever maps the file finds it aligned.
const ALIGNMENT: u64 = 64;

/// Numbers from here on stand in zip64's fields.
const LARGE: u64 = 0xffff_ffff;

/// What the version field says: zip64 is understood by readers of version 4.5.
const VERSION: u16 = 45;

/// Sizes and checksum come after the data, too.
const DESCRIPTOR: u16 = 8;

/// The first of January 1980: there is no time in the file.
const DATE: u16 = 0x21;

/// Writes one npz file. The tensors are declared first and their bytes follow in the same order, in
/// pieces of any size, so that no tensor need be in memory.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    path: PathBuf,
    /// What is to be written, the next one last.
    rest: Vec<Declared>,
    current: Option<Entry>,
    complete: Vec<Entry>,
    /// Bytes of the file.
    written: u64,
}

/// A file within the zip file.
#[derive(Debug)]
struct Entry {
    tensor: String,
    /// Where it begins.
    at: u64,
    /// Its bytes, the array's header included.
    size: u64,
    /// Those that are not written yet.
    left: u64,
    checksum: crc32fast::Hasher,
}

impl Entry {
    fn name(&self) -> String {
        format!("{}.npy", self.tensor)
    }
}

impl<W: Write> Writer<W> {
    /// `path` is what messages call the file; `out` should be buffered if the pieces are small.
    ///
    /// # Errors
    /// A name that occurs twice, a type that NumPy's arrays cannot have, a size that overflows;
    /// [`Error::Write`].
    pub fn new(out: W, path: &Path, tensors: &[Declared]) -> Result<Writer<W>> {
        let mut names = std::collections::BTreeSet::new();
        for tensor in tensors {
            let name = Some(tensor.name.as_str());
            if !names.insert(&tensor.name) || tensor.name.len() > 0xf000 {
                return Err(Error::invalid(path, name, "a name that is free", "another"));
            }
            if tensor.bytes().is_none() {
                let found = format!("shape {:?}", tensor.shape);
                return Err(Error::invalid(path, name, "a size that fits", found));
            }
            if descr(tensor.dtype).is_none() {
                return Err(Error::unsupported(
                    path,
                    name,
                    format!("{} in npz", tensor.dtype),
                ));
            }
        }
        Ok(Writer {
            out,
            path: path.to_owned(),
            rest: tensors.iter().rev().cloned().collect(),
            current: None,
            complete: Vec::new(),
            written: 0,
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
        self.go_on()?;
        let length = bytes.len() as u64;
        match &mut self.current {
            Some(entry) if entry.tensor == name && entry.left >= length => {
                entry.checksum.update(bytes);
                entry.left -= length;
            }
            entry => {
                let expected = entry.as_ref().map_or("the end".to_owned(), |entry| {
                    format!("at most {} bytes of {:?}", entry.left, entry.tensor)
                });
                let found = format!("{length} bytes");
                return Err(Error::invalid(&self.path, Some(name), expected, found));
            }
        }
        self.put(bytes)
    }

    /// Ends entries that are complete and begins the next, until one lacks bytes.
    fn go_on(&mut self) -> Result<()> {
        while self.current.as_ref().is_none_or(|entry| entry.left == 0) {
            self.end()?;
            let Some(tensor) = self.rest.pop() else {
                return Ok(());
            };
            self.begin(tensor)?;
        }
        Ok(())
    }

    fn begin(&mut self, tensor: Declared) -> Result<()> {
        let data = tensor.bytes().unwrap_or(0) as u64;
        let at = self.written;
        let mut entry = Entry {
            tensor: tensor.name.clone(),
            at,
            size: 0,
            left: data,
            checksum: crc32fast::Hasher::new(),
        };
        let large = data + LARGE / 16 >= LARGE;
        let name = entry.name();
        let extra = if large { 20 } else { 0 };
        let header = array_header(&tensor, at + 30 + (name.len() + extra) as u64);
        entry.size = header.len() as u64 + data;
        entry.checksum.update(&header);
        let mut record = Record::new(b"PK\x03\x04");
        record.short(VERSION).common();
        record.word(0);
        let size = if large { LARGE } else { entry.size };
        record.word(size as u32).word(size as u32);
        record.short(name.len() as u16).short(extra as u16);
        record.bytes(name.as_bytes());
        if large {
            record.short(1).short(16).long(entry.size).long(entry.size);
        }
        self.put(&record.0)?;
        self.put(&header)?;
        self.current = Some(entry);
        Ok(())
    }

    /// Writes what follows the data of an entry.
    fn end(&mut self) -> Result<()> {
        let Some(entry) = self.current.take() else {
            return Ok(());
        };
        let mut record = Record::new(b"PK\x07\x08");
        record.word(entry.checksum.clone().finalize());
        match entry.size + LARGE / 16 >= LARGE {
            true => record.long(entry.size).long(entry.size),
            false => record.word(entry.size as u32).word(entry.size as u32),
        };
        self.put(&record.0)?;
        self.complete.push(entry);
        Ok(())
    }

    /// Checks that every tensor is complete, writes the directory, flushes, and gives the output
    /// back.
    ///
    /// # Errors
    /// The first tensor that lacks bytes; [`Error::Write`].
    pub fn finish(mut self) -> Result<W> {
        self.go_on()?;
        if let Some(entry) = &self.current {
            let expected = format!("{} bytes more", entry.left);
            return Err(Error::invalid(
                &self.path,
                Some(&entry.tensor),
                expected,
                "the end",
            ));
        }
        let start = self.written;
        for entry in std::mem::take(&mut self.complete) {
            self.put(&in_directory(&entry).0)?;
            self.complete.push(entry);
        }
        let (size, count) = (self.written - start, self.complete.len() as u64);
        let mut end = Record::new(b"");
        if start >= LARGE || size >= LARGE || count >= 0xffff {
            let at = self.written;
            end.bytes(b"PK\x06\x06")
                .long(44)
                .short(VERSION)
                .short(VERSION);
            end.word(0)
                .word(0)
                .long(count)
                .long(count)
                .long(size)
                .long(start);
            end.bytes(b"PK\x06\x07").word(0).long(at).word(1);
        }
        let count = count.min(0xffff) as u16;
        end.bytes(b"PK\x05\x06")
            .short(0)
            .short(0)
            .short(count)
            .short(count);
        end.word(size.min(LARGE) as u32)
            .word(start.min(LARGE) as u32)
            .short(0);
        self.put(&end.0)?;
        let flushed = self.out.flush();
        flushed.map_err(|source| write_error(&self.path, source))?;
        Ok(self.out)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.out.write_all(bytes);
        written.map_err(|source| write_error(&self.path, source))?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

fn write_error(path: &Path, source: std::io::Error) -> Error {
    Error::Write {
        path: path.to_owned(),
        source,
    }
}

fn in_directory(entry: &Entry) -> Record {
    let name = entry.name();
    let mut extra = Record::new(b"");
    let mut field = |number: u64| {
        if number >= LARGE {
            extra.long(number);
        }
        number.min(LARGE) as u32
    };
    let (size, at) = (field(entry.size), [field(entry.size), field(entry.at)]);
    let extra_length = match extra.0.len() {
        0 => 0,
        length => length + 4,
    };
    let mut record = Record::new(b"PK\x01\x02");
    record.short(VERSION).short(VERSION).common();
    record
        .word(entry.checksum.clone().finalize())
        .word(size)
        .word(at[0]);
    record.short(name.len() as u16).short(extra_length as u16);
    record.short(0).short(0).short(0).word(0).word(at[1]);
    record.bytes(name.as_bytes());
    if extra_length > 0 {
        record.short(1).short(extra.0.len() as u16).bytes(&extra.0);
    }
    record
}

/// The header of an array whose entry's bytes begin at `at`: filled up with spaces, a line's end
/// last.
fn array_header(tensor: &Declared, at: u64) -> Vec<u8> {
    let shape = match &tensor.shape[..] {
        [one] => format!("({one},)"),
        shape => {
            let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
            format!("({})", sizes.join(", "))
        }
    };
    let descr = descr(tensor.dtype).unwrap_or("|u1");
    let mut text =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}").into_bytes();
    let before = at + 10;
    let end = (before + text.len() as u64 + 1).next_multiple_of(ALIGNMENT);
    text.resize((end - before - 1) as usize, b' ');
    text.push(b'\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((text.len() as u16).to_le_bytes());
    header.extend(text);
    header
}

/// NumPy's name of a type. bfloat16, which it does not know, is two bytes of anything, as MLX writes
/// it.
fn descr(dtype: Type) -> Option<&'static str> {
    Some(match dtype {
        Type::F16 => "<f2",
        Type::F32 => "<f4",
        Type::BF16 => "<V2",
        Type::U32 => "<u4",
        Type::U8 => "|u1",
        _ => return None,
    })
}

/// A record of little-endian numbers.
struct Record(Vec<u8>);

impl Record {
    fn new(signature: &[u8]) -> Record {
        Record(signature.to_vec())
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Record {
        self.0.extend(bytes);
        self
    }

    fn short(&mut self, number: u16) -> &mut Record {
        self.bytes(&number.to_le_bytes())
    }

    fn word(&mut self, number: u32) -> &mut Record {
        self.bytes(&number.to_le_bytes())
    }

    fn long(&mut self, number: u64) -> &mut Record {
        self.bytes(&number.to_le_bytes())
    }

    /// Flags, no packing, no time.
    fn common(&mut self) -> &mut Record {
        self.short(DESCRIPTOR).short(0).short(0).short(DATE)
    }
}
