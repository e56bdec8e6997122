//! What bad input gets: a line that says what is wrong where, and a documented code.

use crate::checkpoint::{Checkpoint, Model, text, tiny};
use crate::process::{VARIABLES, failed, kiln, program, stdout, succeeded};
use serde_json::json;
use std::path::Path;

/// Checks that `run`, `convert` and, where it reads the weights too, `inspect` refuse the model
/// with the same code, and that `convert` leaves nothing behind.
#[track_caller]
fn refused(model: &Model, code: i32, words: &[&str]) {
    let (path, out) = (model.argument(), text(&model.beside("out")));
    let before = model.names();
    failed(&kiln(&["run", "--model", &path, "-p", "x"]), code, words);
    failed(&kiln(&["convert", &path, "--out", &out]), code, words);
    failed(&kiln(&["bench", "-m", &path]), code, words);
    assert_eq!(model.names(), before);
}

/// The tiny model with other contents in its weights' file.
fn with_weights(contents: &[u8]) -> Model {
    let model = tiny();
    std::fs::write(model.path().join("model.safetensors"), contents).unwrap();
    model
}

#[test]
fn a_directory_that_is_not_there() {
    let model = tiny();
    std::fs::remove_dir_all(model.path()).unwrap();
    refused(&model, 3, &[&model.argument(), "no such file or directory"]);
}

#[test]
fn a_directory_without_a_model() {
    let model = tiny();
    std::fs::remove_dir_all(model.path()).unwrap();
    std::fs::create_dir(model.path()).unwrap();
    refused(&model, 3, &["the directory is empty"]);
    std::fs::write(model.path().join("notes.txt"), "nothing here").unwrap();
    refused(&model, 3, &["model*.safetensors", "notes.txt"]);
}

#[test]
fn a_placeholder_of_git_lfs() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    refused(
        &with_weights(pointer.as_bytes()),
        3,
        &["model.safetensors", "Git LFS pointer"],
    );
}

#[test]
fn a_web_page() {
    let page = b"<!DOCTYPE html><html><body>404</body></html>";
    refused(&with_weights(page), 3, &["model.safetensors", "web page"]);
}

#[test]
fn a_file_that_is_cut_short() {
    let whole = Checkpoint::tiny().safetensors();
    for length in [0, 4, 100, whole.len() - 1] {
        refused(&with_weights(&whole[..length]), 3, &["model.safetensors"]);
    }
}

#[test]
fn a_weight_that_its_zip_file_has_another_checksum_of() {
    let model = tiny();
    for entry in std::fs::read_dir(model.path()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../convert/tests/golden/torch/npz");
    for name in ["config.json", "weights.npz"] {
        std::fs::copy(golden.join(name), model.path().join(name)).unwrap();
    }
    let path = model.path().join("weights.npz");
    let mut bytes = std::fs::read(&path).unwrap();
    let name = b"output.weight.npy";
    let at = bytes.windows(name.len()).position(|part| part == name);
    bytes[at.unwrap() + 400] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let out = text(&model.beside("out"));
    let output = kiln(&["convert", &model.argument(), "--out", &out]);
    let words = ["weights.npz", "output.weight.npy", "checksum", "damaged"];
    failed(&output, 3, &words);
    assert_eq!(model.names(), ["model"]);
}

#[test]
fn a_file_of_another_kind() {
    refused(
        &with_weights(b"PK\x03\x04..............."),
        3,
        &["expected a safetensors file, found a PyTorch file"],
    );
}

#[test]
fn a_pickle() {
    refused(
        &with_weights(b"\x80\x02}q\x00(X\x05\x00\x00"),
        4,
        &["Python pickle", "PyTorch"],
    );
}

#[test]
fn a_pickle_that_calls_something() {
    let model = tiny();
    std::fs::remove_file(model.path().join("model.safetensors")).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/golden/torch");
    let weights = model.path().join("pytorch_model.bin");
    std::fs::copy(golden.join("calls.pth"), weights).unwrap();
    let words = [
        "pytorch_model.bin",
        "opcode",
        "nothing is imported or called",
    ];
    refused(&model, 4, &words);
}

#[test]
fn a_configuration_that_is_not_json() {
    let model = tiny();
    std::fs::write(model.path().join("config.json"), "{\"model_type\": ").unwrap();
    refused(&model, 3, &["config.json", "a JSON object"]);
    std::fs::remove_file(model.path().join("config.json")).unwrap();
    refused(&model, 3, &["config.json"]);
}

#[test]
fn shards_that_are_missing_left_over_or_elsewhere() {
    let model = tiny();
    let path = |name: &str| model.path().join(name);
    let weights = std::fs::read(path("model.safetensors")).unwrap();
    let names: Vec<String> = Checkpoint::tiny().tensors.into_keys().collect();
    let index = |shard: &str| {
        let map: serde_json::Map<_, _> = names.iter().map(|n| (n.clone(), shard.into())).collect();
        let index = json!({"weight_map": map}).to_string();
        std::fs::write(path("model.safetensors.index.json"), index).unwrap();
    };
    index("model-00001-of-00001.safetensors");
    refused(
        &model,
        3,
        &["the shard model-00001-of-00001.safetensors", "no such file"],
    );
    std::fs::write(path("model-00001-of-00001.safetensors"), &weights).unwrap();
    refused(&model, 3, &["also model.safetensors", "remove it"]);
    for shard in [
        "../model.safetensors",
        "/model.safetensors",
        "sub/model.safetensors",
    ] {
        index(shard);
        refused(
            &model,
            3,
            &["model.safetensors.index.json", shard, "in this directory"],
        );
    }
    // Two shards with the same tensors.
    std::fs::remove_file(path("model.safetensors.index.json")).unwrap();
    refused(&model, 3, &["a name that occurs once", "it also in"]);
}

#[test]
fn a_header_with_a_name_twice() {
    let entry = |start: usize| {
        let end = start + 1;
        format!(r#""a":{{"dtype":"U8","shape":[1],"data_offsets":[{start},{end}]}}"#)
    };
    let header = format!("{{{},{}}}", entry(0), entry(1));
    let length = (header.len() as u64).to_le_bytes();
    let bytes = [&length[..], header.as_bytes(), &[0; 2]].concat();
    refused(
        &with_weights(&bytes),
        3,
        &["model.safetensors", "\"a\"", "occurs once"],
    );
}

#[test]
fn an_architecture_that_is_not_known() {
    let model = Checkpoint::tiny().with("model_type", "mamba".into());
    refused(
        &model.write(),
        4,
        &["config.json", "model_type", "mamba", "llama"],
    );
}

#[test]
fn a_rope_that_is_not_known() {
    for key in ["rope_scaling", "rope_parameters"] {
        let rope = json!({"rope_type": "spiral", "factor": 2.0, "rope_theta": 1e4});
        let model = Checkpoint::tiny().with(key, rope);
        refused(
            &model.write(),
            4,
            &["config.json", "rope_type", "spiral", "llama3"],
        );
    }
}

#[test]
fn a_quantisation_of_others() {
    let method = json!({"quant_method": "bitsandbytes"});
    let model = Checkpoint::tiny().with("quantization_config", method);
    refused(&model.write(), 4, &["config.json", "bitsandbytes"]);
}

#[test]
fn tensors_that_are_missing_misshapen_or_left_over() {
    let name = "model.layers.1.mlp.up_proj.weight";
    let mut missing = Checkpoint::tiny();
    missing.tensors.remove(name);
    refused(&missing.write(), 3, &[name, "[64, 32]"]);
    let mut misshapen = Checkpoint::tiny();
    misshapen
        .tensors
        .insert(name.into(), (vec![32, 64], vec![0.0; 2048]));
    refused(&misshapen.write(), 3, &[name, "[64, 32]", "[32, 64]"]);
    let mut left_over = Checkpoint::tiny();
    left_over
        .tensors
        .insert("model.extra.weight".into(), (vec![1], vec![0.0]));
    refused(&left_over.write(), 3, &["model.extra.weight"]);
}

#[test]
fn logits_that_are_not_numbers() {
    let mut broken = Checkpoint::tiny();
    broken
        .tensors
        .insert("model.norm.weight".into(), (vec![32], vec![f32::NAN; 32]));
    let model = broken.write();
    failed(
        &kiln(&["run", "--model", &model.argument(), "-p", "x"]),
        7,
        &["logit", "NaN"],
    );
    let mut watched = program("kiln", &["run", "--model", &model.argument(), "-p", "x"]);
    failed(
        &watched.env("KILN_NAN_CHECK", "1").output().unwrap(),
        7,
        &[
            "token ",
            ": step ",
            "rms_norm",
            "model/src/llama.rs:",
            "operand 1 already",
        ],
    );
}

#[test]
fn a_tokenizer_that_is_missing() {
    let model = tiny();
    std::fs::remove_file(model.path().join("tokenizer.json")).unwrap();
    let output = kiln(&["run", "--model", &model.argument(), "-p", "x"]);
    failed(&output, 3, &["tokenizer.json or tokenizer.model"]);
}

#[test]
fn a_file_where_a_directory_belongs() {
    let model = tiny();
    let file = text(&model.path().join("model.safetensors"));
    failed(
        &kiln(&["run", "--model", &file, "-p", "x"]),
        2,
        &["give the directory"],
    );
    std::fs::write(
        model.beside("a.gguf"),
        [b"GGUF".as_slice(), &[3, 0, 0, 0, 0], &[0; 64]].concat(),
    )
    .unwrap();
    let file = text(&model.beside("a.gguf"));
    failed(
        &kiln(&["run", "--model", &file, "-p", "x"]),
        2,
        &["a.gguf", "kiln convert"],
    );
}

#[test]
fn options_that_do_not_fit() {
    let model = tiny();
    let cases: [(&[&str], &[&str]); 20] = [
        (&["--temp", "-1"], &["temperature", "-1"]),
        (&["--temp", "nan"], &["temperature"]),
        (&["--temp", "warm"], &["--temp", "warm"]),
        (&["--top-p", "1.5"], &["top-p", "1.5"]),
        (&["--min-p", "-0.1"], &["min-p"]),
        (&["--top-k", "300"], &["top-k", "259", "300"]),
        (&["--repetition-penalty", "-1"], &["repetition penalty"]),
        (&["--presence-penalty", "inf"], &["presence penalty"]),
        (&["--logit-bias", "5"], &["ID=V"]),
        (&["--logit-bias", "999=1"], &["999", "259"]),
        (&["-m", "0"], &["--max-tokens"]),
        (&["--seed", "-1"], &["--seed"]),
        (&["--threads", "0"], &["--threads"]),
        (&["--device", "abacus"], &["--device", "cpu"]),
        (&["--tokens-per-eval", "0"], &["--tokens-per-eval"]),
        (&["--top-logprobs", "2"], &["--json"]),
        (&["--prompt-ids", "1,2"], &["--prompt-ids"]),
        (&["--truncate", "middle"], &["--truncate", "head"]),
        (&["-q", "-v"], &["--quiet", "--verbose"]),
        (&["--surprise"], &["--surprise"]),
    ];
    for (case, words) in cases {
        let arguments = ["run", "--model", &model.argument(), "-p", "x"];
        failed(&kiln(&[&arguments[..], case].concat()), 2, words);
    }
    failed(
        &kiln(&["run", "--model", &model.argument()]),
        2,
        &["--prompt"],
    );
    let beyond = kiln(&["run", "--model", &model.argument(), "--prompt-ids", "1,259"]);
    failed(&beyond, 2, &["259", "vocabulary"]);
}

#[test]
fn every_program_documents_its_exit_codes_and_variables() {
    for (name, arguments) in [
        ("kiln", vec!["--help"]),
        ("kiln", vec!["run", "--help"]),
        ("kiln", vec!["convert", "--help"]),
        ("kiln", vec!["bench", "--help"]),
        ("kiln-run", vec!["--help"]),
        ("kiln-convert", vec!["--help"]),
    ] {
        let output = program(name, &arguments).output().unwrap();
        succeeded(&output);
        for code in ["0", "1", "2", "3", "4", "5", "6", "7", "8", "130"] {
            let documented = |line: &str| line.split_whitespace().next() == Some(code);
            assert!(
                stdout(&output).lines().any(documented),
                "{name} {arguments:?}: {code}"
            );
        }
        for variable in VARIABLES {
            assert!(
                stdout(&output).contains(variable),
                "{name} {arguments:?}: {variable}"
            );
        }
    }
}
