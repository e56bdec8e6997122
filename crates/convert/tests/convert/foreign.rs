//! Layers that other programs have quantised: GPTQ, AWQ, FP8.

use crate::made::{Place, floats, open};
use half::{bf16, f16};
use kiln_convert::Options;
use kiln_formats::{Checkpoint, Type, safetensors};
use kiln_plan::{DType, Format};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/packed")
        .join(name)
}

/// A copy of a golden checkpoint.
fn place(name: &str) -> Place {
    let place = Place::new();
    for file in ["config.json", "model.safetensors"] {
        place.put(file, std::fs::read(golden(name).join(file)).unwrap());
    }
    place
}

/// The weights that the layers stand for.
fn expected(name: &str) -> Checkpoint {
    let path = golden(name).join("expected.safetensors");
    let file = kiln_formats::File::open(&path, &open).unwrap();
    safetensors::read(vec![file]).unwrap()
}

/// What codes, scales and biases stand for, without any rounding.
fn exact(checkpoint: &Checkpoint, layer: &str, format: Format, k: usize) -> Vec<f64> {
    let plane = |plane: &str| {
        let tensor = checkpoint.tensor(&format!("{layer}.{plane}")).unwrap();
        checkpoint.bytes(tensor)
    };
    let [codes, scales, biases] = ["weight", "scales", "biases"].map(plane);
    let rows = codes.len() / format.code_row(k);
    let mut values = Vec::new();
    for row in 0..rows {
        let codes = &codes[row * format.code_row(k)..];
        for i in 0..k {
            let group = row * k / format.group() + i / format.group();
            let number = |plane| f64::from(format.scale(plane, group));
            let code = f64::from(format.code(codes, i));
            values.push(number(scales) * code + number(biases));
        }
    }
    values
}

#[test]
fn codes_are_kept_and_stand_for_the_same_numbers() {
    for (name, group, dtype) in [
        ("gptq", 32, DType::F16),
        ("gptq_v2", 64, DType::F32),
        ("gptq_rows", 64, DType::F16),
        ("awq", 32, DType::F32),
    ] {
        // The rows of one layer are longer: where all of one have a scale, it is repeated.
        let group = if name == "gptq_rows" { 32 } else { group };
        let place = place(name);
        let report = place.convert(&Options::default()).unwrap();
        assert!(
            report.notes.iter().all(|note| !note.contains("round")),
            "{:?}",
            report.notes
        );
        let result = place.result();
        let config = place.result_config();
        assert_eq!(
            config["quantization"],
            json!({"group_size": group, "bits": 4})
        );
        let format = Format::affine(4, group, dtype).unwrap();
        let mut layers = 0;
        for tensor in &expected(name) {
            let layer = tensor.name.strip_suffix(".weight").unwrap();
            let wanted = floats(&expected(name), &tensor.name);
            let values = exact(&result, layer, format, tensor.shape[1]);
            let wanted: Vec<f64> = wanted.into_iter().map(f64::from).collect();
            assert_eq!(values, wanted, "{name}: {layer}");
            layers += 1;
        }
        assert_eq!(layers, 7);
        assert_eq!(result.len(), 7 * 3 + 4);
    }
}

#[test]
fn dequantised_weights_are_rounded_once() {
    for name in ["gptq", "gptq_v2", "gptq_rows", "awq"] {
        let place = place(name);
        let options = Options {
            dequantise: true,
            ..Options::default()
        };
        place.convert(&options).unwrap();
        let result = place.result();
        assert!(place.result_config().get("quantization").is_none());
        for tensor in &expected(name) {
            let found = result.tensor(&tensor.name).unwrap();
            assert_eq!(found.dtype, Type::F16);
            let wanted = floats(&expected(name), &tensor.name);
            let wanted: Vec<f32> = wanted.iter().map(|&x| f16::from_f32(x).to_f32()).collect();
            assert_eq!(
                floats(&result, &tensor.name),
                wanted,
                "{name}: {}",
                tensor.name
            );
        }
    }
}

#[test]
fn fp8_becomes_bf16() {
    for name in ["fp8", "fp8_tensor"] {
        let place = place(name);
        place.convert(&Options::default()).unwrap();
        let (result, wanted) = (place.result(), expected(name));
        assert!(place.result_config().get("quantization_config").is_none());
        assert_eq!(result.len(), 7 + 4);
        for tensor in &wanted {
            let found = result.tensor(&tensor.name).unwrap();
            assert_eq!(found.dtype, Type::BF16);
            let bits = |bytes: &[u8]| -> Vec<u16> {
                let words = bytes.as_chunks::<2>().0.iter();
                // Zero has two signs.
                words
                    .map(|word| bf16::from_le_bytes(*word).to_bits())
                    .collect()
            };
            let (found, wanted) = (result.bytes(found), wanted.bytes(tensor));
            assert_eq!(bits(found), bits(wanted), "{name}: {}", tensor.name);
        }
    }
}

/// Changes a checkpoint's header and data, and its configuration.
fn change(place: &Place, with: impl FnOnce(&mut Value, &mut Vec<u8>)) {
    let path = place.source().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let mut data = bytes[8 + length..].to_vec();
    with(&mut header, &mut data);
    let text = header.to_string();
    let start = (text.len() as u64).to_le_bytes();
    place.put(
        "model.safetensors",
        [&start[..], text.as_bytes(), &data].concat(),
    );
}

fn settings(place: &Place, key: &str, value: Value) {
    let mut config = crate::made::json_of(&place.source().join("config.json"));
    config["quantization_config"][key] = value;
    place.put("config.json", config.to_string());
}

const LAYER: &str = "model.layers.0.mlp.up_proj";

fn start(header: &Value, plane: &str) -> usize {
    header[format!("{LAYER}.{plane}")]["data_offsets"][0]
        .as_u64()
        .unwrap() as usize
}

#[test]
fn inputs_in_another_order_are_refused() {
    let place = place("gptq");
    settings(&place, "desc_act", json!(true));
    // The order is what the file says: these are still in order.
    place.plan(&Options::default()).unwrap();
    change(&place, |header, data| data[start(header, "g_idx")] = 1);
    let told = place.refused(&Options::default());
    assert!(
        told.contains(&format!("{LAYER}.g_idx")) && told.contains("desc_act"),
        "{told}"
    );
}

#[test]
fn a_zero_that_programs_read_differently_is_refused() {
    let place = place("gptq");
    change(&place, |header, data| data[start(header, "qzeros")] |= 15);
    let told = place.refused(&Options::default());
    assert!(
        told.contains(&format!("{LAYER}.qzeros")) && told.contains("zero point of 16"),
        "{told}"
    );
    // In the second version it is what it is.
    settings(&place, "checkpoint_format", json!("gptq_v2"));
    place.plan(&Options::default()).unwrap();
}

#[test]
fn settings_of_another_kind_are_refused_by_name() {
    for (name, key, value) in [
        ("gptq", "bits", json!(3)),
        ("gptq", "group_size", json!(16)),
        ("gptq", "group_size", json!("32")),
        ("gptq", "checkpoint_format", json!("marlin")),
        ("awq", "version", json!("gemv")),
        ("awq", "zero_point", json!(false)),
        ("awq", "bits", json!(8)),
        ("fp8", "fmt", json!("e5m2")),
        ("fp8", "weight_block_size", json!([0, 32])),
        ("fp8", "weight_block_size", json!(32)),
    ] {
        let place = place(name);
        settings(&place, key, value.clone());
        let told = place.refused(&Options::default());
        assert!(
            told.contains(&format!("quantization_config.{key}")),
            "{value}: {told}"
        );
    }
    for method in [
        "compressed-tensors",
        "bitsandbytes",
        "mxfp4",
        "quark",
        "auto-round",
        "hqq",
    ] {
        let place = place("awq");
        settings(&place, "quant_method", json!(method));
        let told = place.refused(&Options::default());
        assert!(told.contains(&format!("method {method:?}")), "{told}");
    }
}

#[test]
fn parts_that_are_missing_or_do_not_fit_are_named() {
    for (name, plane) in [
        ("gptq", "qzeros"),
        ("gptq", "scales"),
        ("awq", "qzeros"),
        ("fp8", "weight_scale_inv"),
        ("fp8_tensor", "weight_scale"),
    ] {
        let tensor = format!("{LAYER}.{plane}");
        let missing = place(name);
        change(&missing, |header, data| {
            // What lies there belongs to a tensor of no use.
            let entry = header.as_object_mut().unwrap().remove(&tensor).unwrap();
            header["model.layers.0.self_attn.rotary_emb.inv_freq"] = entry;
            assert!(!data.is_empty());
        });
        let told = missing.refused(&Options::default());
        // Of FP8 the first of two names is asked for.
        let fp8 = plane.starts_with("weight");
        let layer = if fp8 { LAYER } else { &tensor };
        assert!(
            told.contains(layer) && told.contains("found none"),
            "{told}"
        );
        let other = place(name);
        change(&other, |header, _| {
            let shape = &mut header[&tensor]["shape"];
            let size: u64 = shape
                .as_array()
                .unwrap()
                .iter()
                .map(|n| n.as_u64().unwrap())
                .product();
            *shape = json!([size, 1, 1]);
        });
        if name == "fp8_tensor" {
            // One number is one number in any shape.
            other.plan(&Options::default()).unwrap();
            continue;
        }
        let told = other.refused(&Options::default());
        assert!(told.contains(&tensor), "{told}");
    }
}

#[test]
fn a_layer_that_is_there_twice_is_refused() {
    let place = place("awq");
    change(&place, |header, data| {
        let end = data.len();
        data.extend([0; 2]);
        header[format!("{LAYER}.weight")] =
            json!({"dtype": "F16", "shape": [1], "data_offsets": [end, end + 2]});
    });
    let told = place.refused(&Options::default());
    assert!(
        told.contains(LAYER) && told.contains("codes (qweight) and weights"),
        "{told}"
    );
}

#[test]
fn a_bias_is_left_out_if_it_is_0() {
    for (byte, kept) in [(0, true), (1, false)] {
        let place = place("gptq");
        change(&place, |header, data| {
            let end = data.len();
            data.extend([byte; 2 * 128]);
            header[format!("{LAYER}.bias")] =
                json!({"dtype": "F16", "shape": [128], "data_offsets": [end, end + 256]});
        });
        if kept {
            let report = place.convert(&Options::default()).unwrap();
            let note = "1 tensor of biases that are 0 left out";
            assert!(
                report.notes.iter().any(|found| found == note),
                "{:?}",
                report.notes
            );
        } else {
            let told = place.refused(&Options::default());
            assert!(told.contains(&format!("{LAYER}.bias")), "{told}");
        }
    }
}

#[test]
fn a_configuration_that_names_codes_which_are_not_there_is_refused() {
    let place = place("fp8");
    let settings = json!({"quant_method": "gptq", "bits": 4, "group_size": 32});
    let mut config = crate::made::json_of(&place.source().join("config.json"));
    config["quantization_config"] = settings;
    place.put("config.json", config.to_string());
    let told = place.refused(&Options::default());
    assert!(told.contains("qweight"), "{told}");
}
