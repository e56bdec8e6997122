//! What has gone wrong in other programs, where it takes more than one parser to see it; the rest is
//! in `incidents.rs` of the workspace's tests.

use crate::gguf::{File, metadata_of, refused, string};

/// An array of GGUF's: the type of its elements, how many there are, and their bytes.
fn array(file: &mut File, key: &str, kind: u32, count: u64, bytes: &[u8]) {
    let start = [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    file.entry(key, 9, &[&start[..], bytes].concat());
}

/// A tokenizer of three words and what `change` adds, which says whether their kinds are to be added.
fn tokenizer(file: &mut File, change: impl FnOnce(&mut File) -> bool) {
    file.text("tokenizer.ggml.model", "llama");
    let words = ["a", "b", "c"].map(string).concat();
    array(file, "tokenizer.ggml.tokens", 8, 3, &words);
    if change(file) {
        array(
            file,
            "tokenizer.ggml.token_type",
            5,
            3,
            &[1, 0, 0, 0].repeat(3),
        );
    }
}

/// llama.cpp#25821: as many layers as the file says are made room for before they are looked for.
#[test]
fn layers_that_are_not_there_take_no_room() {
    for count in [0, u32::MAX, 1 << 31, 1 << 30, 1_000_000] {
        let message = refused(|file| {
            *file = metadata_of(count);
            file.count("llama.vocab_size", 96);
        });
        let named = ["llama.block_count", "layers", "token_embd.weight"];
        assert!(
            named.iter().any(|name| message.contains(name)),
            "{count}: {message}"
        );
    }
}

/// llama.cpp#26690: elements of one byte are read as elements of four.
#[test]
fn words_and_scores_are_of_their_type() {
    type Case = (&'static str, u32, u64, &'static [u8], &'static str);
    let cases: [Case; 4] = [
        ("scores", 0, 3, &[1, 2, 3], "an array of numbers"),
        ("scores", 6, 2, &[0; 8], "tokenizer.ggml.scores"),
        ("token_type", 6, 3, &[0; 12], "an array of whole numbers"),
        ("merges", 0, 3, &[1, 2, 3], "an array of strings"),
    ];
    for (key, kind, count, bytes, expected) in cases {
        let key = format!("tokenizer.ggml.{key}");
        let message = refused(|file| {
            tokenizer(file, |file| {
                array(file, &key, kind, count, bytes);
                !key.ends_with("token_type")
            });
        });
        assert!(message.contains(expected), "{key}: {message}");
    }
}

/// llama.cpp#26690, lmstudio#2289: a token's number is an index without a check.
#[test]
fn special_tokens_are_among_the_words() {
    let message = refused(|file| {
        tokenizer(file, |file| {
            array(file, "tokenizer.ggml.scores", 6, 3, &[0; 12]);
            file.count("tokenizer.ggml.bos_token_id", 3_000_000_000);
            true
        });
    });
    assert!(message.contains("an id below 3"), "{message}");
}
