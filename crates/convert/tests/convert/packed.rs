//! Directories that MLX's quantisation has been applied to, as a source.

use crate::forms::logits;
use crate::made::*;
use crate::rules::{affine, format, rules};
use kiln_convert::{Options, Planned, Quantise, Recipe, Rule, quantise};
use kiln_formats::safetensors::{Declared, Writer};
use kiln_formats::{Checkpoint, Tensor, Type};
use kiln_plan::{DType, Format, Mode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// A quantised directory made from a model of two layers: its source, itself as a source, and what
/// it holds.
pub(crate) fn packed(options: &Options, dtype: DType) -> (Place, Vec<Planned>) {
    let original = with_layers(2, dtype);
    original.convert(options).unwrap();
    let planned = original.plan(options).unwrap().tensors();
    let place = Place::new();
    for entry in original.destination().read_dir().unwrap() {
        let entry = entry.unwrap();
        place.put(
            entry.file_name().to_str().unwrap(),
            std::fs::read(entry.path()).unwrap(),
        );
    }
    (place, planned)
}

/// Formats of every kind, and layers that are not quantised.
pub(crate) fn mixed() -> Options {
    Options {
        rules: rules(&[
            "lm_head=float",
            "layers.0.*.{v,k}_proj=mxfp8",
            "*.o_proj=nvfp4",
            "*.up_proj=3g32",
        ]),
        recipe: Recipe::named("mixed_2_6"),
        ..Options::default()
    }
}

fn source(place: &Place) -> Checkpoint {
    kiln_formats::safetensors::open(&place.source(), &open).unwrap()
}

fn same_tensors(a: &Checkpoint, b: &Checkpoint) {
    assert_eq!(a.len(), b.len());
    for tensor in a {
        let other = b.tensor(&tensor.name).unwrap();
        assert_eq!(
            (tensor.dtype, &tensor.shape),
            (other.dtype, &other.shape),
            "{}",
            tensor.name
        );
        assert_eq!(a.bytes(tensor), b.bytes(other), "{}", tensor.name);
    }
}

#[test]
fn what_is_quantised_stays_as_it_is() {
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        let (place, _) = packed(&mixed(), dtype);
        // A configuration that says something else of the dtype changes nothing.
        let mut config = json_of(&place.source().join("config.json"));
        config["torch_dtype"] = "float32".into();
        place.put("config.json", config.to_string());
        let report = place.convert(&Options::default()).unwrap();
        assert!(report.notes.is_empty(), "{:?}", report.notes);
        same_tensors(&source(&place), &place.result());
        assert_eq!(
            place.result_config()["quantization"],
            config["quantization"]
        );
        assert_eq!(
            place.result_config()["quantization_config"],
            config["quantization"]
        );
    }
}

#[test]
fn dequantised_weights_are_the_numbers_that_mlx_computes() {
    for (dtype, asked) in [
        (DType::F16, None),
        (DType::BF16, None),
        (DType::BF16, Some(DType::F32)),
    ] {
        let (place, planned) = packed(&mixed(), dtype);
        let options = Options {
            dequantise: true,
            dtype: asked,
            ..Options::default()
        };
        let report = place.convert(&options).unwrap();
        let (before, after) = (source(&place), place.result());
        for tensor in planned {
            let layer = tensor.name.strip_suffix(".weight").unwrap();
            let from = format(&tensor, dtype);
            let own = from.map_or(dtype, Format::dequantised);
            let expected = numbers(&before, layer, from);
            let found = after.tensor(&tensor.name).unwrap();
            assert_eq!(found.dtype, stored(asked.unwrap_or(own)), "{layer}");
            assert_eq!(found.shape, tensor.shape);
            assert_eq!(numbers(&after, layer, None), expected, "{layer}");
        }
        for key in ["quantization", "quantization_config"] {
            assert!(place.result_config().get(key).is_none());
        }
        let noted = report
            .notes
            .iter()
            .any(|note| note.contains("of type q2g64-") && note.contains("dequantised"));
        assert!(noted, "{:?}", report.notes);
        assert_eq!(after.len(), 2 * 9 + 3);
    }
}

#[test]
fn quantization_may_be_called_as_hugging_face_does() {
    let (place, _) = packed(&mixed(), DType::BF16);
    let mut config = json_of(&place.source().join("config.json"));
    let quantization = config.as_object_mut().unwrap().remove("quantization");
    assert_eq!(quantization.as_ref(), config.get("quantization_config"));
    place.put("config.json", config.to_string());
    place.convert(&Options::default()).unwrap();
    same_tensors(&source(&place), &place.result());
    assert_eq!(
        place.result_config().get("quantization"),
        quantization.as_ref()
    );
}

#[test]
fn requantising_goes_through_the_dequantised_numbers_and_is_said() {
    let (place, planned) = packed(&mixed(), DType::BF16);
    let options = Options {
        rules: rules(&["*.k_proj=mxfp8"]),
        quantise: affine(Some(4), Some(32)),
        ..Options::default()
    };
    let report = place.convert(&options).unwrap();
    let (before, after) = (source(&place), place.result());
    let to = Format::affine(4, 32, DType::BF16).unwrap();
    let mut requantised = 0;
    for tensor in &planned {
        let layer = tensor.name.strip_suffix(".weight").unwrap();
        let [_, k] = tensor.shape[..] else { continue };
        let from = format(tensor, DType::BF16);
        let to = if layer.contains("k_proj") {
            Format::MXFP8
        } else {
            to
        };
        let values = numbers(&before, layer, from);
        let mut expected = quantise(&values, k, to, DType::BF16).unwrap();
        if from == Some(to) {
            // The same codes, and not what quantising again would make of them.
            expected.codes = before.bytes(before.tensor(&tensor.name).unwrap()).to_vec();
        }
        requantised += usize::from(from.is_some_and(|from| from != to));
        let codes = after.tensor(&tensor.name).unwrap();
        assert_eq!(after.bytes(codes), expected.codes, "{layer}");
        let scales = after.tensor(&format!("{layer}.scales")).unwrap();
        assert_eq!(after.bytes(scales), expected.scales, "{layer}");
    }
    let notes = report
        .notes
        .iter()
        .filter(|note| note.contains("requantised to"));
    let counted = notes.map(|note| note.split(' ').next().unwrap().parse::<usize>().unwrap());
    assert_eq!(counted.sum::<usize>(), requantised);
}

#[test]
fn a_dtype_rounds_the_scales_and_keeps_the_codes() {
    // Asked for the format that a layer has, its codes stay as well.
    for rules in [vec![], rules(&["layers.0.*.down_proj=2"])] {
        rounded_scales(rules);
    }
}

fn rounded_scales(rules: Vec<Rule>) {
    let (place, _) = packed(&mixed(), DType::F32);
    let options = Options {
        rules,
        dtype: Some(DType::F16),
        ..Options::default()
    };
    let report = place.convert(&options).unwrap();
    let (before, after) = (source(&place), place.result());
    let name = "model.layers.0.mlp.down_proj";
    for plane in ["scales", "biases"] {
        let name = format!("{name}.{plane}");
        assert_eq!(after.tensor(&name).unwrap().dtype, Type::F16);
        let rounded = encode(&floats(&before, &name), DType::F16);
        assert_eq!(after.bytes(after.tensor(&name).unwrap()), rounded);
    }
    for name in [
        format!("{name}.weight"),
        "model.layers.0.self_attn.o_proj.scales".into(),
    ] {
        let (a, b) = (before.tensor(&name).unwrap(), after.tensor(&name).unwrap());
        assert_eq!(before.bytes(a), after.bytes(b), "{name}");
    }
    let noted = report
        .notes
        .iter()
        .any(|note| note.contains("scales rounded to float16"));
    assert!(noted, "{:?}", report.notes);
    let changed = json_of(&place.source().join("config.json"))["quantization"].clone();
    assert_eq!(place.result_config()["quantization"], changed);
}

type Tensors = BTreeMap<String, (Type, Vec<usize>, Vec<u8>)>;

/// The tensors of a source, to be changed and written again.
fn rewritten(place: &Place, change: impl Fn(&mut Tensors)) {
    let before = source(place);
    let entry = |tensor: &Tensor| {
        let bytes = before.bytes(tensor).to_vec();
        (
            tensor.name.clone(),
            (tensor.dtype, tensor.shape.clone(), bytes),
        )
    };
    let mut tensors: BTreeMap<_, _> = before.iter().map(entry).collect();
    change(&mut tensors);
    let declared = tensors.iter().map(|(name, (dtype, shape, _))| Declared {
        name: name.clone(),
        dtype: *dtype,
        shape: shape.clone(),
    });
    let declared: Vec<Declared> = declared.collect();
    let mut writer = Writer::new(Vec::new(), Path::new("made"), &declared).unwrap();
    for (name, (_, _, bytes)) in &tensors {
        writer.write(name, bytes).unwrap();
    }
    place.put("model.safetensors", writer.finish().unwrap());
    // The index says what was there before.
    let _ = std::fs::remove_file(place.source().join("model.safetensors.index.json"));
}

#[test]
fn a_quantised_head_is_the_embedding_only_if_all_its_planes_are() {
    for changed in [None, Some("weight"), Some("scales"), Some("biases")] {
        let options = Options {
            quantise: affine(None, None),
            ..Options::default()
        };
        let (place, _) = packed(&options, DType::F16);
        rewritten(&place, |tensors| {
            for plane in ["weight", "scales", "biases"] {
                let mut copy = tensors[&format!("model.embed_tokens.{plane}")].clone();
                copy.2[0] ^= u8::from(changed == Some(plane));
                tensors.insert(format!("lm_head.{plane}"), copy);
            }
        });
        let report = place.convert(&Options::default()).unwrap();
        let tied = changed.is_none();
        assert_eq!(
            place.result_config()["tie_word_embeddings"],
            tied,
            "{changed:?}"
        );
        assert_eq!(place.result().tensor("lm_head.scales").is_none(), tied);
        assert_eq!(report.notes.is_empty(), !tied, "{:?}", report.notes);
    }
}

#[test]
fn planes_that_are_missing_or_too_many_are_refused() {
    let refused = |change: &dyn Fn(&mut Tensors)| {
        let (place, _) = packed(&mixed(), DType::F16);
        rewritten(&place, change);
        place.refused(&Options::default())
    };
    let (down, mxfp8) = (
        "model.layers.1.mlp.down_proj",
        "model.layers.0.self_attn.v_proj",
    );
    let message = refused(&|tensors| drop(tensors.remove(&format!("{down}.biases"))));
    assert!(
        message.ends_with("down_proj.biases\": expected biases beside the scales, found none"),
        "{message}"
    );
    let message = refused(&|tensors| drop(tensors.remove(&format!("{down}.scales"))));
    assert!(
        message.contains("down_proj.weight\": expected shape [64, 128], found [64, "),
        "{message}"
    );
    let message = refused(&|tensors| {
        let scales = tensors[&format!("{mxfp8}.scales")].clone();
        tensors.insert(format!("{mxfp8}.biases"), scales);
    });
    assert!(
        message.contains("v_proj.biases\": expected no biases"),
        "{message}"
    );
    let message = refused(&|tensors| {
        let scales = tensors[&format!("{down}.scales")].clone();
        tensors.insert("model.norm.scales".into(), scales);
    });
    assert!(
        message.contains("1 tensor besides, as a quantised checkpoint has: model.norm.scales"),
        "{message}"
    );
}

#[test]
fn planes_that_do_not_fit_are_refused() {
    let (place, _) = packed(&mixed(), DType::F16);
    let config = json_of(&place.source().join("config.json"));
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut config = config.clone();
        change(&mut config["quantization"]);
        config["quantization_config"] = config["quantization"].clone();
        place.put("config.json", config.to_string());
        let keep = place.refused(&Options::default());
        let options = Options {
            dequantise: true,
            ..Options::default()
        };
        assert_eq!(place.refused(&options), keep);
        keep
    };
    let down = "model.layers.0.mlp.down_proj";
    let message = refused(&|config| config[down]["bits"] = json!(4));
    assert!(
        message.contains("down_proj.weight\": expected U32 [64, 16] for q4g64-f16"),
        "{message}"
    );
    let message = refused(&|config| config[down]["bits"] = json!(7));
    assert!(
        message.contains("quantization of model.layers.0.mlp.down_proj"),
        "{message}"
    );
    let message = refused(&|config| config[down] = json!(false));
    assert!(message.contains("down_proj"), "{message}");
    let message = refused(&|config| config[down] = json!({"mode": "mxfp4"}));
    assert!(message.contains("for mxfp4, found "), "{message}");
    let message = refused(&|config| {
        config["model.layers.1.self_attn.o_proj"] = json!({"bits": 4, "group_size": 32})
    });
    assert!(
        message.contains("o_proj.scales\": expected floats [64, 2]"),
        "{message}"
    );
    let message = refused(&|config| *config = Value::Null);
    assert!(
        message.contains("besides, as a quantised checkpoint has"),
        "{message}"
    );
}

#[test]
fn nothing_to_dequantise_is_said() {
    let place = with_layers(1, DType::F16);
    let options = Options {
        dequantise: true,
        ..Options::default()
    };
    let report = place.convert(&options).unwrap();
    assert_eq!(
        report.notes,
        ["nothing to dequantise: the source holds no quantised layers"]
    );
}

#[test]
fn an_fp_mode_as_the_default_is_read_back() {
    let mode = Mode::Nvfp4;
    let options = Options {
        quantise: Some(Quantise {
            mode,
            bits: None,
            group: None,
        }),
        ..Options::default()
    };
    let (place, _) = packed(&options, DType::F16);
    place.convert(&Options::default()).unwrap();
    same_tensors(&source(&place), &place.result());
    assert_eq!(place.result_config()["quantization"]["mode"], "nvfp4");
}

/// A mixed directory is loaded with each layer's own format: it computes what its dequantised form
/// does, up to the order of additions.
#[test]
fn mixed_directories_load_and_compute_what_their_dequantised_form_does() {
    let (mixed, _) = packed(&mixed(), DType::F32);
    let options = Options {
        dequantise: true,
        dtype: Some(DType::F32),
        ..Options::default()
    };
    mixed.convert(&options).unwrap();
    let (ours, plain) = (logits(&mixed.source()), logits(&mixed.destination()));
    assert_eq!(ours.len(), 6 * VOCAB);
    let largest = plain.iter().fold(0f32, |most, value| most.max(value.abs()));
    for (a, b) in ours.iter().zip(&plain) {
        assert!(
            (a - b).abs() < 1e-4 * largest,
            "{a} {b}, of at most {largest}"
        );
    }
}
