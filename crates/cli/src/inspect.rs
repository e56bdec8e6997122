//! `kiln inspect`: what a checkpoint holds.

use crate::exit::Code;
use crate::output;
use clap::Args;
use kiln::Tokenizer;
use kiln::convert::Summary;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Say what a checkpoint holds: a directory, or a safetensors, GGUF, PyTorch or npz file
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The checkpoint
    path: PathBuf,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// List the metadata and every tensor: name, type, shape, bytes
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) fn inspect(task: &Inspect) -> anyhow::Result<Code> {
    let summary = kiln::convert::inspect(&task.path, &kiln::map)?;
    let facts = facts(&task.path, &summary);
    if task.json {
        output::write_json(&object(task, &summary, facts))?;
    } else {
        output::write(&output::plain(&text(task, &summary, &facts)))?;
    }
    Ok(Code::Success)
}

/// What the checkpoint is, by name. Absent facts are null.
fn facts(path: &Path, summary: &Summary) -> Map<String, Value> {
    let mut facts = Map::new();
    let mut add = |name: &str, value: Value| facts.insert(name.into(), value);
    add("path", path.display().to_string().into());
    add("format", summary.format.clone().into());
    add("architecture", summary.architecture.clone().into());
    add(
        "layers",
        number(summary, &["num_hidden_layers", ".block_count"]),
    );
    add(
        "context",
        number(summary, &["max_position_embeddings", ".context_length"]),
    );
    add("parameters", summary.parameters.into());
    add("bytes", summary.bytes.into());
    add("bits_per_weight", summary.bits_per_weight.into());
    add("quantisation", summary.quantisation.clone().into());
    let mut types = BTreeMap::new();
    for tensor in &summary.tensors {
        *types.entry(tensor.dtype.clone()).or_insert(0) += 1;
    }
    add("types", json!(types));
    add("tokenizer", tokenizer(path, summary));
    facts
}

/// The number behind the first metadata key that ends like one of these.
fn number(summary: &Summary, endings: &[&str]) -> Value {
    let found = summary.metadata.iter().find_map(|(key, value)| {
        let wanted = endings.iter().any(|ending| key.ends_with(ending));
        wanted.then(|| value.parse::<u64>().ok()).flatten()
    });
    found.into()
}

/// The tokenizer beside or inside the checkpoint; null if there is none.
fn tokenizer(path: &Path, summary: &Summary) -> Value {
    let metadata = |name: &str| {
        let mut entries = summary.metadata.iter();
        entries
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    };
    if let Some(model) = metadata("tokenizer.ggml.model") {
        let eos = metadata("tokenizer.ggml.eos_token_id").and_then(|id| id.parse::<u64>().ok());
        return json!({
            "kind": format!("gguf metadata ({model})"),
            "eos_ids": Vec::from_iter(eos),
            "chat_template": metadata("tokenizer.chat_template").is_some(),
        });
    }
    if !path.is_dir() {
        return Value::Null;
    }
    match Tokenizer::from_directory(path) {
        Ok(tokenizer) => json!({
            "kind": tokenizer.source().to_string(),
            "vocabulary": tokenizer.vocab_size(),
            "eos_ids": tokenizer.eos_ids(),
            "chat_template": tokenizer.chat_template().is_ok(),
        }),
        Err(kiln_tokenizer::Error::NoTokenizer { .. }) => Value::Null,
        Err(error) => json!({"error": error.to_string()}),
    }
}

fn object(task: &Inspect, summary: &Summary, mut facts: Map<String, Value>) -> Value {
    let files = summary
        .files
        .iter()
        .map(|(name, bytes)| (name.clone(), json!(bytes)));
    facts.insert("files".into(), Value::Object(files.collect()));
    if task.verbose {
        let metadata = summary.metadata.iter();
        let metadata = metadata.map(|(key, value)| (key.clone(), value.clone().into()));
        facts.insert("metadata".into(), Value::Object(metadata.collect()));
        let tensors = summary.tensors.iter().map(|tensor| {
            json!({
                "name": tensor.name,
                "dtype": tensor.dtype,
                "shape": tensor.shape,
                "bytes": tensor.bytes,
            })
        });
        facts.insert("tensors".into(), tensors.collect());
    }
    facts.into()
}

fn text(task: &Inspect, summary: &Summary, facts: &Map<String, Value>) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| text.push_str(&format!("{name:<18}{value}\n"));
    for (name, value) in facts {
        let shown = match (name.as_str(), value) {
            (_, Value::Null) => "-".into(),
            ("parameters", _) => output::count(summary.parameters),
            ("bytes", _) => {
                let (size, files) = (output::size(summary.bytes), summary.files.len());
                format!(
                    "{size} in {files} file{}",
                    if files == 1 { "" } else { "s" }
                )
            }
            ("bits_per_weight", _) => format!("{:.3}", summary.bits_per_weight),
            (_, Value::Object(entries)) => entries
                .iter()
                .map(|(name, value)| format!("{name} {}", unquoted(value)))
                .collect::<Vec<_>>()
                .join(", "),
            (_, value) => unquoted(value),
        };
        line(&name.replace('_', " "), &shown);
    }
    if task.verbose {
        for (key, value) in &summary.metadata {
            text.push_str(&format!("{key} = {}\n", value.replace('\n', "\\n")));
        }
        let width = summary
            .tensors
            .iter()
            .map(|tensor| tensor.name.len())
            .max()
            .unwrap_or(0);
        for tensor in &summary.tensors {
            let shape = format!("{:?}", tensor.shape);
            text.push_str(&format!(
                "{:<width$}  {:<6} {shape:<18} {}\n",
                tensor.name, tensor.dtype, tensor.bytes
            ));
        }
    }
    text
}

fn unquoted(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
