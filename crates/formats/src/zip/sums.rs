//! The checksums of stored entries, for whoever reads the file from front to back anyway.

use super::entries;
use crate::{Error, File, Result};
use crc32fast::Hasher;
use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;

/// The checksums that a zip file has of the entries that are not packed. What is packed is checked
/// where it is unpacked.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Those whose end is still to come, in the order of their places.
    entries: VecDeque<Stored>,
    /// Of what was read of the first one.
    hash: Hasher,
    at: usize,
    damaged: Option<String>,
}

#[derive(Clone, Debug)]
struct Stored {
    name: String,
    range: Range<usize>,
    sum: u32,
}

impl Sums {
    /// Those of a PyTorch or npz file; none where the file is no zip file. Reads its directory
    /// alone.
    ///
    /// # Errors
    /// A directory that breaks a rule.
    pub fn of(file: &File) -> Result<Sums> {
        if !file.bytes().starts_with(b"PK\x03\x04") {
            return Ok(Sums::default());
        }
        let known = entries(file)?
            .into_iter()
            .filter(|entry| !entry.deflated && entry.sum != 0)
            .map(|entry| Stored {
                name: entry.name.to_owned(),
                range: entry.range,
                sum: entry.sum,
            });
        Ok(Sums {
            entries: known.collect(),
            ..Sums::default()
        })
    }

    /// Takes the file's next bytes, the first ones first.
    pub fn update(&mut self, bytes: &[u8]) {
        let (start, end) = (self.at, self.at.saturating_add(bytes.len()));
        while let Some(entry) = self.entries.front() {
            let part = entry.range.start.max(start)..entry.range.end.min(end);
            if !part.is_empty() {
                self.hash
                    .update(&bytes[part.start - start..part.end - start]);
            }
            if entry.range.end > end {
                break;
            }
            let same = std::mem::take(&mut self.hash).finalize() == entry.sum;
            let entry = self.entries.pop_front();
            if !same && self.damaged.is_none() {
                self.damaged = entry.map(|entry| entry.name);
            }
        }
        self.at = end;
    }

    /// What came of the entries that were read to their end; `path` is what messages call the file.
    ///
    /// # Errors
    /// The first entry whose bytes are others.
    pub fn check(&self, path: &Path) -> Result<()> {
        let Some(name) = &self.damaged else {
            return Ok(());
        };
        let expected = "bytes with the checksum that the zip file has of them";
        let found = "others; the file is damaged";
        Err(Error::invalid(path, Some(name), expected, found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::safetensors::Declared;
    use crate::{Type, npz};
    use std::sync::Arc;

    /// An npz file of three arrays, one of them empty, and where each lies in it.
    fn written() -> (Vec<u8>, Vec<(String, Range<usize>)>) {
        let path = Path::new("weights.npz");
        let declared = [("a", 1000), ("b", 0), ("c", 77)].map(|(name, size)| Declared {
            name: name.to_owned(),
            dtype: Type::U8,
            shape: vec![size],
        });
        let mut writer = npz::Writer::new(Vec::new(), path, &declared).unwrap();
        for tensor in &declared {
            let bytes: Vec<u8> = (0..tensor.shape[0]).map(|at| at as u8).collect();
            writer.write(&tensor.name, &bytes).unwrap();
        }
        let bytes = writer.finish().unwrap();
        let file = File::new(path, Arc::new(bytes.clone()));
        let places = entries(&file).unwrap();
        let places = places
            .into_iter()
            .map(|entry| (entry.name.to_owned(), entry.range))
            .collect();
        (bytes, places)
    }

    /// What is said of `bytes`, read so many at a time, by the sums of `whole`.
    fn said(whole: &[u8], bytes: &[u8], piece: usize) -> Result<()> {
        let path = Path::new("weights.npz");
        let mut sums = Sums::of(&File::new(path, Arc::new(whole.to_vec()))).unwrap();
        bytes.chunks(piece).for_each(|piece| sums.update(piece));
        sums.check(path)
    }

    #[test]
    fn each_byte_of_a_stored_entry_counts_whatever_the_pieces() {
        let (whole, places) = written();
        for piece in [1, 7, 64, 1000, whole.len()] {
            said(&whole, &whole, piece).unwrap();
        }
        for (name, range) in &places {
            for at in [range.start, (range.start + range.end) / 2, range.end - 1] {
                let mut damaged = whole.clone();
                damaged[at] ^= 1;
                for piece in [7, 1000, whole.len()] {
                    let error = said(&whole, &damaged, piece).unwrap_err().to_string();
                    assert!(
                        error.starts_with(&format!("weights.npz: {name:?}: ")),
                        "{error}"
                    );
                    assert!(error.contains("checksum"), "{error}");
                }
            }
            // What lies between the entries has no sum.
            let mut other = whole.clone();
            other[range.end] ^= 1;
            said(&whole, &other, 64).unwrap();
        }
        // The first is named where several are damaged; what was not read to its end is not known.
        let mut damaged = whole.clone();
        places
            .iter()
            .for_each(|(_, range)| damaged[range.start] ^= 1);
        let error = said(&whole, &damaged, 64).unwrap_err().to_string();
        assert!(error.contains("a.npy"), "{error}");
        said(&whole, &damaged[..places[0].1.end - 1], 64).unwrap();
    }

    /// As PyTorch writes it where it is told not to compute them.
    #[test]
    fn a_sum_of_0_was_left_out() {
        let (mut whole, places) = written();
        let record = |at: &usize| whole[*at..].starts_with(b"PK\x01\x02");
        let records: Vec<usize> = (0..whole.len()).filter(record).collect();
        assert_eq!(records.len(), places.len());
        records
            .iter()
            .for_each(|at| whole[at + 16..at + 20].fill(0));
        let mut damaged = whole.clone();
        damaged[places[0].1.start] ^= 1;
        said(&whole, &damaged, 64).unwrap();
    }

    #[test]
    fn other_files_have_no_sums() {
        let other = b"{}";
        said(other, other, 1).unwrap();
        let cut = &written().0[..200];
        let file = File::new("weights.npz", Arc::new(cut.to_vec()));
        assert!(Sums::of(&file).is_err());
    }
}
