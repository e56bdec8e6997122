//! A made-up Llama with a tokenizer whose ids are bytes.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The token that ends an answer, the one that begins a turn, and the one that the tokenizer puts
/// before raw text.
pub(crate) const END: u32 = 256;
pub(crate) const TURN: u32 = 257;
pub(crate) const BEGIN: u32 = 258;

/// How many tokens a model can see.
pub(crate) const CONTEXT: usize = 300;

/// A checkpoint in memory, to be changed before it is written.
pub(crate) struct Checkpoint {
    pub(crate) config: Value,
    pub(crate) tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    pub(crate) template: Option<&'static str>,
}

/// A directory with a model in it, and room beside it. Both go when it is dropped.
pub(crate) struct Model {
    directory: TempDir,
}

impl Model {
    /// Something beside the model.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The model's directory.
    pub(crate) fn path(&self) -> PathBuf {
        self.beside("model")
    }

    /// The model's directory as an argument.
    pub(crate) fn argument(&self) -> String {
        text(&self.path())
    }

    /// What lies beside the model, and the model.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// The model that most tests use.
pub(crate) fn tiny() -> Model {
    Checkpoint::tiny().write()
}

impl Checkpoint {
    /// Two layers of random weights, always the same.
    pub(crate) fn tiny() -> Checkpoint {
        let config = json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 259,
            "max_position_embeddings": CONTEXT,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": true,
            "eos_token_id": END,
            "torch_dtype": "float32",
        });
        let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![259, 32])];
        for layer in 0..2 {
            let layers: [(&str, &[usize]); 9] = [
                ("self_attn.q_proj", &[32, 32]),
                ("self_attn.k_proj", &[16, 32]),
                ("self_attn.v_proj", &[16, 32]),
                ("self_attn.o_proj", &[32, 32]),
                ("mlp.gate_proj", &[64, 32]),
                ("mlp.up_proj", &[64, 32]),
                ("mlp.down_proj", &[32, 64]),
                ("input_layernorm", &[32]),
                ("post_attention_layernorm", &[32]),
            ];
            let name = |name: &str| format!("model.layers.{layer}.{name}.weight");
            shapes.extend(layers.map(|(layer, shape)| (name(layer), shape.to_vec())));
        }
        shapes.push(("model.norm.weight".to_owned(), vec![32]));
        let mut state = 1u64;
        let tensors = shapes.into_iter().map(|(name, shape)| {
            let count = shape.iter().product();
            let weights = (0..count).map(|_| uniform(&mut state)).collect();
            (name, (shape, weights))
        });
        let tensors = tensors.collect();
        let template = Some(
            "{% for turn in messages %}{{ turn.role }}:{{ turn.content }}<end>{% endfor %}\
             {% if add_generation_prompt %}<turn>{% endif %}",
        );
        Checkpoint {
            config,
            tensors,
            template,
        }
    }

    /// The same with `value` for one of the configuration's keys.
    pub(crate) fn with(mut self, key: &str, value: Value) -> Checkpoint {
        self.config[key] = value;
        self
    }

    /// Writes the checkpoint as a Hugging Face directory.
    pub(crate) fn write(&self) -> Model {
        let model = Model {
            directory: tempfile::tempdir().unwrap(),
        };
        let path = model.path();
        std::fs::create_dir(&path).unwrap();
        let put = |name: &str, value: &Value| {
            std::fs::write(path.join(name), value.to_string()).unwrap();
        };
        put("config.json", &self.config);
        put("tokenizer.json", &tokenizer());
        let mut settings = json!({"eos_token": "<end>"});
        if let Some(template) = self.template {
            settings["chat_template"] = template.into();
        }
        put("tokenizer_config.json", &settings);
        std::fs::write(path.join("model.safetensors"), self.safetensors()).unwrap();
        model
    }

    pub(crate) fn safetensors(&self) -> Vec<u8> {
        let (mut header, mut data) = (Map::new(), Vec::new());
        for (name, (shape, weights)) in &self.tensors {
            let start = data.len();
            data.extend(weights.iter().flat_map(|weight| weight.to_le_bytes()));
            let entry =
                json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
            header.insert(name.clone(), entry);
        }
        let header = Value::Object(header).to_string().into_bytes();
        [&(header.len() as u64).to_le_bytes(), &header[..], &data].concat()
    }
}

/// A number between -0.5 and 0.5.
fn uniform(state: &mut u64) -> f32 {
    *state = state
        .wrapping_mul(6364136223846793005)
        .wrapping_add(1442695040888963407);
    (*state >> 40) as f32 / (1 << 24) as f32 - 0.5
}

/// Byte-level, without merges: the id of a byte is the byte.
fn tokenizer() -> Value {
    let plain = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut next = 256;
    let mut vocabulary = Map::new();
    for byte in 0..256 {
        let character = if plain(byte) {
            byte
        } else {
            next += 1;
            next - 1
        };
        vocabulary.insert(char::from_u32(character).unwrap().into(), byte.into());
    }
    let added = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
    });
    let sequence = json!({"Sequence": {"id": "A", "type_id": 0}});
    json!({
        "version": "1.0",
        "added_tokens": [added(END, "<end>"), added(TURN, "<turn>"), added(BEGIN, "<begin>")],
        "pre_tokenizer": bytes,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<begin>", "type_id": 0}}, sequence],
            "pair": [sequence, sequence],
            "special_tokens": {
                "<begin>": {"id": "<begin>", "ids": [BEGIN], "tokens": ["<begin>"]},
            },
        },
        "decoder": bytes,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    })
}
