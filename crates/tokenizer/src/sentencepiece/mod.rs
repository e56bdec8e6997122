//! The tokenizer of a SentencePiece `tokenizer.model`.

mod charsmap;
mod check;
mod wire;
pub(crate) mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, MatchKind};
use sentencepiece::SentencePieceProcessor;

pub(crate) use check::Kind;
use check::{Checked, Settings};

use crate::{Error, Result};

/// A field that turns the dummy prefix off when it follows the rest of a model file: of two
/// messages with one field number, protocol buffers take the later's fields.
const NO_DUMMY_PREFIX: [u8; 4] = [0x1a, 0x02, 0x18, 0x00];

/// A token beyond the pieces of the model file, or a piece that is to be special.
#[derive(Clone, Debug)]
pub(crate) struct Added {
    pub(crate) id: u32,
    pub(crate) text: String,
    pub(crate) special: bool,
    /// It takes the spaces around it too, or matches whole words only.
    pub(crate) strips: bool,
}

/// A checked model with its special tokens.
#[derive(Debug)]
pub(crate) struct SentencePiece {
    file: String,
    checked: Checked,
    prefixed: SentencePieceProcessor,
    bare: OnceLock<SentencePieceProcessor>,
    added: BTreeMap<u32, Added>,
    finder: AhoCorasick,
    /// The ids of `finder`'s patterns.
    found: Vec<u32>,
    prefix_every_segment: bool,
}

impl SentencePiece {
    /// Checks and loads the file `bytes`. With `prefix_every_segment`, text after a special token
    /// gets a space in front like text at the start does.
    pub(crate) fn new(
        file: &str,
        bytes: Vec<u8>,
        added: Vec<Added>,
        prefix_every_segment: bool,
    ) -> Result<Self> {
        let checked = Checked::new(file, bytes)?;
        let prefixed = load(file, checked.bytes())?;
        if prefixed.len() != checked.len() {
            return Err(Error::Malformed {
                file: file.to_owned(),
                expected: format!("{} pieces", checked.len()),
                found: format!("{} after loading", prefixed.len()),
            });
        }
        let tokens = special_tokens(file, &checked, added)?;
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens.values().map(|token| &token.text))
            .map_err(|error| Error::Library {
                file: file.to_owned(),
                reason: error.to_string(),
            })?;
        Ok(Self {
            file: file.to_owned(),
            checked,
            prefixed,
            bare: OnceLock::new(),
            found: tokens.keys().copied().collect(),
            added: tokens,
            finder,
            prefix_every_segment,
        })
    }

    /// The ids of `text`: special tokens first, then what lies between them.
    ///
    /// Text without special tokens is encoded as the library encodes it. Otherwise a segment gets
    /// its space in front at the start of the text (or everywhere), unless it begins with one.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut end = 0;
        for hit in self.finder.find_iter(text) {
            self.segment(&text[end..hit.start()], end == 0, &mut ids)?;
            ids.extend(self.found.get(hit.pattern().as_usize()));
            end = hit.end();
        }
        if end == 0 {
            return self.plain(text);
        }
        self.segment(&text[end..], false, &mut ids)?;
        Ok(ids)
    }

    /// The ids of text that has no special tokens, or whose special tokens are to be text.
    pub(crate) fn plain(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.pieces(&self.prefixed, text, &mut ids)?;
        Ok(ids)
    }

    fn segment(&self, text: &str, first: bool, ids: &mut Vec<u32>) -> Result<()> {
        let prefix = (first || self.prefix_every_segment) && !text.starts_with([' ', '▁']);
        if prefix {
            self.pieces(&self.prefixed, text, ids)
        } else {
            self.pieces(self.bare()?, text, ids)
        }
    }

    fn pieces(
        &self,
        processor: &SentencePieceProcessor,
        text: &str,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let pieces = processor.encode(text).map_err(|error| Error::Library {
            file: self.file.clone(),
            reason: error.to_string(),
        })?;
        ids.extend(pieces.iter().map(|piece| piece.id));
        Ok(())
    }

    /// The same model without its dummy prefix, loaded when first needed.
    fn bare(&self) -> Result<&SentencePieceProcessor> {
        if self.bare.get().is_none() {
            let bytes = [self.checked.bytes(), &NO_DUMMY_PREFIX].concat();
            // Another thread may have been faster; both results are the same.
            drop(self.bare.set(load(&self.file, &bytes)?));
        }
        self.bare.get().ok_or_else(|| Error::Library {
            file: self.file.clone(),
            reason: "not loaded".to_owned(),
        })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.checked.settings
    }

    /// The text and kind of `id`; added tokens are control or user-defined pieces.
    pub(crate) fn token(&self, id: u32) -> Option<(&str, Kind)> {
        self.checked.piece(id).or_else(|| {
            let token = self.added.get(&id)?;
            let kind = if token.special {
                Kind::Control
            } else {
                Kind::UserDefined
            };
            Some((token.text.as_str(), kind))
        })
    }

    pub(crate) fn id(&self, text: &str) -> Option<u32> {
        let piece = self
            .checked
            .pieces()
            .find(|(_, piece, _)| *piece == text)
            .map(|(id, ..)| id);
        piece.or_else(|| {
            self.added
                .values()
                .find(|token| token.text == text)
                .map(|token| token.id)
        })
    }

    pub(crate) fn vocab_size(&self) -> usize {
        let beyond = self
            .added
            .last_key_value()
            .map_or(0, |(&id, _)| id as usize + 1);
        self.checked.len().max(beyond)
    }
}

/// The tokens that are found in text before all else, by id: the model's own and `added`.
fn special_tokens(
    file: &str,
    checked: &Checked,
    added: Vec<Added>,
) -> Result<BTreeMap<u32, Added>> {
    let mut tokens: BTreeMap<u32, Added> = checked
        .pieces()
        .filter(|(.., kind)| matches!(kind, Kind::Control | Kind::Unknown | Kind::UserDefined))
        .map(|(id, text, kind)| {
            let special = kind != Kind::UserDefined;
            (
                id,
                Added {
                    id,
                    text: text.to_owned(),
                    special,
                    strips: false,
                },
            )
        })
        .collect();
    for token in added {
        let known = checked
            .piece(token.id)
            .is_none_or(|(text, _)| text == token.text);
        if token.text.is_empty() || !known {
            return Err(Error::Malformed {
                file: format!("{file}: added token {}", token.id),
                expected: "the text that the model has, or an id beyond it".to_owned(),
                found: format!("{:?}", token.text),
            });
        }
        if token.strips {
            return Err(Error::Unsupported {
                file: format!("{file}: added token {:?}", token.text),
                what: "a token that takes the spaces around it".to_owned(),
                advice: "use the model's tokenizer.json".to_owned(),
            });
        }
        tokens.insert(token.id, token);
    }
    Ok(tokens)
}

fn load(file: &str, bytes: &[u8]) -> Result<SentencePieceProcessor> {
    SentencePieceProcessor::from_serialized_proto(bytes).map_err(|error| Error::Library {
        file: file.to_owned(),
        reason: error.to_string(),
    })
}
