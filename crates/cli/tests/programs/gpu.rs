//! The device that a program is told to use.

use crate::checkpoint::tiny;
use crate::process::{failed, json, keys, kiln, program, stderr, stdout, succeeded};
use serde_json::Value;

/// The GPUs that the programs list as usable, software ones too. Empty on a machine without.
fn gpus() -> Vec<Value> {
    let listed = json(&kiln(&["devices", "--json"]));
    let mut devices = listed["devices"].as_array().unwrap().clone();
    devices.retain(|device| device["usable"] == true);
    devices
}

#[test]
fn what_is_no_device_is_told_what_is_one() {
    let model = tiny();
    let path = model.argument();
    for wrong in ["abacus", "GPU", "gpu:", "cpu:1", "gpu0", ""] {
        for arguments in [
            &["run", "--model", &path, "-p", "x", "--device", wrong][..],
            &["bench", "-m", &path, "--device", wrong],
        ] {
            let words = ["--device", "cpu, gpu, gpu:INDEX or gpu:NAME"];
            failed(&kiln(arguments), 2, &words);
        }
    }
    let mut door = program("kiln-run", &["--model", &path, "-p", "x"]);
    let output = door.env("KILN_DEVICE", "abacus").output().unwrap();
    failed(&output, 2, &["abacus", "gpu:NAME"]);
}

#[test]
fn a_gpu_that_is_not_there() {
    let model = tiny();
    let path = model.argument();
    for (wrong, word) in [("gpu:nonsense", "\"nonsense\""), ("gpu:99", "no gpu:99")] {
        let device = ["--device", wrong];
        let run = ["run", "--model", &path, "-p", "x"];
        failed(&kiln(&[&run[..], &device].concat()), 8, &[word]);
        let bench = ["bench", "-m", &path];
        failed(&kiln(&[&bench[..], &device].concat()), 8, &[word]);
        let door = program("kiln-run", &["--model", &path, "-p", "x"])
            .env("KILN_DEVICE", wrong)
            .output();
        failed(&door.unwrap(), 8, &[word]);
    }
}

#[test]
fn a_machine_without_a_gpu_has_the_processor_alone() {
    let model = tiny();
    let path = model.argument();
    for variables in [
        &[("WGPU_BACKEND", "none")][..],
        &[
            ("WGPU_BACKEND", "vulkan"),
            ("VK_DRIVER_FILES", "/nonexistent"),
            ("VK_ICD_FILENAMES", "/nonexistent"),
        ],
    ] {
        let with = |arguments: &[&str]| {
            let mut program = program("kiln", arguments);
            program.envs(variables.iter().copied()).output().unwrap()
        };
        let listed = with(&["devices", "--json", "-v"]);
        let devices = &json(&listed)["devices"];
        assert_eq!(devices.as_array().unwrap().len(), 1, "{devices}");
        assert_eq!(devices[0]["name"], "cpu");
        assert!(
            stderr(&listed).starts_with("note: no GPU"),
            "{}",
            stderr(&listed)
        );
        let words = ["no hardware GPU", "WGPU_BACKEND"];
        let run = ["run", "--model", &path, "-p", "x", "--device", "gpu"];
        failed(&with(&run), 8, &words);
        failed(&with(&["bench", "-m", &path, "--device", "gpu"]), 8, &words);
        failed(
            &with(&["bench", "--synthetic", "135m", "--device", "gpu"]),
            8,
            &words,
        );
    }
}

#[test]
fn every_gpu_is_listed_with_what_it_can_do() {
    for gpu in gpus() {
        let known = [
            "name",
            "adapter",
            "backend",
            "kind",
            "driver",
            "buffer_bytes",
            "binding_bytes",
            "subgroups",
            "f16",
            "matrices",
            "usable",
            "lacks",
        ];
        assert_eq!(keys(&gpu), known);
        assert!(gpu["binding_bytes"].as_u64().unwrap() >= 128 << 20, "{gpu}");
        let output = kiln(&["devices", "-v"]);
        succeeded(&output);
        for word in [&gpu["name"], &gpu["adapter"], &gpu["driver"]] {
            let word = word.as_str().unwrap();
            assert!(
                stdout(&output).contains(word),
                "{word} is not in {}",
                stdout(&output)
            );
        }
    }
    let verbose = json(&kiln(&["devices", "--json", "-v"]));
    for gpu in verbose["devices"].as_array().unwrap() {
        let (Some([fewest, most]), Some(found)) = (
            gpu["subgroups"].as_array().map(Vec::as_slice),
            gpu["subgroup_in_use"].as_u64(),
        ) else {
            continue;
        };
        let range = fewest.as_u64().unwrap()..=most.as_u64().unwrap();
        assert!(range.contains(&found), "{gpu}");
    }
}

#[test]
fn every_gpu_finds_the_processors_tokens() {
    let model = tiny();
    let path = model.argument();
    let run = |device: &str| {
        let arguments = [
            "run", "--model", &path, "-p", "abc", "-m", "4", "-v", "--json",
        ];
        let output = kiln(&[&arguments[..], &["--device", device]].concat());
        (json(&output), stderr(&output).to_owned())
    };
    let (wanted, _) = run("cpu");
    for gpu in gpus() {
        for device in [
            &gpu["name"],
            &format!("gpu:{}", gpu["adapter"].as_str().unwrap()).into(),
        ] {
            let (found, told) = run(device.as_str().unwrap());
            assert_eq!(found["token_ids"], wanted["token_ids"], "{device}");
            let used = found["device"].as_str().unwrap();
            assert!(used.contains(gpu["adapter"].as_str().unwrap()), "{used}");
            assert!(told.contains(&format!("device: {used}")), "{told}");
        }
    }
}

#[test]
fn a_software_gpu_is_used_only_when_it_is_named() {
    let gpus = gpus();
    if gpus.iter().any(|gpu| gpu["kind"] != "software") {
        return;
    }
    let model = tiny();
    let path = model.argument();
    let arguments = [
        "run", "--model", &path, "-p", "x", "-m", "1", "--device", "gpu",
    ];
    let mut words = vec!["no hardware GPU"];
    if !gpus.is_empty() {
        words.push("only when it is named");
    }
    failed(&kiln(&arguments), 8, &words);
    for gpu in gpus {
        let mut program = program("kiln", &arguments);
        program.env("WGPU_ADAPTER_NAME", gpu["adapter"].as_str().unwrap());
        succeeded(&program.output().unwrap());
    }
}

#[test]
fn bench_on_a_gpu_has_no_threads_and_tells_the_time_for_encoding() {
    let model = tiny();
    let path = model.argument();
    for gpu in gpus() {
        let name = gpu["name"].as_str().unwrap();
        let arguments = [
            "bench", "-m", &path, "-p", "3", "-n", "3", "-r", "2", "--device", name,
        ];
        let object = json(&kiln(&[&arguments[..], &["--json"]].concat()));
        assert_eq!(object["threads"], Value::Null);
        assert_eq!(object["backend"], gpu["backend"]);
        let token = &object["results"][1]["per_token"];
        let [encode, host] = ["encode_us", "host_us"].map(|key| token[key].as_f64().unwrap());
        assert!(0.0 < encode && encode < host, "{token}");
        let profile = &[&arguments[..], &["--json", "--profile"]].concat();
        let profile = &json(&kiln(profile))["results"][1]["profile"];
        let lines = profile["operations"].as_array().unwrap();
        let steps = |line: &&Value| line["operation"] == "submission";
        let submission = lines.iter().find(steps).unwrap();
        assert_eq!(submission["calls"], 1.0, "{profile}");
        assert_eq!(submission["of_limit"], Value::Null);
        let output = kiln(&arguments);
        let row = stdout(&output).lines().last().unwrap();
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(
            cells[4..6],
            [gpu["backend"].as_str().unwrap(), "-"],
            "{row}"
        );
        assert!(
            stderr(&output).contains("µs to encode"),
            "{}",
            stderr(&output)
        );
    }
}
