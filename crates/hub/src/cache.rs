//! The cache, as Python's client lays it out.

use crate::id::is_commit;
use crate::{Error, Id, Result};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A repository's place in the cache.
#[derive(Debug)]
pub(crate) struct Place {
    root: PathBuf,
    locks: PathBuf,
}

impl Place {
    pub(crate) fn new(cache: &Path, id: &Id) -> Place {
        let name = format!("models--{}", id.repository.replace('/', "--"));
        Place {
            root: cache.join(&name),
            locks: cache.join(".locks").join(name),
        }
    }

    /// The commit that a revision was at when it was last asked for; a commit is itself.
    pub(crate) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = fs::read_to_string(self.root.join("refs").join(revision)).ok()?;
        let commit = text.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// Remembers the commit that a revision is at.
    pub(crate) fn remember(&self, revision: &str, commit: &str) -> Result<()> {
        if is_commit(revision) || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        directory_of(&path)?;
        fs::write(&path, commit).map_err(|source| Error::write(path, source))
    }

    /// The directory with a commit's files.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// Where contents with this name are.
    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// Where they are before they are complete.
    pub(crate) fn incomplete(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// Keeps other programs from fetching the same contents until the file is dropped.
    pub(crate) fn lock(&self, etag: &str) -> Result<File> {
        let path = self.locks.join(format!("{etag}.lock"));
        directory_of(&path)?;
        let write = |source| Error::write(&path, source);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(write)?;
        match file.lock() {
            // Some network file systems have no locks.
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(file),
            other => other.map_err(write).map(|()| file),
        }
    }

    /// Gives contents a name in a commit's snapshot: a link, or where the system has none the
    /// contents themselves.
    pub(crate) fn name(&self, commit: &str, name: &str, etag: &str) -> Result<()> {
        let path = self.snapshot(commit).join(name);
        directory_of(&path)?;
        let blob = Path::new("../../blobs").join(etag);
        if path.symlink_metadata().is_ok() && !path.exists() {
            // A link to contents that were cleared away.
            fs::remove_file(&path).map_err(|source| Error::write(&path, source))?;
        }
        match link(&blob, &path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(_) => fs::rename(self.blob(etag), &path).map_err(|e| Error::write(&path, e)),
            Ok(()) => Ok(()),
        }
    }
}

#[cfg(unix)]
fn link(target: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(not(unix))]
fn link(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Makes the directory that a file is to be in.
pub(crate) fn directory_of(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(|source| Error::write(parent, source))
}
