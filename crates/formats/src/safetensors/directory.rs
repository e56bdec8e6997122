//! Which files make a directory's checkpoint, and how one is divided into shards.

use super::INDEX;
use crate::{Bytes, Checkpoint, Error, File, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The index beside the shards: which shard holds which tensor.
#[derive(Clone, Debug)]
pub struct Index {
    path: PathBuf,
    /// Tensor name to the shard's file name.
    weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Parses an index.
    ///
    /// # Errors
    /// Text that is not an index, and a shard that is not a plain file name of safetensors: an
    /// index never leads out of its directory.
    pub fn parse(file: &File) -> Result<Index> {
        #[derive(Deserialize)]
        struct Json {
            weight_map: BTreeMap<String, String>,
        }
        if let Err(reason @ (crate::Unusable::LfsPointer | crate::Unusable::Html)) =
            crate::sniff_bytes(file.bytes(), file.bytes().len() as u64)
        {
            return Err(Error::Unusable {
                path: file.path().to_owned(),
                reason,
            });
        }
        let json: Json = serde_json::from_slice(file.bytes()).map_err(|error| {
            let found: String = error.to_string().chars().take(300).collect();
            Error::invalid(file.path(), None, "an index with a weight_map", found)
        })?;
        for (name, shard) in &json.weight_map {
            let plain = shard.ends_with(".safetensors") && !shard.contains(['/', '\\', ':', '\0']);
            if !plain {
                let found: String = format!("{shard:?}").chars().take(200).collect();
                let expected = "the name of a safetensors file in this directory";
                return Err(Error::invalid(file.path(), Some(name), expected, found));
            }
        }
        Ok(Index {
            path: file.path().to_owned(),
            weight_map: json.weight_map,
        })
    }

    /// The shards' file names, in order.
    pub fn shards(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }

    /// Checks that the checkpoint has every tensor that the index lists.
    ///
    /// # Errors
    /// The first one that is absent.
    pub fn check(&self, checkpoint: &Checkpoint) -> Result<()> {
        for (name, shard) in &self.weight_map {
            if checkpoint.tensor(name).is_none() {
                let expected = format!("this tensor in {shard}, as the index says");
                return Err(Error::invalid(
                    &self.path,
                    Some(name),
                    expected,
                    "none there",
                ));
            }
        }
        Ok(())
    }
}

/// Whether a file of this name is part of a directory's checkpoint: `model*.safetensors`.
pub(crate) fn is_weights(name: &str) -> bool {
    name.starts_with("model") && name.ends_with(".safetensors")
}

/// The names in a directory, sorted. Names that are not UTF-8 are left out.
pub(crate) fn names(directory: &Path) -> Result<Vec<String>> {
    let read = |source| Error::Read {
        path: directory.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(read)? {
        names.extend(entry.map_err(read)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// The safetensors files that make the checkpoint of a directory: all `model*.safetensors`, in name
/// order. With an index beside them, these must be exactly the shards that it names: programs that
/// read MLX's layout load every `model*.safetensors`, so a shard left over from an older save would
/// replace weights.
///
/// # Errors
/// No such file, a shard that is missing or left over, an index that does not parse.
pub fn files_of(directory: &Path, index: Option<&Index>) -> Result<Vec<PathBuf>> {
    let names = names(directory)?;
    let weights: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| is_weights(name))
        .collect();
    let Some(index) = index else {
        if weights.is_empty() {
            crate::sniff(directory)?;
        }
        return Ok(weights.iter().map(|name| directory.join(name)).collect());
    };
    let shards = index.shards();
    if let Some(missing) = shards
        .iter()
        .find(|shard| !names.iter().any(|name| name == *shard))
    {
        let expected = format!("the shard {missing}");
        return Err(Error::invalid(directory, None, expected, "no such file"));
    }
    if let Some(extra) = weights.iter().find(|name| !shards.contains(*name)) {
        let expected = format!("only the shards that {INDEX} names");
        let found = format!("also {extra}; remove it, or the index if that is out of date");
        return Err(Error::invalid(directory, None, expected, found));
    }
    Ok(shards.iter().map(|shard| directory.join(shard)).collect())
}

/// Reads the checkpoint of a directory. `open` gives a file's contents: mapped or read.
///
/// # Errors
/// As [`files_of`], [`Index::parse`], [`Index::check`] and [`read`](super::read).
pub fn open(
    directory: &Path,
    open: &dyn Fn(&Path) -> std::io::Result<Bytes>,
) -> Result<Checkpoint> {
    let file = |path: PathBuf| match open(&path) {
        Ok(bytes) => Ok(File::new(path, bytes)),
        Err(source) => Err(Error::Read { path, source }),
    };
    let index = directory.join(INDEX);
    let index = if index.exists() {
        Some(Index::parse(&file(index)?)?)
    } else {
        None
    };
    let paths = files_of(directory, index.as_ref())?;
    let checkpoint = super::read(paths.into_iter().map(file).collect::<Result<_>>()?)?;
    if let Some(index) = index {
        index.check(&checkpoint)?;
    }
    Ok(checkpoint)
}

/// Divides tensors of these sizes, in order, into shards of at most `limit` bytes. A tensor that is
/// larger has a shard of its own; no shard is empty unless there are no tensors at all.
pub fn plan_shards(sizes: &[usize], limit: usize) -> Vec<Range<usize>> {
    let mut shards = Vec::new();
    let (mut start, mut filled) = (0, 0usize);
    for (index, &size) in sizes.iter().enumerate() {
        if index > start && filled.saturating_add(size) > limit {
            shards.push(start..index);
            (start, filled) = (index, 0);
        }
        filled = filled.saturating_add(size);
    }
    shards.push(start..sizes.len());
    shards
}

/// The file name of shard `index` (from 0) of `count`.
pub fn shard_name(index: usize, count: usize) -> String {
    if count == 1 {
        return "model.safetensors".to_owned();
    }
    format!("model-{:05}-of-{count:05}.safetensors", index + 1)
}
