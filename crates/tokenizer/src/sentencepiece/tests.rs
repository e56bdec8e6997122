//! Plain text is encoded as the library's Python face encodes it.

use super::SentencePiece;

fn golden(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    std::fs::read(path).unwrap()
}

fn json(name: &str) -> serde_json::Value {
    serde_json::from_slice(&golden(name)).unwrap()
}

fn load(name: &str) -> SentencePiece {
    SentencePiece::new(name, golden(name), Vec::new(), false).unwrap()
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
