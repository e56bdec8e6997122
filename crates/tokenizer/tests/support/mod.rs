//! The golden files, and what every comparison with them does.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::{Path, PathBuf};

use kiln_tokenizer::{GgufTokenizer, Tokenizer};
use serde_json::Value;

pub(crate) type Ids = Vec<u32>;

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

pub(crate) fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(golden(name)).unwrap()).unwrap()
}

pub(crate) fn probes() -> Vec<String> {
    serde_json::from_value(json("probes.json")).unwrap()
}

pub(crate) fn ids(value: &Value) -> Ids {
    serde_json::from_value(value.clone()).unwrap()
}

/// The tokenizer of a directory that holds these files.
pub(crate) fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    directory
}

/// The tokenizer of a directory that holds one golden file under another name.
pub(crate) fn load(name: &str, file: &str, config: &str) -> Tokenizer {
    let bytes = std::fs::read(golden(name)).unwrap();
    let directory = directory(&[(file, &bytes), ("tokenizer_config.json", config.as_bytes())]);
    Tokenizer::from_directory(directory.path()).unwrap()
}

/// SmolLM2's tokenizer as its GGUF file has it.
pub(crate) fn smollm2() -> GgufTokenizer {
    let golden = json("smollm2.json");
    let text = |name: &str| golden[name].as_str().unwrap().to_owned();
    let id = |name: &str| Some(golden[name].as_u64().unwrap() as u32);
    let tokens: Vec<String> = serde_json::from_value(golden["tokens"].clone()).unwrap();
    let merges: Vec<(usize, usize)> = serde_json::from_value(golden["merges"].clone()).unwrap();
    let mut token_types = vec![1; tokens.len()];
    for id in ids(&golden["special"]) {
        token_types[id as usize] = 3;
    }
    GgufTokenizer {
        model: text("model"),
        pre: Some(text("pre")),
        merges: merges
            .iter()
            .map(|&(a, b)| format!("{} {}", tokens[a], tokens[b]))
            .collect(),
        token_types,
        tokens,
        bos: id("bos"),
        eos: id("eos"),
        unk: id("unk"),
        pad: id("pad"),
        add_bos: golden["add_bos"].as_bool(),
        chat_template: Some(text("chat_template")),
        ..GgufTokenizer::default()
    }
}

/// What a stream gives for `ids`: each piece must be text, and the pieces joined are returned.
pub(crate) fn streamed(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let mut stream = tokenizer.detokenizer(skip_special);
    let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id)).collect();
    pieces.push(stream.finish());
    pieces.concat()
}

/// Compares decoding and streaming of `ids` with `text`.
pub(crate) fn same_text(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool, text: &str) {
    let decoded = tokenizer.decode(ids, skip_special).unwrap();
    assert_eq!(decoded, text, "decoding {ids:?}");
    assert_eq!(
        streamed(tokenizer, ids, skip_special),
        text,
        "streaming {ids:?}"
    );
}

/// The `llama` tokenizer of a GGUF file made from a golden `tokenizer.model`.
pub(crate) fn llama_gguf(name: &str) -> GgufTokenizer {
    let bytes = std::fs::read(golden(name)).unwrap();
    let mut gguf = GgufTokenizer {
        model: "llama".to_owned(),
        bos: Some(1),
        eos: Some(2),
        unk: Some(0),
        add_bos: Some(true),
        ..GgufTokenizer::default()
    };
    let mut rest = bytes.as_slice();
    while let Some((1, message)) = field(&mut rest) {
        let (mut text, mut score, mut kind, mut inside) = (String::new(), 0.0, 1, message);
        while !inside.is_empty() {
            match inside[0] {
                0x0a => text = String::from_utf8(field(&mut inside).unwrap().1.to_vec()).unwrap(),
                0x15 => {
                    score = f32::from_le_bytes(inside[1..5].try_into().unwrap());
                    inside = &inside[5..];
                }
                0x18 => {
                    kind = i32::from(inside[1]);
                    inside = &inside[2..];
                }
                other => panic!("field {other:#x}"),
            }
        }
        gguf.tokens.push(text);
        gguf.scores.push(score);
        gguf.token_types.push(kind);
    }
    gguf
}

/// Takes a length-delimited field of a protocol buffer.
fn field<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&tag, mut tail) = rest.split_first()?;
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let (&byte, after) = tail.split_first()?;
        tail = after;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            break;
        }
    }
    let (value, after) = tail.split_at(length);
    *rest = after;
    Some((tag >> 3, value))
}
