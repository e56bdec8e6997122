//! What lies at a path, in Hugging Face's terms.

use crate::config::{Config, EMBEDDING, Expected, NORM};
use crate::foreign::Scheme;
use crate::names::{self, Names};
use crate::plan::Turn;
use crate::stored::Stored;
use crate::{Open, Result, directory, gguf, meta};
use kiln_formats::{Checkpoint, Error, Source, Tensor, safetensors, sniff, torch};
use kiln_plan::DType;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A checkpoint to convert.
#[derive(Debug)]
pub(crate) struct Model {
    /// What messages call the file with the tensors.
    pub(crate) path: PathBuf,
    /// What messages call the file with the configuration.
    pub(crate) config_path: PathBuf,
    pub(crate) config: Config,
    /// One; or several whose tensors are parts of those of the model.
    pub(crate) shards: Vec<Checkpoint>,
    /// What its tensors are called.
    pub(crate) names: &'static Names,
    /// Whether the rows of q and k are interleaved: those of a pair are neighbours.
    pub(crate) interleaved: bool,
    /// How layers are quantised, where that is not MLX's way.
    pub(crate) scheme: Option<Scheme>,
    /// The dtype of weights where no option names one; `None` for each tensor's own.
    pub(crate) dtype: Option<DType>,
    pub(crate) files: Vec<Extra>,
    pub(crate) notes: Vec<String>,
}

/// A file of the output that is not made of tensors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Extra {
    /// A copy.
    Copy(PathBuf),
    /// New contents.
    Contents(String, Vec<u8>),
}

impl Extra {
    /// `generation_config.json` with the special tokens that a configuration names.
    pub(crate) fn generation(config: &Config) -> Extra {
        let keys = ["bos_token_id", "eos_token_id", "pad_token_id"];
        let ids: Config = keys
            .iter()
            .filter_map(|&key| Some((key.to_owned(), config.get(key)?.clone())))
            .collect();
        let text = crate::output::json_text(&serde_json::Value::Object(ids));
        Extra::Contents("generation_config.json".into(), text.into_bytes())
    }
}

impl Model {
    /// The tensor of Hugging Face's name, joined if it is divided among files.
    ///
    /// # Errors
    /// Parts that are missing or do not fit to each other.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Stored>> {
        if let (Some(scheme), Some(checkpoint)) = (&self.scheme, self.shards.first())
            && let Some(stored) = scheme.find(checkpoint, name)?
        {
            return Ok(Some(stored));
        }
        let stored_name = self.names.of(name);
        let found: Vec<(&Checkpoint, &Tensor)> = self
            .shards
            .iter()
            .filter_map(|shard| Some((shard, shard.tensor(&stored_name)?)))
            .collect();
        let Some((shard, tensor)) = found.last() else {
            return Ok(None);
        };
        let shards = self.shards.len();
        match names::divided(name) {
            Some(axis) if shards > 1 && found.len() == shards => {
                // Llama 3's files divide the embedding by rows: these are as long as a norm.
                let whole = name == EMBEDDING && tensor.shape.get(1..) == self.norm();
                Stored::joined(&found, if whole { 0 } else { axis }).map(Some)
            }
            Some(_) if shards > 1 => {
                let expected = format!("a part of this tensor in each of {shards} files");
                let found = format!("{} parts", found.len());
                Err(Error::invalid(&self.path, Some(&stored_name), expected, found).into())
            }
            // Each file has the whole of it: the last one counts, as everywhere.
            _ => Ok(Some(Stored::one(shard, tensor))),
        }
    }

    /// The shape of the last norm.
    fn norm(&self) -> Option<&[usize]> {
        let norm = self.shards.last()?.tensor(&self.names.of(NORM))?;
        Some(&norm.shape)
    }

    /// How this tensor's rows must be turned for an output with rows in pairs, or in halves.
    pub(crate) fn turn(&self, tensor: &Expected, pairs: bool) -> Option<Turn> {
        match (self.interleaved, pairs) {
            (true, false) => tensor.heads.map(Turn::ToHalves),
            (false, true) => tensor.heads.map(Turn::ToPairs),
            _ => None,
        }
    }
}

/// What the files call their tensors, each name once.
pub(crate) fn stored_names(shards: &[Checkpoint]) -> BTreeSet<&str> {
    let tensors = shards.iter().flatten();
    tensors.map(|tensor| tensor.name.as_str()).collect()
}

/// Reads what lies at `path`, without its tensors' bytes.
pub(crate) fn read(path: &Path, open: &Open<'_>) -> Result<Model> {
    match sniff(path)? {
        Source::Directory => directory::read(path, open, safetensors::open),
        Source::TorchDirectory => directory::read(path, open, torch::open),
        Source::Consolidated => meta::consolidated(path, open),
        Source::NpzDirectory => meta::npz(path, open),
        Source::Gguf => gguf::read(path, open),
        file @ (Source::Safetensors | Source::Torch | Source::Npz) => {
            let expected = "the directory with this file and its configuration, or a GGUF file";
            Err(Error::invalid(path, None, expected, format!("{file} alone")).into())
        }
    }
}
