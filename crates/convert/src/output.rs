//! Whether there may be written to a destination; errors and texts of what is written.

use crate::{Error, Result};
use serde::Serialize as _;
use serde_json::Value;
use std::path::Path;

/// Refuses a destination that must not be written to. [`crate::convert`] does so itself; this is for
/// those who want to know before they fetch the source.
///
/// # Errors
/// [`Error::Exists`]: it exists and `force` is not given, it is not a model's directory, or replacing
/// it would remove the source.
pub fn vacant(source: &Path, destination: &Path, force: bool) -> Result<()> {
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

/// The directory that a path lies in.
pub(crate) fn parent(path: &Path) -> &Path {
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
