//! Checkpoints with Meta's names: `consolidated.NN.pth`, and the npz files of MLX's example programs.

use crate::config::{Config, EMBEDDING};
use crate::directory::{copied, ends_as_said, object};
use crate::options::dtype_name;
use crate::plan::{element, layer};
use crate::source::{Extra, Model};
use crate::{Open, Result, names};
use kiln_formats::shards::{CONSOLIDATED, WEIGHTS};
use kiln_formats::{Checkpoint, Error, File, npz, torch};
use kiln_tokenizer::Tokenizer;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The settings that are read here; any other could change the model.
const UNDERSTOOD: [&str; 17] = [
    "dim",
    "ffn_dim_multiplier",
    "head_dim",
    "hidden_dim",
    "max_batch_size",
    "max_seq_len",
    "model_type",
    "multiple_of",
    "n_heads",
    "n_kv_heads",
    "n_layers",
    "norm_eps",
    "quantization",
    "rope_theta",
    "rope_traditional",
    "sliding_window",
    "vocab_size",
];

/// `consolidated.NN.pth` and params.json: each file has a part of every divided tensor.
pub(crate) fn consolidated(path: &Path, open: &Open<'_>) -> Result<Model> {
    let shards = CONSOLIDATED
        .files(path)?
        .into_iter()
        .map(|path| Ok(torch::read(vec![File::open(&path, open)?])?))
        .collect::<Result<_>>()?;
    model(path, "params.json", shards, open)
}

/// `weights.npz` or `weights.NN.npz`, and config.json.
pub(crate) fn npz(path: &Path, open: &Open<'_>) -> Result<Model> {
    let files = WEIGHTS.files(path)?;
    let files = files.iter().map(|path| File::open(path, open));
    let checkpoint = npz::read(files.collect::<kiln_formats::Result<_>>()?)?;
    model(path, "config.json", vec![checkpoint], open)
}

fn model(path: &Path, config: &str, shards: Vec<Checkpoint>, open: &Open<'_>) -> Result<Model> {
    let config_path = path.join(config);
    if !config_path.exists() {
        let expected = format!("{config} beside the weights");
        return Err(Error::invalid(path, None, expected, "none").into());
    }
    let settings = Settings {
        map: object(&config_path, open)?,
        path: config_path.clone(),
    };
    settings.check()?;
    let (files, notes) = copied(path)?;
    let mut model = Model {
        path: path.to_owned(),
        config_path,
        config: Config::new(),
        shards,
        names: &names::META,
        // Files from before there was such a setting have Meta's rows.
        interleaved: settings.flag("rope_traditional")?.unwrap_or(true),
        scheme: None,
        dtype: None,
        files,
        notes,
    };
    settings.complete(&mut model)?;
    match Tokenizer::from_directory(path) {
        Ok(tokenizer) => {
            let ids = ids(&tokenizer);
            model.config.extend(ids);
            if !ends_as_said(path, open, &mut model.config)? {
                model.files.push(Extra::generation(&model.config));
            }
        }
        Err(kiln_tokenizer::Error::NoTokenizer { .. }) => {}
        Err(error) => model.notes.push(format!("text cannot be encoded: {error}")),
    }
    Ok(model)
}

/// The special tokens, in Hugging Face's keys.
fn ids(tokenizer: &Tokenizer) -> Config {
    let mut ids = Config::new();
    if let Some(bos) = tokenizer.bos_id() {
        ids.insert("bos_token_id".into(), bos.into());
    }
    match tokenizer.eos_ids() {
        [] => {}
        [eos] => drop(ids.insert("eos_token_id".into(), (*eos).into())),
        several => drop(ids.insert("eos_token_id".into(), several.into())),
    }
    ids
}

/// `params.json`, or what the example programs made of it.
struct Settings {
    map: Config,
    path: PathBuf,
}

impl Settings {
    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn invalid(&self, key: &str, expected: &str) -> Error {
        let found = self.get(key).map_or("nothing".to_owned(), Value::to_string);
        let found: String = found.chars().take(80).collect();
        Error::invalid(&self.path, Some(key), expected, found)
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        let flag = |value: &Value| {
            value
                .as_bool()
                .ok_or_else(|| self.invalid(key, "true or false"))
        };
        Ok(self.get(key).map(flag).transpose()?)
    }

    fn count(&self, key: &str) -> Result<Option<u64>> {
        let count = |value: &Value| {
            let count = value.as_u64().filter(|count| (1..1 << 31).contains(count));
            count.ok_or_else(|| self.invalid(key, "a positive number"))
        };
        Ok(self.get(key).map(count).transpose()?)
    }

    fn required(&self, key: &str) -> Result<u64> {
        Ok(self
            .count(key)?
            .ok_or_else(|| self.invalid(key, "a positive number"))?)
    }

    /// Refuses what would make the files mean something else than a plain Llama.
    fn check(&self) -> Result<()> {
        if self.flag("use_scaled_rope")? == Some(true) {
            let what = "use_scaled_rope (the factor is 8 in Llama 3.1 and 32 in Llama 3.2, and not \
                        in this file; take the Hugging Face version, which says it)";
            return Err(Error::unsupported(&self.path, None, what).into());
        }
        let unknown =
            |key: &&String| !UNDERSTOOD.contains(&key.as_str()) && *key != "use_scaled_rope";
        if let Some(key) = self.map.keys().find(unknown) {
            let value: String = self.map[key].to_string().chars().take(80).collect();
            let what = format!("this setting ({value})");
            return Err(Error::unsupported(&self.path, Some(key), what).into());
        }
        Ok(())
    }

    /// Puts the settings into the model in Hugging Face's keys; what is absent or wrong in them
    /// follows from the weights.
    fn complete(&self, model: &mut Model) -> Result<()> {
        let (dim, heads) = (self.required("dim")?, self.required("n_heads")?);
        // Codes have no dtype of weights; their scales do.
        let scales = model.find(&format!("{}.scales", layer(EMBEDDING)))?;
        let floats = scales.map_or_else(|| model.find(EMBEDDING), |scales| Ok(Some(scales)))?;
        let rows = |name: &str| {
            let tensor = model.find(name)?;
            Ok::<_, crate::Error>(tensor.and_then(|tensor| tensor.shape.first().copied()))
        };
        let hidden = match self.count("hidden_dim")? {
            Some(hidden) => hidden,
            None => rows("model.layers.0.mlp.gate_proj.weight")?.unwrap_or(1) as u64,
        };
        // Programs have written -1 and other wrong numbers here, and none reads it.
        let vocab = rows(EMBEDDING)?.unwrap_or(1) as u64;
        let said = self.get("vocab_size").and_then(Value::as_i64);
        if said.is_some_and(|said| said > 0 && said as u64 != vocab) {
            let note =
                format!("vocab_size is {vocab}, the embedding's rows, and not what was said");
            model.notes.push(note);
        }
        if self.get("norm_eps").and_then(Value::as_f64).is_none() {
            return Err(self.invalid("norm_eps", "a number").into());
        }
        let theta = self.get("rope_theta").cloned().unwrap_or(json!(10_000.0));
        let window = self.get("sliding_window");
        let kind = match self.get("model_type").and_then(Value::as_str) {
            Some(kind) => kind,
            None if window.is_some() => "mistral",
            None => "llama",
        };
        let config = json!({
            "architectures": [if kind == "mistral" { "MistralForCausalLM" } else { "LlamaForCausalLM" }],
            "head_dim": self.count("head_dim")?.unwrap_or(dim / heads),
            "hidden_act": "silu",
            "hidden_size": dim,
            "intermediate_size": hidden,
            "max_position_embeddings": self.context(theta.as_f64(), window, &mut model.notes)?,
            "model_type": kind,
            "num_attention_heads": heads,
            "num_hidden_layers": self.required("n_layers")?,
            "num_key_value_heads": self.count("n_kv_heads")?.unwrap_or(heads),
            "rms_norm_eps": self.get("norm_eps"),
            "rope_theta": theta,
            "vocab_size": vocab,
        });
        if let Value::Object(config) = config {
            model.config = config;
        }
        for key in ["sliding_window", "quantization"] {
            if let Some(value) = self.map.get(key) {
                model.config.insert(key.into(), value.clone());
            }
        }
        if let Some(dtype) = floats.and_then(|tensor| element(tensor.dtype)) {
            model
                .config
                .insert("torch_dtype".into(), dtype_name(dtype).into());
        }
        Ok(())
    }

    /// How many positions the model was made for. The settings seldom say: a guess from what most
    /// published models with such settings have, which a note tells.
    fn context(
        &self,
        theta: Option<f64>,
        window: Option<&Value>,
        notes: &mut Vec<String>,
    ) -> Result<u64> {
        if let Some(said) = self.count("max_seq_len")? {
            return Ok(said);
        }
        let context = match theta {
            _ if window.is_some() => 32_768,
            Some(1e6..) => 32_768,
            Some(5e5..) => 8192,
            _ => 4096,
        };
        notes.push(format!(
            "the length of the context is not recorded: max_position_embeddings {context} is written"
        ));
        Ok(context)
    }
}
