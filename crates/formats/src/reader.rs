//! A file that is read by position, a piece at a time.

use crate::{Error, Result};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A file that is read by position. It may be shared among threads; memory is that of the pieces
/// that are asked for.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: File,
}

impl Reader {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// [`Error::Read`]; also for what is not a regular file.
    pub fn open(path: &Path) -> Result<Reader> {
        let opened = File::open(path).and_then(|file| match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::other("not a regular file")),
        });
        let path = path.to_owned();
        match opened {
            Ok(file) => Ok(Reader { path, file }),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// The bytes of `range`.
    ///
    /// # Errors
    /// [`Error::Read`], also where the file ends before the range does.
    pub fn read(&self, range: Range<usize>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; range.len()];
        let read = read_at(&self.file, range.start as u64, &mut bytes);
        let source = match read {
            Ok(count) if count == bytes.len() => return Ok(bytes),
            Ok(_) => io::Error::other("the file became shorter"),
            Err(source) => source,
        };
        let path = self.path.clone();
        Err(Error::Read { path, source })
    }
}

/// Fills `out` from byte `at` on; says how much of it, where the file ends before.
fn read_at(file: &File, mut at: u64, out: &mut [u8]) -> io::Result<usize> {
    #[cfg(unix)]
    use std::os::unix::fs::FileExt;
    #[cfg(windows)]
    use std::os::windows::fs::FileExt;
    let mut filled = 0;
    while filled < out.len() {
        let rest = &mut out[filled..];
        #[cfg(unix)]
        let read = file.read_at(rest, at);
        #[cfg(windows)]
        let read = file.seek_read(rest, at);
        match read {
            Ok(0) => break,
            Ok(count) => {
                filled += count;
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_and_what_is_missing_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, b"0123456789").unwrap();
        let reader = Reader::open(&path).unwrap();
        assert_eq!(reader.read(3..7).unwrap(), b"3456");
        assert_eq!(reader.read(10..10).unwrap(), b"");
        for range in [9..11, 10..11, 20..21] {
            let error = reader.read(range).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("{}: cannot be read", path.display())
            );
        }
        assert!(Reader::open(directory.path()).is_err());
    }
}
