//! Plain text is encoded as the library's Python face encodes it.

use super::SentencePiece;

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
