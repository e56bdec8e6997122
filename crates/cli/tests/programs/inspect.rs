//! `kiln inspect`, `kiln bench` and `kiln devices`.

use crate::checkpoint::{CONTEXT, text, tiny};
use crate::process::{failed, json, keys, kiln, stderr, stdout, succeeded};
use serde_json::Value;

#[test]
fn inspect_tells_what_a_directory_holds() {
    let model = tiny();
    let out = text(&model.beside("out"));
    succeeded(&kiln(&[
        "convert",
        &model.argument(),
        "--out",
        &out,
        "-q",
        "--q-mode",
        "mxfp8",
    ]));
    let facts = json(&kiln(&["inspect", &model.argument(), "--json"]));
    assert_eq!(facts["architecture"], "LlamaForCausalLM");
    assert_eq!(facts["layers"], 2);
    assert_eq!(facts["context"], CONTEXT);
    assert_eq!(
        facts["parameters"],
        259 * 32 + 2 * (3 * 1024 + 3 * 2048 + 64) + 32
    );
    assert_eq!(facts["bits_per_weight"], 32.0);
    assert_eq!(facts["types"]["F32"], 20);
    assert_eq!(facts["tokenizer"]["kind"], "tokenizer.json");
    assert_eq!(facts["tokenizer"]["eos_ids"][0], 256);
    assert_eq!(facts["tokenizer"]["chat_template"], true);
    let quantised = json(&kiln(&["inspect", &out, "--json", "-v"]));
    assert_eq!(quantised["parameters"], facts["parameters"]);
    assert_eq!(quantised["types"]["U8"], 15);
    assert!(
        quantised["quantisation"]
            .as_str()
            .unwrap()
            .contains("mxfp8")
    );
    assert_eq!(quantised["tensors"].as_array().unwrap().len(), 35);
}

#[test]
fn inspect_reads_a_single_file() {
    let model = tiny();
    let file = text(&model.path().join("model.safetensors"));
    let output = kiln(&["inspect", &file, "-v"]);
    succeeded(&output);
    let line = stdout(&output)
        .lines()
        .find(|line| line.starts_with("model.norm.weight"));
    let words: Vec<&str> = line.unwrap().split_whitespace().collect();
    assert_eq!(words, ["model.norm.weight", "F32", "[32]", "128"]);
}

#[test]
fn bench_prints_a_row_for_each_test() {
    let model = tiny();
    let arguments = [
        "bench",
        "-m",
        &model.argument(),
        "-p",
        "8,16",
        "-n",
        "4",
        "-d",
        "0,12",
    ];
    let arguments = [&arguments[..], &["-r", "2", "--threads", "2"]].concat();
    let tests = ["pp8", "pp16", "tg4", "pp8 @ d12", "pp16 @ d12", "tg4 @ d12"];
    let output = kiln(&arguments);
    succeeded(&output);
    let rows: Vec<&str> = stdout(&output).lines().collect();
    assert_eq!(rows.len(), 2 + tests.len());
    assert!(
        rows[0].starts_with("| model ") && rows[1].starts_with("| ------"),
        "{}",
        rows[0]
    );
    for (row, test) in rows[2..].iter().zip(tests) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 9);
        assert_eq!((cells[4], cells[5], cells[6]), ("CPU", "2", test));
        assert!(cells[7].contains(" ± "), "{row}");
    }
    assert!(stderr(&output).contains("load: "), "{}", stderr(&output));
    let object = json(&kiln(&[&arguments[..], &["--json"]].concat()));
    let results = object["results"].as_array().unwrap();
    let names: Vec<&str> = results
        .iter()
        .map(|row| row["test"].as_str().unwrap())
        .collect();
    assert_eq!(names, tests);
    assert_eq!(keys(&results[0]), ["test", "tok_s", "stddev", "samples"]);
    assert!(
        results
            .iter()
            .all(|row| row["tok_s"].as_f64().unwrap() > 0.0)
    );
    let token = &results[2]["per_token"];
    assert_eq!(
        (&token["copies"], &token["misses"]),
        (&0.0.into(), &0.0.into()),
        "{token}"
    );
    assert!(token["steps"].as_f64().unwrap() > 10.0, "{token}");
    let beyond = kiln(&[
        "bench",
        "-m",
        &model.argument(),
        "-p",
        "999",
        "-n",
        "0",
        "--json",
    ]);
    failed(&beyond, 6, &["999", "300"]);
}

#[test]
fn bench_makes_a_model_up() {
    let arguments = [
        "bench",
        "--synthetic",
        "135m",
        "-p",
        "2",
        "-n",
        "1",
        "-r",
        "1",
        "--json",
    ];
    let object = json(&kiln(&[&arguments[..], &["--format", "q4g32"]].concat()));
    assert_eq!(object["model"]["name"], "synthetic 135m, q4g32-bf16");
    assert_eq!(object["model"]["parameters"], 134_515_008);
    assert!(object["results"][1]["tok_s"].as_f64().unwrap() > 0.0);
    assert_eq!(object["results"][1]["per_token"]["encode_us"], Value::Null);
    let with = |more: &[&str]| kiln(&[&arguments[..], more].concat());
    failed(
        &with(&["--format", "q7"]),
        2,
        &["--format", "q4g32", "mxfp4"],
    );
    failed(&with(&["--format", "q4g128"]), 2, &["groups of 128", "576"]);
    failed(&with(&["--model", "x"]), 2, &["--synthetic", "--model"]);
    failed(
        &kiln(&["bench", "--synthetic", "2b"]),
        2,
        &["135m", "1.1b", "7b"],
    );
    failed(&with(&["--format"]), 2, &["--format"]);
    failed(&kiln(&["bench", "--format", "q4"]), 2, &["--synthetic"]);
    failed(
        &kiln(&["bench", "-m", "x", "--format", "q4"]),
        2,
        &["--format", "--model"],
    );
}

#[test]
fn devices_lists_the_processor() {
    let object = json(&kiln(&["devices", "--json", "--threads", "2"]));
    assert_eq!(object["devices"][0]["name"], "cpu");
    assert_eq!(object["devices"][0]["threads"], 2);
    let sets = object["devices"][0]["instruction_sets"].as_array().unwrap();
    assert!(sets.contains(&"scalar".into()));
    let output = kiln(&["devices"]);
    assert!(stdout(&output).starts_with("cpu  "), "{}", stdout(&output));
}

/// A GGUF file with a few facts about a model and one tensor of 32 zeros.
fn gguf() -> Vec<u8> {
    let string = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let text = |key: &str, value: &str| [string(key), vec![8, 0, 0, 0], string(value)].concat();
    let number = |key: &str, value: u32| {
        [string(key), vec![4, 0, 0, 0], value.to_le_bytes().to_vec()].concat()
    };
    let entries = [
        text("general.architecture", "llama"),
        number("llama.block_count", 5),
        number("llama.context_length", 77),
        text("tokenizer.ggml.model", "gpt2"),
        number("tokenizer.ggml.eos_token_id", 3),
    ];
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend(1u64.to_le_bytes());
    file.extend((entries.len() as u64).to_le_bytes());
    file.extend(entries.concat());
    file.extend(string("output_norm.weight"));
    file.extend(1u32.to_le_bytes());
    file.extend(32u64.to_le_bytes());
    file.extend([0; 4 + 8]);
    file.resize(file.len().next_multiple_of(32) + 128, 0);
    file
}

#[test]
fn inspect_tells_what_a_gguf_file_holds() {
    let model = tiny();
    let path = model.beside("model.gguf");
    std::fs::write(&path, gguf()).unwrap();
    let facts = json(&kiln(&["inspect", &text(&path), "--json"]));
    assert_eq!(facts["format"], "GGUF version 3");
    assert_eq!(facts["architecture"], "llama");
    assert_eq!(facts["layers"], 5);
    assert_eq!(facts["context"], 77);
    assert_eq!(facts["parameters"], 32);
    assert_eq!(facts["tokenizer"]["eos_ids"][0], 3);
    assert_eq!(facts["tokenizer"]["chat_template"], false);
}
