//! Ids to text, one id at a time.

use crate::Tokenizer;
use crate::json::{Decoder, Json};
use crate::sentencepiece::{Kind, SentencePiece};
use crate::tokenizer::Backend;

/// Turns a stream of ids into text, in amortised constant time per id. A piece never ends in half
/// a character: bytes that may still become one are held back. The pieces joined are exactly
/// [`Tokenizer::decode`] of the ids.
#[derive(Debug)]
pub struct Detokenizer<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    state: State,
}

/// What later text depends on.
#[derive(Debug, Default)]
struct State {
    /// Bytes that are not text yet.
    held: Vec<u8>,
    /// Whether a token has come before.
    begun: bool,
    /// Whether text has come before.
    written: bool,
    /// Whether the last piece gave up its leading space to the start of the text.
    stripped: bool,
}

impl<'a> Detokenizer<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        Self {
            tokenizer,
            skip_special,
            state: State::default(),
        }
    }

    /// The text that `id` completes, often empty. An id outside the vocabulary gives no text.
    pub fn push(&mut self, id: u32) -> String {
        let mut out = String::new();
        self.push_to(id, &mut out);
        out
    }

    /// The text that was held back; the stream then starts anew.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        self.finish_to(&mut out);
        out
    }

    pub(crate) fn push_to(&mut self, id: u32, out: &mut String) {
        match self.tokenizer.backend() {
            Backend::Json(json) => self.state.json(json, id, self.skip_special, out),
            Backend::SentencePiece(model) => self.state.piece(model, id, self.skip_special, out),
        }
    }

    pub(crate) fn finish_to(&mut self, out: &mut String) {
        match self.tokenizer.backend() {
            Backend::Json(json) => match json.decoder() {
                Decoder::ByteLevel => self.state.text_so_far(true, out),
                Decoder::Pieces { strip, .. } => self.state.byte_run(*strip, out),
                Decoder::Metaspace { .. } => {}
            },
            Backend::SentencePiece(_) => self.state.characters(true, out),
        }
        self.state = State::default();
    }
}

impl State {
    fn json(&mut self, json: &Json, id: u32, skip_special: bool, out: &mut String) {
        let Some(token) = json.token(id) else { return };
        if skip_special && json.is_special(&token) {
            return;
        }
        match json.decoder() {
            Decoder::ByteLevel => {
                crate::bytes::append(&token, &mut self.held);
                self.text_so_far(false, out);
            }
            Decoder::Pieces {
                byte_fallback,
                strip,
            } => {
                let text = token.replace('▁', " ");
                let byte = if *byte_fallback {
                    crate::bytes::fallback(&text)
                } else {
                    None
                };
                if let Some(byte) = byte {
                    self.held.push(byte);
                    return;
                }
                self.byte_run(*strip, out);
                self.write(&text, *strip, out);
            }
            Decoder::Metaspace { replacement, strip } => {
                let first = !std::mem::replace(&mut self.begun, true);
                let text = token.chars().filter_map(|c| match c == *replacement {
                    true if first && *strip => None,
                    true => Some(' '),
                    false => Some(c),
                });
                out.extend(text);
            }
        }
    }

    /// Writes the whole characters that are held; what cannot become one is U+FFFD.
    fn text_so_far(&mut self, last: bool, out: &mut String) {
        let mut rest = self.held.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    out.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    match error.error_len() {
                        Some(length) => rest = rest.get(length..).unwrap_or_default(),
                        None if last => rest = &[],
                        None => break,
                    }
                    out.push(char::REPLACEMENT_CHARACTER);
                }
            }
        }
        self.held.drain(..self.held.len() - rest.len());
    }

    /// Writes a run of byte tokens that has ended: as text if all of it is, else one U+FFFD each.
    fn byte_run(&mut self, strip: bool, out: &mut String) {
        let held = std::mem::take(&mut self.held);
        match std::str::from_utf8(&held) {
            Ok(text) => self.write(text, strip, out),
            Err(_) => {
                self.written = true;
                out.extend(held.iter().map(|_| char::REPLACEMENT_CHARACTER));
            }
        }
    }

    /// Writes `text`; with `strip`, all text loses one space at its start.
    fn write(&mut self, text: &str, strip: bool, out: &mut String) {
        if text.is_empty() {
            return;
        }
        let text = match self.written {
            true => text,
            false if strip => text.strip_prefix(' ').unwrap_or(text),
            false => text,
        };
        self.written = true;
        out.push_str(text);
    }

    fn piece(&mut self, model: &SentencePiece, id: u32, skip_special: bool, out: &mut String) {
        let Some((text, kind)) = model.token(id) else {
            return;
        };
        if let Kind::Byte(byte) = kind {
            self.held.push(byte);
            self.characters(false, out);
            return;
        }
        self.characters(true, out);
        let settings = model.settings();
        let start = !self.stripped && !self.written && !self.begun;
        // Whether text has begun is looked at once per piece, before the piece.
        self.begun = !start;
        self.stripped = false;
        match kind {
            Kind::Control if skip_special => {}
            Kind::Control => out.push_str(text),
            Kind::Unknown => self.emit(&settings.unknown_surface, out),
            _ => {
                let trims = settings.dummy_prefix || settings.remove_extra_whitespaces;
                let rest = if start && trims {
                    text.strip_prefix('▁')
                } else {
                    None
                };
                self.stripped = rest.is_some() && !settings.remove_extra_whitespaces;
                self.emit(&rest.unwrap_or(text).replace('▁', " "), out);
            }
        }
    }

    fn emit(&mut self, text: &str, out: &mut String) {
        self.written |= !text.is_empty();
        out.push_str(text);
    }

    /// Writes the whole characters among the held bytes; a byte that is not part of one is U+FFFD.
    fn characters(&mut self, last: bool, out: &mut String) {
        let mut rest = self.held.as_slice();
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    rest = &[];
                }
                Err(error) if error.valid_up_to() > 0 => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    out.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                }
                Err(error) if error.error_len().is_none() && !last => break,
                Err(_) => {
                    out.push(char::REPLACEMENT_CHARACTER);
                    rest = rest.get(1..).unwrap_or_default();
                }
            }
            self.written = true;
        }
        self.held.drain(..self.held.len() - rest.len());
    }
}
