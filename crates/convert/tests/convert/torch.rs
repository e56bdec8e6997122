//! PyTorch and npz checkpoints that PyTorch, NumPy and MLX wrote: scripts/golden/torch_models.py.

use crate::made::*;
use crate::rules::{affine, rules};
use kiln_convert::{Options, Quantise, Report, inspect};
use kiln_plan::Mode;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) const FORMS: [&str; 8] = [
    "meta1",
    "meta2",
    "meta4",
    "meta2_rows",
    "bin",
    "bin_shards",
    "npz",
    "npz_shards",
];

pub(crate) fn golden(form: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/torch")
        .join(form)
}

/// A copy of one form, to be changed.
pub(crate) fn copy(form: &str) -> Place {
    let place = Place::new();
    for entry in golden(form).read_dir().unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), place.source().join(entry.file_name())).unwrap();
    }
    place
}

fn put_json(place: &Place, name: &str, change: impl FnOnce(&mut Value)) {
    let mut value = json_of(&place.source().join(name));
    change(&mut value);
    place.put(name, value.to_string());
}

/// What is written of the weights: names, types, shapes and bytes.
pub(crate) fn weights(place: &Place) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let result = place.result();
    let described = |tensor: &kiln_formats::Tensor| {
        let bytes = result.bytes(tensor).to_vec();
        (tensor.dtype.to_string(), tensor.shape.clone(), bytes)
    };
    let tensors = result.iter();
    tensors
        .map(|tensor| (tensor.name.clone(), described(tensor)))
        .collect()
}

pub(crate) fn converted(form: &str) -> (Place, Report) {
    let place = Place::new();
    let report = place
        .convert_from(&golden(form), &Options::default())
        .unwrap();
    (place, report)
}

#[test]
fn every_form_of_a_model_converts_to_the_same_weights() {
    let expected = weights(&converted("bin_shards").0);
    assert_eq!(expected.len(), 3 + 9);
    for form in FORMS {
        let found = weights(&converted(form).0);
        assert!(
            expected.keys().eq(found.keys()),
            "{form}: {:?}",
            found.keys()
        );
        for (name, expected) in &expected {
            assert!(found[name] == *expected, "{form}: {name}");
        }
    }
}

/// Pieces are joined and rows put in order before anything is rounded or quantised.
#[test]
fn rules_and_targets_mean_the_same_for_every_form() {
    let texts = ["*.down_proj=float32", "*.o_proj=mxfp8", "layers.0.*=6g32"];
    let options = |target: Option<f64>| Options {
        rules: rules(&texts),
        quantise: affine(target.is_none().then_some(4), Some(32)),
        target,
        ..Options::default()
    };
    for options in [options(None), options(Some(13.0))] {
        let convert = |form| {
            let place = Place::new();
            place.convert_from(&golden(form), &options).unwrap();
            (
                weights(&place),
                place.result_config()["quantization"].clone(),
            )
        };
        let expected = convert("bin_shards");
        let codes = expected.0.values().filter(|(dtype, ..)| dtype == "U32");
        assert_eq!(codes.count(), 2 + 6);
        for form in FORMS {
            assert!(convert(form) == expected, "{form}");
        }
    }
}

/// What no other check would see: a changed weight.
#[test]
fn a_damaged_weight_of_a_zip_file_is_found_by_its_checksum() {
    for (form, file, entry) in [
        ("meta2", "consolidated.01.pth", "data/3"),
        ("bin_shards", "pytorch_model-00002-of-00002.bin", "data/1"),
        ("npz", "weights.npz", "output.weight.npy"),
        ("npz_shards", "weights.01.npz", "wo.weight.npy"),
    ] {
        let place = copy(form);
        let path = place.source().join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        // Behind an entry's own header comes its data, which is longer than what is in between.
        let name = (0..bytes.len()).find(|&at| bytes[at..].starts_with(entry.as_bytes()));
        bytes[name.unwrap() + 400] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        // A run that may be resumed leaves nothing either: it may have used the damaged bytes.
        for resume in [false, true] {
            let options = Options {
                resume,
                ..Options::default()
            };
            let error = place.refused(&options);
            for word in [file, entry, "expected bytes with the checksum"] {
                assert!(error.contains(word), "{error}");
            }
        }
    }
}

#[test]
fn codes_of_quantised_npz_files_stay() {
    let options = Options {
        quantise: Some(Quantise {
            mode: Mode::Affine,
            bits: Some(4),
            group: Some(32),
        }),
        ..Options::default()
    };
    let place = Place::new();
    place.convert_from(&golden("bin"), &options).unwrap();
    let expected = weights(&place);
    let (place, _) = converted("npz_packed");
    let quantization = place.result_config()["quantization"].clone();
    assert_eq!(quantization, json!({"group_size": 32, "bits": 4}));
    assert_eq!(place.result_config()["torch_dtype"], "float16");
    let found = weights(&place);
    assert!(expected.keys().eq(found.keys()), "{:?}", found.keys());
    for (name, expected) in &expected {
        assert!(found[name] == *expected, "{name}");
    }
}

#[test]
fn what_params_do_not_say_follows_from_the_weights() {
    for form in ["meta2", "npz"] {
        let (place, report) = converted(form);
        let config = place.result_config();
        for (key, value) in [
            ("architectures", json!(["LlamaForCausalLM"])),
            ("head_dim", json!(4)),
            ("hidden_size", json!(32)),
            ("intermediate_size", json!(64)),
            ("model_type", json!("llama")),
            ("num_attention_heads", json!(8)),
            ("num_hidden_layers", json!(1)),
            ("num_key_value_heads", json!(4)),
            ("rms_norm_eps", json!(1e-5)),
            ("rope_theta", json!(10000.0)),
            ("tie_word_embeddings", json!(false)),
            ("torch_dtype", json!("float16")),
            ("vocab_size", json!(20)),
        ] {
            assert_eq!(config[key], value, "{form}: {key}");
        }
        assert!(config.get("rope_traditional").is_none());
        let notes = report.notes.join("\n");
        assert!(
            notes.contains("no tokenizer.json or tokenizer.model"),
            "{notes}"
        );
        assert_eq!(notes.contains("rope frequencies left out"), form == "meta2");
    }
}

#[test]
fn a_window_makes_it_a_mistral() {
    let place = copy("meta1");
    put_json(&place, "params.json", |params| {
        params["sliding_window"] = 4096.into();
        params["rope_theta"] = 1e6.into();
        params["vocab_size"] = 32.into();
    });
    let model = "../tokenizer/tests/golden/tiny_bpe.model";
    place.put("tokenizer.model", std::fs::read(model).unwrap());
    let report = place.convert(&Options::default()).unwrap();
    let config = place.result_config();
    assert_eq!(config["sliding_window"], 4096);
    assert_eq!(config["model_type"], "mistral");
    assert_eq!(config["architectures"], json!(["MistralForCausalLM"]));
    assert_eq!(config["rope_theta"], 1e6);
    assert_eq!(config["max_position_embeddings"], 32768);
    assert_eq!(
        (&config["bos_token_id"], &config["eos_token_id"]),
        (&json!(1), &json!(2))
    );
    let generation = json_of(&place.destination().join("generation_config.json"));
    assert_eq!(generation, json!({"bos_token_id": 1, "eos_token_id": 2}));
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.starts_with("vocab_size is 20"))
    );
    assert!(place.destination().join("tokenizer.model").exists());
    // What the source says of the end of answers stays.
    let said = json!({"eos_token_id": [2, 7], "temperature": 0.7});
    place.put("generation_config.json", said.to_string());
    let force = Options {
        force: true,
        ..Options::default()
    };
    place.convert(&force).unwrap();
    let generation = json_of(&place.destination().join("generation_config.json"));
    assert_eq!(generation, said);
    assert_eq!(place.result_config()["eos_token_id"], json!([2, 7]));
}

#[test]
fn what_params_cannot_mean_is_refused() {
    let cases = [
        ("moe", json!({"num_experts": 8}), r#""moe": this setting"#),
        (
            "use_scaled_rope",
            json!(true),
            "the factor is 8 in Llama 3.1",
        ),
        (
            "n_heads",
            json!(0),
            r#""n_heads": expected a positive number, found 0"#,
        ),
        (
            "dim",
            json!(null),
            r#""dim": expected a positive number, found nothing"#,
        ),
        ("norm_eps", json!("x"), r#""norm_eps": expected a number"#),
        (
            "n_kv_heads",
            json!(8),
            "expected shape [32, 32], found [16, 32]",
        ),
        (
            "n_layers",
            json!(2),
            r#""layers.1.attention.wq.weight": expected this tensor"#,
        ),
    ];
    for (key, value, expected) in cases {
        let place = copy("meta2");
        put_json(&place, "params.json", |params| params[key] = value);
        let error = place.refused(&Options::default());
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn missing_files_are_named() {
    let cases = [
        (
            "meta4",
            "consolidated.02.pth",
            "expected the shard consolidated.02.pth",
        ),
        (
            "meta4",
            "consolidated.00.pth",
            "expected the shard consolidated.00.pth",
        ),
        // The last one leaves no gap, but what is left does not make the model.
        (
            "meta4",
            "consolidated.03.pth",
            "expected shape [20, 32], found [20, 24]",
        ),
        (
            "meta1",
            "params.json",
            "expected params.json beside the weights",
        ),
        (
            "npz",
            "config.json",
            "expected config.json beside the weights",
        ),
        (
            "npz_shards",
            "weights.00.npz",
            "expected the shard weights.00.npz",
        ),
        (
            "bin_shards",
            "pytorch_model-00002-of-00002.bin",
            "expected the shard pytorch_model-00002-of-00002.bin",
        ),
    ];
    for (form, gone, expected) in cases {
        let place = copy(form);
        std::fs::remove_file(place.source().join(gone)).unwrap();
        let error = place.refused(&Options::default());
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn left_over_files_are_named() {
    let also = |form: &str, name: &str, expected: &str| {
        let place = copy(form);
        place.put(name, "x");
        let error = place.refused(&Options::default());
        assert!(error.contains(expected), "{error}");
    };
    also(
        "npz",
        "weights.00.npz",
        "expected weights.npz alone, found also weights.00.npz",
    );
    also(
        "bin_shards",
        "pytorch_model.bin",
        "found also pytorch_model.bin; remove it",
    );
}

#[test]
fn placeholders_and_cut_files_are_named() {
    let files = [
        ("meta2", "consolidated.01.pth"),
        ("bin", "pytorch_model.bin"),
        ("npz", "weights.npz"),
    ];
    for (form, file) in files {
        let whole = std::fs::read(golden(form).join(file)).unwrap();
        let cases: [(&[u8], &str); 4] = [
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
                "Git LFS pointer",
            ),
            (b"<!DOCTYPE html><p>sign in", "web page"),
            (b"", "the file is empty"),
            (&whole[..whole.len() * 3 / 4], "cut short"),
        ];
        for (contents, expected) in cases {
            let place = copy(form);
            place.put(file, contents);
            let error = place.refused(&Options::default());
            assert!(error.contains(file) && error.contains(expected), "{error}");
        }
    }
}

#[test]
fn an_index_of_pytorch_files_stays_in_its_directory() {
    let place = copy("bin_shards");
    put_json(&place, "pytorch_model.bin.index.json", |index| {
        index["weight_map"]["lm_head.weight"] = "../pytorch_model.bin".into();
    });
    let error = place.refused(&Options::default());
    let expected = r#""lm_head.weight": expected the name of a .bin file in this directory"#;
    assert!(error.contains(expected), "{error}");
}

#[test]
fn shards_that_do_not_fit_together_are_refused() {
    let place = copy("meta2");
    let other = std::fs::read(golden("meta4").join("consolidated.01.pth")).unwrap();
    place.put("consolidated.02.pth", other);
    let error = place.refused(&Options::default());
    assert!(error.contains("shape"), "{error}");
}

#[test]
fn a_file_alone_is_no_model() {
    let place = Place::new();
    for (file, kind) in [
        ("bin/pytorch_model.bin", "a PyTorch file"),
        ("npz/weights.npz", "an npz file"),
    ] {
        let error = place
            .convert_from(&golden(file), &Options::default())
            .unwrap_err();
        assert!(
            error.to_string().contains(&format!("found {kind} alone")),
            "{error}"
        );
        let summary = inspect(&golden(file), &open).unwrap();
        assert_eq!((summary.tensors.len(), summary.parameters), (12, 10_592));
    }
}

#[test]
fn every_form_is_inspected() {
    for form in FORMS {
        let summary = inspect(&golden(form), &open).unwrap();
        assert!(
            summary.parameters >= 10_592,
            "{form}: {}",
            summary.parameters
        );
        assert_eq!(summary.bits_per_weight, 16.0, "{form}");
    }
    let summary = inspect(&golden("meta4"), &open).unwrap();
    assert_eq!(summary.format, "consolidated PyTorch directory");
    assert!(
        summary
            .tensors
            .iter()
            .any(|tensor| tensor.name == "output.weight (part 3 of 4)")
    );
}
