//! What a checkpoint holds.

use crate::config::Config;
use crate::directory::object;
use crate::{Open, Result};
use kiln_formats::{Checkpoint, File, Source, Type, gguf, safetensors, sniff};
use serde_json::Value;
use std::path::Path;

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

/// Says what lies at `path`: a directory, a GGUF file or a safetensors file. Reads no tensor.
///
/// # Errors
/// What lies there is none of these, or breaks its format's rules.
pub fn inspect(path: &Path, open: &Open<'_>) -> Result<Summary> {
    let file = |path: &Path| match open(path) {
        Ok(bytes) => Ok(File::new(path, bytes)),
        Err(source) => Err(kiln_formats::Error::Read {
            path: path.to_owned(),
            source,
        }),
    };
    match sniff(path)? {
        Source::Directory => {
            let config_path = path.join("config.json");
            let config = if config_path.exists() {
                object(&config_path, open)?
            } else {
                Config::new()
            };
            let checkpoint = safetensors::open(path, open)?;
            Ok(directory("safetensors directory", &config, &checkpoint))
        }
        Source::Safetensors => {
            let checkpoint = safetensors::read(vec![file(path)?])?;
            let mut summary = directory("safetensors file", &Config::new(), &checkpoint);
            let metadata = checkpoint.metadata().iter();
            summary.metadata = metadata
                .map(|(key, value)| (key.clone(), cut(value)))
                .collect();
            Ok(summary)
        }
        Source::Gguf => {
            let gguf = gguf::read(file(path)?)?;
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

/// What every kind of checkpoint has.
fn summary(format: String, checkpoint: &Checkpoint, parameters: u64) -> Summary {
    let tensors: Vec<TensorSummary> = checkpoint
        .iter()
        .map(|tensor| TensorSummary {
            name: tensor.name.clone(),
            dtype: tensor.dtype.to_string(),
            shape: tensor.shape.clone(),
            bytes: tensor.range.len() as u64,
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
