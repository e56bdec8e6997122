//! Hugging Face directories.

use crate::made::*;
use kiln_convert::{Options, Quantise, inspect, quantise};
use kiln_formats::Type;
use kiln_plan::{DType, Format, Mode};
use serde_json::{Value, json};

fn quantised(mode: Mode, bits: Option<usize>, group: Option<usize>) -> Options {
    Options {
        quantise: Some(Quantise { mode, bits, group }),
        ..Options::default()
    }
}

#[test]
fn without_options_every_byte_is_kept() {
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        let place = hugging_face(&config(), dtype);
        let report = place.convert(&Options::default()).unwrap();
        let result = place.result();
        assert_eq!(result.len(), tensors().len());
        for (name, shape, bytes) in filled(dtype) {
            let tensor = result.tensor(&name).unwrap();
            assert_eq!(
                (tensor.dtype, &tensor.shape),
                (stored(dtype), &shape),
                "{name}"
            );
            assert_eq!(result.bytes(tensor), bytes, "{name}");
        }
        assert_eq!(report.bits_per_weight, 8.0 * dtype.bytes() as f64);
        assert!(report.notes.is_empty(), "{:?}", report.notes);
    }
}

#[test]
fn a_dtype_rounds_every_weight_once() {
    let place = hugging_face(&config(), DType::F32);
    place
        .convert(&Options {
            dtype: Some(DType::BF16),
            ..Options::default()
        })
        .unwrap();
    let result = place.result();
    for (name, shape) in tensors() {
        let tensor = result.tensor(&name).unwrap();
        let expected = encode(&values(&name, shape.iter().product()), DType::BF16);
        assert_eq!(tensor.dtype, Type::BF16);
        assert_eq!(result.bytes(tensor), expected, "{name}");
    }
    assert_eq!(place.result_config()["torch_dtype"], "bfloat16");
}

#[test]
fn the_dtype_of_the_configuration_counts_in_both_spellings() {
    for key in ["torch_dtype", "dtype"] {
        let mut config = config();
        config[key] = "float16".into();
        let place = hugging_face(&config, DType::F32);
        let report = place.convert(&Options::default()).unwrap();
        assert_eq!(
            place.result().tensor("model.norm.weight").unwrap().dtype,
            Type::F16
        );
        assert_eq!(report.notes, ["20 tensors of type F32 rounded to float16"]);
        assert_eq!(place.result_config()["torch_dtype"], "float16");
    }
}

/// Checks every tensor of the result against the quantiser applied to the rounded values.
fn check_quantised(place: &Place, format: Format, dtype: DType) {
    let result = place.result();
    for (name, shape) in tensors() {
        let mut values = values(&name, shape.iter().product());
        values
            .iter_mut()
            .for_each(|value| *value = dtype.round(*value));
        let tensor = result.tensor(&name).unwrap();
        if shape.len() == 1 {
            assert_eq!(result.bytes(tensor), encode(&values, dtype), "{name}");
            continue;
        }
        let expected = quantise(&values, shape[1], format, dtype).unwrap();
        let layer = name.strip_suffix(".weight").unwrap();
        assert_eq!(tensor.dtype, Type::U32);
        assert_eq!(tensor.shape, [shape[0], shape[1] * format.bits() / 32]);
        assert_eq!(result.bytes(tensor), expected.codes, "{name}");
        let scales = result.tensor(&format!("{layer}.scales")).unwrap();
        assert_eq!(scales.shape, [shape[0], shape[1] / format.group()]);
        assert_eq!(result.bytes(scales), expected.scales, "{name}");
        let biases = result.tensor(&format!("{layer}.biases"));
        assert_eq!(biases.is_some(), format.has_biases());
        if let Some(biases) = biases {
            assert_eq!((biases.dtype, &biases.shape), (scales.dtype, &scales.shape));
            assert_eq!(result.bytes(biases), expected.biases, "{name}");
        }
    }
}

#[test]
fn every_affine_format_is_written() {
    for bits in [1, 2, 3, 4, 5, 6, 8] {
        for group in [32, 64] {
            let place = hugging_face(&config(), DType::BF16);
            place
                .convert(&quantised(Mode::Affine, Some(bits), Some(group)))
                .unwrap();
            check_quantised(
                &place,
                Format::affine(bits, group, DType::BF16).unwrap(),
                DType::BF16,
            );
            let expected = json!({"group_size": group, "bits": bits, "mode": "affine"});
            assert_eq!(place.result_config()["quantization"], expected);
            assert_eq!(place.result_config()["quantization_config"], expected);
        }
    }
}

#[test]
fn every_fp_mode_is_written() {
    let modes = [
        (
            Mode::Mxfp4,
            Format::MXFP4,
            json!({"group_size": 32, "bits": 4, "mode": "mxfp4"}),
        ),
        (
            Mode::Mxfp8,
            Format::MXFP8,
            json!({"group_size": 32, "bits": 8, "mode": "mxfp8"}),
        ),
        (
            Mode::Nvfp4,
            Format::NVFP4,
            json!({"group_size": 16, "bits": 4, "mode": "nvfp4"}),
        ),
    ];
    for (mode, format, expected) in modes {
        let place = hugging_face(&config(), DType::F32);
        let options = Options {
            dtype: Some(DType::F16),
            ..quantised(mode, None, None)
        };
        place.convert(&options).unwrap();
        check_quantised(&place, format, DType::F16);
        assert_eq!(place.result_config()["quantization"], expected);
    }
}

#[test]
fn the_defaults_are_affine_4_bits_in_groups_of_64() {
    let place = hugging_face(&config(), DType::F16);
    let report = place.convert(&quantised(Mode::Affine, None, None)).unwrap();
    check_quantised(
        &place,
        Format::affine(4, 64, DType::F16).unwrap(),
        DType::F16,
    );
    // 4 bits, and a scale and a bias of 16 bits per 64 weights; norms have 16 bits.
    let (matrices, norms) = (VOCAB * HIDDEN + LAYERS * 36_864, 5 * HIDDEN);
    let bits = 4.5 * matrices as f64 + 16.0 * norms as f64;
    assert_eq!(report.parameters, (matrices + norms) as u64);
    assert_eq!(report.bits_per_weight, bits / (matrices + norms) as f64);
    let summary = inspect(&place.destination(), &open).unwrap();
    assert_eq!(summary.parameters, report.parameters);
    assert_eq!(summary.bits_per_weight, report.bits_per_weight);
    assert_eq!(summary.tensors.len(), report.tensors);
    assert_eq!(summary.architecture.as_deref(), Some("LlamaForCausalLM"));
    assert!(summary.quantisation.unwrap().contains(r#""bits":4"#));
}

#[test]
fn shards_are_merged() {
    let place = hugging_face(&config(), DType::F16);
    std::fs::remove_file(place.source().join("model.safetensors")).unwrap();
    let all = filled(DType::F16);
    let (one, two) = all.split_at(7);
    place.put(
        "model-00001-of-00002.safetensors",
        safetensors_file(one, Type::F16),
    );
    place.put(
        "model-00002-of-00002.safetensors",
        safetensors_file(two, Type::F16),
    );
    place.convert(&Options::default()).unwrap();
    let result = place.result();
    assert!(
        all.iter()
            .all(|(name, _, bytes)| result.bytes(result.tensor(name).unwrap()) == bytes)
    );
}

/// A directory with a head of these bytes, and what the configuration says of it.
fn with_head(tied: Value, head: Option<&str>) -> Place {
    let mut config = config();
    config["tie_word_embeddings"] = tied;
    let place = hugging_face(&config, DType::F16);
    let mut all = filled(DType::F16);
    if let Some(seed) = head {
        let bytes = encode(&values(seed, VOCAB * HIDDEN), DType::F16);
        all.push(("lm_head.weight".into(), vec![VOCAB, HIDDEN], bytes));
    }
    place.put("model.safetensors", safetensors_file(&all, Type::F16));
    place
}

#[test]
fn bytes_decide_whether_the_head_is_tied() {
    let same = Some("model.embed_tokens.weight");
    let cases = [
        (json!(true), None, true, 0),
        (json!(null), None, true, 0),
        (json!(true), same, true, 1),
        (json!(false), same, true, 1),
        (json!(false), Some("other"), false, 0),
        (json!(null), Some("other"), false, 0),
        (json!(true), Some("other"), false, 1),
    ];
    for (said, head, tied, notes) in cases {
        let place = with_head(said.clone(), head);
        let report = place.convert(&quantised(Mode::Affine, None, None)).unwrap();
        assert_eq!(
            place.result_config()["tie_word_embeddings"],
            json!(tied),
            "{said} {head:?}"
        );
        for part in ["weight", "scales", "biases"] {
            let name = format!("lm_head.{part}");
            assert_eq!(
                place.result().tensor(&name).is_none(),
                tied,
                "{said} {head:?}"
            );
        }
        assert_eq!(report.notes.len(), notes, "{:?}", report.notes);
    }
    let missing = with_head(json!(false), None).refused(&Options::default());
    assert!(
        missing.ends_with(r#""lm_head.weight": expected this tensor, shape [96, 64], found none"#)
    );
}

#[test]
fn both_spellings_of_the_rope_settings_are_written() {
    let mut config = config();
    config.as_object_mut().unwrap().remove("rope_theta");
    config["rope_parameters"] = json!({"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0});
    let place = hugging_face(&config, DType::F16);
    place.convert(&Options::default()).unwrap();
    let written = place.result_config();
    assert_eq!(written["rope_theta"], 5e5);
    assert_eq!(
        written["rope_scaling"],
        json!({"rope_type": "llama3", "factor": 8.0})
    );
    assert_eq!(written["rope_parameters"], config["rope_parameters"]);
}

#[test]
fn biases_of_linear_layers_stay_floats() {
    let mut config = config();
    config["mlp_bias"] = true.into();
    let place = hugging_face(&config, DType::F16);
    let mut all = filled(DType::F16);
    for layer in 0..LAYERS {
        for (part, size) in [
            ("gate_proj", INTERMEDIATE),
            ("up_proj", INTERMEDIATE),
            ("down_proj", HIDDEN),
        ] {
            let name = format!("model.layers.{layer}.mlp.{part}.bias");
            let bytes = encode(&values(&name, size), DType::F16);
            all.push((name, vec![size], bytes));
        }
    }
    place.put("model.safetensors", safetensors_file(&all, Type::F16));
    place.convert(&quantised(Mode::Affine, None, None)).unwrap();
    let name = "model.layers.1.mlp.up_proj.bias";
    assert_eq!(floats(&place.result(), name).len(), INTERMEDIATE);
    assert!(
        place
            .result()
            .tensor("model.layers.1.mlp.up_proj.biases")
            .is_some()
    );
}
