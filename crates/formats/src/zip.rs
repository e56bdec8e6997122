//! The directory of a zip file.
//!
//! The directory at the end of the file decides what there is. An entry's own header must agree with
//! it, so that no other reader can see other contents in the same file.

mod sums;

pub use sums::Sums;

use crate::{Error, File, Result, Unusable};
use std::collections::HashSet;
use std::ops::Range;

/// A file within the zip file.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    /// Its bytes, packed or not.
    pub(crate) range: Range<usize>,
    /// Whether they are packed by deflate; else they are as they were.
    pub(crate) deflated: bool,
    /// How many bytes they are unpacked.
    pub(crate) size: usize,
    /// CRC-32 of the unpacked bytes; 0 where the program that wrote them left it out.
    sum: u32,
}

impl Entry<'_> {
    /// Whether the unpacked bytes are those that were written, as far as the file says. Takes time
    /// in proportion to them: it is for what is read as a whole anyway.
    pub(crate) fn is_whole(&self, unpacked: &[u8]) -> bool {
        self.sum == 0 || crc32fast::hash(unpacked) == self.sum
    }
}

/// The signatures of the records, and their sizes without what has a length of its own.
const END: (&[u8], usize) = (b"PK\x05\x06", 22);
const END_64: (&[u8], usize) = (b"PK\x06\x06", 56);
const LOCATOR_64: (&[u8], usize) = (b"PK\x06\x07", 20);
const IN_DIRECTORY: (&[u8], usize) = (b"PK\x01\x02", 46);
const BEFORE_DATA: (&[u8], usize) = (b"PK\x03\x04", 30);

/// The longest comment behind the end record.
const COMMENT: usize = 0xffff;

/// The files within `file`, in the order of their places.
///
/// # Errors
/// A file that ends early, records that contradict each other, entries that are encrypted, overlap
/// or share a name, a packing other than deflate.
pub(crate) fn entries(file: &File) -> Result<Vec<Entry<'_>>> {
    let (directory, count) = directory(file)?;
    let mut fields = Fields {
        file,
        at: directory.start,
        end: directory.end,
    };
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(entry(file, &mut fields)?);
    }
    let mut names = HashSet::new();
    if let Some(twice) = entries.iter().find(|entry| !names.insert(entry.name)) {
        let expected = "a name that occurs once in the zip file";
        return Err(Error::invalid(
            file.path(),
            Some(twice.name),
            expected,
            "it twice",
        ));
    }
    entries.sort_by_key(|entry| entry.range.start);
    for pair in entries.windows(2) {
        if pair[1].range.start < pair[0].range.end {
            let found = format!("bytes that {:?} has, too", pair[0].name);
            let expected = "an entry of its own bytes";
            return Err(Error::invalid(
                file.path(),
                Some(pair[1].name),
                expected,
                found,
            ));
        }
    }
    Ok(entries)
}

/// Where the directory is and how many entries it has.
fn directory(file: &File) -> Result<(Range<usize>, u64)> {
    let bytes = file.bytes();
    let cut = || Error::Unusable {
        path: file.path().to_owned(),
        reason: Unusable::Truncated,
    };
    let last = bytes.len().checked_sub(END.1).ok_or_else(cut)?;
    let first = last.saturating_sub(COMMENT);
    let is_end = |&at: &usize| {
        let comment = number(bytes, at + 20, 2);
        bytes[at..].starts_with(END.0) && comment == Some((bytes.len() - at - END.1) as u64)
    };
    let end = (first..=last).rev().find(is_end).ok_or_else(cut)?;
    let field = |at, width| number(bytes, at, width).unwrap_or(0);
    let (mut count, mut size, mut start) =
        (field(end + 10, 2), field(end + 12, 4), field(end + 16, 4));
    let mut stop = end;
    let locator = end.checked_sub(LOCATOR_64.1);
    if let Some(locator) = locator.filter(|&at| bytes[at..].starts_with(LOCATOR_64.0)) {
        let at = usize::try_from(field(locator + 8, 8)).ok();
        let record = at.and_then(|at| bytes.get(at..at.checked_add(END_64.1)?));
        let Some(record) = record.filter(|record| record.starts_with(END_64.0)) else {
            return Err(broken(file, "the zip64 record"));
        };
        let field = |at, width| number(record, at, width).unwrap_or(0);
        (count, size, start) = (field(32, 8), field(40, 8), field(48, 8));
        stop = at.unwrap_or(stop);
    }
    let range = start.checked_add(size).and_then(|end| {
        let range = usize::try_from(start).ok()?..usize::try_from(end).ok()?;
        // Entries are counted before they are read: each takes its share of the directory.
        let fits = count <= size / IN_DIRECTORY.1 as u64;
        (fits && range.end <= stop).then_some(range)
    });
    Ok((range.ok_or_else(|| broken(file, "the directory"))?, count))
}

fn broken(file: &File, what: &str) -> Error {
    let expected = format!("{what} of a zip file");
    let found = "one that does not fit the file; it is damaged";
    Error::invalid(file.path(), None, expected, found)
}

/// A little-endian number of `width` bytes.
fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(width)?)?;
    let mut all = [0; 8];
    all.get_mut(..width)?.copy_from_slice(bytes);
    Some(u64::from_le_bytes(all))
}

/// Records one after the other.
struct Fields<'a> {
    file: &'a File,
    at: usize,
    end: usize,
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.end);
        let bytes = end.and_then(|end| self.file.bytes().get(self.at..end));
        let bytes = bytes.ok_or_else(|| broken(self.file, "an entry"))?;
        self.at += length;
        Ok(bytes)
    }

    fn record(&mut self, (signature, length): (&[u8], usize)) -> Result<&'a [u8]> {
        let bytes = self.take(length)?;
        if !bytes.starts_with(signature) {
            return Err(broken(self.file, "an entry"));
        }
        Ok(bytes)
    }
}

fn entry<'a>(file: &'a File, fields: &mut Fields<'a>) -> Result<Entry<'a>> {
    let record = fields.record(IN_DIRECTORY)?;
    let field = |at, width| number(record, at, width).unwrap_or(0);
    let name = fields.take(field(28, 2) as usize)?;
    let extra = fields.take(field(30, 2) as usize)?;
    fields.take(field(32, 2) as usize)?;
    let Ok(name) = std::str::from_utf8(name) else {
        return Err(broken(file, "the name of an entry"));
    };
    if field(8, 2) & 1 != 0 {
        return Err(Error::unsupported(file.path(), Some(name), "encryption"));
    }
    let method = field(10, 2);
    if method != 0 && method != 8 {
        let what = format!("zip method {method} (stored and deflated are)");
        return Err(Error::unsupported(file.path(), Some(name), what));
    }
    let mut wide = wide(extra);
    let mut or_wide = |value: u64| match value {
        0xffff_ffff => wide.next().unwrap_or(value),
        value => value,
    };
    let (size, packed, at) = (
        or_wide(field(24, 4)),
        or_wide(field(20, 4)),
        or_wide(field(42, 4)),
    );
    let [Ok(size), Ok(packed), Ok(at)] = [size, packed, at].map(usize::try_from) else {
        return Err(broken(file, "the size of an entry"));
    };
    if method == 0 && size != packed {
        return Err(broken(file, "the size of an entry"));
    }
    let facts = Facts {
        flags: field(8, 2),
        method,
        sum: field(16, 4),
        packed: packed as u64,
        size: size as u64,
    };
    let start = data_start(file, name, at, &facts)?;
    let end = start.checked_add(packed);
    let end = end.filter(|&end| end <= file.bytes().len());
    let end = end.ok_or_else(|| broken(file, "the size of an entry"))?;
    Ok(Entry {
        name,
        range: start..end,
        deflated: method == 8,
        size,
        sum: facts.sum as u32,
    })
}

/// What both an entry's own header and the directory say of it.
struct Facts {
    flags: u64,
    method: u64,
    sum: u64,
    packed: u64,
    size: u64,
}

/// In the flags: checksum and sizes were not known when an entry's own header was written.
const LATER: u64 = 8;

/// The 64-bit numbers that stand for those that do not fit, in the order of the record.
fn wide(mut extra: &[u8]) -> impl Iterator<Item = u64> {
    let mut values = [].as_slice();
    while let Some(length) = number(extra, 2, 2) {
        let Some(field) = extra.get(4..4 + length as usize) else {
            break;
        };
        if extra.starts_with(&[1, 0]) {
            values = field;
        }
        extra = &extra[4 + length as usize..];
    }
    values
        .as_chunks::<8>()
        .0
        .iter()
        .map(|bytes| u64::from_le_bytes(*bytes))
}

/// Where an entry's bytes begin: behind its own header, which must say the same as the directory.
fn data_start(file: &File, name: &str, at: usize, facts: &Facts) -> Result<usize> {
    let mut fields = Fields {
        file,
        at,
        end: file.bytes().len(),
    };
    let record = fields.record(BEFORE_DATA)?;
    let length = |at| number(record, at, 2).unwrap_or(0) as usize;
    if fields.take(length(26))? != name.as_bytes() {
        return Err(broken(file, "the name of an entry"));
    }
    let field = |at, width| number(record, at, width).unwrap_or(0);
    // A number that does not fit is in the extra field, or not there yet.
    let same = |own: u64, other: u64| own == other || own == 0xffff_ffff;
    let later = facts.flags & LATER != 0 && field(6, 2) & LATER != 0;
    let sizes = same(field(18, 4), facts.packed) && same(field(22, 4), facts.size);
    let known = field(14, 4) == facts.sum && sizes;
    if field(8, 2) != facts.method || field(6, 2) & 1 != 0 || !(known || later) {
        return Err(broken(file, "the header of an entry"));
    }
    fields.take(length(28))?;
    Ok(fields.at)
}
