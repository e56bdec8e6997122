//! The directory beside the destination in which everything is made.

use crate::file::system;
use crate::journal::Journal;
use crate::output::{parent, write_error};
use crate::{Error, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A directory beside the destination. It becomes the destination, or goes away; where a later run
/// may resume, it stays.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
    destination: PathBuf,
    /// A destination that is being replaced, until the new one has its name.
    replaced: PathBuf,
    /// `None` once it is no longer needed.
    journal: Option<Journal>,
    stays: bool,
}

impl Staging {
    /// Makes the directory, and those above it, or takes over what an earlier run has left. With
    /// `resume` its contents stay, now and after an error.
    ///
    /// # Errors
    /// Another process that writes to the same destination; those of the system.
    pub(crate) fn begin(destination: &Path, resume: bool) -> Result<Staging> {
        let exists = |advice| Error::Exists {
            path: destination.to_owned(),
            advice,
        };
        let Some(name) = destination.file_name() else {
            return Err(exists("give the name of a new directory"));
        };
        let parent = parent(destination);
        let beside = |kind: &str| parent.join(format!(".{}.{kind}", name.display()));
        let (path, replaced) = (beside("partial"), beside("replaced"));
        let made = system(|| std::fs::create_dir_all(parent));
        made.map_err(|source| write_error(parent, source))?;
        let Some(journal) = Journal::lock(&beside("journal"))? else {
            return Err(exists("is being written by another conversion"));
        };
        let staging = Staging {
            path,
            destination: destination.to_owned(),
            replaced,
            journal: Some(journal),
            stays: resume,
        };
        staging.restore()?;
        if !resume {
            staging.remove()?;
        }
        let made = system(|| std::fs::create_dir_all(&staging.path));
        made.map_err(|source| write_error(&staging.path, source))?;
        Ok(staging)
    }

    /// Completes or takes back what a run that was killed between two renames has left.
    fn restore(&self) -> Result<()> {
        if self.replaced.symlink_metadata().is_err() {
            return Ok(());
        }
        let done = system(|| match self.destination.symlink_metadata() {
            Ok(_) => std::fs::remove_dir_all(&self.replaced),
            Err(_) => std::fs::rename(&self.replaced, &self.destination),
        });
        done.map_err(|source| write_error(&self.replaced, source).into())
    }

    /// Removes the directory, if it is there.
    fn remove(&self) -> Result<()> {
        let removed = system(|| match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        removed.map_err(|source| write_error(&self.path, source).into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn journal(&mut self) -> Option<&mut Journal> {
        self.journal.as_mut()
    }

    /// Gives the directory its name. With `force` a directory of that name is moved aside first and
    /// removed last. A note, if it could not be.
    pub(crate) fn commit(mut self, force: bool) -> Result<Option<String>> {
        let error = |source| write_error(&self.destination, source);
        let exists = self.destination.symlink_metadata().is_ok();
        if exists && !force {
            let advice = "it was made while the conversion ran";
            return Err(Error::Exists {
                path: self.destination.clone(),
                advice,
            });
        }
        sync(&self.path)?;
        if exists {
            system(|| std::fs::rename(&self.destination, &self.replaced)).map_err(error)?;
        }
        if let Err(source) = system(|| std::fs::rename(&self.path, &self.destination)) {
            if exists {
                std::fs::rename(&self.replaced, &self.destination).map_err(error)?;
            }
            return Err(error(source).into());
        }
        // From here on there is nothing to undo, and nothing that could make the result wrong.
        self.stays = true;
        let parent = parent(&self.destination);
        let _ = system(|| std::fs::File::open(parent)?.sync_all());
        let replaced = match exists {
            true => system(|| std::fs::remove_dir_all(&self.replaced)),
            false => Ok(()),
        };
        let journal = self.journal.take();
        let journal = system(|| journal.map_or(Ok(()), Journal::remove));
        let note = |error: std::io::Error| {
            let parent = parent.display();
            format!(
                "not everything that was needed meanwhile could be removed from {parent}: {error}"
            )
        };
        Ok(replaced.err().or(journal.err()).map(note))
    }
}

impl Staging {
    /// What was made is of no use to a run that resumes.
    pub(crate) fn discard(&mut self) {
        self.stays = false;
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.stays {
            // The error that led here is the one to report.
            let _ = std::fs::remove_dir_all(&self.path);
            let _ = self.journal.take().map(Journal::remove);
        }
    }
}

/// The names in a directory reach the disk, where the system has a way to ask for it.
fn sync(directory: &Path) -> Result<()> {
    let synced = system(|| std::fs::File::open(directory)?.sync_all());
    match synced {
        Err(source) if source.kind() == ErrorKind::StorageFull => {
            Err(write_error(directory, source).into())
        }
        _ => Ok(()),
    }
}
