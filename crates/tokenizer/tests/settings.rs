//! What the files next to a tokenizer change.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use kiln_tokenizer::{Error, GgufTokenizer, Message, Source, Tokenizer};
use serde_json::Map;
use support::{directory, golden, json, load, smollm2};

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(golden(name)).unwrap()
}

/// A directory with a `tokenizer.model` and these files.
fn model_with(files: &[(&str, &str)]) -> Result<Tokenizer, Error> {
    let model = bytes("v1.model");
    let mut all: Vec<(&str, &[u8])> = vec![("tokenizer.model", &model)];
    all.extend(files.iter().map(|(name, text)| (*name, text.as_bytes())));
    Tokenizer::from_directory(directory(&all).path())
}

#[test]
fn raw_text_for_a_tokenizer_model_begins_with_bos_once() {
    let tokenizer = model_with(&[]).unwrap();
    assert_eq!(tokenizer.encode("hello", true).unwrap(), [1, 6312, 28709]);
    assert_eq!(tokenizer.encode("hello", false).unwrap(), [6312, 28709]);
    assert_eq!(tokenizer.encode("<s>hello", true).unwrap(), [1, 21558]);
    assert_eq!(tokenizer.encode("", true).unwrap(), [1]);
    assert!(tokenizer.encode("", false).unwrap().is_empty());
    assert_eq!(
        (tokenizer.bos_id(), tokenizer.eos_ids()),
        (Some(1), [2].as_slice())
    );
    assert_eq!(tokenizer.vocab_size(), 32000);
    assert_eq!(tokenizer.token(6312).as_deref(), Some("▁hell"));
    assert_eq!(
        (tokenizer.id("▁hell"), tokenizer.id("nothing like it")),
        (Some(6312), None)
    );
}

#[test]
fn tokenizer_config_says_what_raw_text_gets() {
    let ids = |config| {
        let tokenizer = model_with(&[("tokenizer_config.json", config)]).unwrap();
        tokenizer.encode("hello", true).unwrap()
    };
    assert_eq!(ids(r#"{"add_bos_token": false}"#), [6312, 28709]);
    assert_eq!(ids(r#"{"add_eos_token": true}"#), [1, 6312, 28709, 2]);
    assert_eq!(
        ids(r#"{"bos_token": {"content": "</s>"}}"#),
        [2, 6312, 28709]
    );
    let tiny = load("tiny_bytes.json", "tokenizer.json", "{}");
    assert_eq!(
        tiny.encode("", true).unwrap(),
        [tiny.id("<|begin|>").unwrap()]
    );
    assert_eq!(
        tiny.encode("<|begin|>", true).unwrap(),
        [tiny.id("<|begin|>").unwrap()]
    );
    let config = r#"{"add_bos_token": false}"#;
    let tiny = load("tiny_bytes.json", "tokenizer.json", config);
    assert!(tiny.encode("", true).unwrap().is_empty());
}

#[test]
fn eos_ids_are_the_union_of_all_that_is_said() {
    let tokenizer = model_with(&[
        ("config.json", r#"{"eos_token_id": 7, "bos_token_id": 1}"#),
        ("generation_config.json", r#"{"eos_token_id": [9, 7, 11]}"#),
    ])
    .unwrap();
    assert_eq!(tokenizer.eos_ids(), [2, 7, 9, 11]);
    let error = model_with(&[("config.json", r#"{"eos_token_id": "two"}"#)]).unwrap_err();
    let message = error.to_string();
    assert!(message.ends_with(
        r#"config.json: eos_token_id: expected a token id or a list of them, found "two""#
    ));
}

#[test]
fn added_tokens_extend_a_tokenizer_model() {
    let config = r#"{"added_tokens_decoder": {
        "32000": {"content": "<|im_start|>", "special": true},
        "32001": {"content": "<note>", "special": false}}}"#;
    let tokenizer = model_with(&[("tokenizer_config.json", config)]).unwrap();
    assert_eq!(tokenizer.vocab_size(), 32002);
    let ids = tokenizer.encode("<|im_start|>hello<note>", false).unwrap();
    assert_eq!((ids[0], ids[ids.len() - 1]), (32000, 32001));
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "hello<note>");
    assert_eq!(
        tokenizer.decode(&ids, false).unwrap(),
        "<|im_start|>hello<note>"
    );
    let other = r#"{"added_tokens_decoder": {"5": {"content": "x"}}}"#;
    let error = model_with(&[("tokenizer_config.json", other)]).unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
    let strips = r#"{"added_tokens_decoder": {"32000": {"content": "x", "lstrip": true}}}"#;
    let error = model_with(&[("tokenizer_config.json", strips)]).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

#[test]
fn tokenizer_json_is_preferred_and_named() {
    let tokenizer = model_with(&[(
        "tokenizer.json",
        &String::from_utf8(bytes("tiny_bytes.json")).unwrap(),
    )]);
    assert_eq!(tokenizer.unwrap().source(), Source::Json);
    assert_eq!(Source::Json.to_string(), "tokenizer.json");
}

#[test]
fn chat_template_is_found_wherever_it_is() {
    let render = |files: &[(&str, &str)]| {
        let template = model_with(files).and_then(|tokenizer| tokenizer.chat_template());
        template.and_then(|t| t.render(&[Message::new("user", "x")], false, &Map::new()))
    };
    let text = r#"{"chat_template": "{{ bos_token }}{{ messages[0].content }}"}"#;
    assert_eq!(render(&[("tokenizer_config.json", text)]).unwrap(), "<s>x");
    let list = r#"{"chat_template": [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]}"#;
    assert_eq!(render(&[("tokenizer_config.json", list)]).unwrap(), "d");
    let file = ("chat_template.jinja", "file {{ eos_token }}");
    assert_eq!(
        render(&[("tokenizer_config.json", text), file]).unwrap(),
        "file </s>"
    );
    let named = r#"{"chat_template": [{"name": "tools", "template": "t"}]}"#;
    assert!(matches!(
        render(&[("tokenizer_config.json", named)]),
        Err(Error::Malformed { .. })
    ));
    let error = render(&[]).unwrap_err();
    assert!(matches!(error, Error::NoTemplate { .. }));
    assert!(
        error.to_string().contains("has no chat template"),
        "{error}"
    );
}

#[test]
fn rendered_prompt_has_exactly_one_bos() {
    let template =
        r#"{"chat_template": "{{ bos_token }}[INST] {{ messages[0].content }} [/INST]"}"#;
    let tokenizer = model_with(&[("tokenizer_config.json", template)]).unwrap();
    let messages = [Message::new("user", "hello")];
    let prompt = tokenizer
        .chat_template()
        .unwrap()
        .render(&messages, true, &Map::new())
        .unwrap();
    for special in [false, true] {
        let ids = tokenizer.encode(&prompt, special).unwrap();
        assert_eq!(ids.iter().filter(|&&id| id == 1).count(), 1);
        assert_eq!(ids[0], 1);
    }
}

#[test]
fn smollm2_prompt_ids_are_those_of_transformers() {
    let tokenizer = Tokenizer::from_gguf(&smollm2()).unwrap();
    let messages = [Message::new("user", "What is the capital of France?")];
    let template = tokenizer.chat_template().unwrap();
    let prompt = template.render(&messages, true, &Map::new()).unwrap();
    let ids = tokenizer.encode(&prompt, false).unwrap();
    let expected = support::ids(&json("smollm2.ids.json")["prompt"]);
    assert_eq!(ids, expected);
}

#[test]
fn invalid_utf8_is_refused_where_bytes_come_in() {
    let tokenizer = model_with(&[]).unwrap();
    let error = tokenizer.encode_bytes(b"ab\xffc", true).unwrap_err();
    assert!(matches!(error, Error::NotUtf8 { at: 2 }), "{error}");
    assert_eq!(
        tokenizer.encode_bytes(b"hello", false).unwrap(),
        [6312, 28709]
    );
}

#[test]
fn unknown_ids_are_errors_in_decode_and_silent_in_a_stream() {
    let tokenizer = model_with(&[]).unwrap();
    let error = tokenizer.decode(&[5, 32000], true).unwrap_err();
    assert!(
        matches!(
            error,
            Error::UnknownId {
                id: 32000,
                size: 32000
            }
        ),
        "{error}"
    );
    assert_eq!(tokenizer.detokenizer(true).push(32000), "");
}

#[test]
fn unknown_gguf_tokenizers_are_refused_by_name() {
    let refused = |change: &dyn Fn(&mut GgufTokenizer)| {
        let mut gguf = smollm2();
        change(&mut gguf);
        let error = Tokenizer::from_gguf(&gguf).unwrap_err();
        assert_eq!(error.to_string(), gguf.files().unwrap_err().to_string());
        error.to_string()
    };
    let message = refused(&|gguf| gguf.pre = Some("unheard-of".into()));
    assert!(
        message.contains(r#"tokenizer.ggml.pre "unheard-of" is not supported"#),
        "{message}"
    );
    assert!(message.contains("smollm"), "{message}");
    assert!(refused(&|gguf| gguf.pre = None).contains(r#"tokenizer.ggml.pre """#));
    assert!(refused(&|gguf| gguf.model = "bert".into()).contains(r#"model "bert""#));
    assert!(refused(&|gguf| gguf.token_types.truncate(3)).contains("expected 49152 entries"));
    assert!(refused(&|gguf| gguf.tokens[9] = gguf.tokens[8].clone()).contains("twice"));
    assert!(refused(&|gguf| gguf.bos = Some(99_999)).contains("expected an id below 49152"));
    assert!(refused(&|gguf| gguf.model = "llama".into()).contains("tokenizer.ggml.scores"));
}

#[test]
fn gguf_settings_reach_the_files() {
    let gguf = GgufTokenizer {
        add_bos: Some(true),
        ..smollm2()
    };
    let files = gguf.files().unwrap().files;
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (*n, b.as_slice())).collect();
    let directory = directory(&files);
    let from_files = Tokenizer::from_directory(directory.path()).unwrap();
    let from_gguf = Tokenizer::from_gguf(&gguf).unwrap();
    for tokenizer in [from_files, from_gguf] {
        assert_eq!(tokenizer.encode("hi", true).unwrap()[0], 1);
        assert_eq!(tokenizer.encode("<|im_start|>hi", true).unwrap()[..1], [1]);
        assert_ne!(tokenizer.encode("<|im_start|>hi", true).unwrap()[1], 1);
        assert_eq!(tokenizer.eos_ids(), [2]);
        assert!(tokenizer.chat_template().is_ok());
    }
}

#[test]
fn llama_gguf_becomes_a_tokenizer_model() {
    let gguf = support::llama_gguf("v3.model");
    let files = gguf.files().unwrap().files;
    assert_eq!(files[0].0, "tokenizer.model");
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (*n, b.as_slice())).collect();
    let directory = directory(&files);
    let tokenizer = Tokenizer::from_directory(directory.path()).unwrap();
    let same = load("v3.model", "tokenizer.model", "{}");
    let text = "<s>[INST] Où est le four ? [/INST] Là-bas.</s>\n  é\u{1f642}";
    assert_eq!(
        tokenizer.encode(text, true).unwrap(),
        same.encode(text, true).unwrap()
    );
}
