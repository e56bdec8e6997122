//! Plain text is encoded as the library's Python face encodes it.

use super::write::{Piece, model};
use super::{SentencePiece, charsmap};

fn golden_bytes(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    std::fs::read(path).unwrap()
}

fn json(name: &str) -> serde_json::Value {
    serde_json::from_slice(&golden_bytes(name)).unwrap()
}

fn load(name: &str) -> SentencePiece {
    SentencePiece::new(name, golden_bytes(name), Vec::new(), false).unwrap()
}

#[test]
fn plain_text_equals_sentencepiece() {
    let probes: Vec<String> = serde_json::from_value(json("probes.json")).unwrap();
    for name in ["v1", "v2", "v3"] {
        let model = load(&format!("{name}.model"));
        let ids: Vec<Vec<u32>> =
            serde_json::from_value(json(&format!("{name}.ids.json"))["ids"].clone()).unwrap();
        assert_eq!(ids.len(), 1000);
        for (probe, ids) in probes.iter().zip(&ids) {
            assert_eq!(&model.plain(probe).unwrap(), ids, "{name} {probe:?}");
        }
    }
}

#[test]
fn every_kind_of_model_equals_sentencepiece() {
    let golden = json("tiny.ids.json");
    let probes: Vec<String> = serde_json::from_value(golden["probes"].clone()).unwrap();
    for name in ["tiny_bpe", "tiny_unigram"] {
        let rows: Vec<Vec<u32>> = serde_json::from_value(golden[name]["ids"].clone()).unwrap();
        let texts: Vec<String> = serde_json::from_value(golden[name]["texts"].clone()).unwrap();
        let file = format!("{name}.model");
        let model = load(&file);
        let whole =
            crate::Tokenizer::from_bytes(crate::Source::Model, &file, golden_bytes(&file)).unwrap();
        assert_eq!(rows.len(), probes.len());
        for ((probe, row), text) in probes.iter().zip(&rows).zip(&texts) {
            assert_eq!(&model.plain(probe).unwrap(), row, "{name} {probe:?}");
            assert_eq!(&whole.decode(row, true).unwrap(), text, "{name} {row:?}");
        }
    }
}

/// A small model: an unknown piece and these, with their kinds.
fn made(pieces: &[(&str, i32)]) -> Vec<u8> {
    let mut all = vec![Piece {
        text: "<unk>",
        score: 0.0,
        kind: 2,
    }];
    all.extend(pieces.iter().map(|&(text, kind)| Piece {
        text,
        score: 0.0,
        kind,
    }));
    model(&all, true, None, None)
}

/// The message of the error for this file.
fn refused(bytes: Vec<u8>) -> String {
    SentencePiece::new("m", bytes, Vec::new(), false)
        .unwrap_err()
        .to_string()
}

#[test]
fn what_the_library_would_not_survive_is_refused() {
    let nested: Vec<String> = (1..=33).map(|n| "a".repeat(n)).collect();
    let nested: Vec<(&str, i32)> = nested.iter().map(|text| (text.as_str(), 4)).collect();
    assert!(SentencePiece::new("m", made(&nested[1..]), Vec::new(), false).is_ok());
    let cases = [
        (made(&nested), "at most 32 user symbols"),
        (made(&[("a\0b", 1)]), "without a zero"),
        (made(&[("", 1)]), "1 to 1024 bytes"),
        (made(&[(&"a".repeat(1025), 1)]), "1 to 1024 bytes"),
        (made(&[("a", 1), ("b", 1), ("a", 3)]), "1 and 3 alike"),
        (
            made(&[("a", 1), ("<unknown>", 2)]),
            "exactly one unknown piece",
        ),
        (made(&[("a", 7)]), "a piece type from 1 to 6"),
        (made(&[("a", -1)]), "a piece type from 1 to 6"),
        (made(&[("a", 1), ("<0x41>", 6)]), "256 byte pieces"),
        (made(&[("a", 1), ("<0x4g>", 6)]), "a byte as <0xNN>"),
        (made(&[("<s>", 3)]), "at least one normal piece"),
        (Vec::new(), "expected a trainer spec, found none"),
        (
            b"version https://git-lfs.github.com/spec/v1".to_vec(),
            "expected",
        ),
        (
            [made(&[("a", 1)]), vec![0x12, 0x02, 0x18, 0x03]].concat(),
            "one message",
        ),
        (
            [made(&[("a", 1)]), vec![0x0b]].concat(),
            "an unknown wire type",
        ),
        (
            [made(&[("a", 1)]), vec![0xff; 11]].concat(),
            "a number above 64 bits",
        ),
        (
            [made(&[("a", 1)]), vec![0x0a, 0xff, 0xff, 0xff, 0x7f]].concat(),
            "exceeds what is left",
        ),
    ];
    for (bytes, expected) in cases {
        let message = refused(bytes);
        assert!(message.contains(expected), "{message}\n{expected}");
    }
}

#[test]
fn settings_that_would_change_the_ids_are_refused() {
    let with = |trainer: &[u8], normalizer: &[u8]| {
        let mut bytes = vec![0x0a, 3, 0x0a, 1, b'a', 0x0a, 5, 0x0a, 1, b'b', 0x18, 2];
        for (tag, message) in [(0x12, trainer), (0x1a, normalizer)] {
            bytes.extend([tag, message.len() as u8]);
            bytes.extend(message);
        }
        bytes
    };
    assert!(SentencePiece::new("m", with(&[0x18, 2], &[]), Vec::new(), false).is_ok());
    assert!(SentencePiece::new("m", with(&[0x18, 1], &[]), Vec::new(), false).is_ok());
    let cases = [
        (with(&[0x18, 3], &[]), "model type 1 (unigram) or 2 (bpe)"),
        (with(&[0x18, 9], &[]), "model type 1 (unigram) or 2 (bpe)"),
        (with(&[0xc0, 0x01, 1], &[]), "whitespace as a prefix"),
        (with(&[], &[0x28, 0]), "whitespace written as ▁"),
        (with(&[], &[0x12, 1, 0]), "a table cut short"),
        (with(&[], &[0x18, 0xff]), "a number cut short"),
    ];
    for (bytes, expected) in cases {
        let message = refused(bytes);
        assert!(message.contains(expected), "{message}\n{expected}");
    }
}

/// A table of character rules: these cells, unreachable ones to fill, and one text.
fn table(cells: &[(usize, u32)]) -> Vec<u8> {
    let mut trie = vec![0x8000_0000_u32; 256];
    for &(at, cell) in cells {
        trie[at] = cell;
    }
    let mut bytes = 1024_u32.to_le_bytes().to_vec();
    bytes.extend(trie.iter().flat_map(|cell| cell.to_le_bytes()));
    bytes.extend(b"x\0");
    bytes
}

#[test]
fn character_rules_that_lead_astray_are_refused() {
    // The root's offset is 1: byte b leads to cell 1 ^ b. A cell is offset << 10 | leaf << 8 | byte.
    let root = (0, 1 << 10);
    let a = 1 ^ usize::from(b'a');
    let cell = |offset: u32, leaf: u32, byte: u8| offset << 10 | leaf << 8 | u32::from(byte);
    let good = table(&[root, (a, cell(3, 1, b'a')), (a ^ 3, 0x8000_0000)]);
    assert_eq!(charsmap::check(&good), Ok(()));
    let cases = [
        (table(&[(0, 1 << 20)]), "a trie that leads outside"),
        (
            table(&[root, (a, cell(1 << 12, 0, b'a'))]),
            "a trie that leads outside",
        ),
        (
            table(&[root, (a, cell(3, 1, b'a')), (a ^ 3, 0x8000_0009)]),
            "lies outside",
        ),
        (
            table(&[root, (a, cell(a as u32 ^ 1, 0, b'a'))]),
            "turns in circles",
        ),
        (
            table(&[root, (1 ^ 0xc3, cell(3, 1, 0xc3))]),
            "ends within a character",
        ),
        (good[..good.len() - 1].to_vec(), "do not end in zero"),
        (good[..600].to_vec(), "longer than the table"),
    ];
    for (table, expected) in cases {
        let found = charsmap::check(&table).unwrap_err();
        assert!(found.contains(expected), "{found}\n{expected}");
    }
}
