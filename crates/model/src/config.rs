//! What `config.json` says of a Llama-family model, checked.

use crate::rope::{self, RopeConfig};
use crate::{Error, Result};
use kiln_array::{DType, Format, Mode};
use kiln_formats::{Unusable, sniff_bytes};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

// What a configuration may make us allocate before any tensor has been looked at.
const MAX_LAYERS: usize = 4096;
const MAX_HEAD_DIM: usize = 65_536;

/// The shape of a model and the constants in it.
#[derive(Clone, Debug)]
pub struct Config {
    /// `llama` or `mistral`.
    pub model_type: String,
    /// Width of a token's vector.
    pub hidden: usize,
    /// Width of the MLP.
    pub intermediate: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, a divisor of `heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Rows of the embedding table.
    pub vocab: usize,
    /// Added to the mean square in the norms.
    pub norm_eps: f32,
    /// How positions turn queries and keys.
    pub rope: RopeConfig,
    /// Whether the head is the embedding table; `None` where the file does not say.
    pub tied: Option<bool>,
    /// Whether q, k, v and o must have a bias each.
    pub attention_bias: bool,
    /// Whether the MLP's layers must have a bias each.
    pub mlp_bias: bool,
    /// Positions the model was made for.
    pub context: usize,
    /// For each layer, how many positions a query sees; 0 for all.
    pub windows: Vec<usize>,
    /// How quantised layers are stored.
    pub quantization: Option<Quantization>,
    /// Where this was read from, for messages.
    pub path: PathBuf,
}

/// The `quantization` entry: defaults, and exceptions by layer path.
#[derive(Clone, Debug)]
pub struct Quantization {
    default: Parameters,
    layers: Map<String, Value>,
}

#[derive(Clone, Copy, Debug)]
struct Parameters {
    mode: Mode,
    bits: usize,
    group: usize,
}

/// A configuration file with typed access to its keys.
pub(crate) struct Keys<'a> {
    pub(crate) path: &'a Path,
    pub(crate) map: &'a Map<String, Value>,
    /// Where in the file the map stands, with a trailing dot.
    pub(crate) prefix: &'a str,
}

impl Keys<'_> {
    pub(crate) fn error(&self, key: &str, expected: impl Into<String>) -> Error {
        let found = self
            .map
            .get(key)
            .map_or_else(|| "nothing".into(), Value::to_string);
        Error::Config {
            path: self.path.to_path_buf(),
            key: format!("{}{key}", self.prefix),
            expected: expected.into(),
            found,
        }
    }

    /// The value of `key`; null counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A count between 1 and 2³¹.
    pub(crate) fn count(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let count = value.as_u64().filter(|n| (1..1 << 31).contains(n));
        count
            .map(|n| Some(n as usize))
            .ok_or_else(|| self.error(key, "a positive whole number"))
    }

    pub(crate) fn required(&self, key: &str) -> Result<usize> {
        self.count(key)?
            .ok_or_else(|| self.error(key, "a positive whole number"))
    }

    /// A finite number above 0.
    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let number = value.as_f64().filter(|n| n.is_finite() && *n > 0.0);
        number
            .map(Some)
            .ok_or_else(|| self.error(key, "a positive number"))
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_bool()
            .map(Some)
            .ok_or_else(|| self.error(key, "true or false"))
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_str()
            .map(Some)
            .ok_or_else(|| self.error(key, "a string"))
    }

    pub(crate) fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_object()
            .map(Some)
            .ok_or_else(|| self.error(key, "an object"))
    }
}

impl Config {
    /// Reads and checks `config.json` in `directory`.
    pub fn read(directory: &Path) -> Result<Config> {
        let path = directory.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Io {
            path: path.clone(),
            source,
        })?;
        match sniff_bytes(text.as_bytes(), text.len() as u64) {
            Err(reason @ (Unusable::EmptyFile | Unusable::LfsPointer | Unusable::Html)) => {
                Err(kiln_formats::Error::Unusable { path, reason }.into())
            }
            _ => Config::parse(&path, &text),
        }
    }

    /// Checks the text of a `config.json`; `path` is for messages.
    pub fn parse(path: &Path, text: &str) -> Result<Config> {
        let invalid = |found: String| Error::Config {
            path: path.to_path_buf(),
            key: "(the file)".into(),
            expected: "a JSON object".into(),
            found,
        };
        let value: Value = serde_json::from_str(text).map_err(|e| invalid(e.to_string()))?;
        let map = value
            .as_object()
            .ok_or_else(|| invalid("another JSON value".into()))?;
        let keys = Keys {
            path,
            map,
            prefix: "",
        };
        let model_type = model_type(&keys)?;
        let (hidden, heads) = (
            keys.required("hidden_size")?,
            keys.required("num_attention_heads")?,
        );
        let layers = keys.required("num_hidden_layers")?;
        if layers > MAX_LAYERS {
            return Err(keys.error("num_hidden_layers", format!("at most {MAX_LAYERS}")));
        }
        let head_dim = match keys.count("head_dim")? {
            Some(size) => size,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => return Err(keys.error("hidden_size", format!("a multiple of {heads} heads"))),
        };
        if !head_dim.is_multiple_of(2) || head_dim > MAX_HEAD_DIM {
            return Err(keys.error("head_dim", format!("an even number up to {MAX_HEAD_DIM}")));
        }
        let kv_heads = keys.count("num_key_value_heads")?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            let expected = format!("a divisor of {heads} heads");
            return Err(keys.error("num_key_value_heads", expected));
        }
        if let Some(act) = keys.text("hidden_act")?
            && !matches!(act, "silu" | "swish")
        {
            return Err(unsupported(path, "hidden_act", act, "silu"));
        }
        let context = keys.count("max_position_embeddings")?.unwrap_or(2048);
        Ok(Config {
            hidden,
            intermediate: keys.required("intermediate_size")?,
            layers,
            heads,
            kv_heads,
            head_dim,
            vocab: keys.required("vocab_size")?,
            norm_eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            rope: rope::parse(&keys, context)?,
            tied: keys.flag("tie_word_embeddings")?,
            attention_bias: keys.flag("attention_bias")?.unwrap_or(false),
            mlp_bias: keys.flag("mlp_bias")?.unwrap_or(false),
            context,
            windows: windows(&keys, &model_type, layers)?,
            quantization: quantization(&keys)?,
            path: path.to_path_buf(),
            model_type,
        })
    }
}

fn unsupported(path: &Path, what: &'static str, found: &str, supported: &'static str) -> Error {
    Error::Unsupported {
        path: path.to_path_buf(),
        what,
        found: found.into(),
        supported,
    }
}

fn model_type(keys: &Keys<'_>) -> Result<String> {
    match keys.text("model_type")? {
        Some(known @ ("llama" | "mistral")) => Ok(known.into()),
        Some(other) => Err(unsupported(
            keys.path,
            "model_type",
            other,
            "llama, mistral",
        )),
        None => Err(keys.error("model_type", "the kind of model")),
    }
}

/// Mistral's `sliding_window` holds for every layer, or for those that `layer_types` names, as in
/// transformers. A Llama model has windows only where `layer_types` asks for them.
fn windows(keys: &Keys<'_>, model_type: &str, layers: usize) -> Result<Vec<usize>> {
    let window = keys.count("sliding_window")?.unwrap_or(0);
    let Some(types) = keys.get("layer_types") else {
        return Ok(vec![
            if model_type == "mistral" { window } else { 0 };
            layers
        ]);
    };
    let wrong = || keys.error("layer_types", format!("{layers} layer types"));
    let types = types
        .as_array()
        .filter(|types| types.len() == layers)
        .ok_or_else(wrong)?;
    let window_of = |kind: &Value| match kind.as_str() {
        Some("full_attention") => Ok(0),
        Some("sliding_attention") if window > 0 => Ok(window),
        Some("sliding_attention") => Err(keys.error("sliding_window", "a positive whole number")),
        _ => Err(unsupported(
            keys.path,
            "layer type",
            &kind.to_string(),
            "full_attention, sliding_attention",
        )),
    };
    types.iter().map(window_of).collect()
}

fn quantization(keys: &Keys<'_>) -> Result<Option<Quantization>> {
    let own = keys.object("quantization")?;
    let key = if own.is_some() {
        "quantization"
    } else {
        "quantization_config"
    };
    let Some(map) = own.or(keys.object("quantization_config")?) else {
        return Ok(None);
    };
    if let Some(method) = map.get("quant_method").and_then(Value::as_str)
        && own.is_none()
    {
        return Err(unsupported(
            keys.path,
            "quant_method",
            method,
            "MLX quantization",
        ));
    }
    let inner = Keys {
        path: keys.path,
        map,
        prefix: &format!("{key}."),
    };
    let default = parameters(&inner)?;
    let layers = map.iter().filter(|(_, v)| v.is_object() || v.is_boolean());
    let layers = layers.map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok(Some(Quantization { default, layers }))
}

/// Bits, group size and mode of an entry; what is absent or null is the mode's default.
fn parameters(keys: &Keys<'_>) -> Result<Parameters> {
    let (mode, group, bits) = match keys.text("mode")?.unwrap_or("affine") {
        "affine" => (Mode::Affine, 64, 4),
        "mxfp4" => (Mode::Mxfp4, 32, 4),
        "mxfp8" => (Mode::Mxfp8, 32, 8),
        "nvfp4" => (Mode::Nvfp4, 16, 4),
        other => {
            let modes = "affine, mxfp4, mxfp8, nvfp4";
            return Err(unsupported(keys.path, "quantization mode", other, modes));
        }
    };
    let group = keys.count("group_size")?.unwrap_or(group);
    Ok(Parameters {
        mode,
        group,
        bits: keys.count("bits")?.unwrap_or(bits),
    })
}

impl Quantization {
    /// The format of the layer at `layer` (as `model.layers.0.mlp.up_proj`), whose scales have the
    /// dtype `scales`. `config` is what it belongs to, for messages.
    ///
    /// # Errors
    /// Bits or a group size that the mode does not have, or an entry that says the layer is not
    /// quantised.
    pub fn format(&self, config: &Config, layer: &str, scales: DType) -> Result<Format> {
        let keys = |map| Keys {
            path: &config.path,
            map,
            prefix: "quantization.",
        };
        let found = match self.layers.get(layer) {
            Some(Value::Object(map)) => {
                let prefix = format!("quantization.{layer}.");
                parameters(&Keys {
                    path: &config.path,
                    map,
                    prefix: &prefix,
                })?
            }
            Some(Value::Bool(false)) => {
                return Err(keys(&self.layers).error(layer, "parameters: the layer has scales"));
            }
            _ => self.default,
        };
        let format = match found.mode {
            Mode::Affine => {
                let invalid = |error: kiln_array::Error| Error::Config {
                    path: config.path.clone(),
                    key: format!("quantization of {layer}"),
                    expected: error.to_string(),
                    found: format!("{} bits in groups of {}", found.bits, found.group),
                };
                Format::affine(found.bits, found.group, scales).map_err(invalid)?
            }
            Mode::Mxfp4 => Format::MXFP4,
            Mode::Mxfp8 => Format::MXFP8,
            Mode::Nvfp4 => Format::NVFP4,
        };
        if (format.bits(), format.group()) != (found.bits, found.group) {
            let expected = format!("{} bits in groups of {}", format.bits(), format.group());
            return Err(Error::Config {
                path: config.path.clone(),
                key: format!("quantization of {layer}"),
                expected,
                found: format!("{} bits in groups of {}", found.bits, found.group),
            });
        }
        Ok(format)
    }
}
