//! The destination: nothing there until everything is complete.

use crate::{Error, Result};
use serde::Serialize as _;
use serde_json::Value;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Refuses a destination that must not be written to.
///
/// # Errors
/// It exists and `force` is not given, it is not a model's directory, or replacing it would remove
/// the source.
pub(crate) fn check(source: &Path, destination: &Path, force: bool) -> Result<()> {
    let exists = |advice| {
        Err(Error::Exists {
            path: destination.to_owned(),
            advice,
        })
    };
    let Ok(metadata) = destination.symlink_metadata() else {
        return Ok(());
    };
    if !force {
        return exists("give another path, or --force to replace it");
    }
    if !metadata.is_dir() {
        return exists("and is not a directory; remove it or give another path");
    }
    if let (Ok(source), Ok(destination)) = (source.canonicalize(), destination.canonicalize())
        && source.starts_with(&destination)
    {
        return exists("and holds the source; give another path");
    }
    let is_empty = destination
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_none());
    if !is_empty && !destination.join("config.json").exists() {
        return exists("and is not a model's directory; remove it or give another path");
    }
    Ok(())
}

/// A directory beside the destination. It becomes the destination, or goes away.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
    destination: PathBuf,
    committed: bool,
}

impl Staging {
    /// Makes the directory, and those above it.
    pub(crate) fn new(destination: &Path) -> Result<Staging> {
        let write = |path: &Path, source| Error::from(write_error(path, source));
        let Some(name) = destination.file_name() else {
            let advice = "give the name of a new directory";
            return Err(Error::Exists {
                path: destination.to_owned(),
                advice,
            });
        };
        let parent = parent(destination);
        std::fs::create_dir_all(parent).map_err(|source| write(parent, source))?;
        for attempt in 0..1000 {
            let name = format!(".{}.{}-{attempt}.tmp", name.display(), std::process::id());
            let path = parent.join(name);
            match std::fs::create_dir(&path) {
                Ok(()) => {
                    let destination = destination.to_owned();
                    return Ok(Staging {
                        path,
                        destination,
                        committed: false,
                    });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(write(&path, error)),
            }
        }
        Err(write(parent, ErrorKind::AlreadyExists.into()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the directory its name. With `force` a directory of that name is moved aside first and
    /// removed last, so that one of the two is always there. A note, if it could not be removed.
    pub(crate) fn commit(mut self, force: bool) -> Result<Option<String>> {
        let error = |source| write_error(&self.destination, source);
        let mut aside = None;
        if self.destination.symlink_metadata().is_ok() {
            if !force {
                let advice = "it was made while the conversion ran";
                return Err(Error::Exists {
                    path: self.destination.clone(),
                    advice,
                });
            }
            let old = self.path.with_extension("old");
            std::fs::rename(&self.destination, &old).map_err(error)?;
            aside = Some(old);
        }
        if let Err(source) = std::fs::rename(&self.path, &self.destination) {
            if let Some(old) = &aside {
                std::fs::rename(old, &self.destination).map_err(error)?;
            }
            return Err(error(source).into());
        }
        self.committed = true;
        Ok(aside.and_then(|old| {
            let error = std::fs::remove_dir_all(&old).err()?;
            Some(format!(
                "the replaced directory is still there as {}: {error}",
                old.display()
            ))
        }))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.committed {
            // The error that led here is the one to report.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// The directory that a path lies in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

pub(crate) fn read_error(path: &Path, source: std::io::Error) -> kiln_formats::Error {
    kiln_formats::Error::Read {
        path: path.to_owned(),
        source,
    }
}

pub(crate) fn write_error(path: &Path, source: std::io::Error) -> kiln_formats::Error {
    kiln_formats::Error::Write {
        path: path.to_owned(),
        source,
    }
}

/// JSON with four spaces of indentation, as MLX writes it.
pub(crate) fn json_text(value: &Value) -> String {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    match value.serialize(&mut serializer) {
        Ok(()) => String::from_utf8(text).unwrap_or_default(),
        Err(_) => value.to_string(),
    }
}
