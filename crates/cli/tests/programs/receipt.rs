//! What a conversion says it did, and `kiln diff`.

use crate::checkpoint::{text, tiny};
use crate::process::{failed, keys, kiln, program, stderr, stdout, succeeded};
use serde_json::Value;
use std::path::Path;

fn receipt(directory: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(directory.join("conversion.json")).unwrap()).unwrap()
}

#[test]
fn a_receipt_tells_of_every_file_and_every_tensor() {
    let model = tiny();
    let (path, out) = (model.path(), model.beside("out"));
    let arguments = [
        "convert",
        &text(&path),
        "--out",
        &text(&out),
        "-q",
        "--q-group-size",
        "32",
    ];
    succeeded(&kiln(&arguments));
    let receipt = receipt(&out);
    let expected = [
        "schema",
        "tool",
        "source",
        "source_files",
        "files",
        "parameters",
        "bytes",
        "bits_per_weight",
        "tensors",
        "tokenizer",
        "verified",
        "notes",
    ];
    assert_eq!(keys(&receipt), expected);
    assert_eq!(
        (&receipt["schema"], &receipt["source"]),
        (&1.into(), &"model".into())
    );
    for (list, directory) in [("source_files", &path), ("files", &out)] {
        let files = receipt[list].as_array().unwrap();
        for file in files {
            let name = file["name"].as_str().unwrap();
            let sum = program_sum(&directory.join(name));
            assert_eq!(file["sha256"], sum.0, "{name}");
            assert_eq!(file["bytes"], sum.1, "{name}");
        }
        let mut names: Vec<&str> = files.iter().map(|f| f["name"].as_str().unwrap()).collect();
        if list == "files" {
            names.push("conversion.json");
            names.sort();
        }
        let mut there: Vec<String> = directory
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        there.sort();
        assert_eq!(names, there, "{list}");
    }
    let tensors = receipt["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), 20);
    for tensor in tensors {
        let error = &tensor["error"];
        let of = |key: &str| error[key].as_f64().unwrap();
        match tensor["bits"].as_u64() {
            Some(4) => {
                // Random weights from -0.5 to 0.5 in 15 steps.
                assert!((0.04..0.1).contains(&of("relative")), "{tensor}");
                assert!((0.02..0.07).contains(&of("most")), "{tensor}");
                assert!((0.995..0.9999).contains(&of("cosine")), "{tensor}");
            }
            None => assert_eq!((of("relative"), of("most"), of("cosine")), (0.0, 0.0, 1.0)),
            bits => panic!("{bits:?}"),
        }
    }
    // Every byte is a token here.
    let trip = &receipt["tokenizer"];
    assert_eq!(trip["same"], trip["probes"]);
    assert!(trip["probes"].as_u64().unwrap() >= 10);
    let written = receipt.to_string();
    let above = text(path.parent().unwrap());
    assert!(
        !written.contains(&above),
        "a path of the machine is in the receipt"
    );
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    for file in receipt["source_files"].as_array().unwrap() {
        assert!(card.contains(file["sha256"].as_str().unwrap()), "{card}");
    }
    assert!(card.contains("| affine 4 bits, group 32 |"), "{card}");
}

/// The digest that the system's own program gives, and the length.
fn program_sum(path: &Path) -> (String, u64) {
    let output = std::process::Command::new("sha256sum")
        .arg(path)
        .output()
        .unwrap();
    let sum = String::from_utf8(output.stdout).unwrap();
    (sum[..64].to_owned(), path.metadata().unwrap().len())
}

#[test]
fn the_same_conversion_writes_the_same_bytes_on_any_number_of_threads() {
    let model = tiny();
    let convert = |name: &str, threads: &[&str]| {
        let out = model.beside(name);
        let (path, out_) = (model.argument(), text(&out));
        let kiln = env!("CARGO_BIN_EXE_kiln");
        let task = [
            kiln,
            "convert",
            &path,
            "--out",
            &out_,
            "-q",
            "--q-group-size",
            "32",
        ];
        let all = [threads, &task].concat();
        let output = std::process::Command::new(all[0])
            .args(&all[1..])
            .output()
            .unwrap();
        succeeded(&output);
        crate::resume::contents(&out)
    };
    let one = convert("one", &["taskset", "-c", "0"]);
    assert!(convert("all", &["env"]) == one);
    let (path, out) = (model.argument(), text(&model.beside("small")));
    let arguments = [
        "convert",
        &path,
        "--out",
        &out,
        "-q",
        "--q-group-size",
        "32",
    ];
    let refused = kiln(&[&arguments[..], &["--max-memory", "1MB"]].concat());
    failed(&refused, 2, &["MiB to convert", "--max-memory"]);
    let least = stderr(&refused)
        .split_whitespace()
        .find(|word| word.parse::<u64>().is_ok());
    let least = format!("{}MiB", least.unwrap());
    succeeded(&kiln(&[&arguments[..], &["--max-memory", &least]].concat()));
    assert!(crate::resume::contents(Path::new(&out)) == one);
}

#[test]
fn equal_checkpoints_and_different_ones_are_told_apart() {
    let model = tiny();
    let (path, same) = (model.argument(), text(&model.beside("same")));
    let (four, eight) = (text(&model.beside("four")), text(&model.beside("eight")));
    succeeded(&kiln(&["convert", &path, "--out", &same]));
    let quantise = |out: &str, bits: &str| {
        let how = ["-q", "--q-group-size", "32", "--q-bits", bits];
        succeeded(&kiln(
            &[&["convert", &path, "--out", out], &how[..]].concat(),
        ));
    };
    quantise(&four, "4");
    quantise(&eight, "8");

    let output = kiln(&["diff", &path, &same]);
    succeeded(&output);
    assert_eq!(stdout(&output), "equal: 20 tensors\n");

    let output = kiln(&["diff", &path, &four]);
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    let table = stdout(&output);
    assert!(
        table.contains("model.layers.1.mlp.down_proj.weight"),
        "{table}"
    );
    assert!(!table.contains("input_layernorm"), "{table}");
    assert!(
        table.contains("config.json quantization: absent"),
        "{table}"
    );
    assert!(
        table.ends_with(
            "15 of 20 tensors differ, 0 are only in one, 2 keys of the configuration differ\n"
        ),
        "{table}"
    );

    // The same errors as the receipt has.
    let output = program("kiln", &["diff", &path, &four, "--json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7));
    let diff: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(diff["equal"], false);
    let receipt = receipt(Path::new(&four));
    let errors = |list: &Value| -> Vec<(String, Value)> {
        let tensors = list["tensors"].as_array().unwrap().iter();
        tensors
            .map(|t| (t["name"].as_str().unwrap().to_owned(), t["error"].clone()))
            .collect()
    };
    assert_eq!(errors(&diff), errors(&receipt));

    // The same numbers in another layout.
    let npz = text(&model.beside("npz"));
    succeeded(&kiln(&["convert", &path, "--out", &npz, "--format", "npz"]));
    let output = kiln(&["diff", &path, &npz]);
    assert_eq!(output.status.code(), Some(7));
    assert!(
        stdout(&output).contains("0 of 20 tensors differ"),
        "{}",
        stdout(&output)
    );
    let answer = |model: &str| {
        let prompt = ["-p", "hello", "-m", "12", "--ignore-eos", "--json"];
        let output = kiln(&[&["run", "--model", model], &prompt[..]].concat());
        crate::process::json(&output)["token_ids"].clone()
    };
    assert_eq!(answer(&npz), answer(&path));

    let output = kiln(&["diff", &four, &eight]);
    assert_eq!(output.status.code(), Some(7));
    failed(
        &kiln(&["diff", &path, &text(&model.beside("none"))]),
        3,
        &["none"],
    );
}
