//! The parts of a `tokenizer.json` that are looked at before the library builds it.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// The file without its vocabulary and merges.
#[derive(Deserialize)]
pub(super) struct Outline {
    #[serde(default)]
    pub(super) added_tokens: Vec<AddedToken>,
    #[serde(default)]
    pub(super) normalizer: Value,
    #[serde(default)]
    pub(super) pre_tokenizer: Value,
    #[serde(default)]
    pub(super) post_processor: Value,
    #[serde(default)]
    pub(super) decoder: Value,
    pub(super) model: Model,
}

#[derive(Deserialize)]
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) content: String,
}

#[derive(Deserialize)]
pub(super) struct Model {
    #[serde(rename = "type", default)]
    pub(super) kind: Value,
    #[serde(default)]
    pub(super) dropout: Value,
    #[serde(default)]
    pub(super) continuing_subword_prefix: Value,
    #[serde(default)]
    pub(super) end_of_word_suffix: Value,
    #[serde(default)]
    pub(super) vocab: Vocabulary,
    #[serde(default)]
    pub(super) merges: Merges,
}

/// What the vocabulary is like.
#[derive(Default)]
pub(super) struct Vocabulary {
    /// Bytes of the longest token.
    pub(super) longest: usize,
    /// One more than the largest id.
    pub(super) end: usize,
    /// An id that two tokens have.
    pub(super) shared: Option<u32>,
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Ids)
    }
}

struct Ids;

impl<'de> Visitor<'de> for Ids {
    type Value = Vocabulary;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from token to id")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
        let mut ids = Vec::new();
        let mut longest = 0;
        while let Some((Length(token), id)) = map.next_entry()? {
            longest = longest.max(token);
            ids.push(id);
        }
        ids.sort_unstable();
        let shared = ids
            .windows(2)
            .find(|pair| pair[0] == pair[1])
            .map(|pair| pair[0]);
        let end = ids.last().map_or(0, |&id| id as usize + 1);
        Ok(Vocabulary {
            longest,
            end,
            shared,
        })
    }
}

/// Bytes of a text.
struct Length(usize);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(LengthOf)
    }
}

struct LengthOf;

impl Visitor<'_> for LengthOf {
    type Value = Length;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token")
    }

    fn visit_str<E>(self, text: &str) -> Result<Length, E> {
        Ok(Length(text.len()))
    }
}

/// What the merges are like: each is a pair of tokens, or both in a text with a space between them.
#[derive(Default)]
pub(super) struct Merges {
    /// Bytes of the longest token that one makes.
    pub(super) longest: usize,
}

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Pairs)
    }
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Merges;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of pairs of tokens")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pairs: A) -> Result<Merges, A::Error> {
        let mut longest = 0;
        while let Some(Pair(made)) = pairs.next_element()? {
            longest = longest.max(made);
        }
        Ok(Merges { longest })
    }
}

/// Bytes of what a pair makes.
struct Pair(usize);

impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PairOf)
    }
}

struct PairOf;

impl<'de> Visitor<'de> for PairOf {
    type Value = Pair;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pair of tokens")
    }

    fn visit_str<E>(self, text: &str) -> Result<Pair, E> {
        Ok(Pair(text.len().saturating_sub(1)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut tokens: A) -> Result<Pair, A::Error> {
        let mut made = 0;
        while let Some(Length(token)) = tokens.next_element()? {
            made += token;
        }
        Ok(Pair(made))
    }
}
