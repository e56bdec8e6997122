//! The directory that is written: whole, or not at all.

use crate::made::*;
use kiln_convert::{Error, Options, Quantise, convert};
use kiln_plan::{DType, Mode};
use std::cell::Cell;
use std::ops::ControlFlow;

fn four_bits() -> Options {
    let quantise = Quantise {
        mode: Mode::Affine,
        bits: None,
        group: None,
    };
    Options {
        quantise: Some(quantise),
        ..Options::default()
    }
}

#[test]
fn the_layout_is_mlx_s() {
    let place = hugging_face(&config(), DType::F16);
    place.put("generation_config.json", r#"{"eos_token_id": [2, 7]}"#);
    place.put("chat_template.jinja", "{{ messages }}");
    place.put("pytorch_model.bin", "not taken along");
    let report = place.convert(&four_bits()).unwrap();
    let names: Vec<&str> = report.files.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "README.md",
        "chat_template.jinja",
        "config.json",
        "conversion.json",
        "generation_config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ];
    assert_eq!(names, expected);
    for (name, size) in &report.files {
        assert_eq!(
            place.destination().join(name).metadata().unwrap().len(),
            *size,
            "{name}"
        );
    }
    let weights = std::fs::read(place.destination().join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(*weights.first_chunk().unwrap());
    assert_eq!((8 + header) % 64, 0);
    assert!(weights[8..].starts_with(br#"{"__metadata__":{"format":"mlx"},"#));
    assert_eq!(place.names(), ["destination", "source"]);

    let index = json_of(&place.destination().join("model.safetensors.index.json"));
    assert_eq!(index["metadata"]["total_size"], report.bytes);
    assert_eq!(index["metadata"]["total_parameters"], report.parameters);
    let map = index["weight_map"].as_object().unwrap();
    assert_eq!(map.len(), report.tensors);
    assert!(map.keys().is_sorted() && map.values().all(|file| file == "model.safetensors"));

    let text = std::fs::read_to_string(place.destination().join("config.json")).unwrap();
    assert!(
        text.starts_with("{\n    \"architectures\": [\n        \"LlamaForCausalLM\"\n    ],\n")
    );
    let config = place.result_config();
    assert!(config.as_object().unwrap().keys().is_sorted());
    assert!(config.get("_name_or_path").is_none());
    assert_eq!(config["eos_token_id"], serde_json::json!([2, 7]));
    let card = std::fs::read_to_string(place.destination().join("README.md")).unwrap();
    assert!(card.starts_with("---\nlanguage: en\nlibrary_name: mlx\n"));
}

#[test]
fn progress_reaches_the_total_and_never_goes_back() {
    let place = hugging_face(&config(), DType::F16);
    let mut steps = Vec::new();
    let mut progress = |progress: &kiln_convert::Progress<'_>| {
        steps.push((progress.done, progress.total));
        ControlFlow::Continue(())
    };
    let (source, destination) = (place.source(), place.destination());
    let report = convert(&source, &destination, &four_bits(), &open, &mut progress).unwrap();
    assert!(steps.is_sorted() && steps.iter().all(|step| step.1 == report.bytes));
    assert_eq!(steps.last().unwrap().0, report.bytes);
}

#[test]
fn an_interruption_at_any_step_leaves_nothing() {
    let place = hugging_face(&config(), DType::F16);
    let (source, destination) = (place.source(), place.destination());
    for stop in 0.. {
        let mut left = stop;
        let mut progress = |_: &kiln_convert::Progress<'_>| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            ControlFlow::Continue(())
        };
        match convert(&source, &destination, &four_bits(), &open, &mut progress) {
            Err(Error::Interrupted) => assert_eq!(place.names(), ["source"], "step {stop}"),
            Ok(_) => {
                assert!(stop > 40, "only {stop} steps");
                break;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(place.names(), ["destination", "source"]);
}

#[test]
fn a_failing_read_at_any_step_leaves_nothing() {
    let place = hugging_face(&config(), DType::F16);
    let (source, destination) = (place.source(), place.destination());
    for fail in 0.. {
        let left = Cell::new(fail);
        let opened = |path: &std::path::Path| {
            if left.get() == 0 {
                return Err(std::io::Error::other("pulled out"));
            }
            left.set(left.get() - 1);
            open(path)
        };
        let go_on = &mut |_: &kiln_convert::Progress<'_>| ControlFlow::Continue(());
        match convert(&source, &destination, &four_bits(), &opened, go_on) {
            Err(error) => {
                assert!(error.to_string().ends_with("cannot be read"), "{error}");
                assert_eq!(place.names(), ["source"], "read {fail}");
            }
            Ok(_) => {
                assert!(fail >= 2, "only {fail} reads");
                break;
            }
        }
    }
}

/// Converts, and does something to the file with the weights after so many steps. The result, and
/// whether there were so many.
fn disturbed(
    place: &Place,
    after: usize,
    disturb: &dyn Fn(&std::path::Path),
) -> (kiln_convert::Result<()>, bool) {
    let (source, destination) = (place.source(), place.destination());
    let file = source.join("model.safetensors");
    let mut step = 0;
    let mut progress = |_: &kiln_convert::Progress<'_>| {
        if step == after {
            disturb(&file);
        }
        step += 1;
        ControlFlow::Continue(())
    };
    let result = convert(&source, &destination, &four_bits(), &open, &mut progress);
    (result.map(|_| ()), step > after)
}

#[test]
fn a_file_that_becomes_shorter_or_goes_away_is_an_error() {
    let place = hugging_face(&config(), DType::F16);
    let file = place.source().join("model.safetensors");
    let whole = std::fs::read(&file).unwrap();
    let cut = |path: &std::path::Path| {
        let opened = std::fs::File::options().write(true).open(path);
        opened.unwrap().set_len(3000).unwrap();
    };
    let removed = |path: &std::path::Path| std::fs::remove_file(path).unwrap();
    for disturb in [&cut as &dyn Fn(&std::path::Path), &removed] {
        // Between tensors, while there are more to read.
        for after in [0, 7, 20] {
            let (result, _) = disturbed(&place, after, disturb);
            let message = result.unwrap_err().to_string();
            assert!(
                message.ends_with("model.safetensors: cannot be read"),
                "{message}"
            );
            assert_eq!(place.names(), ["source"], "step {after}");
            std::fs::write(&file, &whole).unwrap();
        }
    }
    let (result, reached) = disturbed(&place, usize::MAX, &removed);
    assert!(result.is_ok() && !reached);
}

#[test]
fn a_destination_that_exists_is_kept_without_force() {
    let place = hugging_face(&config(), DType::F16);
    std::fs::create_dir(place.destination()).unwrap();
    let error = place.convert(&Options::default()).unwrap_err();
    assert!(matches!(error, Error::Exists { .. }));
    let message = error.to_string();
    assert!(message.ends_with("already exists; give another path, or --force to replace it"));
    assert_eq!(place.destination().read_dir().unwrap().count(), 0);
}

#[test]
fn force_replaces_a_model_only_when_the_new_one_is_complete() {
    let place = hugging_face(&config(), DType::F16);
    place.convert(&Options::default()).unwrap();
    std::fs::write(place.destination().join("old"), "").unwrap();
    let force = Options {
        force: true,
        ..four_bits()
    };
    let stop = &mut |_: &kiln_convert::Progress<'_>| ControlFlow::Break(());
    let stopped = convert(&place.source(), &place.destination(), &force, &open, stop);
    assert!(matches!(stopped, Err(Error::Interrupted)));
    assert!(place.destination().join("old").exists());
    place.convert(&force).unwrap();
    assert!(!place.destination().join("old").exists());
    assert!(place.result_config().get("quantization").is_some());
    assert_eq!(place.names(), ["destination", "source"]);
}

#[test]
fn force_never_removes_what_is_not_a_model_or_holds_the_source() {
    let place = hugging_face(&config(), DType::F16);
    let force = Options {
        force: true,
        ..Options::default()
    };
    std::fs::create_dir(place.destination()).unwrap();
    std::fs::write(place.destination().join("diary.txt"), "dear").unwrap();
    assert!(place.refused(&force).contains("is not a model's directory"));
    let go_on = &mut |_: &kiln_convert::Progress<'_>| ControlFlow::Continue(());
    let above = place.source().parent().unwrap().to_owned();
    for destination in [place.source(), above] {
        let error = convert(&place.source(), &destination, &force, &open, go_on).unwrap_err();
        assert!(error.to_string().contains("holds the source"), "{error}");
    }
    assert!(place.source().join("model.safetensors").exists());
    std::fs::remove_dir_all(place.destination()).unwrap();
    std::fs::write(place.destination(), "a file").unwrap();
    assert!(place.refused(&force).contains("is not a directory"));
}
