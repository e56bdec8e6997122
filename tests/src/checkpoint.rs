//! Small random Llama checkpoints, written to a directory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test panics"
)]

use crate::Random;
use kiln_array::{DType, Format};
use kiln_formats::Type;
use kiln_formats::safetensors::{Declared, Writer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A Llama checkpoint: its `config.json` and its weights by name, in f32.
#[derive(Clone, Debug)]
pub struct Llama {
    /// What `config.json` says.
    pub config: Value,
    /// Shape and values of each tensor that is not quantised.
    pub floats: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// Formats of layers that are stored quantised, by path; their codes are made when written.
    pub formats: BTreeMap<String, Format>,
}

impl Llama {
    /// Random weights of a model with 2 layers, 4 heads in 2 groups of 16, width 64, 96 tokens.
    pub fn random(seed: u64) -> Llama {
        Llama::of_vocabulary(seed, 96)
    }

    /// [`Llama::random`] with another number of tokens.
    pub fn of_vocabulary(seed: u64, vocab: usize) -> Llama {
        let config = json!({
            "model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 16, "vocab_size": vocab, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "max_position_embeddings": 2048, "tie_word_embeddings": false, "hidden_act": "silu",
        });
        let mut random = Random::new(seed);
        let mut floats = BTreeMap::new();
        let mut matrix = |name: String, rows: usize, columns: usize| {
            let scale = 1.5 / (columns as f64).sqrt();
            let values = (0..rows * columns)
                .map(|_| (random.between(-1.7, 1.7) * scale) as f32)
                .collect();
            floats.insert(name + ".weight", (vec![rows, columns], values));
        };
        matrix("model.embed_tokens".into(), vocab, 64);
        matrix("lm_head".into(), vocab, 64);
        for layer in 0..2 {
            let sizes = [
                ("self_attn.q_proj", 64, 64),
                ("self_attn.k_proj", 32, 64),
                ("self_attn.v_proj", 32, 64),
                ("self_attn.o_proj", 64, 64),
                ("mlp.gate_proj", 96, 64),
                ("mlp.up_proj", 96, 64),
                ("mlp.down_proj", 64, 96),
            ];
            for (name, rows, columns) in sizes {
                matrix(format!("model.layers.{layer}.{name}"), rows, columns);
            }
        }
        let mut norm = |name: String| {
            let values = (0..64).map(|_| (random.between(0.8, 1.2)) as f32).collect();
            floats.insert(name, (vec![64], values));
        };
        for layer in 0..2 {
            norm(format!("model.layers.{layer}.input_layernorm.weight"));
            norm(format!(
                "model.layers.{layer}.post_attention_layernorm.weight"
            ));
        }
        norm("model.norm.weight".into());
        Llama {
            config,
            floats,
            formats: BTreeMap::new(),
        }
    }

    /// One more key of `config.json`, or another value for it.
    pub fn with(mut self, key: &str, value: Value) -> Llama {
        self.config[key] = value;
        self
    }

    /// [`Llama::random`] whose layers are quantised to 4 bits, in groups of 32.
    pub fn quantised(seed: u64) -> Llama {
        let format = Format::affine(4, 32, DType::F16).unwrap();
        let quantization = json!({"group_size": 32, "bits": 4});
        let mut llama = Llama::random(seed).with("quantization", quantization);
        let layers = llama.floats.keys().filter(|name| !name.contains("norm"));
        let layers: Vec<String> = layers
            .map(|name| name.trim_end_matches(".weight").into())
            .collect();
        llama
            .formats
            .extend(layers.into_iter().map(|layer| (layer, format)));
        llama
    }

    /// Writes `config.json` and `model.safetensors`, floats as `dtype`.
    pub fn write(&self, directory: &Path, dtype: DType) {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join("config.json"), self.config.to_string()).unwrap();
        let mut tensors: Vec<(Declared, Vec<u8>)> = Vec::new();
        let mut add = |name: String, dtype, shape: &[usize], bytes| {
            tensors.push((
                Declared {
                    name,
                    dtype,
                    shape: shape.to_vec(),
                },
                bytes,
            ));
        };
        for (name, (shape, values)) in &self.floats {
            let layer = name.trim_end_matches(".weight");
            match self.formats.get(layer) {
                None => add(name.clone(), stored(dtype), shape, bytes(values, dtype)),
                Some(&format) => {
                    let q = kiln_convert::quantise(values, shape[1], format, dtype).unwrap();
                    let words = shape[1] * format.bits() / 32;
                    let groups = shape[1] / format.group();
                    let scales = if format.has_biases() {
                        stored(dtype)
                    } else {
                        Type::U8
                    };
                    add(name.clone(), Type::U32, &[shape[0], words], q.codes);
                    add(
                        format!("{layer}.scales"),
                        scales,
                        &[shape[0], groups],
                        q.scales,
                    );
                    if format.has_biases() {
                        add(
                            format!("{layer}.biases"),
                            scales,
                            &[shape[0], groups],
                            q.biases,
                        );
                    }
                }
            }
        }
        let path = directory.join("model.safetensors");
        let declared: Vec<Declared> = tensors.iter().map(|(d, _)| d.clone()).collect();
        let file = fs::File::create(&path).unwrap();
        let mut writer = Writer::new(file, &path, &declared).unwrap();
        for (declared, bytes) in &tensors {
            writer.write(&declared.name, bytes).unwrap();
        }
        writer.finish().unwrap();
    }
}

fn stored(dtype: DType) -> Type {
    match dtype {
        DType::F16 => Type::F16,
        DType::BF16 => Type::BF16,
        _ => Type::F32,
    }
}

fn bytes(values: &[f32], dtype: DType) -> Vec<u8> {
    let element = |v: &f32| match dtype {
        DType::F16 => half::f16::from_f32(*v).to_le_bytes().to_vec(),
        DType::BF16 => half::bf16::from_f32(*v).to_le_bytes().to_vec(),
        _ => v.to_le_bytes().to_vec(),
    };
    values.iter().flat_map(element).collect()
}
