//! Files of the output: hashed as they are written, and on the disk before they count.

use crate::output::{read_error, write_error};
use crate::{Error, Result};
use kiln_formats::Sums;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// Bytes that are read or written at a time.
const PIECE: usize = 1 << 20;

/// Everything that changes the disk goes through here, so that tests can make each step fail.
pub(crate) fn system<T>(step: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    #[cfg(test)]
    failing::step()?;
    step()
}

/// A name, a length and what identifies the contents.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Hashed {
    /// The name in its directory.
    pub name: String,
    /// The length.
    pub bytes: u64,
    /// The SHA-256 of the contents, in hexadecimal digits.
    pub sha256: String,
}

/// The digits of what was hashed so far.
fn digits(hash: &Sha256) -> String {
    let digest = hash.clone().finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads `file` from where it is on, `end` bytes or to its end, and hands over each piece, until
/// `take` says that it was enough. Gives the bytes read.
fn absorb(file: &mut impl Read, take: &mut dyn FnMut(&[u8]) -> bool, end: u64) -> io::Result<u64> {
    let mut piece = vec![0; PIECE.min(usize::try_from(end).unwrap_or(PIECE))];
    let mut done = 0;
    while done < end {
        let most = piece
            .len()
            .min(usize::try_from(end - done).unwrap_or(PIECE));
        match file.read(&mut piece[..most]) {
            Ok(0) => break,
            Ok(count) => {
                done += count as u64;
                if !take(&piece[..count]) {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The length and the digest of the file at `path`, unless `go_on` says no. What it is said to store
/// must be there.
pub(crate) fn hashed(
    path: &Path,
    mut sums: Sums,
    go_on: &dyn Fn() -> bool,
) -> Result<(u64, String)> {
    let error = |source| read_error(path, source);
    let (mut file, mut hash) = (File::open(path).map_err(error)?, Sha256::new());
    let mut take = |piece: &[u8]| {
        hash.update(piece);
        sums.update(piece);
        go_on() && sums.check(path).is_ok()
    };
    let bytes = absorb(&mut file, &mut take, u64::MAX).map_err(error)?;
    sums.check(path)?;
    match go_on() {
        true => Ok((bytes, digits(&hash))),
        false => Err(Error::Interrupted),
    }
}

/// Each point is a length and the digest of the file's beginning of that length, shorter ones
/// first. How many hold before the first that does not.
pub(crate) fn true_points(path: &Path, points: &[(u64, &str)]) -> Result<usize> {
    let error = |source| read_error(path, source);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(source) => return Err(error(source).into()),
    };
    let (mut hash, mut at) = (Sha256::new(), 0);
    for (number, &(end, expected)) in points.iter().enumerate() {
        let length = end.saturating_sub(at);
        let mut take = |piece: &[u8]| {
            hash.update(piece);
            true
        };
        let read = absorb(&mut file, &mut take, length).map_err(error)?;
        if read < length || digits(&hash) != expected {
            return Ok(number);
        }
        at += read;
    }
    Ok(points.len())
}

/// The digest of some bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    digits(&Sha256::new().chain_update(bytes))
}

/// Bytes that are written before they are sent to the disk, so that [`Output::finish`] does not have
/// to wait for all of them. Few in tests, so that it happens there.
const SENT: u64 = if cfg!(test) { 1 << 12 } else { 64 << 20 };

/// A file that is being written.
pub(crate) struct Output {
    path: PathBuf,
    file: BufWriter<Disk>,
    hash: Sha256,
    bytes: u64,
    /// What is sending the bytes before `sent` to the disk.
    sending: Option<JoinHandle<io::Result<()>>>,
    sent: u64,
}

struct Disk(File);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        system(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Output {
    /// A new file; one of that name is emptied.
    pub(crate) fn create(path: &Path) -> Result<Output> {
        let file = system(|| File::create(path)).map_err(|source| write_error(path, source))?;
        Ok(Output::at(path, file, Sha256::new(), 0))
    }

    fn at(path: &Path, file: File, hash: Sha256, bytes: u64) -> Output {
        Output {
            path: path.to_owned(),
            file: BufWriter::with_capacity(PIECE, Disk(file)),
            hash,
            bytes,
            sending: None,
            sent: bytes,
        }
    }

    /// Has the disk take what the system has of the file so far, unless it is still busy.
    fn send(&mut self) -> io::Result<()> {
        if self
            .sending
            .as_ref()
            .is_some_and(|sending| !sending.is_finished())
        {
            return Ok(());
        }
        self.wait()?;
        let file = self.file.get_ref().0.try_clone()?;
        // On this thread, where tests make it fail.
        let step = system(|| Ok(()));
        let send = move || step.and_then(|()| file.sync_data());
        // Without a thread for it, the end takes longer.
        self.sending = std::thread::Builder::new().spawn(send).ok();
        self.sent = self.bytes;
        Ok(())
    }

    /// What could not be written is an error of this, and of no later call.
    fn wait(&mut self) -> io::Result<()> {
        let sending = self.sending.take().map(JoinHandle::join);
        let failed = || Err(io::Error::other("the thread that wrote it failed"));
        sending.map_or(Ok(()), |sent| sent.unwrap_or_else(|_| failed()))
    }

    /// Goes on with a file of which an earlier run wrote at least `end` bytes; what comes after
    /// them is cut off. `None` where the digest says that they are others.
    pub(crate) fn resume(path: &Path, end: u64, sha256: &str) -> Result<Option<Output>> {
        let error = |source| write_error(path, source);
        let file = File::options().read(true).write(true).open(path);
        let (mut file, mut hash) = (file.map_err(error)?, Sha256::new());
        let mut take = |piece: &[u8]| {
            hash.update(piece);
            true
        };
        let read = absorb(&mut file, &mut take, end).map_err(error)?;
        if read < end || digits(&hash) != sha256 {
            return Ok(None);
        }
        system(|| file.set_len(end)).map_err(error)?;
        Ok(Some(Output::at(path, file, hash, end)))
    }

    /// The digest of what was written so far.
    pub(crate) fn digest(&self) -> String {
        digits(&self.hash)
    }

    /// Hands everything to the system, so that what [`Output::digest`] says is true of the file
    /// even if this process ends.
    pub(crate) fn hand_over(&mut self) -> Result<u64> {
        let flushed = self.file.flush();
        flushed.map_err(|source| write_error(&self.path, source))?;
        Ok(self.bytes)
    }

    /// Every byte is on the disk when this returns.
    pub(crate) fn finish(mut self) -> Result<Hashed> {
        self.hand_over()?;
        let sent = self.wait();
        let file = &self.file.get_ref().0;
        let synced = sent.and_then(|()| system(|| file.sync_all()));
        synced.map_err(|source| write_error(&self.path, source))?;
        let name = self.path.file_name().unwrap_or_default();
        Ok(Hashed {
            name: name.display().to_string(),
            bytes: self.bytes,
            sha256: self.digest(),
        })
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        if self.bytes - self.sent >= SENT {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Steps that fail, for tests.
#[cfg(test)]
pub(crate) mod failing {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// This thread's steps fail after so many, one of them or all from then on; `None` for never.
    pub(crate) fn after(steps: Option<usize>) {
        LEFT.set(steps);
    }

    pub(crate) fn step() -> io::Result<()> {
        match LEFT.get() {
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            left => {
                LEFT.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }
}
