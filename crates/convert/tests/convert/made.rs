//! Checkpoints made up for tests, and what is needed to convert and read them.

use half::{bf16, f16};
use kiln_convert::{Options, Plan, Report, Result, convert, plan};
use kiln_formats::gguf::dequantise;
use kiln_formats::safetensors::{self, Declared, Writer};
use kiln_formats::{Bytes, Checkpoint, Type};
use kiln_plan::{DType, Format};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const HIDDEN: usize = 64;
pub(crate) const INTERMEDIATE: usize = 128;
pub(crate) const VOCAB: usize = 96;
pub(crate) const HEADS: usize = 4;
pub(crate) const KV_HEADS: usize = 2;
pub(crate) const HEAD_DIM: usize = 16;
pub(crate) const LAYERS: usize = 2;

/// The least that is a tokenizer.
const TOKENIZER: &str = r#"{
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
    "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}
}"#;

pub(crate) fn open(path: &Path) -> std::io::Result<Bytes> {
    Ok(Arc::new(std::fs::read(path)?))
}

/// A configuration of those sizes.
pub(crate) fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCAB,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": true,
        "_name_or_path": "somewhere",
    })
}

/// The model's tensors without a head: names and shapes.
pub(crate) fn tensors() -> Vec<(String, Vec<usize>)> {
    tensors_of(LAYERS)
}

/// The tensors of a model with so many layers.
pub(crate) fn tensors_of(layers: usize) -> Vec<(String, Vec<usize>)> {
    let mut all = vec![("model.embed_tokens.weight".to_owned(), vec![VOCAB, HIDDEN])];
    let (query, pair) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    for layer in 0..layers {
        for (name, shape) in [
            ("self_attn.q_proj", vec![query, HIDDEN]),
            ("self_attn.k_proj", vec![pair, HIDDEN]),
            ("self_attn.v_proj", vec![pair, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, query]),
            ("mlp.gate_proj", vec![INTERMEDIATE, HIDDEN]),
            ("mlp.up_proj", vec![INTERMEDIATE, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, INTERMEDIATE]),
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
        ] {
            all.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    all.push(("model.norm.weight".to_owned(), vec![HIDDEN]));
    all
}

/// Numbers between -1 and 1 that differ from tensor to tensor.
pub(crate) fn values(name: &str, count: usize) -> Vec<f32> {
    let mut state = name.bytes().fold(17u32, |state, byte| {
        state.wrapping_mul(31) + u32::from(byte)
    });
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Values in the bytes of a dtype, each rounded once.
pub(crate) fn encode(values: &[f32], dtype: DType) -> Vec<u8> {
    let encode = |&value: &f32| match dtype {
        DType::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
        DType::BF16 => bf16::from_f32(value).to_le_bytes().to_vec(),
        _ => value.to_le_bytes().to_vec(),
    };
    values.iter().flat_map(encode).collect()
}

pub(crate) fn stored(dtype: DType) -> Type {
    match dtype {
        DType::F16 => Type::F16,
        DType::BF16 => Type::BF16,
        _ => Type::F32,
    }
}

/// A temporary directory with a source in `source`; `destination` is free.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        std::fs::create_dir(place.source()).unwrap();
        place
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.0.path().join("source")
    }

    pub(crate) fn destination(&self) -> PathBuf {
        self.0.path().join("destination")
    }

    pub(crate) fn put(&self, name: &str, contents: impl AsRef<[u8]>) {
        std::fs::write(self.source().join(name), contents).unwrap();
    }

    /// The names in the temporary directory.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = self.0.path().read_dir().unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn convert(&self, options: &Options) -> Result<Report> {
        self.convert_from(&self.source(), options)
    }

    pub(crate) fn convert_from(&self, source: &Path, options: &Options) -> Result<Report> {
        let go_on = &mut |_: &kiln_convert::Progress<'_>| ControlFlow::Continue(());
        convert(source, &self.destination(), options, &open, go_on)
    }

    /// What would become of the source.
    pub(crate) fn plan(&self, options: &Options) -> Result<Plan> {
        let go_on = &mut |_: &kiln_convert::Progress<'_>| ControlFlow::Continue(());
        plan(&self.source(), options, &open, go_on)
    }

    /// The error of a conversion, which must leave nothing behind.
    pub(crate) fn refused(&self, options: &Options) -> String {
        let before = self.names();
        let error = self.convert(options).unwrap_err();
        assert_eq!(self.names(), before, "{error}");
        error.to_string()
    }

    /// What was written.
    pub(crate) fn result(&self) -> Checkpoint {
        safetensors::open(&self.destination(), &open).unwrap()
    }

    pub(crate) fn result_config(&self) -> Value {
        json_of(&self.destination().join("config.json"))
    }
}

pub(crate) fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A safetensors file of these tensors.
pub(crate) fn safetensors_file(tensors: &[(String, Vec<usize>, Vec<u8>)], dtype: Type) -> Vec<u8> {
    let declared: Vec<Declared> = tensors
        .iter()
        .map(|(name, shape, _)| Declared {
            name: name.clone(),
            dtype,
            shape: shape.clone(),
        })
        .collect();
    let mut writer = Writer::new(Vec::new(), Path::new("made"), &declared).unwrap();
    for (name, _, bytes) in tensors {
        writer.write(name, bytes).unwrap();
    }
    writer.finish().unwrap()
}

/// The model's tensors with their bytes in `dtype`.
pub(crate) fn filled(dtype: DType) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    fill(tensors(), dtype)
}

fn fill(tensors: Vec<(String, Vec<usize>)>, dtype: DType) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let fill = |(name, shape): (String, Vec<usize>)| {
        let bytes = encode(&values(&name, shape.iter().product()), dtype);
        (name, shape, bytes)
    };
    tensors.into_iter().map(fill).collect()
}

/// A Hugging Face directory with this configuration and weights of `dtype`.
pub(crate) fn hugging_face(config: &Value, dtype: DType) -> Place {
    let place = Place::new();
    place.put("config.json", config.to_string());
    place.put("tokenizer.json", TOKENIZER);
    place.put(
        "model.safetensors",
        safetensors_file(&filled(dtype), stored(dtype)),
    );
    place
}

/// A directory of a model with so many layers and a head of its own.
pub(crate) fn with_layers(layers: usize, dtype: DType) -> Place {
    let place = Place::new();
    let mut config = config();
    config["num_hidden_layers"] = layers.into();
    config["tie_word_embeddings"] = false.into();
    let mut all = tensors_of(layers);
    all.push(("lm_head.weight".into(), vec![VOCAB, HIDDEN]));
    place.put("config.json", config.to_string());
    place.put("tokenizer.json", TOKENIZER);
    let file = safetensors_file(&fill(all, dtype), stored(dtype));
    place.put("model.safetensors", file);
    place
}

/// The numbers that a quantised tensor stands for, or those of a plain one.
pub(crate) fn numbers(checkpoint: &Checkpoint, layer: &str, format: Option<Format>) -> Vec<f32> {
    let Some(format) = format else {
        return floats(checkpoint, &format!("{layer}.weight"));
    };
    let bytes = |plane: &str| {
        let tensor = checkpoint.tensor(&format!("{layer}.{plane}"));
        tensor.map_or(&[][..], |tensor| checkpoint.bytes(tensor))
    };
    let codes = checkpoint.tensor(&format!("{layer}.weight")).unwrap();
    let [rows, words] = codes.shape[..] else {
        panic!("{layer} is no matrix")
    };
    let k = words * 32 / format.bits();
    let mut values = vec![0.0; rows * k];
    let planes = [bytes("weight"), bytes("scales"), bytes("biases")];
    assert!(
        kiln_convert::dequantise(format, planes, k, &mut values),
        "{layer}"
    );
    values
}

/// The values of a tensor that is not quantised.
pub(crate) fn floats(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let tensor = checkpoint
        .tensor(name)
        .unwrap_or_else(|| panic!("{name} is not there"));
    let mut values = vec![0.0; tensor.elements()];
    assert!(dequantise(
        tensor.dtype,
        checkpoint.bytes(tensor),
        &mut values
    ));
    values
}
