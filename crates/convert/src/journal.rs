//! What an unfinished conversion has done, so that another run can go on.
//!
//! One JSON value on each line: the plan's digest, then what was completed. A line is written once
//! the bytes that it tells of were handed to the system, and it holds their digest; so a line that
//! is cut short, or whose bytes never reached the disk, is found out and counts for nothing.

use crate::Result;
use crate::file::system;
use crate::measure::Distance;
use crate::output::write_error;
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A tensor is complete, with its scales and biases.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    /// The shard that its last byte lies in, and how long that was then.
    pub(crate) shard: usize,
    pub(crate) end: u64,
    /// The digest of the shard's bytes up to there.
    pub(crate) sha256: String,
    /// Of all shards before it.
    pub(crate) before: Vec<String>,
    distance: [u64; 3],
}

impl Done {
    pub(crate) fn new(
        shard: usize,
        end: u64,
        sha256: String,
        before: Vec<String>,
        distance: Distance,
    ) -> Done {
        let Distance {
            relative,
            most,
            cosine,
        } = distance;
        Done {
            shard,
            end,
            sha256,
            before,
            // Bits, because not every number has a form in JSON.
            distance: [relative, most, cosine].map(f64::to_bits),
        }
    }

    pub(crate) fn distance(&self) -> Distance {
        let [relative, most, cosine] = self.distance.map(f64::from_bits);
        Distance {
            relative,
            most,
            cosine,
        }
    }
}

/// The journal of a destination, which only one process may have.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the journal at `path`, or begins one. `None` if another process has it.
    pub(crate) fn lock(path: &Path) -> Result<Option<Journal>> {
        let error = |source| write_error(path, source);
        loop {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            let file = system(|| options.open(path)).map_err(error)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                // There are file systems without locks.
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
                Err(TryLockError::Error(source)) => return Err(error(source).into()),
            }
            // Whoever had it may have removed it between the two steps.
            if is_at(&file, path).map_err(error)? {
                let path = path.to_owned();
                return Ok(Some(Journal { path, file }));
            }
        }
    }

    /// Removes it, and lets go of it.
    pub(crate) fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    /// What an earlier run of the same plan has done; `None` where there was none.
    pub(crate) fn read(&mut self, plan: &str) -> Result<Option<Vec<Done>>> {
        let mut bytes = Vec::new();
        let read = self.file.seek(SeekFrom::Start(0));
        let read = read.and_then(|_| self.file.read_to_end(&mut bytes));
        read.map_err(|source| write_error(&self.path, source))?;
        let mut lines = bytes.split_inclusive(|&byte| byte == b'\n');
        let whole = |line: &[u8]| line.ends_with(b"\n");
        let first = lines.next().filter(|line| whole(line));
        if first
            .and_then(|line| serde_json::from_slice::<String>(line).ok())
            .as_deref()
            != Some(plan)
        {
            return Ok(None);
        }
        let done = lines
            .filter(|line| whole(line))
            .map_while(|line| serde_json::from_slice(line).ok());
        Ok(Some(done.collect()))
    }

    /// Begins anew with what is still true.
    pub(crate) fn restart(&mut self, plan: &str, done: &[Done]) -> Result<()> {
        let emptied =
            system(|| self.file.set_len(0)).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|source| write_error(&self.path, source))?;
        self.append(&plan)?;
        done.iter().try_for_each(|done| self.append(done))
    }

    /// Adds a line.
    pub(crate) fn append(&mut self, line: &impl Serialize) -> Result<()> {
        let error = |source| write_error(&self.path, source);
        let mut text = serde_json::to_vec(line).map_err(|source| error(source.into()))?;
        text.push(b'\n');
        system(|| self.file.write_all(&text)).map_err(|source| error(source).into())
    }
}

/// Whether an open file is still the one of that name.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let named = match std::fs::metadata(path) {
        Ok(named) => named,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        Ok(file.metadata()?.ino() == named.ino())
    }
    #[cfg(not(unix))]
    {
        // A file that is open is not removed there.
        let _ = (file, named);
        Ok(true)
    }
}
