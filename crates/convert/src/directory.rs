//! A Hugging Face directory as a source.

use crate::config::Config;
use crate::foreign::Scheme;
use crate::options::dtype_named;
use crate::source::{Extra, Model};
use crate::{Open, Result, names};
use kiln_formats::{Checkpoint, File, Unusable, sniff_bytes};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Files that go along as they are.
const COPIED: [&str; 12] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tekken.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "LICENSE",
];

/// How the files of one kind are read.
type Read = fn(&Path, &Open<'_>) -> kiln_formats::Result<Checkpoint>;

pub(crate) fn read(path: &Path, open: &Open<'_>, read: Read) -> Result<Model> {
    let config_path = path.join("config.json");
    if !config_path.exists() {
        let expected = "a config.json beside the weights";
        return Err(kiln_formats::Error::invalid(path, None, expected, "none").into());
    }
    let mut config = object(&config_path, open)?;
    if let Some(Value::Object(how)) = config.get("quantization_config")
        && !config.contains_key("quantization")
        && !how.contains_key("quant_method")
        && how.contains_key("group_size")
    {
        // MLX's, under the name that Hugging Face has for it.
        config.insert("quantization".into(), how.clone().into());
    }
    // What mlx-lm does when it loads, and so what it saves.
    ends_as_said(path, open, &mut config)?;
    let (files, notes) = copied(path)?;
    let checkpoint = read(path, open)?;
    let scheme = match config.get("quantization") {
        Some(Value::Object(_)) => None,
        _ => Scheme::read(&config_path, &mut config, &checkpoint)?,
    };
    let named = |key: &str| {
        config
            .get(key)
            .and_then(Value::as_str)
            .and_then(dtype_named)
    };
    Ok(Model {
        path: path.to_owned(),
        config_path,
        dtype: match (&scheme, config.get("quantization")) {
            // What MLX has quantised has a dtype of its own, which the configuration need not know.
            (None, Some(Value::Object(_))) => None,
            _ => named("torch_dtype").or_else(|| named("dtype")),
        },
        config,
        shards: vec![checkpoint],
        names: &names::HUGGING_FACE,
        interleaved: false,
        scheme,
        files,
        notes,
    })
}

/// Takes from `generation_config.json` which ids end an answer; whether there is such a file.
pub(crate) fn ends_as_said(path: &Path, open: &Open<'_>, config: &mut Config) -> Result<bool> {
    let path = path.join("generation_config.json");
    if !path.exists() {
        return Ok(false);
    }
    let eos = object(&path, open)?.remove("eos_token_id");
    let eos = eos.filter(|eos| !eos.is_null());
    config.extend(eos.map(|eos| ("eos_token_id".into(), eos)));
    Ok(true)
}

/// A file with a JSON object.
pub(crate) fn object(path: &Path, open: &Open<'_>) -> Result<Config> {
    let file = File::open(path, open)?;
    refuse_placeholder(path, file.bytes())?;
    serde_json::from_slice(file.bytes()).map_err(|error| {
        let found: String = error.to_string().chars().take(200).collect();
        kiln_formats::Error::invalid(path, None, "a JSON object", found).into()
    })
}

/// Git LFS pointers and web pages stand in for small files too.
fn refuse_placeholder(path: &Path, start: &[u8]) -> Result<()> {
    match sniff_bytes(start, start.len() as u64) {
        Err(reason @ (Unusable::LfsPointer | Unusable::Html | Unusable::EmptyFile)) => {
            Err(kiln_formats::Error::Unusable {
                path: path.to_owned(),
                reason,
            }
            .into())
        }
        _ => Ok(()),
    }
}

/// The files that go along as they are, and a note where the tokenizer is not among them.
pub(crate) fn copied(path: &Path) -> Result<(Vec<Extra>, Vec<String>)> {
    let paths: Vec<PathBuf> = COPIED
        .iter()
        .map(|name| path.join(name))
        .filter(|path| path.is_file())
        .collect();
    let mut notes = Vec::new();
    for path in &paths {
        refuse_placeholder(path, &start(path)?)?;
    }
    let has = |name: &str| paths.iter().any(|path| path.ends_with(name));
    if !has("tokenizer.json") && !has("tokenizer.model") {
        notes.push("no tokenizer.json or tokenizer.model to copy: text cannot be encoded".into());
    }
    Ok((paths.into_iter().map(Extra::Copy).collect(), notes))
}

fn start(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut start = Vec::with_capacity(512);
    let read = std::fs::File::open(path).and_then(|file| file.take(512).read_to_end(&mut start));
    match read {
        Ok(_) => Ok(start),
        Err(source) => Err(kiln_formats::Error::Read {
            path: path.to_owned(),
            source,
        }
        .into()),
    }
}
