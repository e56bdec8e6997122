//! What a checkpoint holds.

use crate::config::Config;
use crate::directory::object;
use crate::{Open, Result};
use kiln_formats::shards::{CONSOLIDATED, WEIGHTS};
use kiln_formats::{Checkpoint, File, Source, Tensor, Type};
use kiln_formats::{gguf, npz, safetensors, sniff, torch};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What a checkpoint holds, whether or not it can be converted.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The kind of file or directory, in a few words.
    pub format: String,
    /// The model's architecture, where the checkpoint names one.
    pub architecture: Option<String>,
    /// How weights are quantised, in a few words; `None` where none are.
    pub quantisation: Option<String>,
    /// Every tensor, in name order.
    pub tensors: Vec<TensorSummary>,
    /// Keys and values that describe the model; long values are cut.
    pub metadata: Vec<(String, String)>,
    /// The files with tensors, and their sizes.
    pub files: Vec<(String, u64)>,
    /// Weights: elements, those of packed codes counted one by one.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// `8 · bytes / parameters`.
    pub bits_per_weight: f64,
}

/// One tensor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorSummary {
    /// Its name in the file.
    pub name: String,
    /// The stored type.
    pub dtype: String,
    /// Row-major, as stored.
    pub shape: Vec<usize>,
    /// Its bytes.
    pub bytes: u64,
}

/// Says what lies at `path`: a directory or a file of any kind that is known. Reads no tensor.
///
/// # Errors
/// What lies there is none of these, or breaks its format's rules.
pub fn inspect(path: &Path, open: &Open<'_>) -> Result<Summary> {
    let source = sniff(path)?;
    let within = |config: &str, checkpoint: kiln_formats::Result<Checkpoint>| {
        let config = path.join(config);
        let config = if config.exists() {
            object(&config, open)?
        } else {
            Config::new()
        };
        Ok(directory(&format(source), &config, &checkpoint?))
    };
    let alone = |checkpoint: Checkpoint| {
        let mut summary = directory(&format(source), &Config::new(), &checkpoint);
        let metadata = checkpoint.metadata().iter();
        summary.metadata = metadata
            .map(|(key, value)| (key.clone(), cut(value)))
            .collect();
        summary
    };
    match source {
        Source::Directory => within("config.json", safetensors::open(path, open)),
        Source::TorchDirectory => within("config.json", torch::open(path, open)),
        Source::NpzDirectory => {
            let files = files(&WEIGHTS.files(path)?, open)?;
            within("config.json", npz::read(files))
        }
        Source::Consolidated => {
            let files = files(&CONSOLIDATED.files(path)?, open)?;
            within("params.json", parts(files))
        }
        Source::Safetensors => Ok(alone(safetensors::read(vec![File::open(path, open)?])?)),
        Source::Torch => Ok(alone(torch::read(vec![File::open(path, open)?])?)),
        Source::Npz => Ok(alone(npz::read(vec![File::open(path, open)?])?)),
        Source::Gguf => {
            let gguf = gguf::read(File::open(path, open)?)?;
            let metadata = gguf.metadata().iter();
            let metadata = metadata
                .map(|(key, value)| (key.to_owned(), value.summary()))
                .collect();
            let architecture = gguf.metadata().get("general.architecture");
            let format = format!("GGUF version {}", gguf.version);
            let quantisation = blocks(gguf.checkpoint());
            let parameters = gguf
                .checkpoint()
                .iter()
                .map(|tensor| tensor.elements() as u64)
                .sum();
            Ok(Summary {
                architecture: architecture
                    .and_then(gguf::Value::string)
                    .map(str::to_owned),
                quantisation,
                metadata,
                ..summary(format, gguf.checkpoint(), parameters)
            })
        }
    }
}

/// "safetensors directory" and so on.
fn format(source: Source) -> String {
    let name = source.to_string();
    match name
        .strip_prefix("a directory of ")
        .and_then(|of| of.strip_suffix(" files"))
    {
        Some(of) => format!("{of} directory"),
        None => name
            .split_once(' ')
            .map_or(name.clone(), |(_, rest)| rest.to_owned()),
    }
}

fn files(paths: &[PathBuf], open: &Open<'_>) -> Result<Vec<File>> {
    paths
        .iter()
        .map(|path| Ok(File::open(path, open)?))
        .collect()
}

/// The parts of tensors that are divided among files: each is told by its file and name.
fn parts(files: Vec<File>) -> kiln_formats::Result<Checkpoint> {
    if files.len() < 2 {
        return torch::read(files);
    }
    let mut tensors = Vec::new();
    for (index, file) in files.iter().enumerate() {
        for tensor in &torch::read(vec![file.clone()])? {
            let name = format!("{} (part {} of {})", tensor.name, index + 1, files.len());
            let tensor = tensor.clone();
            tensors.push(Tensor {
                name,
                file: index,
                ..tensor
            });
        }
    }
    Checkpoint::new(files, tensors, Default::default())
}

/// What every kind of checkpoint has.
fn summary(format: String, checkpoint: &Checkpoint, parameters: u64) -> Summary {
    let tensors: Vec<TensorSummary> = checkpoint
        .iter()
        .map(|tensor| TensorSummary {
            name: tensor.name.clone(),
            dtype: tensor.dtype.to_string(),
            shape: tensor.shape.clone(),
            bytes: tensor.dtype.bytes(&tensor.shape).unwrap_or(0) as u64,
        })
        .collect();
    let bytes = tensors.iter().map(|tensor| tensor.bytes).sum();
    let name = |path: &Path| {
        path.file_name()
            .unwrap_or(path.as_os_str())
            .display()
            .to_string()
    };
    let files = checkpoint.files().iter();
    Summary {
        format,
        architecture: None,
        quantisation: None,
        metadata: Vec::new(),
        files: files
            .map(|file| (name(file.path()), file.bytes().len() as u64))
            .collect(),
        tensors,
        parameters,
        bytes,
        bits_per_weight: 8.0 * bytes as f64 / parameters.max(1) as f64,
    }
}

fn directory(format: &str, config: &Config, checkpoint: &Checkpoint) -> Summary {
    let text = |value: &Value| match value {
        Value::String(text) => cut(text),
        other => cut(&other.to_string()),
    };
    let named = config
        .get("architectures")
        .and_then(|names| names.get(0)?.as_str());
    let architecture = named.or_else(|| config.get("model_type")?.as_str());
    let quantisation = config
        .get("quantization")
        .or_else(|| config.get("quantization_config"));
    Summary {
        architecture: architecture.map(str::to_owned),
        quantisation: quantisation.map(text),
        metadata: config
            .iter()
            .map(|(key, value)| (key.clone(), text(value)))
            .collect(),
        ..summary(
            format.to_owned(),
            checkpoint,
            parameters(config, checkpoint),
        )
    }
}

/// Weights of an MLX checkpoint: codes are unpacked by the bits that the configuration names,
/// scales and biases are no weights.
fn parameters(config: &Config, checkpoint: &Checkpoint) -> u64 {
    let quantization = config.get("quantization").and_then(Value::as_object);
    let bits = |layer: &str| -> Option<u64> {
        let quantization = quantization?;
        let own = quantization
            .get(layer)
            .and_then(|own| own.get("bits")?.as_u64());
        own.or_else(|| quantization.get("bits")?.as_u64())
            .filter(|bits| *bits > 0)
    };
    let mut total = 0;
    for tensor in checkpoint {
        let (layer, part) = tensor.name.rsplit_once('.').unwrap_or(("", &tensor.name));
        let packed = checkpoint.tensor(&format!("{layer}.scales")).is_some();
        let elements = tensor.elements() as u64;
        total += match (part, bits(layer)) {
            ("scales" | "biases", _) if packed => 0,
            ("weight", Some(bits)) if packed && tensor.dtype == Type::U32 => {
                elements.saturating_mul(32) / bits
            }
            _ => elements,
        };
    }
    total
}

/// The block formats of a GGUF file and how many tensors have each.
fn blocks(checkpoint: &Checkpoint) -> Option<String> {
    let mut counts = std::collections::BTreeMap::new();
    for tensor in checkpoint {
        if let Type::Gguf(block) = tensor.dtype {
            *counts.entry(block.name()).or_insert(0) += 1;
        }
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} ({count} tensors)"))
        .collect();
    (!counts.is_empty()).then(|| counts.join(", "))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
