//! The pre-tokenizers that GGUF files name, as the parts of a `tokenizer.json`.

use serde_json::{Value, json};

/// What a pre-tokenizer's name stands for.
pub(crate) struct PreTokenizer {
    /// The names, as `tokenizer.ggml.pre` gives them.
    names: &'static [&'static str],
    split: Split,
    /// Unicode normal form C comes first.
    nfc: bool,
    /// A word that is a token is not merged from its parts.
    pub(crate) ignore_merges: bool,
}

enum Split {
    /// GPT-2's own pattern.
    Gpt2,
    /// GPT-2's own pattern, after each digit has been set apart.
    Digits,
    Pattern(&'static str),
}

const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Only names whose `tokenizer.json` is known for certain.
const KNOWN: [PreTokenizer; 5] = [
    PreTokenizer {
        names: &["gpt-2"],
        split: Split::Gpt2,
        nfc: false,
        ignore_merges: false,
    },
    PreTokenizer {
        names: &["smollm", "starcoder"],
        split: Split::Digits,
        nfc: false,
        ignore_merges: false,
    },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3"],
        split: Split::Pattern(LLAMA_3),
        nfc: false,
        ignore_merges: true,
    },
    PreTokenizer {
        names: &["qwen2"],
        split: Split::Pattern(QWEN_2),
        nfc: true,
        ignore_merges: false,
    },
    PreTokenizer {
        names: &["tekken"],
        split: Split::Pattern(TEKKEN),
        nfc: false,
        ignore_merges: true,
    },
];

impl PreTokenizer {
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        KNOWN.iter().find(|known| known.names.contains(&name))
    }

    /// The name of the one that a `tokenizer.json` has.
    pub(crate) fn of(json: &Value) -> Option<&'static str> {
        let same = |known: &&PreTokenizer| {
            let ignores = json["model"]["ignore_merges"].as_bool().unwrap_or(false);
            known.json() == json["pre_tokenizer"]
                && known.normalizer() == json["normalizer"]
                && known.ignore_merges == ignores
        };
        KNOWN.iter().find(same)?.names.first().copied()
    }

    /// The part `normalizer` of a `tokenizer.json`.
    pub(crate) fn normalizer(&self) -> Value {
        if self.nfc {
            json!({"type": "NFC"})
        } else {
            Value::Null
        }
    }

    /// The part `pre_tokenizer` of a `tokenizer.json`.
    pub(crate) fn json(&self) -> Value {
        let bytes = |use_regex: bool| {
            json!({
                "type": "ByteLevel",
                "add_prefix_space": false,
                "trim_offsets": true,
                "use_regex": use_regex,
            })
        };
        let first = match self.split {
            Split::Gpt2 => return bytes(true),
            Split::Digits => json!({"type": "Digits", "individual_digits": true}),
            Split::Pattern(pattern) => json!({
                "type": "Split",
                "pattern": {"Regex": pattern},
                "behavior": "Isolated",
                "invert": false,
            }),
        };
        let second = bytes(matches!(self.split, Split::Digits));
        json!({"type": "Sequence", "pretokenizers": [first, second]})
    }
}

/// The names that are known, for messages.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().flat_map(|known| known.names).copied()
}

/// Every pattern of the table.
#[cfg(test)]
pub(crate) fn patterns() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().filter_map(|known| match known.split {
        Split::Pattern(pattern) => Some(pattern),
        _ => None,
    })
}
