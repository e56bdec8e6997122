//! The one tokenizer type, whatever file it was read from.

use std::fmt;
use std::path::Path;

use crate::{ChatTemplate, Detokenizer, Error, GgufTokenizer, Result};

/// Where a tokenizer was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A `tokenizer.json`.
    Json,
    /// A SentencePiece `tokenizer.model`.
    Model,
    /// The metadata of a GGUF file.
    Gguf,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "tokenizer.json",
            Self::Model => "tokenizer.model",
            Self::Gguf => "gguf metadata",
        })
    }
}

/// Turns text into token ids and back. `Send + Sync`.
#[derive(Debug)]
pub struct Tokenizer {
    source: Source,
}

impl Tokenizer {
    /// Reads the tokenizer of a model directory: `tokenizer.json` if it is there, else
    /// `tokenizer.model`; [`Tokenizer::source`] tells which. Special ids and the chat template are
    /// read from `tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json`,
    /// `config.json` and `chat_template.jinja`, all optional.
    pub fn from_directory(directory: &Path) -> Result<Self> {
        Err(Error::NoTokenizer {
            directory: directory.to_owned(),
        })
    }

    /// Builds the tokenizer that a GGUF file's metadata describes. An unknown pre-tokenizer or
    /// model is an error that names it.
    pub fn from_gguf(gguf: &GgufTokenizer) -> Result<Self> {
        gguf.files().map(|_| Self {
            source: Source::Gguf,
        })
    }

    /// Which kind of file the tokenizer was read from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The ids of `text`. Special tokens spelled in the text become their ids; with `special`,
    /// what the tokenizer adds to raw text (usually BOS) is added too, but never a second BOS at
    /// the start. Encode a rendered chat template with `special` false.
    pub fn encode(&self, _text: &str, _special: bool) -> Result<Vec<u32>> {
        Ok(Vec::new())
    }

    /// As [`Tokenizer::encode`] for bytes that should be UTF-8; anything else is
    /// [`Error::NotUtf8`].
    pub fn encode_bytes(&self, text: &[u8], special: bool) -> Result<Vec<u32>> {
        let text = std::str::from_utf8(text).map_err(|error| Error::NotUtf8 {
            at: error.valid_up_to(),
        })?;
        self.encode(text, special)
    }

    /// The text of `ids`; special tokens are left out with `skip_special`. Bytes that are not
    /// UTF-8 become U+FFFD. An id outside the vocabulary is [`Error::UnknownId`].
    pub fn decode(&self, _ids: &[u32], _skip_special: bool) -> Result<String> {
        Ok(String::new())
    }

    /// A stream that turns ids into text one by one.
    pub fn detokenizer(&self, _skip_special: bool) -> Detokenizer<'_> {
        Detokenizer::new(self)
    }

    /// The beginning-of-sequence id, if the tokenizer has one.
    pub fn bos_id(&self) -> Option<u32> {
        None
    }

    /// The ids that end a generation, ascending: the union of what `config.json`,
    /// `generation_config.json` and the tokenizer itself say. May be empty.
    pub fn eos_ids(&self) -> &[u32] {
        &[]
    }

    /// The token of `id` as the vocabulary spells it (`Ġhello`, `▁hello`, `<0x0A>`).
    pub fn token(&self, _id: u32) -> Option<String> {
        None
    }

    /// The id of `token` as the vocabulary spells it.
    pub fn id(&self, _token: &str) -> Option<u32> {
        None
    }

    /// One more than the largest id, added tokens included.
    pub fn vocab_size(&self) -> usize {
        0
    }

    /// The model's own chat template, or [`Error::NoTemplate`]; [`Error::TemplateSyntax`] if it
    /// is not valid. Compiles it: keep the result.
    pub fn chat_template(&self) -> Result<ChatTemplate> {
        Err(Error::NoTemplate {
            origin: self.source.to_string(),
        })
    }
}
