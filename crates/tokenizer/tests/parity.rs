//! Ids and texts are those of Python's libraries, for 1,000 probe strings.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use std::sync::Arc;

use kiln_tokenizer::{Error, GgufTokenizer, Source, Tokenizer};
use serde_json::Value;
use support::{directory, golden, ids, json, load, probes, same_text, smollm2};

/// Compares `tokenizer` with what `tokenizers` did with every probe.
fn same_as_smollm2(tokenizer: &Tokenizer) {
    let (probes, golden) = (probes(), json("smollm2.ids.json"));
    assert_eq!(probes.len(), 1000);
    let text_of = |key: &str, i: usize| {
        golden[key]
            .get(i.to_string())
            .and_then(Value::as_str)
            .unwrap_or(&probes[i])
            .to_owned()
    };
    for (i, probe) in probes.iter().enumerate() {
        let expected = ids(&golden["ids"][i]);
        assert_eq!(
            tokenizer.encode(probe, false).unwrap(),
            expected,
            "{probe:?}"
        );
        assert_eq!(
            tokenizer.encode(probe, true).unwrap(),
            expected,
            "{probe:?}"
        );
        same_text(tokenizer, &expected, false, &text_of("texts", i));
        same_text(tokenizer, &expected, true, &text_of("skipped", i));
    }
    for loose in golden["loose"].as_array().unwrap() {
        same_text(
            tokenizer,
            &ids(&loose[0]),
            false,
            loose[1].as_str().unwrap(),
        );
    }
}

#[test]
fn gguf_tokenizer_equals_python() {
    let tokenizer = Tokenizer::from_gguf(&smollm2()).unwrap();
    assert_eq!(tokenizer.source(), Source::Gguf);
    same_as_smollm2(&tokenizer);
}

#[test]
fn tokenizer_json_equals_python() {
    let files = smollm2().files().unwrap().files;
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (*n, b.as_slice())).collect();
    let directory = directory(&files);
    let tokenizer = Tokenizer::from_directory(directory.path()).unwrap();
    assert_eq!(tokenizer.source(), Source::Json);
    assert_eq!(tokenizer.vocab_size(), 49152);
    assert_eq!(
        (tokenizer.bos_id(), tokenizer.eos_ids()),
        (Some(1), [2].as_slice())
    );
    same_as_smollm2(&tokenizer);
}

#[test]
fn tokenizer_json_made_from_gguf_is_byte_for_byte_the_one_python_makes() {
    let files = smollm2().files().unwrap().files;
    let (_, json_text) = files
        .iter()
        .find(|(name, _)| *name == "tokenizer.json")
        .unwrap();
    let digest = <sha2::Sha256 as sha2::Digest>::digest(json_text);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        digest,
        json("smollm2.json")["tokenizer_json_sha256"]
            .as_str()
            .unwrap()
    );
}

/// The file that holds SmolLM2: `KILN_SMOLLM2`, or what `scripts/test` fetches.
fn smollm2_file() -> std::path::PathBuf {
    std::env::var_os("KILN_SMOLLM2").map_or_else(
        || {
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.cache/smollm2/");
            std::path::Path::new(root).join("SmolLM2-135M-Instruct.Q4_1.gguf")
        },
        std::path::PathBuf::from,
    )
}

#[test]
fn vocabulary_of_the_real_file_is_the_golden_one() {
    let read = read_gguf(&smollm2_file());
    let expected = smollm2();
    assert_eq!(read.tokens, expected.tokens);
    assert_eq!(read.merges, expected.merges);
    assert_eq!(read.token_types, expected.token_types);
    assert_eq!(read.chat_template, expected.chat_template);
    let ends = |t: &GgufTokenizer| (t.bos, t.eos, t.unk, t.pad, t.add_bos);
    assert_eq!(ends(&read), ends(&expected));
    assert_eq!((read.model, read.pre), (expected.model, expected.pre));
}

/// The tokenizer metadata of a GGUF file.
fn read_gguf(path: &std::path::Path) -> GgufTokenizer {
    let bytes = std::fs::read(path).unwrap_or_else(|error| {
        panic!("{}: {error}; scripts/test fetches it", path.display());
    });
    let file = kiln_formats::File::new(path, Arc::new(bytes));
    let gguf = kiln_formats::gguf::read(file).unwrap();
    let get = |key: &str| gguf.metadata().get(&format!("tokenizer.{key}"));
    let text = |key| get(key).and_then(|value| value.string()).map(str::to_owned);
    let texts = |key| {
        let strings = get(key).and_then(|value| value.strings()).unwrap();
        strings.iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let id = |key| {
        get(key)
            .and_then(|value| value.unsigned())
            .map(|id| id as u32)
    };
    GgufTokenizer {
        model: text("ggml.model").unwrap(),
        pre: text("ggml.pre"),
        tokens: texts("ggml.tokens"),
        merges: texts("ggml.merges"),
        token_types: get("ggml.token_type")
            .and_then(|value| value.integers())
            .unwrap(),
        bos: id("ggml.bos_token_id"),
        eos: id("ggml.eos_token_id"),
        unk: id("ggml.unknown_token_id"),
        pad: id("ggml.padding_token_id"),
        add_bos: get("ggml.add_bos_token").and_then(|value| value.bool()),
        chat_template: text("chat_template"),
        ..GgufTokenizer::default()
    }
}

/// `tokenizer.model` files: whole texts as transformers splits them at special tokens.
fn special_tokens_as_transformers(name: &str, key: &str, config: &str) {
    let (probes, golden) = (probes(), json(&format!("{name}.ids.json")));
    let tokenizer = load(&format!("{name}.model"), "tokenizer.model", config);
    let rows = golden[key].as_object().unwrap();
    assert!(
        rows.len() >= 40,
        "{} strings with special tokens",
        rows.len()
    );
    for (i, probe) in probes.iter().enumerate() {
        let found = tokenizer.encode(probe, false).unwrap();
        let row = rows.get(&i.to_string()).unwrap_or(&golden["ids"][i]);
        assert_eq!(found, ids(row), "{name} {key} {probe:?}");
    }
}

#[test]
fn special_tokens_in_text_are_found_as_transformers_finds_them() {
    for name in ["v1", "v2", "v3"] {
        special_tokens_as_transformers(name, "first", "{}");
        special_tokens_as_transformers(name, "always", r#"{"legacy": true}"#);
    }
}

#[test]
fn tokenizer_model_decodes_as_sentencepiece() {
    for name in ["v1", "v2", "v3"] {
        let (probes, golden) = (probes(), json(&format!("{name}.ids.json")));
        let tokenizer = load(&format!("{name}.model"), "tokenizer.model", "{}");
        assert_eq!(tokenizer.source(), Source::Model);
        for (i, probe) in probes.iter().enumerate() {
            let text = golden["texts"].get(i.to_string()).and_then(Value::as_str);
            same_text(
                &tokenizer,
                &ids(&golden["ids"][i]),
                true,
                text.unwrap_or(probe),
            );
        }
        for loose in golden["loose"].as_array().unwrap() {
            same_text(
                &tokenizer,
                &ids(&loose[0]),
                true,
                loose[1].as_str().unwrap(),
            );
        }
    }
}

#[test]
fn keys_that_the_library_does_not_know_change_nothing() {
    let plain = load("tiny_bytes.json", "tokenizer.json", "{}");
    let mut file = json("tiny_bytes.json");
    file["model"]["cache_capacity"] = 10_000.into();
    file["model"]["later"] = serde_json::json!({"nested": [1, "two"]});
    let bytes = serde_json::to_vec(&file).unwrap();
    let more = Tokenizer::from_bytes(Source::Json, "tokenizer.json", bytes).unwrap();
    for text in ["", "hello", "größer 你好 <|begin|>"] {
        assert_eq!(
            more.encode(text, false).unwrap(),
            plain.encode(text, false).unwrap()
        );
    }
}

#[test]
fn every_kind_of_tokenizer_json_equals_python() {
    let all = json("tiny.ids.json");
    let probes: Vec<String> = serde_json::from_value(all["probes"].clone()).unwrap();
    for name in [
        "tiny_first.json",
        "tiny_always.json",
        "tiny_bytes.json",
        "tiny_spaces.json",
    ] {
        let tokenizer = load(name, "tokenizer.json", "{}");
        let golden = &all[name];
        assert_eq!(golden["ids"].as_array().unwrap().len(), probes.len());
        for (i, probe) in probes.iter().enumerate() {
            let expected = ids(&golden["ids"][i]);
            // Python doubles a BOS that the text spells.
            let doubled = matches!(expected.as_slice(), [a, b, ..] if a == b && *a == 1);
            let whole = &expected[usize::from(doubled && probe.starts_with("<s>"))..];
            assert_eq!(
                tokenizer.encode(probe, true).unwrap(),
                whole,
                "{name} {probe:?}"
            );
            same_text(
                &tokenizer,
                &expected,
                false,
                golden["texts"][i].as_str().unwrap(),
            );
            same_text(
                &tokenizer,
                &expected,
                true,
                golden["skipped"][i].as_str().unwrap(),
            );
        }
        for loose in golden["loose"].as_array().unwrap() {
            same_text(
                &tokenizer,
                &ids(&loose[0]),
                false,
                loose[1].as_str().unwrap(),
            );
        }
    }
}

#[test]
fn gguf_with_scores_encodes_as_the_model_it_was_made_from() {
    let tokenizer = Tokenizer::from_gguf(&support::llama_gguf("v1.model")).unwrap();
    let golden = json("v1.ids.json");
    for (i, probe) in probes().iter().enumerate() {
        let row = golden["first"]
            .get(i.to_string())
            .unwrap_or(&golden["ids"][i]);
        assert_eq!(
            tokenizer.encode(probe, false).unwrap(),
            ids(row),
            "{probe:?}"
        );
    }
    assert_eq!(tokenizer.encode("hello", true).unwrap(), [1, 6312, 28709]);
    assert_eq!(
        (tokenizer.bos_id(), tokenizer.eos_ids()),
        (Some(1), [2].as_slice())
    );
}

#[test]
fn a_missing_golden_file_would_fail() {
    assert!(golden("probes.json").exists());
    let empty = tempfile::tempdir().unwrap();
    let error = Tokenizer::from_directory(empty.path()).unwrap_err();
    assert!(matches!(error, Error::NoTokenizer { .. }), "{error}");
}
