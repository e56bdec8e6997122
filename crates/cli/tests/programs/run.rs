//! `kiln run` and its door.

use crate::checkpoint::{BEGIN, CONTEXT, Checkpoint, END, TURN, tiny};
use crate::process::{failed, json, keys, kiln, kiln_reading, program, stderr, stdout, succeeded};
use serde_json::Value;
use std::io::Read;
use std::process::{Command, Stdio};

/// What `kiln run` of a model says with these arguments and `--json`.
fn answer(model: &str, arguments: &[&str]) -> Value {
    json(&kiln(
        &[&["run", "--model", model, "--json"], arguments].concat(),
    ))
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

#[test]
fn standard_output_carries_the_text_alone() {
    let model = tiny();
    let arguments = [
        "run",
        "--model",
        &model.argument(),
        "-p",
        "hello",
        "-m",
        "20",
        "--ignore-eos",
    ];
    let plain = kiln(&arguments);
    succeeded(&plain);
    let object = json(&kiln(&[&arguments[..], &["--json"]].concat()));
    assert_eq!(
        stdout(&plain),
        format!("{}\n", object["text"].as_str().unwrap())
    );
    for line in ["prompt: 12 tokens, ", "generation: 20 tokens, ", " tok/s\n"] {
        assert!(stderr(&plain).contains(line), "{}", stderr(&plain));
    }
    let quiet = kiln(&[&arguments[..], &["-q"]].concat());
    assert_eq!((stdout(&quiet), stderr(&quiet)), (stdout(&plain), ""));
}

#[test]
fn the_json_object_has_the_documented_keys() {
    let model = tiny();
    let object = answer(
        &model.argument(),
        &["-p", "hello", "-m", "3", "--seed", "7"],
    );
    let expected = [
        "text",
        "prompt_ids",
        "token_ids",
        "finish_reason",
        "seed",
        "device",
        "timings",
    ];
    assert_eq!(keys(&object), expected);
    let timings = [
        "load_s",
        "prompt_tokens",
        "prompt_tps",
        "generation_tokens",
        "generation_tps",
        "peak_memory_bytes",
    ];
    assert_eq!(keys(&object["timings"]), timings);
    assert_eq!(object["seed"], 7);
    assert_eq!(object["finish_reason"], "length");
    assert_eq!(object["timings"]["prompt_tokens"], 12);
    assert_eq!(object["timings"]["generation_tokens"], 3);
    assert!(object["device"].as_str().unwrap().starts_with("cpu ("));
}

#[test]
fn the_chat_template_is_used_unless_it_is_ignored() {
    let model = tiny();
    let rendered = |arguments: &[&str]| {
        let arguments = [&["-p", "hi", "-m", "1"], arguments].concat();
        ids(&answer(&model.argument(), &arguments)["prompt_ids"])
    };
    let turn = |text: &str| [bytes(text), vec![END]].concat();
    assert_eq!(rendered(&[]), [turn("user:hi"), vec![TURN]].concat());
    assert_eq!(
        rendered(&["--ignore-chat-template"]),
        [vec![BEGIN], bytes("hi")].concat()
    );
    let with_system = [turn("system:-be brief"), turn("user:hi"), vec![TURN]].concat();
    assert_eq!(rendered(&["--system-prompt", "-be brief"]), with_system);
}

#[test]
fn without_a_template_the_prompt_is_used_as_it_is() {
    let model = Checkpoint {
        template: None,
        ..Checkpoint::tiny()
    }
    .write();
    let object = answer(&model.argument(), &["-p", "hi", "-m", "1"]);
    assert_eq!(
        ids(&object["prompt_ids"]),
        [vec![BEGIN], bytes("hi")].concat()
    );
    let verbose = kiln(&[
        "run",
        "--model",
        &model.argument(),
        "-p",
        "hi",
        "-m",
        "1",
        "-v",
    ]);
    assert!(
        stderr(&verbose).contains("template: none"),
        "{}",
        stderr(&verbose)
    );
    let system = kiln(&[
        "run",
        "--model",
        &model.argument(),
        "-p",
        "a",
        "--system-prompt",
        "b",
    ]);
    failed(&system, 2, &["--system-prompt", "no chat template"]);
}

#[test]
fn a_prompt_can_come_from_standard_input() {
    let model = tiny();
    let arguments = [
        "run",
        "--model",
        &model.argument(),
        "-p",
        "-",
        "-m",
        "4",
        "--json",
    ];
    let read = json(&kiln_reading(&arguments, "grüß\n".as_bytes()));
    let given = answer(&model.argument(), &["-p", "grüß\n", "-m", "4"]);
    assert_eq!(read["prompt_ids"], given["prompt_ids"]);
    assert_eq!(read["token_ids"], given["token_ids"]);
    failed(
        &kiln_reading(&arguments, b"gr\xff"),
        3,
        &["standard input", "UTF-8", "byte 2"],
    );
}

#[test]
fn prompt_ids_are_used_as_they_are() {
    let model = tiny();
    let object = answer(
        &model.argument(),
        &["--prompt-ids", "72,257,105", "-m", "2"],
    );
    assert_eq!(ids(&object["prompt_ids"]), [72, TURN, 105]);
    std::fs::remove_file(model.path().join("tokenizer.json")).unwrap();
    let same = answer(
        &model.argument(),
        &["--prompt-ids", "72,257,105", "-m", "2"],
    );
    assert_eq!(same["token_ids"], object["token_ids"]);
    assert_eq!(same["text"], "");
}

#[test]
fn the_same_seed_gives_the_same_tokens_and_another_one_others() {
    let model = tiny();
    let with = |seed: &str, threads: &str| {
        let arguments = [
            "-p",
            "x",
            "-m",
            "30",
            "--temp",
            "1.5",
            "--top-p",
            "0.99",
            "--ignore-eos",
        ];
        let drawn = ["--seed", seed, "--threads", threads];
        ids(&answer(&model.argument(), &[&arguments[..], &drawn].concat())["token_ids"])
    };
    assert_eq!(with("0", "1"), with("0", "3"));
    assert_ne!(with("0", "1"), with("1", "1"));
}

#[test]
fn the_end_of_sequence_ends_the_answer_and_is_not_in_the_text() {
    let a = u32::from(b'a');
    let model = Checkpoint::tiny()
        .with("eos_token_id", vec![END, a].into())
        .write();
    for (bias, id) in [("256=1000", END), ("97=1000", a)] {
        let arguments = ["-p", "x", "--logit-bias", bias];
        let object = answer(&model.argument(), &arguments);
        assert_eq!(ids(&object["token_ids"]), [id]);
        assert_eq!(object["finish_reason"], "stop");
        assert_eq!(object["text"], "");
        let arguments = [&arguments[..], &["--ignore-eos", "-m", "3"]].concat();
        let object = answer(&model.argument(), &arguments);
        assert_eq!(ids(&object["token_ids"]), [id; 3]);
        assert_eq!(object["finish_reason"], "length");
        assert_eq!(object["text"], if id == a { "aaa" } else { "" });
    }
}

#[test]
fn logprobs_are_reported_when_asked_for() {
    let model = tiny();
    let object = answer(
        &model.argument(),
        &["-p", "x", "-m", "2", "--top-logprobs", "3"],
    );
    let entries = object["logprobs"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    for (entry, id) in entries.iter().zip(ids(&object["token_ids"])) {
        assert_eq!(keys(entry), ["token_id", "logprob", "top"]);
        assert_eq!(entry["token_id"], id);
        let top: Vec<(u32, f64)> = serde_json::from_value(entry["top"].clone()).unwrap();
        assert_eq!(top.len(), 3);
        assert_eq!(
            (top[0].0, top[0].1),
            (id, entry["logprob"].as_f64().unwrap())
        );
        assert!(top[0].1 >= top[1].1 && top[1].1 >= top[2].1 && top[0].1 < 0.0);
    }
}

#[test]
fn text_in_groups_of_tokens_is_the_same_text() {
    let model = tiny();
    let with = |flag: &str, group: &str| {
        let model = model.argument();
        let output = kiln(&["run", "--model", &model, "-p", "x", "-m", "11", flag, group]);
        succeeded(&output);
        stdout(&output).to_owned()
    };
    assert_eq!(
        with("--tokens-per-eval", "1"),
        with("--tokens-per-eval", "4")
    );
    assert_eq!(with("--tokens-per-eval", "1"), with("--write-every", "100"));
}

#[test]
fn a_prompt_that_does_not_fit_is_refused_or_cut_where_asked() {
    let model = tiny();
    let prompt = "x".repeat(CONTEXT - 2) + "y";
    let arguments = ["-p", &prompt, "--ignore-chat-template", "-m", "10"];
    let refused = kiln(&[&["run", "--model", &model.argument()], &arguments[..]].concat());
    failed(
        &refused,
        6,
        &["300 tokens and 10 new ones", "context of 300"],
    );
    for (end, last) in [("head", b'y'), ("tail", b'x')] {
        let object = answer(
            &model.argument(),
            &[&arguments[..], &["--truncate", end]].concat(),
        );
        let prompt = ids(&object["prompt_ids"]);
        assert_eq!((prompt.len(), prompt[289]), (CONTEXT - 10, u32::from(last)));
    }
}

#[test]
fn the_door_takes_the_same_arguments() {
    let model = tiny();
    let arguments = [
        "--model-path",
        &model.argument(),
        "--prompt",
        "x",
        "--max-tokens",
        "5",
    ];
    let door = program("kiln-run", &arguments).output().unwrap();
    succeeded(&door);
    let house = kiln(&[&["run"], &arguments[..]].concat());
    assert_eq!(stdout(&door), stdout(&house));
}

#[test]
fn the_environment_chooses_instructions_threads_and_plans() {
    let model = tiny();
    let arguments = [
        "run",
        "--model",
        &model.argument(),
        "-p",
        "x",
        "-m",
        "2",
        "--json",
    ];
    let with = |name: &str, value: &str| {
        program("kiln", &arguments)
            .env(name, value)
            .output()
            .unwrap()
    };
    let object = json(&with("KILN_ISA", "scalar"));
    assert!(
        object["device"].as_str().unwrap().contains("scalar"),
        "{object}"
    );
    failed(&with("KILN_ISA", "sse9"), 2, &["sse9", "scalar"]);
    let object = json(&with("KILN_THREADS", "3"));
    assert!(
        object["device"].as_str().unwrap().contains("3 threads"),
        "{object}"
    );
    let plan = with("KILN_PLAN", "1");
    assert!(stderr(&plan).contains("rms_norm"), "{}", stderr(&plan));
    assert_eq!(json(&plan)["token_ids"], object["token_ids"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let context = 100_000;
    let model = Checkpoint::tiny()
        .with("max_position_embeddings", context.into())
        .write();
    let arguments = [
        "run",
        "--model",
        &model.argument(),
        "-p",
        "x",
        "-m",
        "90000",
        "--ignore-eos",
    ];
    let mut command = program("kiln", &arguments);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
}

#[test]
#[cfg(unix)]
fn an_interrupt_ends_the_answer_with_its_statistics() {
    let context = 100_000;
    let model = Checkpoint::tiny()
        .with("max_position_embeddings", context.into())
        .write();
    let arguments = [
        "run",
        "--model",
        &model.argument(),
        "-p",
        "x",
        "-m",
        "90000",
        "--ignore-eos",
    ];
    let mut command = program("kiln", &arguments);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first character is there: the generation runs.
    let mut first = [0];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("generation: "),
        "{}",
        stderr(&output)
    );
    assert!(output.stdout.ends_with(b"\n"));
}
