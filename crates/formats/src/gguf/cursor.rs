//! Reading forward through a file's bytes, never past their end.

use crate::{Error, File, Result};
use std::path::Path;

#[derive(Clone)]
pub(super) struct Cursor<'a> {
    file: &'a File,
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(file: &'a File) -> Cursor<'a> {
        Cursor {
            file,
            bytes: file.bytes(),
            position: 0,
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// The bytes not read yet.
    fn left(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// The next `length` bytes, which `what` consists of.
    pub(super) fn take(&mut self, what: &str, length: usize) -> Result<&'a [u8]> {
        let Some(bytes) = self.bytes[self.position..].get(..length) else {
            return Err(Error::invalid(
                self.path(),
                Some(what),
                format!("{length} bytes at {}", self.position),
                format!("{}; the file is cut short or damaged", self.left()),
            ));
        };
        self.position += length;
        Ok(bytes)
    }

    pub(super) fn skip(&mut self, what: &str, length: usize) -> Result<()> {
        self.take(what, length).map(|_| ())
    }

    /// The next `N` bytes as an array.
    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(what, N)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A 64-bit size that this machine can address.
    pub(super) fn size(&mut self, what: &str) -> Result<usize> {
        let size = self.u64(what)?;
        usize::try_from(size).map_err(|_| {
            Error::invalid(
                self.path(),
                Some(what),
                "a size that fits memory",
                format!("{size}"),
            )
        })
    }

    /// A string: its length in 64 bits, then UTF-8.
    pub(super) fn string(&mut self, what: &str) -> Result<&'a str> {
        let length = self.size(what)?;
        let bytes = self.take(what, length)?;
        std::str::from_utf8(bytes)
            .map_err(|_| Error::invalid(self.path(), Some(what), "UTF-8 text", "other bytes"))
    }

    /// `count` checked against the bytes left: each of what is counted takes at least `least`
    /// bytes, so what is allocated for a count is bounded by the file.
    pub(super) fn count(&self, what: &str, count: u64, least: usize) -> Result<usize> {
        let most = self.left() / least;
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(Error::invalid(
                self.path(),
                Some(what),
                format!("at most {most}, as many as the rest of the file can hold"),
                format!("{count}"),
            )),
        }
    }
}
