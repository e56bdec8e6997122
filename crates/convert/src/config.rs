//! What `config.json` says about a Llama-family model, and which tensors follow from it.

use kiln_formats::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// The keys of a `config.json`.
pub(crate) type Config = Map<String, Value>;

/// The dimensions of a model.
#[derive(Clone, Debug)]
pub(crate) struct Llama {
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) vocab: usize,
    pub(crate) attention_bias: bool,
    pub(crate) mlp_bias: bool,
    /// Whether the head is the embedding; `None` where the configuration does not say.
    pub(crate) tied: Option<bool>,
}

/// A tensor that the model has.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    /// Hugging Face's name.
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    /// The heads that its rows are divided into, for q and k.
    pub(crate) heads: Option<usize>,
}

impl Expected {
    /// Whether `-q` quantises it: the embedding, the head and the weights of linear layers.
    pub(crate) fn is_matrix(&self) -> bool {
        self.shape.len() == 2
    }
}

pub(crate) const HEAD: &str = "lm_head.weight";
pub(crate) const NORM: &str = "model.norm.weight";
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";

impl Llama {
    /// Reads the dimensions. `path` is for messages.
    ///
    /// # Errors
    /// Another architecture, a rope or quantisation that is not known, numbers that are absent.
    pub(crate) fn read(path: &Path, config: &Config) -> Result<Llama> {
        architecture(path, config)?;
        activation(path, config)?;
        rope(path, config)?;
        let number = |key: &str| match config.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number @ 1..=0x7fff_ffff) => Ok(Some(number as usize)),
                _ => Err(invalid(path, key, "a positive number", value)),
            },
        };
        let required = |key: &str| {
            number(key)?
                .ok_or_else(|| Error::invalid(path, Some(key), "a positive number", "nothing"))
        };
        let flag = |key: &str| match config.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(value) => Err(invalid(path, key, "true or false", value)),
        };
        let (hidden, heads) = (required("hidden_size")?, required("num_attention_heads")?);
        let kv_heads = number("num_key_value_heads")?.unwrap_or(heads);
        let head_dim = number("head_dim")?.unwrap_or(hidden / heads);
        if heads % kv_heads != 0 {
            let found = format!("{kv_heads}");
            let expected = format!("a divisor of {heads} heads");
            return Err(Error::invalid(
                path,
                Some("num_key_value_heads"),
                expected,
                found,
            ));
        }
        if head_dim == 0 || head_dim % 2 != 0 {
            let found = format!("{head_dim}");
            return Err(Error::invalid(
                path,
                Some("head_dim"),
                "an even number",
                found,
            ));
        }
        Ok(Llama {
            layers: required("num_hidden_layers")?,
            hidden,
            intermediate: required("intermediate_size")?,
            heads,
            kv_heads,
            head_dim,
            vocab: required("vocab_size")?,
            attention_bias: flag("attention_bias")?.unwrap_or(false),
            mlp_bias: flag("mlp_bias")?.unwrap_or(false),
            tied: flag("tie_word_embeddings")?,
        })
    }

    /// Every tensor but the head, in the model's order.
    pub(crate) fn tensors(&self) -> Vec<Expected> {
        let plain = |name: &str, shape: &[usize]| Expected {
            name: name.to_owned(),
            shape: shape.to_vec(),
            heads: None,
        };
        let mut all = vec![plain(EMBEDDING, &[self.vocab, self.hidden])];
        for layer in 0..self.layers {
            all.extend(self.layer(layer));
        }
        all.push(plain(NORM, &[self.hidden]));
        all
    }

    fn layer(&self, layer: usize) -> Vec<Expected> {
        let (query, pair) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let linears = [
            (
                "self_attn.q_proj",
                query,
                self.hidden,
                Some(self.heads),
                self.attention_bias,
            ),
            (
                "self_attn.k_proj",
                pair,
                self.hidden,
                Some(self.kv_heads),
                self.attention_bias,
            ),
            (
                "self_attn.v_proj",
                pair,
                self.hidden,
                None,
                self.attention_bias,
            ),
            (
                "self_attn.o_proj",
                self.hidden,
                query,
                None,
                self.attention_bias,
            ),
            (
                "mlp.gate_proj",
                self.intermediate,
                self.hidden,
                None,
                self.mlp_bias,
            ),
            (
                "mlp.up_proj",
                self.intermediate,
                self.hidden,
                None,
                self.mlp_bias,
            ),
            (
                "mlp.down_proj",
                self.hidden,
                self.intermediate,
                None,
                self.mlp_bias,
            ),
        ];
        let mut all = Vec::new();
        for (name, n, k, heads, bias) in linears {
            let name = format!("model.layers.{layer}.{name}");
            all.push(Expected {
                name: format!("{name}.weight"),
                shape: vec![n, k],
                heads,
            });
            if bias {
                all.push(Expected {
                    name: format!("{name}.bias"),
                    shape: vec![n],
                    heads,
                });
            }
        }
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            let name = format!("model.layers.{layer}.{norm}.weight");
            all.push(Expected {
                name,
                shape: vec![self.hidden],
                heads: None,
            });
        }
        all
    }

    /// The head that is not the embedding.
    pub(crate) fn head(&self) -> Expected {
        Expected {
            name: HEAD.to_owned(),
            shape: vec![self.vocab, self.hidden],
            heads: None,
        }
    }
}

fn invalid(path: &Path, key: &str, expected: &str, found: &Value) -> Error {
    Error::invalid(path, Some(key), expected, brief(found))
}

/// A value's text, cut where it is long.
fn brief(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}

/// `model_type` llama or mistral; `architectures`, where given, agrees.
fn architecture(path: &Path, config: &Config) -> Result<()> {
    let unsupported = |what: &str, value: &Value| {
        let what = format!("{what} {} (llama and mistral are)", brief(value));
        Err(Error::unsupported(path, None, what))
    };
    match config.get("model_type") {
        Some(Value::String(name)) if matches!(name.as_str(), "llama" | "mistral") => {}
        Some(value) => return unsupported("model_type", value),
        None => {
            let expected = "llama or mistral";
            return Err(Error::invalid(
                path,
                Some("model_type"),
                expected,
                "nothing",
            ));
        }
    }
    let Some(Value::Array(names)) = config.get("architectures") else {
        return Ok(());
    };
    let known = |name: &&Value| {
        !matches!(
            name.as_str(),
            Some("LlamaForCausalLM" | "MistralForCausalLM")
        )
    };
    names
        .iter()
        .find(known)
        .map_or(Ok(()), |name| unsupported("architecture", name))
}

fn activation(path: &Path, config: &Config) -> Result<()> {
    match config.get("hidden_act") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(name)) if matches!(name.as_str(), "silu" | "swish") => Ok(()),
        Some(value) => {
            let what = format!("hidden_act {} (silu is)", brief(value));
            Err(Error::unsupported(path, None, what))
        }
    }
}

/// Both spellings of the rope settings name a kind that is known.
fn rope(path: &Path, config: &Config) -> Result<()> {
    for key in ["rope_scaling", "rope_parameters"] {
        let settings = match config.get(key) {
            None | Some(Value::Null) => continue,
            Some(Value::Object(settings)) => settings,
            Some(value) => return Err(invalid(path, key, "an object or null", value)),
        };
        for name in ["rope_type", "type"] {
            match settings.get(name) {
                None | Some(Value::Null) => {}
                Some(Value::String(kind))
                    if matches!(kind.as_str(), "default" | "linear" | "llama3" | "yarn") => {}
                Some(value) => {
                    let what = format!(
                        "{name} {} (default, linear, llama3, yarn are)",
                        brief(value)
                    );
                    return Err(Error::unsupported(path, Some(key), what));
                }
            }
        }
        if let Some((name, _)) = settings.iter().find(|(_, value)| value.is_object()) {
            let what = format!("rope by layer type ({name:.40})");
            return Err(Error::unsupported(path, Some(key), what));
        }
    }
    Ok(())
}
