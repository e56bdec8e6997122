//! GGUF files.

use crate::made::*;
use half::f16;
use kiln_convert::{Options, Quantise, inspect, quantise};
use kiln_formats::gguf::dequantise;
use kiln_formats::{BlockType, Checkpoint, Type};
use kiln_plan::{DType, Format, Mode};
use serde_json::json;
use std::path::PathBuf;

/// A GGUF file under construction.
#[derive(Default)]
pub(crate) struct File {
    metadata: Vec<u8>,
    entries: u64,
    descriptions: Vec<u8>,
    tensors: u64,
    data: Vec<u8>,
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

impl File {
    pub(crate) fn entry(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.metadata.extend(string(key));
        self.metadata.extend(kind.to_le_bytes());
        self.metadata.extend(value);
        self.entries += 1;
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.entry(key, 8, &string(value));
    }

    pub(crate) fn count(&mut self, key: &str, value: u32) {
        self.entry(key, 4, &value.to_le_bytes());
    }

    fn float(&mut self, key: &str, value: f32) {
        self.entry(key, 6, &value.to_le_bytes());
    }

    fn tensor(&mut self, name: &str, shape: &[usize], number: u32, bytes: &[u8]) {
        self.descriptions.extend(string(name));
        self.descriptions.extend((shape.len() as u32).to_le_bytes());
        for &size in shape.iter().rev() {
            self.descriptions.extend((size as u64).to_le_bytes());
        }
        self.descriptions.extend(number.to_le_bytes());
        self.descriptions
            .extend((self.data.len() as u64).to_le_bytes());
        self.tensors += 1;
        self.data.extend(bytes);
        self.data.resize(self.data.len().next_multiple_of(32), 0);
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(self.tensors.to_le_bytes());
        bytes.extend(self.entries.to_le_bytes());
        bytes.extend(&self.metadata);
        bytes.extend(&self.descriptions);
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(&self.data);
        bytes
    }
}

/// GGUF's name of a tensor.
fn name(ours: &str) -> String {
    let pairs = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("model.layers.", "blk."),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    ];
    pairs
        .iter()
        .fold(ours.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// The type of each matrix: all of the readable ones occur.
fn kind(name: &str) -> (u32, Type) {
    match name {
        "model.embed_tokens.weight" => (8, Type::Gguf(BlockType::Q8_0)),
        _ if name.contains("q_proj") => (2, Type::Gguf(BlockType::Q4_0)),
        _ if name.contains("up_proj") => (1, Type::F16),
        _ if name.contains("norm") => (0, Type::F32),
        _ => (3, Type::Gguf(BlockType::Q4_1)),
    }
}

/// The bytes of a tensor in the file: for blocks anything, with sensible scales.
fn data(name: &str, shape: &[usize]) -> Vec<u8> {
    let (_, dtype) = kind(name);
    let count: usize = shape.iter().product();
    let numbers = values(name, count);
    match dtype {
        Type::F32 => encode(&numbers, DType::F32),
        Type::F16 => encode(&numbers, DType::F16),
        _ => {
            let size = dtype.block_bytes();
            let bytes = numbers.iter().map(|value| (value * 127.0) as i8 as u8);
            let mut bytes: Vec<u8> = bytes.cycle().take(count / 32 * size).collect();
            for (i, block) in bytes.chunks_mut(size).enumerate() {
                let d = f16::from_f32(0.01 + 0.001 * (i % 7) as f32);
                block[..2].copy_from_slice(&d.to_le_bytes());
                if dtype == Type::Gguf(BlockType::Q4_1) {
                    block[2..4].copy_from_slice(&f16::from_f32(-0.1).to_le_bytes());
                }
            }
            bytes
        }
    }
}

fn metadata() -> File {
    metadata_of(LAYERS as u32)
}

pub(crate) fn metadata_of(layers: u32) -> File {
    let mut file = File::default();
    file.text("general.architecture", "llama");
    file.count("llama.block_count", layers);
    file.count("llama.context_length", 256);
    file.count("llama.embedding_length", HIDDEN as u32);
    file.count("llama.feed_forward_length", INTERMEDIATE as u32);
    file.count("llama.attention.head_count", HEADS as u32);
    file.count("llama.attention.head_count_kv", KV_HEADS as u32);
    file.float("llama.attention.layer_norm_rms_epsilon", 1e-5);
    file.float("llama.rope.freq_base", 50_000.0);
    file.count("tokenizer.ggml.eos_token_id", 2);
    file.count("tokenizer.ggml.eot_token_id", 5);
    file
}

fn add_tensors(file: &mut File) {
    for (ours, shape) in tensors() {
        file.tensor(&name(&ours), &shape, kind(&ours).0, &data(&ours, &shape));
    }
}

/// A place with such a file, changed by `change`.
pub(crate) fn place(change: impl FnOnce(&mut File)) -> (Place, PathBuf) {
    let mut file = metadata();
    add_tensors(&mut file);
    change(&mut file);
    let place = Place::new();
    place.put("model.gguf", file.bytes());
    let path = place.source().join("model.gguf");
    (place, path)
}

/// What a file changed by `change` is refused for; nothing is left behind.
pub(crate) fn refused(change: impl FnOnce(&mut File)) -> String {
    let (place, path) = place(change);
    let error = place.convert_from(&path, &Options::default()).unwrap_err();
    assert_eq!(place.names(), ["source"]);
    error.to_string()
}

/// The model's values, computed another way: rows of q and k go from pairs to halves.
fn expected(ours: &str, shape: &[usize]) -> Vec<f32> {
    let mut values = vec![0.0; shape.iter().product()];
    assert!(dequantise(kind(ours).1, &data(ours, shape), &mut values));
    if !ours.contains("q_proj") && !ours.contains("k_proj") {
        return values;
    }
    let k = shape[1];
    let mut ordered = vec![0.0; values.len()];
    for (row, values) in values.chunks(k).enumerate() {
        let (head, inside) = (row / HEAD_DIM, row % HEAD_DIM);
        let to = head * HEAD_DIM + inside % 2 * (HEAD_DIM / 2) + inside / 2;
        ordered[to * k..(to + 1) * k].copy_from_slice(values);
    }
    ordered
}

/// The values of an affine tensor with f16 scales.
fn affine(result: &Checkpoint, layer: &str, bits: usize, k: usize) -> Vec<f32> {
    let part = |part: &str| {
        let tensor = result.tensor(&format!("{layer}.{part}")).unwrap();
        result.bytes(tensor)
    };
    let format = Format::affine(bits, 32, DType::F16).unwrap();
    let rows = part("weight").len() / format.code_row(k);
    let mut values = vec![0.0; rows * k];
    for (row, values) in values.chunks_mut(k).enumerate() {
        let of = |bytes: &'static str, size: usize| &part(bytes)[row * size..(row + 1) * size];
        let (codes, scales) = (
            of("weight", format.code_row(k)),
            of("scales", format.scale_row(k)),
        );
        format.dequantise(codes, scales, of("biases", format.scale_row(k)), 0, values);
    }
    values
}

#[test]
fn blocks_are_kept_exactly_and_each_layer_says_how() {
    let (place, path) = place(|_| {});
    let report = place.convert_from(&path, &Options::default()).unwrap();
    let result = place.result();
    for (ours, shape) in tensors() {
        let layer = ours.strip_suffix(".weight").unwrap();
        let expected = expected(&ours, &shape);
        let found = match kind(&ours).1 {
            Type::Gguf(BlockType::Q8_0) => affine(&result, layer, 8, shape[1]),
            Type::Gguf(_) => affine(&result, layer, 4, shape[1]),
            _ => {
                assert_eq!(result.tensor(&ours).unwrap().dtype, Type::F16);
                let round = |value: &f32| DType::F16.round(*value);
                assert_eq!(
                    floats(&result, &ours),
                    expected.iter().map(round).collect::<Vec<_>>()
                );
                continue;
            }
        };
        assert_eq!(found, expected, "{ours}");
    }
    let config = place.result_config();
    let expected = json!({
        "group_size": 32, "bits": 4, "mode": "affine",
        "model.embed_tokens": {"group_size": 32, "bits": 8, "mode": "affine"},
    });
    assert_eq!(config["quantization"], expected);
    assert_eq!(config["tie_word_embeddings"], true);
    assert_eq!(report.formats["q4g32-f16"], 12);
    assert_eq!(report.notes[1], "5 tensors of type F32 rounded to float16");
    let summary = inspect(&path, &open).unwrap();
    assert_eq!(summary.parameters, report.parameters);
    let blocks = "Q4_0 (2 tensors), Q4_1 (10 tensors), Q8_0 (1 tensors)";
    assert_eq!(summary.quantisation.as_deref(), Some(blocks));
}

#[test]
fn a_dtype_dequantises_and_rounds_once() {
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        let (place, path) = place(|_| {});
        let options = Options {
            dtype: Some(dtype),
            ..Options::default()
        };
        place.convert_from(&path, &options).unwrap();
        let result = place.result();
        for (ours, shape) in tensors() {
            let tensor = result.tensor(&ours).unwrap();
            let expected = encode(&expected(&ours, &shape), dtype);
            assert_eq!(tensor.dtype, stored(dtype));
            assert_eq!(result.bytes(tensor), expected, "{ours}");
        }
        assert!(place.result_config().get("quantization").is_none());
    }
}

#[test]
fn quantising_starts_from_float16() {
    let (place, path) = place(|_| {});
    let quantisation = Quantise {
        mode: Mode::Affine,
        bits: None,
        group: None,
    };
    let options = Options {
        quantise: Some(quantisation),
        ..Options::default()
    };
    place.convert_from(&path, &options).unwrap();
    let result = place.result();
    let format = Format::affine(4, 64, DType::F16).unwrap();
    for (ours, shape) in tensors().into_iter().filter(|(_, shape)| shape.len() == 2) {
        let mut values = expected(&ours, &shape);
        values
            .iter_mut()
            .for_each(|value| *value = DType::F16.round(*value));
        let expected = quantise(&values, shape[1], format, DType::F16).unwrap();
        assert_eq!(
            result.bytes(result.tensor(&ours).unwrap()),
            expected.codes,
            "{ours}"
        );
    }
}

#[test]
fn the_configuration_follows_from_the_metadata() {
    let (place, path) = place(|_| {});
    place.convert_from(&path, &Options::default()).unwrap();
    let config = place.result_config();
    let expected = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM,
        "vocab_size": VOCAB, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
        "rope_theta": 5e4, "rope_scaling": null, "eos_token_id": [2, 5],
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e4},
        "attention_bias": false, "mlp_bias": false, "torch_dtype": "float16",
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&config[key], value, "{key}");
    }
    let generation = json_of(&place.destination().join("generation_config.json"));
    assert_eq!(generation, json!({"eos_token_id": [2, 5]}));
}

#[test]
fn rope_settings_are_carried_over_or_refused() {
    let (place, path) = place(|file| {
        file.text("llama.rope.scaling.type", "yarn");
        file.float("llama.rope.scaling.factor", 4.0);
        file.count("llama.rope.scaling.original_context_length", 64);
    });
    place.convert_from(&path, &Options::default()).unwrap();
    let config = place.result_config();
    let yarn = json!({
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64,
    });
    assert_eq!(config["rope_scaling"], yarn);
    assert_eq!(config["rope_parameters"]["rope_theta"], 5e4);
    let message = refused(|file| file.text("llama.rope.scaling.type", "longrope"));
    assert!(message.contains(r#"rope scaling "longrope""#), "{message}");
}

#[test]
fn llama_3_factors_are_recognised_and_others_refused() {
    // 16 elements per head and a base of 50000: wavelengths from 6.28 to 81,000.
    let ramp = |pair: i32| {
        let turns = 8192.0 / (std::f64::consts::TAU * 5e4f64.powf(f64::from(pair) / 8.0));
        let ramp = ((turns - 1.0) / 3.0).clamp(0.0, 1.0);
        (1.0 / ((1.0 - ramp) / 8.0 + ramp)) as f32
    };
    let mut factors: Vec<f32> = (0..8).map(ramp).collect();
    assert!(factors[0] == 1.0 && factors[7] == 8.0 && factors.iter().any(|f| *f > 1.0 && *f < 8.0));
    let (place, path) = place(|file| {
        file.tensor("rope_freqs.weight", &[8], 0, &encode(&factors, DType::F32));
    });
    place.convert_from(&path, &Options::default()).unwrap();
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    assert_eq!(place.result_config()["rope_scaling"], llama3);
    factors[0] = 1.1;
    let message = refused(|file| {
        file.tensor("rope_freqs.weight", &[8], 0, &encode(&factors, DType::F32));
    });
    assert!(
        message.contains("a set of rope factors other than Llama 3's"),
        "{message}"
    );
}

#[test]
fn what_could_change_the_model_is_refused() {
    let message = refused(|file| file.float("llama.logit_scale", 2.0));
    assert!(message.contains(r#""llama.logit_scale": this metadata (2) is not supported"#));
    let message = refused(|file| file.count("llama.expert_count", 8));
    assert!(
        message.contains("a mixture of experts is not supported"),
        "{message}"
    );
    let message = refused(|file| file.count("llama.rope.dimension_count", 8));
    assert!(
        message.contains("a size other than that of a head, 16,"),
        "{message}"
    );
    let message = refused(|file| file.tensor("blk.0.extra.weight", &[1], 0, &[0; 4]));
    assert!(
        message.contains("found 1 tensor besides: blk.0.extra.weight"),
        "{message}"
    );
    let message = refused(|file| {
        *file = File::default();
        file.text("general.architecture", "qwen2");
    });
    assert!(
        message.contains(r#"architecture "qwen2" (llama is) is not supported"#),
        "{message}"
    );
}

#[test]
fn a_block_type_that_is_not_readable_names_the_tensor() {
    let message = refused(|file| {
        *file = metadata();
        file.tensor(
            "token_embd.weight",
            &[VOCAB, HIDDEN],
            20,
            &vec![0; VOCAB * HIDDEN / 32 * 18],
        );
        let rest = tensors().into_iter().skip(1);
        for (ours, shape) in rest {
            file.tensor(&name(&ours), &shape, kind(&ours).0, &data(&ours, &shape));
        }
    });
    assert!(
        message.ends_with(r#""token_embd.weight": type IQ4_NL is not supported"#),
        "{message}"
    );
}
