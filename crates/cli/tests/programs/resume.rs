//! Conversions that are killed, run out of space, or must do with little memory.

use crate::checkpoint::{Checkpoint, Model, text};
use crate::process::{failed, json, kiln, program, succeeded};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Everything in a directory: names and contents.
pub(crate) fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = directory.read_dir().unwrap();
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read(path).unwrap())
    };
    entries.map(file).collect()
}

/// The tiny model with more and larger layers: some 30 MB.
fn larger() -> Model {
    let mut checkpoint = Checkpoint::tiny();
    let (hidden, intermediate, layers) = (256, 1024, 8);
    for (key, value) in [
        ("hidden_size", hidden),
        ("intermediate_size", intermediate),
        ("num_hidden_layers", layers),
    ] {
        checkpoint = checkpoint.with(key, json!(value));
    }
    let scale = |size: usize| match size {
        16 => hidden / 2,
        32 => hidden,
        64 => intermediate,
        other => other,
    };
    let tensors = std::mem::take(&mut checkpoint.tensors);
    let mut state = 1u32;
    for (name, (shape, _)) in tensors {
        if name.contains("layers.1.") {
            continue;
        }
        let shape: Vec<usize> = shape.into_iter().map(scale).collect();
        for layer in 0..layers {
            let name = name.replace("layers.0.", &format!("layers.{layer}."));
            let weights = (0..shape.iter().product()).map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.5
            });
            checkpoint
                .tensors
                .insert(name, (shape.clone(), weights.collect()));
        }
    }
    checkpoint.write()
}

/// How often a conversion is killed: `KILN_KILLS`, or a few times.
fn kills() -> usize {
    std::env::var("KILN_KILLS").map_or(10, |kills| kills.parse().unwrap())
}

#[test]
fn a_conversion_that_is_killed_is_absent_or_resumed() {
    let model = larger();
    let (path, whole, out) = (model.argument(), model.beside("whole"), model.beside("out"));
    let run = |out: &Path, more: &[&str]| {
        let out = text(out);
        program(
            "kiln",
            &[&["convert", &path, "--out", &out, "-q"], more].concat(),
        )
    };
    let start = Instant::now();
    succeeded(&run(&whole, &[]).output().unwrap());
    let length = start.elapsed();
    let expected = contents(&whole);
    // What a kill leaves: a part that is resumed, one that is begun anew, nothing, the whole.
    let (mut resumed, mut again, mut nothing, mut complete) = (0, 0, 0, 0);
    let (mut killed, mut seed) = (0, 12345u64);
    // After a kill every other conversion begins anew, the others are resumed, also several times.
    for round in 0.. {
        let more: &[&str] = if round % 2 == 1 { &[] } else { &["--resume"] };
        loop {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
            let moment = length.mul_f64((seed >> 33) as f64 / (1u64 << 31) as f64);
            let mut child = run(&out, more)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(moment);
            child.kill().unwrap();
            let done = child.wait().unwrap().success();
            killed += usize::from(!done);
            let part = model.beside(".out.partial").exists();
            let left = match (out.exists(), part, more.is_empty()) {
                (true, ..) => &mut complete,
                (false, true, true) => &mut again,
                (false, true, false) => &mut resumed,
                (false, false, _) => &mut nothing,
            };
            *left += usize::from(!done);
            // Either there is nothing of that name, or it is whole.
            assert!(!out.exists() || contents(&out) == expected, "kill {killed}");
            if done || out.exists() || killed >= kills() {
                break;
            }
        }
        if !out.exists() {
            succeeded(&run(&out, more).output().unwrap());
        }
        assert!(contents(&out) == expected, "round {round}");
        std::fs::remove_dir_all(&out).unwrap();
        if killed >= kills() {
            break;
        }
    }
    assert!(
        resumed + again > 0,
        "no conversion was killed while it wrote"
    );
    succeeded(&run(&out, &[]).output().unwrap());
    assert_eq!(model.names(), ["model", "out", "whole"]);
    println!(
        "{killed} kills: {resumed} resumed, {again} begun anew, {nothing} left nothing, {complete} \
         the whole; {length:?} for a conversion"
    );
}

#[test]
fn running_out_of_space_leaves_nothing_or_what_can_be_resumed() {
    let model = larger();
    let (path, whole, out) = (model.argument(), model.beside("whole"), model.beside("out"));
    succeeded(&kiln(&["convert", &path, "--out", &text(&whole), "-q"]));
    let expected = contents(&whole);
    // Files may be so many blocks of 512 bytes long; what is beyond is an error, not a signal.
    let limited = |blocks: usize, more: &str| {
        let script = format!(
            "trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" convert \"$1\" --out \"$2\" -q {more}"
        );
        let kiln = env!("CARGO_BIN_EXE_kiln");
        let (path, out) = (model.argument(), text(&out));
        Command::new("sh")
            .args(["-c", &script, kiln, &path, &out])
            .output()
            .unwrap()
    };
    let total = expected["model.safetensors"].len() / 512;
    for blocks in [0, 1, 8, total / 3, total / 2, total - 1] {
        failed(&limited(blocks, ""), 3, &["cannot be written", "caused by"]);
        assert_eq!(model.names(), ["model", "whole"], "{blocks} blocks");
    }
    for blocks in [8, total / 3, total - 1] {
        failed(&limited(blocks, "--resume"), 3, &["cannot be written"]);
        succeeded(&kiln(&[
            "convert",
            &path,
            "--out",
            &text(&out),
            "-q",
            "--resume",
        ]));
        assert!(contents(&out) == expected, "{blocks} blocks");
        std::fs::remove_dir_all(&out).unwrap();
    }
    assert_eq!(model.names(), ["model", "whole"]);
}

/// A model of 400 MB in f16, most of it one tensor; its file is a hole on the disk.
fn hollow(directory: &Path) -> PathBuf {
    let (vocabulary, hidden) = (65536usize, 1024usize);
    let model = Checkpoint::tiny()
        .with("vocab_size", json!(vocabulary))
        .write();
    let path = directory.join("hollow");
    std::fs::create_dir(&path).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(model.path().join(name), path.join(name)).unwrap();
    }
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(model.path().join("config.json")).unwrap()).unwrap();
    for (key, value) in [("hidden_size", hidden), ("intermediate_size", 2 * hidden)] {
        config[key] = value.into();
    }
    config["torch_dtype"] = "float16".into();
    std::fs::write(path.join("config.json"), config.to_string()).unwrap();
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, (shape, _)) in Checkpoint::tiny().tensors {
        let scale = |size: usize| match size {
            259 => vocabulary,
            other => other * hidden / 32,
        };
        let shape: Vec<usize> = shape.into_iter().map(scale).collect();
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(
            name,
            json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]}),
        );
    }
    let header = serde_json::Value::Object(header).to_string().into_bytes();
    let start = [&(header.len() as u64).to_le_bytes(), &header[..]].concat();
    let file = path.join("model.safetensors");
    std::fs::write(&file, &start).unwrap();
    let file = std::fs::File::options().write(true).open(file).unwrap();
    file.set_len((start.len() + end) as u64).unwrap();
    path
}

#[test]
fn memory_is_that_of_blocks_whatever_the_size_of_a_tensor() {
    let directory = tempfile::tempdir().unwrap();
    let (path, out) = (hollow(directory.path()), directory.path().join("out"));
    let arguments = [
        "convert",
        &text(&path),
        "--out",
        &text(&out),
        "-q",
        "--json",
        "--force",
    ];
    let plan = json(&kiln(&[&arguments[..], &["--dry-run"]].concat()));
    let report = json(&kiln(&arguments));
    let (told, needed) = (&plan["memory_bytes"], &report["peak_memory_bytes"]);
    let (told, needed) = (told.as_u64().unwrap(), needed.as_u64().unwrap());
    let largest = 2 * 65536 * 1024;
    assert!(needed <= told, "{needed} of {told} bytes");
    assert!(
        needed < largest,
        "{needed} bytes, the largest tensor has {largest}"
    );
    // On little memory the same bytes are written.
    let expected = contents(&out);
    let report = json(&kiln(
        &[&arguments[..], &["--max-memory", "60MiB"]].concat(),
    ));
    let needed = report["peak_memory_bytes"].as_u64().unwrap();
    assert!(needed <= 60 << 20, "{needed} bytes");
    assert!(contents(&out) == expected);
}
