//! Models without files: the shapes of known ones, with random weights that are always the same.

mod words;

use crate::exit::{Code, Refused};
use anyhow::Result;
use clap::ValueEnum;
use kiln::formats::{Checkpoint, File, Tensor, Type};
use kiln::{Config, DType, Format};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A model whose shape is known.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Size {
    /// SmolLM2-135M
    #[value(name = "135m")]
    Small,
    /// TinyLlama-1.1B
    #[value(name = "1.1b")]
    Middle,
    /// Mistral-7B
    #[value(name = "7b")]
    Large,
}

/// A model in memory.
pub(super) struct Made {
    pub(super) config: Config,
    pub(super) checkpoint: Checkpoint,
    pub(super) name: String,
    pub(super) parameters: u64,
}

/// What a tensor holds. Each kind has a block of bytes of its own, as if it were a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Weights,
    Scales,
    Biases,
    Norms,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Weights, Kind::Scales, Kind::Biases, Kind::Norms];

    /// Where random numbers start. A group's bias is made of the same ones as its scale, so that it
    /// fits it.
    fn seed(self) -> u64 {
        match self {
            Kind::Scales | Kind::Biases => 2,
            _ => 1,
        }
    }
}

impl Size {
    fn name(self) -> &'static str {
        match self {
            Size::Small => "135m",
            Size::Middle => "1.1b",
            Size::Large => "7b",
        }
    }

    /// The model's own `config.json`, as far as it matters.
    fn config(self) -> serde_json::Value {
        match self {
            Size::Small => serde_json::json!({
                "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
                "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
                "vocab_size": 49152, "max_position_embeddings": 8192, "rope_theta": 100000.0,
                "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
            }),
            Size::Middle => serde_json::json!({
                "model_type": "llama", "hidden_size": 2048, "intermediate_size": 5632,
                "num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 4,
                "vocab_size": 32000, "max_position_embeddings": 2048, "rope_theta": 10000.0,
                "rms_norm_eps": 1e-5, "tie_word_embeddings": false,
            }),
            Size::Large => serde_json::json!({
                "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336,
                "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
                "vocab_size": 32000, "max_position_embeddings": 32768, "rope_theta": 1000000.0,
                "rms_norm_eps": 1e-5, "tie_word_embeddings": false,
            }),
        }
    }
}

/// How weights are stored, from its name. `q4` is `q4g64-bf16`: bits, group, type of the scales.
pub(super) fn format(text: &str) -> Result<DType, String> {
    let mut name = text.to_owned();
    if text.starts_with('q') {
        let (codes, scales) = text.split_once('-').unwrap_or((text, "bf16"));
        let group = if codes.contains('g') { "" } else { "g64" };
        name = format!("{codes}{group}-{scales}");
    }
    let plain = [DType::F32, DType::F16, DType::BF16].into_iter();
    plain
        .chain(Format::all().into_iter().map(DType::Quantised))
        .find(|dtype| dtype.to_string() == name)
        .ok_or_else(|| {
            "expected f32, f16, bf16, mxfp4, mxfp8, nvfp4, or such as q4, q4g32 or q4g32-f16: 1 to \
             6 or 8 bits, a group of 32, 64 or 128, scales of f32, f16 or bf16"
                .into()
        })
}

/// Makes a model up. With `shared` tensors overlap, and only as much memory is taken as the largest
/// one needs: for devices that copy what they load. Otherwise every tensor has bytes of its own, so
/// that caches do not hold them all.
pub(super) fn make(size: Size, dtype: DType, shared: bool) -> Result<Made> {
    let mut config = size.config();
    if let DType::Quantised(format) = dtype {
        config["quantization"] = quantization(format);
    }
    let path = Path::new("synthetic").join("config.json");
    let config = Config::parse(&path, &config.to_string())?;
    let layers = layers(&config);
    let norms = norms(&config);
    let mut tensors = Vec::new();
    for (layer, rows, inputs) in &layers {
        tensors.extend(linear(layer, *rows, *inputs, dtype)?);
    }
    let compute = match dtype {
        DType::Quantised(format) => format.dequantised(),
        plain => plain,
    };
    for name in &norms {
        tensors.push(tensor(
            name,
            Kind::Norms,
            stored(compute),
            &[config.hidden],
        )?);
    }
    let mut files = Vec::new();
    for kind in Kind::ALL {
        let bytes = words::block(
            place(&mut tensors, kind, shared),
            words::pattern(kind, dtype, config.hidden),
            kind.seed(),
        )?;
        files.push(File::new("synthetic", Arc::new(bytes)));
    }
    let weights: usize = layers.iter().map(|(_, rows, inputs)| rows * inputs).sum();
    Ok(Made {
        checkpoint: Checkpoint::new(files, tensors, BTreeMap::new())?,
        name: format!("synthetic {}, {dtype}", size.name()),
        parameters: (weights + norms.len() * config.hidden) as u64,
        config,
    })
}

/// The entry of `config.json`.
fn quantization(format: Format) -> serde_json::Value {
    let mode = match format.has_biases() {
        true => "affine".into(),
        false => format.to_string(),
    };
    serde_json::json!({"mode": mode, "bits": format.bits(), "group_size": format.group()})
}

/// Names of the matrices, their rows and columns.
fn layers(config: &Config) -> Vec<(String, usize, usize)> {
    let (hidden, width, vocab) = (config.hidden, config.intermediate, config.vocab);
    let (heads, kv_heads) = (
        config.heads * config.head_dim,
        config.kv_heads * config.head_dim,
    );
    let mut layers = vec![("model.embed_tokens".to_owned(), vocab, hidden)];
    for layer in 0..config.layers {
        let block = [
            ("self_attn.q_proj", heads, hidden),
            ("self_attn.k_proj", kv_heads, hidden),
            ("self_attn.v_proj", kv_heads, hidden),
            ("self_attn.o_proj", hidden, heads),
            ("mlp.gate_proj", width, hidden),
            ("mlp.up_proj", width, hidden),
            ("mlp.down_proj", hidden, width),
        ];
        let named = block
            .map(|(name, rows, inputs)| (format!("model.layers.{layer}.{name}"), rows, inputs));
        layers.extend(named);
    }
    if config.tied == Some(false) {
        layers.push(("lm_head".to_owned(), vocab, hidden));
    }
    layers
}

fn norms(config: &Config) -> Vec<String> {
    let mut norms = vec!["model.norm.weight".to_owned()];
    for layer in 0..config.layers {
        for name in ["input_layernorm", "post_attention_layernorm"] {
            norms.push(format!("model.layers.{layer}.{name}.weight"));
        }
    }
    norms
}

/// The tensors of one matrix.
fn linear(layer: &str, rows: usize, inputs: usize, dtype: DType) -> Result<Vec<Tensor>> {
    let weight = format!("{layer}.weight");
    let DType::Quantised(format) = dtype else {
        let tensor = tensor(&weight, Kind::Weights, stored(dtype), &[rows, inputs])?;
        return Ok(vec![tensor]);
    };
    if !inputs.is_multiple_of(format.group()) {
        let message = format!(
            "groups of {} do not divide rows of {inputs}",
            format.group()
        );
        return Err(Refused::new(Code::Usage, message).into());
    }
    let scales = match format.has_biases() {
        true => stored(format.dequantised()),
        false => Type::U8,
    };
    let (words, groups) = (inputs * format.bits() / 32, inputs / format.group());
    let mut tensors = vec![
        tensor(&weight, Kind::Weights, Type::U32, &[rows, words])?,
        tensor(
            &format!("{layer}.scales"),
            Kind::Scales,
            scales,
            &[rows, groups],
        )?,
    ];
    if format.has_biases() {
        let name = format!("{layer}.biases");
        tensors.push(tensor(&name, Kind::Biases, scales, &[rows, groups])?);
    }
    Ok(tensors)
}

/// A tensor that has no place yet.
fn tensor(name: &str, kind: Kind, dtype: Type, shape: &[usize]) -> Result<Tensor> {
    let too_large = || Refused::new(Code::Limits, format!("{name} is too large"));
    Ok(Tensor {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
        strides: None,
        file: kind as usize,
        range: 0..dtype.bytes(shape).ok_or_else(too_large)?,
    })
}

/// Places the tensors of a kind one after the other; with `shared` from the start again where the
/// block of the largest one ends. Gives the size of the block.
fn place(tensors: &mut [Tensor], kind: Kind, shared: bool) -> usize {
    let lengths = tensors.iter().filter(|tensor| tensor.file == kind as usize);
    let lengths = lengths.map(|tensor| tensor.range.len());
    let room = match shared {
        true => lengths.max().unwrap_or(0),
        false => lengths.sum(),
    };
    let mut at = 0;
    for tensor in tensors
        .iter_mut()
        .filter(|tensor| tensor.file == kind as usize)
    {
        let bytes = tensor.range.len();
        if at + bytes > room {
            at = 0;
        }
        tensor.range = at..at + bytes;
        at += bytes;
    }
    room
}

fn stored(dtype: DType) -> Type {
    match dtype {
        DType::F16 => Type::F16,
        DType::BF16 => Type::BF16,
        _ => Type::F32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln::Model;

    #[test]
    fn formats_have_short_names() {
        let named = |text| format(text).map(|dtype| dtype.to_string());
        for (text, whole) in [
            ("f32", "f32"),
            ("bf16", "bf16"),
            ("q4", "q4g64-bf16"),
            ("q8g32", "q8g32-bf16"),
            ("q4-f16", "q4g64-f16"),
            ("q3g128-f32", "q3g128-f32"),
            ("mxfp4", "mxfp4"),
        ] {
            assert_eq!(named(text).as_deref(), Ok(whole));
        }
        for wrong in [
            "",
            "q",
            "q7",
            "q4g48",
            "q4-u8",
            "u32",
            "fp8",
            "Q4",
            "mxfp4-f16",
        ] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn models_have_as_many_parameters_as_those_they_stand_for() {
        let q4 = format("q4").unwrap();
        for (size, parameters) in [
            (Size::Small, 134_515_008),
            (Size::Middle, 1_100_048_384),
            (Size::Large, 7_241_732_096),
        ] {
            let made = make(size, q4, true).unwrap();
            assert_eq!(made.parameters, parameters);
            let bytes: usize = made.checkpoint.iter().map(|t| t.range.len()).sum();
            let held: usize = made
                .checkpoint
                .files()
                .iter()
                .map(|f| f.bytes().len())
                .sum();
            let norms = 2 * 4096 * 65;
            assert!(bytes.abs_diff(parameters as usize * 9 / 16) < norms);
            assert!(held < 100 << 20, "{held} bytes of memory");
        }
    }

    #[test]
    fn overlapping_tensors_do_not_change_the_shape_of_a_model() {
        let device = kiln::cpu(Default::default()).unwrap();
        for name in ["bf16", "q4", "mxfp8"] {
            let dtype = format(name).unwrap();
            let bytes = [true, false].map(|shared| {
                let made = make(Size::Small, dtype, shared).unwrap();
                let model = Model::new(made.config, &made.checkpoint, &device).unwrap();
                model.weight_bytes()
            });
            assert_eq!(bytes[0], bytes[1], "{name}");
        }
        let rows = make(Size::Small, format("q4g128").unwrap(), true)
            .err()
            .unwrap();
        assert!(rows.to_string().contains("rows of 576"), "{rows}");
    }
}
