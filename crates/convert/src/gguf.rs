//! A GGUF file as a source: names, configuration, tokenizer.

mod rope;

pub(crate) use rope::FACTORS;

use crate::config::Config;
use crate::source::{Extra, Model};
use crate::{Open, Result, names};
use kiln_formats::gguf::{self, Gguf, Metadata, Value};
use kiln_formats::{Error, File};
use kiln_plan::DType;
use kiln_tokenizer::GgufTokenizer;
use serde_json::json;
use std::path::Path;

/// The metadata of a Llama that is read here; any other `llama.` key could change the model.
const UNDERSTOOD: [&str; 15] = [
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "expert_count",
    "expert_used_count",
    "rope.dimension_count",
    "rope.freq_base",
    "tensor_data_layout",
];

pub(crate) fn read(path: &Path, open: &Open<'_>) -> Result<Model> {
    let gguf = gguf::read(File::open(path, open)?)?;
    let keys = Keys {
        path,
        metadata: gguf.metadata(),
    };
    let config = config(&keys, &gguf)?;
    let mut notes = Vec::new();
    let mut files = vec![Extra::generation(&config)];
    if gguf.metadata().get("tokenizer.ggml.model").is_some() {
        let tokenizer = tokenizer(&keys)?.files()?;
        let contents = |(name, bytes): (&str, Vec<u8>)| Extra::Contents(name.to_owned(), bytes);
        files.extend(tokenizer.files.into_iter().map(contents));
    } else {
        notes.push("no tokenizer in the file: text cannot be encoded".into());
    }
    Ok(Model {
        path: path.to_owned(),
        config_path: path.to_owned(),
        config,
        shards: vec![gguf.checkpoint().clone()],
        names: &names::GGUF,
        interleaved: true,
        scheme: None,
        dtype: Some(DType::F16),
        files,
        notes,
    })
}

/// Metadata with messages.
pub(crate) struct Keys<'a> {
    pub(crate) path: &'a Path,
    pub(crate) metadata: &'a Metadata,
}

impl<'a> Keys<'a> {
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.metadata.get(key)
    }

    pub(crate) fn invalid(&self, key: &str, expected: &str) -> Error {
        let found = self.get(key).map_or("nothing".to_owned(), Value::summary);
        Error::invalid(self.path, Some(key), expected, found)
    }

    /// A positive whole number.
    fn count(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value
            .unsigned()
            .filter(|count| (1..1 << 31).contains(count))
        {
            Some(count) => Ok(Some(count)),
            None => Err(self.invalid(key, "one positive number").into()),
        }
    }

    fn required(&self, key: &str) -> Result<u64> {
        self.count(key)?
            .ok_or_else(|| self.invalid(key, "one positive number").into())
    }

    /// A positive f32 as the shortest decimal that means it: 0.00001 and not 0.0000099999997.
    pub(crate) fn decimal(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let number = match value {
            Value::F32(value) => value.to_string().parse().ok(),
            other => other.float(),
        };
        match number.filter(|number: &f64| number.is_finite() && *number > 0.0) {
            Some(number) => Ok(Some(number)),
            None => Err(self.invalid(key, "a positive number").into()),
        }
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .string()
            .map(Some)
            .ok_or_else(|| self.invalid(key, "text").into())
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .bool()
            .map(Some)
            .ok_or_else(|| self.invalid(key, "a bool").into())
    }

    fn id(&self, key: &str) -> Result<Option<u32>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let id = value.unsigned().and_then(|id| u32::try_from(id).ok());
        id.map(Some)
            .ok_or_else(|| self.invalid(key, "a token id").into())
    }
}

/// Refuses what would make the file mean something else than a plain Llama.
fn check(keys: &Keys<'_>) -> Result<()> {
    match keys.text("general.architecture")? {
        Some("llama") => {}
        Some(other) => {
            let what = format!("architecture {other:?} (llama is)");
            return Err(Error::unsupported(keys.path, None, what).into());
        }
        None => return Err(keys.invalid("general.architecture", "llama").into()),
    }
    if let Some(Value::String(kind)) = keys.get("general.type")
        && kind != "model"
    {
        let what = format!("a GGUF file of type {kind:?}");
        return Err(Error::unsupported(keys.path, None, what).into());
    }
    if keys
        .get("llama.expert_count")
        .is_some_and(|count| count.unsigned() != Some(0))
    {
        return Err(Error::unsupported(keys.path, None, "a mixture of experts").into());
    }
    for (key, value) in keys.metadata.iter() {
        if let Some(rest) = key.strip_prefix("llama.")
            && !UNDERSTOOD.contains(&rest)
            && !rope::UNDERSTOOD.contains(&rest)
        {
            let what = format!("this metadata ({})", value.summary());
            return Err(Error::unsupported(keys.path, Some(key), what).into());
        }
    }
    Ok(())
}

/// The `config.json` that the metadata stands for.
fn config(keys: &Keys<'_>, gguf: &Gguf) -> Result<Config> {
    check(keys)?;
    let hidden = keys.required("llama.embedding_length")?;
    let heads = keys.required("llama.attention.head_count")?;
    let kv_heads = keys
        .count("llama.attention.head_count_kv")?
        .unwrap_or(heads);
    let head_dim = keys
        .count("llama.attention.key_length")?
        .unwrap_or(hidden / heads);
    for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
        if keys.count(key)?.is_some_and(|size| size != head_dim) {
            let what = format!("a size other than that of a head, {head_dim},");
            return Err(Error::unsupported(keys.path, Some(key), what).into());
        }
    }
    let epsilon = "llama.attention.layer_norm_rms_epsilon";
    let Some(epsilon) = keys.decimal(epsilon)? else {
        return Err(keys.invalid(epsilon, "a positive number").into());
    };
    let has = |name: &str| gguf.checkpoint().tensor(name).is_some();
    let embedding = gguf.checkpoint().tensor("token_embd.weight");
    let vocab = match embedding.map(|tensor| &tensor.shape[..]) {
        Some([rows, _]) => *rows as u64,
        _ => keys.required("llama.vocab_size")?,
    };
    let context = keys.required("llama.context_length")?;
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": has("blk.0.attn_q.bias"),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": keys.required("llama.feed_forward_length")?,
        "max_position_embeddings": context,
        "mlp_bias": has("blk.0.ffn_gate.bias"),
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": keys.required("llama.block_count")?,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": epsilon,
        "vocab_size": vocab,
    });
    let rope = rope::settings(keys, gguf, head_dim as usize)?;
    if let Some(config) = config.as_object_mut() {
        config.extend(rope);
        config.extend(ids(keys)?);
    }
    match config {
        serde_json::Value::Object(config) => Ok(config),
        _ => Ok(Config::new()),
    }
}

/// The special tokens: EOS is a list where the end of a turn is another token.
fn ids(keys: &Keys<'_>) -> Result<Config> {
    let id = |name: &str| keys.id(&format!("tokenizer.ggml.{name}_token_id"));
    let mut ids = Config::new();
    if let Some(bos) = id("bos")? {
        ids.insert("bos_token_id".into(), bos.into());
    }
    match (id("eos")?, id("eot")?) {
        (Some(eos), Some(eot)) if eos != eot => {
            ids.insert("eos_token_id".into(), json!([eos, eot]));
        }
        (Some(eos), _) | (None, Some(eos)) => {
            ids.insert("eos_token_id".into(), eos.into());
        }
        (None, None) => {}
    }
    if let Some(pad) = id("padding")? {
        ids.insert("pad_token_id".into(), pad.into());
    }
    Ok(ids)
}

fn tokenizer(keys: &Keys<'_>) -> Result<GgufTokenizer> {
    let strings = |key: &str| -> Result<Vec<String>> {
        let Some(value) = keys.get(key) else {
            return Ok(Vec::new());
        };
        let strings = value
            .strings()
            .ok_or_else(|| keys.invalid(key, "an array of strings"))?;
        Ok(strings.iter().map(str::to_owned).collect())
    };
    let scores = "tokenizer.ggml.scores";
    let scores = match keys.get(scores) {
        None => Vec::new(),
        Some(value) => match value.floats() {
            Some(scores) => scores.to_vec(),
            None => return Err(keys.invalid(scores, "an array of numbers").into()),
        },
    };
    let types = "tokenizer.ggml.token_type";
    let token_types = match keys.get(types) {
        None => Vec::new(),
        Some(value) => match value.integers() {
            Some(types) => types,
            None => return Err(keys.invalid(types, "an array of whole numbers").into()),
        },
    };
    Ok(GgufTokenizer {
        model: keys
            .text("tokenizer.ggml.model")?
            .unwrap_or_default()
            .to_owned(),
        pre: keys.text("tokenizer.ggml.pre")?.map(str::to_owned),
        tokens: strings("tokenizer.ggml.tokens")?,
        scores,
        token_types,
        merges: strings("tokenizer.ggml.merges")?,
        bos: keys.id("tokenizer.ggml.bos_token_id")?,
        eos: keys.id("tokenizer.ggml.eos_token_id")?,
        unk: keys.id("tokenizer.ggml.unknown_token_id")?,
        pad: keys.id("tokenizer.ggml.padding_token_id")?,
        add_bos: keys.flag("tokenizer.ggml.add_bos_token")?,
        add_eos: keys.flag("tokenizer.ggml.add_eos_token")?,
        add_space_prefix: keys.flag("tokenizer.ggml.add_space_prefix")?,
        chat_template: keys.text("tokenizer.chat_template")?.map(str::to_owned),
    })
}
