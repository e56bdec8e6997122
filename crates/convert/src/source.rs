//! What lies at a path, in Hugging Face's terms.

use crate::config::{Config, Expected};
use crate::{Open, Result, directory, gguf};
use kiln_array::DType;
use kiln_formats::{Checkpoint, Error, Source, Type, sniff};
use std::path::{Path, PathBuf};

/// A checkpoint to convert.
#[derive(Debug)]
pub(crate) struct Model {
    /// What messages call the file with the tensors.
    pub(crate) path: PathBuf,
    /// What messages call the file with the configuration.
    pub(crate) config_path: PathBuf,
    pub(crate) config: Config,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) naming: Naming,
    /// The dtype of weights where no option names one; `None` for each tensor's own.
    pub(crate) dtype: Option<DType>,
    pub(crate) files: Vec<Extra>,
    pub(crate) notes: Vec<String>,
}

/// How tensors are named and stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Naming {
    /// As in the output.
    HuggingFace,
    /// GGUF's names; the rows of q and k are interleaved.
    Gguf,
}

/// A file of the output that is not made of tensors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Extra {
    /// A copy.
    Copy(PathBuf),
    /// New contents.
    Contents(String, Vec<u8>),
}

impl Model {
    /// What the checkpoint calls a tensor.
    pub(crate) fn stored_name(&self, name: &str) -> String {
        match self.naming {
            Naming::HuggingFace => name.to_owned(),
            Naming::Gguf => gguf::stored_name(name),
        }
    }

    /// The heads whose rows must be put in order, for this tensor.
    pub(crate) fn interleaved_heads(&self, tensor: &Expected) -> Option<usize> {
        match self.naming {
            Naming::HuggingFace => None,
            Naming::Gguf => tensor.heads,
        }
    }

    /// Whether weights of this type can be read.
    pub(crate) fn can_read(&self, dtype: Type) -> bool {
        kiln_formats::gguf::is_readable(dtype)
    }
}

/// Reads what lies at `path`, without its tensors' bytes.
pub(crate) fn read(path: &Path, open: &Open<'_>) -> Result<Model> {
    match sniff(path)? {
        Source::Directory => directory::read(path, open),
        Source::Gguf => gguf::read(path, open),
        Source::Safetensors => {
            let expected = "the directory with this file and its config.json, or a GGUF file";
            Err(Error::invalid(path, None, expected, "a safetensors file alone").into())
        }
    }
}
