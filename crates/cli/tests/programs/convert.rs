//! `kiln convert` and its door.

use crate::checkpoint::{text, tiny};
use crate::process::{failed, json, keys, kiln, program, stderr, stdout, succeeded};
use serde_json::json;

/// The token ids of a greedy answer.
fn tokens(model: &str) -> serde_json::Value {
    let arguments = [
        "run",
        "--model",
        model,
        "-p",
        "hello",
        "-m",
        "24",
        "--ignore-eos",
        "--json",
    ];
    json(&kiln(&arguments))["token_ids"].clone()
}

#[test]
fn a_converted_model_answers_as_the_original_does() {
    let model = tiny();
    let out = text(&model.beside("out"));
    let output = kiln(&["convert", &model.argument(), "--mlx-path", &out]);
    succeeded(&output);
    assert_eq!(stdout(&output), format!("{out}\n"));
    assert!(
        stderr(&output).contains("32.000 bits per weight"),
        "{}",
        stderr(&output)
    );
    assert_eq!(tokens(&out), tokens(&model.argument()));
}

#[test]
fn a_quantised_model_runs() {
    let model = tiny();
    let modes: [&[&str]; 4] = [
        &["--q-group-size", "32"],
        &[
            "--q-group-size",
            "32",
            "--q-bits",
            "8",
            "--dtype",
            "float16",
        ],
        &["--q-mode", "mxfp4"],
        &["--q-mode", "nvfp4", "--dtype", "bfloat16"],
    ];
    for (i, mode) in modes.into_iter().enumerate() {
        let out = text(&model.beside(&format!("out{i}")));
        let arguments = [
            "convert",
            "--hf-path",
            &model.argument(),
            "--out",
            &out,
            "-q",
        ];
        succeeded(&kiln(&[&arguments[..], mode].concat()));
        assert_eq!(tokens(&out).as_array().unwrap().len(), 24);
    }
}

#[test]
fn the_report_is_an_object_with_json() {
    let model = tiny();
    let out = text(&model.beside("out"));
    let report = json(&kiln(&[
        "convert",
        "--model",
        &model.argument(),
        "--out",
        &out,
        "--json",
    ]));
    let expected = [
        "path",
        "files",
        "formats",
        "tensors",
        "bytes",
        "parameters",
        "bits_per_weight",
        "notes",
        "verified",
        "seconds",
        "peak_memory_bytes",
    ];
    assert_eq!(keys(&report), expected);
    assert_eq!(report["path"], out);
    assert_eq!(report["tensors"], 20);
    assert_eq!(report["bits_per_weight"], 32.0);
}

#[test]
fn an_output_that_exists_is_kept_unless_forced() {
    let model = tiny();
    let out = model.beside("out");
    let arguments = ["convert", &model.argument(), "--out", &text(&out)];
    succeeded(&kiln(&arguments));
    let before = std::fs::metadata(out.join("config.json"))
        .unwrap()
        .modified()
        .unwrap();
    failed(&kiln(&arguments), 2, &["out", "already exists", "--force"]);
    let after = std::fs::metadata(out.join("config.json"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(before, after);
    succeeded(&kiln(
        &[&arguments[..], &["--force", "--dtype", "float16"]].concat(),
    ));
    assert!(
        std::fs::read_to_string(out.join("config.json"))
            .unwrap()
            .contains("float16")
    );
    assert_eq!(model.names(), ["model", "out"]);
}

#[test]
fn a_group_that_does_not_divide_is_refused_by_the_tensors_name() {
    let model = tiny();
    let out = text(&model.beside("out"));
    let output = kiln(&["convert", &model.argument(), "--out", &out, "-q"]);
    failed(
        &output,
        4,
        &["model.embed_tokens.weight", "64", "32", "--q-group-size"],
    );
    assert_eq!(model.names(), ["model"]);
}

#[test]
fn flags_that_do_not_fit_are_refused() {
    let model = tiny();
    let (path, out) = (model.argument(), text(&model.beside("out")));
    let cases: [&[&str]; 11] = [
        &[&path, "--quant-predicate", "mixed_5_6"],
        &[&path, "-q", "-d"],
        &[&path, "--rule", "*=9"],
        &[&path, "--rule", "norm=8"],
        &[&path, "--target-bpw", "many"],
        &[&path, "--q-bits", "4"],
        &[&path, "-q", "--q-bits", "7"],
        &[&path, "-q", "--q-mode", "mxfp4", "--q-bits", "8"],
        &[&path, "--hf-path", &path],
        &[],
        &[&path, "--dtype", "int8"],
    ];
    for case in cases {
        failed(&kiln(&[&["convert", "--out", &out], case].concat()), 2, &[]);
    }
    assert_eq!(model.names(), ["model"]);
}

/// The arguments of a conversion of `model` with groups that fit its rows, and `more`.
fn quantising<'a>(model: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let base = ["convert", model, "--out", out, "-q", "--q-group-size", "32"];
    [&base[..], more].concat()
}

#[test]
fn a_dry_run_tells_what_the_real_run_does() {
    let model = tiny();
    let (path, out) = (model.argument(), text(&model.beside("out")));
    let rules = model.beside("recipe.toml");
    std::fs::write(&rules, "rules = ['*.v_proj=6', 'embed_tokens=float16']\n").unwrap();
    let rules = text(&rules);
    let more = ["--rule", "layers.-1.*=mxfp8", "--rules", &rules];
    let wrong = quantising(&path, &out, &[&more[..], &["--dry-run"]].concat());
    failed(
        &kiln(&wrong),
        2,
        &["rule \"layers.-1.*=mxfp8\"", "matches no layer"],
    );
    let more = ["--rule", "layers.{-1}.*=mxfp8", "--rules", &rules];
    let arguments = quantising(&path, &out, &more);
    let table = kiln(&[&arguments[..], &["--dry-run"]].concat());
    succeeded(&table);
    let plan = json(&kiln(&[&arguments[..], &["--dry-run", "--json"]].concat()));
    assert_eq!(model.names(), ["model", "recipe.toml"]);
    assert!(!stderr(&table).contains("would stop"), "{}", stderr(&table));
    let expected = [
        "tensors",
        "parameters",
        "bytes",
        "bits_per_weight",
        "memory_bytes",
        "notes",
    ];
    assert_eq!(keys(&plan), expected);
    let report = json(&kiln(&[&arguments[..], &["--json"]].concat()));
    for key in ["parameters", "bytes", "bits_per_weight", "notes"] {
        assert_eq!(plan[key], report[key], "{key}");
    }
    let lines: Vec<String> = stdout(&table).lines().map(str::to_owned).collect();
    let tensors = plan["tensors"].as_array().unwrap();
    for (tensor, line) in tensors.iter().zip(&lines[1..]) {
        for key in ["source", "name", "rule"] {
            assert!(line.contains(tensor[key].as_str().unwrap_or("")), "{line}");
        }
        assert!(line.contains(&tensor["bytes"].to_string()), "{line}");
    }
    let of = |name: &str| {
        tensors
            .iter()
            .find(|tensor| tensor["name"] == name)
            .unwrap()
    };
    let embedding = of("model.embed_tokens.weight");
    assert_eq!(
        (&embedding["kind"], &embedding["bits"]),
        (&"F16".into(), &json!(null))
    );
    assert_eq!(embedding["rule"], "embed_tokens=float16");
    let v = of("model.layers.0.self_attn.v_proj.weight");
    assert_eq!(
        (&v["kind"], &v["bits"], &v["group"]),
        (&"affine".into(), &json!(6), &json!(32))
    );
    assert!(lines.last().unwrap().contains("of memory"), "{lines:?}");
    let again = kiln(&[&arguments[..], &["--dry-run"]].concat());
    assert_eq!(stdout(&again), stdout(&table));
    let told = stderr(&again);
    assert!(
        told.contains("would stop") && told.contains("already exists"),
        "{told}"
    );
}

#[test]
fn quantised_directories_are_sources_too() {
    let model = tiny();
    let (path, mixed) = (model.argument(), text(&model.beside("mixed")));
    succeeded(&kiln(&quantising(
        &path,
        &mixed,
        &["--quant-predicate", "mixed_3_6"],
    )));
    let (kept, plain) = (text(&model.beside("kept")), text(&model.beside("plain")));
    succeeded(&kiln(&["convert", &mixed, "--out", &kept]));
    assert_eq!(tokens(&kept), tokens(&mixed));
    let output = kiln(&["convert", &mixed, "--out", &plain, "-d"]);
    succeeded(&output);
    assert!(
        stderr(&output).contains("dequantised to float32"),
        "{}",
        stderr(&output)
    );
    assert_eq!(tokens(&plain), tokens(&mixed));
    let again = text(&model.beside("again"));
    let output = kiln(&quantising(&mixed, &again, &["--q-bits", "8"]));
    succeeded(&output);
    assert!(
        stderr(&output).contains("requantised to q8g32-f32"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_target_is_reached_or_refused() {
    let model = tiny();
    let (path, out) = (model.argument(), text(&model.beside("out")));
    let report = json(&kiln(&quantising(
        &path,
        &out,
        &["--target-bpw", "6.5", "--json"],
    )));
    let reached = report["bits_per_weight"].as_f64().unwrap();
    assert!((6.0..=6.5).contains(&reached), "{reached}");
    let refused = kiln(&quantising(&path, &out, &["--force", "--target-bpw", "1"]));
    failed(&refused, 2, &["1 bits per weight cannot be reached"]);
}

#[test]
fn the_door_takes_the_same_arguments() {
    let model = tiny();
    let out = text(&model.beside("out"));
    let arguments = [
        "--torch-path",
        &model.argument(),
        "--mlx-path",
        &out,
        "--trust-remote-code",
    ];
    let door = program("kiln-convert", &arguments).output().unwrap();
    succeeded(&door);
    assert!(
        stderr(&door).contains("never executed"),
        "{}",
        stderr(&door)
    );
    assert_eq!(stdout(&door), format!("{out}\n"));
}
