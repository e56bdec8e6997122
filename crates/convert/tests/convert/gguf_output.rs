//! GGUF files that are written.

use crate::made::*;
use kiln_convert::{Layout, Options, Quantise, convert};
use kiln_formats::gguf::{Gguf, Value};
use kiln_formats::{BlockType, Checkpoint, File, Type, gguf, safetensors};
use kiln_plan::{DType, Mode};
use std::ops::ControlFlow;

/// A tokenizer with the words of GPT-2.
pub(crate) const TOKENIZER: &str = r#"{
    "version": "1.0",
    "added_tokens": [{"id": 3, "content": "<end>", "special": true, "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
    "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}
}"#;

fn to_gguf(blocks: Option<BlockType>) -> Options {
    Options {
        layout: Layout::Gguf,
        blocks,
        ..Options::default()
    }
}

fn place() -> Place {
    let place = hugging_face(&config(), DType::F16);
    place.put("tokenizer.json", TOKENIZER);
    place.put(
        "tokenizer_config.json",
        r#"{"eos_token": "<end>", "chat_template": "{{ messages }}"}"#,
    );
    place
}

fn written(place: &Place) -> Gguf {
    let path = place.destination().join("model.gguf");
    gguf::read(File::open(&path, &open).unwrap()).unwrap()
}

fn tensors(checkpoint: &Checkpoint) -> Vec<(String, Vec<u8>)> {
    let bytes =
        |tensor: &kiln_formats::Tensor| (tensor.name.clone(), checkpoint.bytes(tensor).to_vec());
    checkpoint.iter().map(bytes).collect()
}

#[test]
fn there_and_back_changes_no_number() {
    let place = place();
    place.convert(&to_gguf(None)).unwrap();
    let file = written(&place);
    let types = |name: &str| file.checkpoint().tensor(name).unwrap().dtype;
    assert_eq!(types("blk.1.attn_q.weight"), Type::F16);
    // llama.cpp wants vectors in f32.
    assert_eq!(types("blk.1.attn_norm.weight"), Type::F32);
    let back = place.destination().with_file_name("back");
    let go_on = &mut |_: &kiln_convert::Progress<'_>| ControlFlow::Continue(());
    let path = place.destination().join("model.gguf");
    convert(&path, &back, &Options::default(), &open, go_on).unwrap();
    let found = safetensors::open(&back, &open).unwrap();
    let expected = safetensors::open(&place.source(), &open).unwrap();
    assert!(tensors(&found) == tensors(&expected));
    let config = json_of(&back.join("config.json"));
    for (key, value) in self::config().as_object().unwrap() {
        if !["_name_or_path", "architectures"].contains(&key.as_str()) {
            let same = config[key] == *value
                || config[key].as_f64().zip(value.as_f64()).is_some_and(
                    // f32 in the file.
                    |(found, expected)| (found / expected - 1.0).abs() < 1e-6,
                );
            assert!(same, "{key}: {} and {value}", config[key]);
        }
    }
}

#[test]
fn the_tokenizer_is_in_the_file() {
    let place = place();
    place.convert(&to_gguf(None)).unwrap();
    let file = written(&place);
    let metadata = file.metadata();
    let text = |key: &str| {
        metadata
            .get(key)
            .and_then(Value::string)
            .unwrap()
            .to_owned()
    };
    assert_eq!(text("tokenizer.ggml.model"), "gpt2");
    assert_eq!(text("tokenizer.ggml.pre"), "gpt-2");
    assert_eq!(text("tokenizer.chat_template"), "{{ messages }}");
    let strings = |key: &str| -> Vec<String> {
        let strings = metadata.get(key).and_then(Value::strings).unwrap();
        strings.iter().map(str::to_owned).collect()
    };
    let tokens = strings("tokenizer.ggml.tokens");
    assert_eq!(tokens[..6], ["a", "b", "ab", "<end>", "[PAD4]", "[PAD5]"]);
    assert_eq!(tokens.len(), VOCAB);
    assert_eq!(strings("tokenizer.ggml.merges"), ["a b"]);
    let types = metadata
        .get("tokenizer.ggml.token_type")
        .and_then(Value::integers);
    assert_eq!(types.unwrap()[..6], [1, 1, 1, 3, 5, 5]);
    let eos = metadata
        .get("tokenizer.ggml.eos_token_id")
        .and_then(Value::unsigned);
    assert_eq!(eos, Some(3));
}

#[test]
fn blocks_are_kept_and_measured() {
    for block in [BlockType::Q4_0, BlockType::Q4_1, BlockType::Q8_0] {
        let place = place();
        let report = place.convert(&to_gguf(Some(block))).unwrap();
        let file = written(&place);
        for tensor in &report.receipt.tensors {
            let found = file.checkpoint().tensor(&tensor.name).unwrap();
            let error = tensor.error.relative;
            match tensor.shape.len() {
                1 => assert_eq!((found.dtype, error), (Type::F32, 0.0)),
                _ => {
                    assert_eq!(found.dtype, Type::Gguf(block));
                    // Weights from -1 to 1 in 16 or 255 steps.
                    let least = if block == BlockType::Q8_0 {
                        0.002
                    } else {
                        0.03
                    };
                    assert!((least..3.0 * least).contains(&error), "{block:?}: {error}");
                }
            }
        }
        // Of the same type, nothing changes any more.
        let again = place.destination().with_file_name("again");
        let go_on = &mut |_: &kiln_convert::Progress<'_>| ControlFlow::Continue(());
        let path = place.destination().join("model.gguf");
        let options = to_gguf(None);
        convert(&path, &again, &options, &open, go_on).unwrap();
        let second = File::open(&again.join("model.gguf"), &open).unwrap();
        let second = gguf::read(second).unwrap();
        assert!(
            tensors(second.checkpoint()) == tensors(file.checkpoint()),
            "{block:?}"
        );
    }
}

#[test]
fn what_a_gguf_file_has_no_place_for_is_refused() {
    let place = place();
    let quantise = Quantise {
        mode: Mode::Affine,
        bits: None,
        group: Some(32),
    };
    let affine = Options {
        quantise: Some(quantise),
        ..to_gguf(None)
    };
    assert!(place.refused(&affine).contains("give --gguf-type"));
    let rule = Options {
        rules: vec!["*.v_proj=8".parse().unwrap()],
        ..to_gguf(Some(BlockType::Q8_0))
    };
    assert!(
        place
            .refused(&rule)
            .contains("a GGUF file has no such layers")
    );
    let elsewhere = Options {
        layout: Layout::Mlx,
        ..to_gguf(Some(BlockType::Q8_0))
    };
    assert!(
        place
            .refused(&elsewhere)
            .contains("goes with --format gguf")
    );
    place.put(
        "tokenizer.json",
        TOKENIZER.replace("\"use_regex\": true", "\"use_regex\": false"),
    );
    assert!(
        place
            .refused(&to_gguf(None))
            .contains("this way to divide text into words")
    );
    let mut scaled = config();
    scaled["rope_scaling"] = serde_json::json!({"rope_type": "linear", "factor": 2.0});
    let place = hugging_face(&scaled, DType::F16);
    assert!(
        place
            .refused(&to_gguf(None))
            .contains("rope_scaling in a GGUF file")
    );
}
