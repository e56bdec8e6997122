//! Where the time goes: `kiln bench --profile`, `kiln bench --limits`, `KILN_TRACE`.

use crate::checkpoint::tiny;
use crate::process::{failed, json, keys, kiln, program, stdout, succeeded};
use serde_json::Value;

/// Tokens that a test generates; two more warm it up.
const TOKENS: u64 = 3;

#[test]
fn a_profile_has_a_line_for_each_kind_of_step_and_accounts_for_all_time() {
    let model = tiny();
    let path = model.argument();
    let arguments = ["bench", "-m", &path, "-p", "5", "-n", "3", "-r", "2"];
    let arguments = [&arguments[..], &["--threads", "1", "--profile"]].concat();
    let object = json(&kiln(&[&arguments[..], &["--json"]].concat()));
    let results = object["results"].as_array().unwrap();
    let each: Vec<&Value> = results.iter().map(|row| &row["profile"]["per"]).collect();
    assert_eq!(each, ["prompt", "token"]);
    for (row, tokens) in results.iter().zip([5, 1]) {
        let lines = row["profile"]["operations"].as_array().unwrap();
        let find = |operation: &str, operand: &str| {
            let is = |line: &&Value| line["operation"] == operation && line["operand"] == operand;
            lines.iter().find(is).unwrap_or_else(|| panic!("{row}"))
        };
        let down = find("matmul", "f32[32, 64]");
        assert_eq!(down["calls"], 2.0, "a layer has one");
        // The vector, the weights, what is added, the sum.
        let bytes = 4 * (32 * 64 + tokens * (64 + 32 + 32));
        assert_eq!(down["bytes"].as_f64(), Some(2.0 * bytes as f64));
        let products = 2 * tokens * 32 * 64;
        assert_eq!(down["operations"].as_f64(), Some(2.0 * products as f64));
        assert!(down["of_limit"].as_f64().unwrap() > 0.0);
        assert_eq!(find("attention", "f32[2, 256, 8]")["calls"], 2.0);
        let shares = lines.iter().map(|line| line["share"].as_f64().unwrap());
        let all: f64 = shares.sum();
        assert!((all - 1.0).abs() < 0.01, "{all}");
    }
    let text = kiln(&arguments);
    succeeded(&text);
    for words in [
        "pp5, per prompt:",
        "tg3, per token:",
        "between steps",
        "host",
    ] {
        assert!(stdout(&text).contains(words), "{}", stdout(&text));
    }
}

#[test]
fn the_limits_are_those_of_the_threads_and_the_instruction_set() {
    let arguments = ["bench", "--limits", "--threads", "1", "--json"];
    let mut program = program("kiln", &arguments);
    let output = program.env("KILN_ISA", "scalar").output().unwrap();
    let limits = json(&output);
    assert_eq!(
        keys(&limits),
        ["threads", "bandwidth", "bytes", "operations"]
    );
    assert_eq!(keys(&limits["operations"]), ["f32"]);
    assert_eq!(
        (&limits["threads"], &limits["bytes"]),
        (&1.into(), &(1u64 << 30).into())
    );
    failed(&kiln(&["bench", "--limits", "-m", "x"]), 2, &["--limits"]);
}

#[test]
fn a_trace_has_every_step_of_every_run() {
    let model = tiny();
    let path = model.argument();
    let file = model.path().join("trace.json");
    let arguments = ["bench", "-m", &path, "-p", "0", "-n", "3", "-r", "1"];
    let mut program = program("kiln", &[&arguments[..], &["--threads", "2"]].concat());
    let output = program.env("KILN_TRACE", &file).output().unwrap();
    succeeded(&output);
    let text = std::fs::read_to_string(&file).unwrap();
    let events: Vec<Value> = serde_json::from_str(&text).unwrap();
    let count = |lane: u64, name: &str| {
        let of = |event: &&Value| event["tid"] == lane && event["name"] == name;
        events.iter().filter(of).count() as u64
    };
    let layers = 2;
    assert_eq!(count(0, "attention"), layers * (TOKENS + 2));
    let on_threads = count(1, "attention") + count(2, "attention");
    assert!(on_threads >= layers * (TOKENS + 2), "{on_threads}");
    let matmul = events
        .iter()
        .find(|event| event["name"] == "matmul")
        .unwrap();
    assert!(matmul["args"]["bytes"].as_u64().unwrap() > 0, "{matmul}");
    let missing = model.path().join("none").join("trace.json");
    let mut program = crate::process::program("kiln", &arguments);
    let output = program.env("KILN_TRACE", missing).output().unwrap();
    failed(&output, 3, &["KILN_TRACE", "none"]);
}
