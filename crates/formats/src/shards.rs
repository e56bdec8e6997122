//! Which files of a directory make a checkpoint.

use crate::{Bytes, Checkpoint, Error, File, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How the files of one kind of checkpoint are called: `<stem>*<ending>`, and an index beside them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Family {
    /// The name of the index, which says which shard holds which tensor.
    pub index: &'static str,
    /// What a shard's name begins with.
    pub stem: &'static str,
    /// What a shard's name ends with.
    pub ending: &'static str,
}

/// `model*.safetensors`.
pub const SAFETENSORS: Family = Family {
    index: "model.safetensors.index.json",
    stem: "model",
    ending: ".safetensors",
};

/// `pytorch_model*.bin`.
pub const PYTORCH: Family = Family {
    index: "pytorch_model.bin.index.json",
    stem: "pytorch_model",
    ending: ".bin",
};

/// Shards that are told apart by a number alone: `<stem>.00<ending>` and so on, with no index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Numbered {
    /// What comes before the number.
    pub stem: &'static str,
    /// What comes after it.
    pub ending: &'static str,
}

/// `consolidated.NN.pth`: what Meta and Mistral publish.
pub const CONSOLIDATED: Numbered = Numbered {
    stem: "consolidated",
    ending: ".pth",
};

/// `weights.npz`, or `weights.NN.npz`: what MLX's example programs write.
pub const WEIGHTS: Numbered = Numbered {
    stem: "weights",
    ending: ".npz",
};

impl Family {
    /// Whether a file of this name is one of the shards.
    pub fn holds(&self, name: &str) -> bool {
        name.starts_with(self.stem) && name.ends_with(self.ending)
    }

    /// The files that make the checkpoint of a directory: all of this family, in name order. With
    /// an index beside them, these must be exactly the shards that it names: programs that read
    /// MLX's layout load every `model*.safetensors`, so a shard left over from an older save would
    /// replace weights.
    ///
    /// # Errors
    /// No such file, a shard that is missing or left over.
    pub fn files(&self, directory: &Path, index: Option<&Index>) -> Result<Vec<PathBuf>> {
        let names = names(directory)?;
        let weights: Vec<&str> = names
            .iter()
            .map(String::as_str)
            .filter(|name| self.holds(name))
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
            return Err(missing_shard(directory, missing));
        }
        if let Some(extra) = weights.iter().find(|name| !shards.contains(*name)) {
            let expected = format!("only the shards that {} names", self.index);
            let found = format!("also {extra}; remove it, or the index if that is out of date");
            return Err(Error::invalid(directory, None, expected, found));
        }
        Ok(shards.iter().map(|shard| directory.join(shard)).collect())
    }

    /// Reads the checkpoint of a directory. `open` gives a file's contents, mapped or read; `read`
    /// understands them.
    ///
    /// # Errors
    /// As [`Family::files`], [`Index::parse`], [`Index::check`] and `read`.
    pub(crate) fn open(
        &self,
        directory: &Path,
        open: &dyn Fn(&Path) -> std::io::Result<Bytes>,
        read: fn(Vec<File>) -> Result<Checkpoint>,
    ) -> Result<Checkpoint> {
        let index = directory.join(self.index);
        let index = if index.exists() {
            Some(Index::parse(&File::open(&index, open)?, self)?)
        } else {
            None
        };
        let paths = self.files(directory, index.as_ref())?;
        let files = paths.iter().map(|path| File::open(path, open));
        let checkpoint = read(files.collect::<Result<_>>()?)?;
        if let Some(index) = index {
            index.check(&checkpoint)?;
        }
        Ok(checkpoint)
    }
}

impl Numbered {
    /// The number in a file's name; `None` for other names.
    fn number(&self, name: &str) -> Option<usize> {
        let rest = name.strip_prefix(self.stem)?.strip_prefix('.')?;
        let number = rest.strip_suffix(self.ending)?;
        let digits = number.len() >= 2 && number.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| number.parse().ok())?
    }

    /// The name of the one file of a checkpoint that is not divided.
    fn single(&self) -> String {
        format!("{}{}", self.stem, self.ending)
    }

    /// Whether a file of this name is one of the shards.
    pub fn holds(&self, name: &str) -> bool {
        name == self.single() || self.number(name).is_some()
    }

    /// The directory's shards in the order of their numbers, or the one file without a number.
    ///
    /// # Errors
    /// No such file, a number that is left out, a file without a number beside numbered ones.
    pub fn files(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        let names = names(directory)?;
        let mut numbered: Vec<(usize, &String)> = names
            .iter()
            .filter_map(|name| Some((self.number(name)?, name)))
            .collect();
        numbered.sort();
        let single = self.single();
        match (names.contains(&single), numbered.first()) {
            (false, None) => return Err(missing_shard(directory, &single)),
            (true, None) => return Ok(vec![directory.join(single)]),
            (true, Some((_, also))) => {
                let found = format!("also {also}; remove what does not belong to the model");
                let expected = format!("{single} alone");
                return Err(Error::invalid(directory, None, expected, found));
            }
            (false, Some(_)) => {}
        }
        for (index, (number, _)) in numbered.iter().enumerate() {
            if *number != index {
                let name = format!("{}.{index:02}{}", self.stem, self.ending);
                return Err(missing_shard(directory, &name));
            }
        }
        let paths = numbered.iter().map(|(_, name)| directory.join(name));
        Ok(paths.collect())
    }
}

fn missing_shard(directory: &Path, name: &str) -> Error {
    let expected = format!("the shard {name}");
    Error::invalid(directory, None, expected, "no such file")
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

/// The index beside the shards: which shard holds which tensor.
#[derive(Clone, Debug)]
pub struct Index {
    path: PathBuf,
    /// Tensor name to the shard's file name.
    weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Parses an index of shards of this family.
    ///
    /// # Errors
    /// Text that is not an index, and a shard that is not a plain file name with the family's
    /// ending: an index never leads out of its directory.
    pub fn parse(file: &File, family: &Family) -> Result<Index> {
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
            let plain = shard.ends_with(family.ending) && !shard.contains(['/', '\\', ':', '\0']);
            if !plain {
                let found: String = format!("{shard:?}").chars().take(200).collect();
                let expected = format!("the name of a {} file in this directory", family.ending);
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
                let found = "none there";
                return Err(Error::invalid(&self.path, Some(name), expected, found));
            }
        }
        Ok(())
    }
}
