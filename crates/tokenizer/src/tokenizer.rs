//! The one tokenizer type, whatever file it was read from.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};

use crate::json::{Ends, Json};
use crate::sentencepiece::{Kind, SentencePiece};
use crate::settings::{self, Settings};
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

impl Source {
    fn file_name(self) -> &'static str {
        match self {
            Self::Json => "tokenizer.json",
            Self::Model => "tokenizer.model",
            Self::Gguf => "gguf metadata",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file_name())
    }
}

/// Turns text into token ids and back. `Send + Sync`.
pub struct Tokenizer {
    source: Source,
    origin: String,
    backend: Backend,
    bos: Option<u32>,
    eos: Vec<u32>,
    /// What raw text gets before and behind it.
    ends: Ends,
    special_tokens: Map<String, Value>,
    template: Option<(String, String)>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Tokenizer");
        shown
            .field("source", &self.source)
            .field("vocab_size", &self.vocab_size());
        shown.finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) enum Backend {
    Json(Box<Json>),
    SentencePiece(Box<SentencePiece>),
}

impl Backend {
    fn id(&self, token: &str) -> Option<u32> {
        match self {
            Self::Json(json) => json.id(token),
            Self::SentencePiece(model) => model.id(token),
        }
    }
}

impl Tokenizer {
    /// Reads the tokenizer of a model directory: `tokenizer.json` if it is there, else
    /// `tokenizer.model`; [`Tokenizer::source`] tells which. Special ids and the chat template are
    /// read from `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`,
    /// `generation_config.json`, `config.json` and `chat_template.jinja`, all optional.
    pub fn from_directory(directory: &Path) -> Result<Self> {
        let settings = Settings::read(directory)?;
        for source in [Source::Json, Source::Model] {
            let path = directory.join(source.file_name());
            if let Some(bytes) = settings::read(&path)? {
                let tokenizer = Self::read(source, &path.display().to_string(), bytes, settings)?;
                return Ok(Self {
                    origin: directory.display().to_string(),
                    ..tokenizer
                });
            }
        }
        Err(Error::NoTokenizer {
            directory: directory.to_owned(),
        })
    }

    /// The tokenizer in the contents of a `tokenizer.json` or a `tokenizer.model`, without any
    /// settings; `name` is what errors call it.
    pub fn from_bytes(source: Source, name: &str, bytes: Vec<u8>) -> Result<Self> {
        Self::read(source, name, bytes, Settings::default())
    }

    fn read(source: Source, file: &str, bytes: Vec<u8>, settings: Settings) -> Result<Self> {
        match source {
            Source::Json => {
                let backend = Backend::Json(Box::new(Json::new(file, &bytes)?));
                Self::new(source, Path::new(file), backend, settings)
            }
            Source::Model => Self::from_model(file, bytes, settings),
            Source::Gguf => Err(Error::Unsupported {
                file: file.to_owned(),
                what: "a tokenizer in the bytes of a gguf file".to_owned(),
                advice: "read its metadata and use from_gguf".to_owned(),
            }),
        }
    }

    /// Builds the tokenizer that a GGUF file's metadata describes. An unknown pre-tokenizer or
    /// model is an error that names it.
    pub fn from_gguf(gguf: &GgufTokenizer) -> Result<Self> {
        gguf.load()
    }

    pub(crate) fn from_model(file: &str, bytes: Vec<u8>, mut settings: Settings) -> Result<Self> {
        let added = std::mem::take(&mut settings.added);
        let model = SentencePiece::new(file, bytes, added, settings.legacy)?;
        let pieces = model.settings();
        let names = [
            ("bos_token", &pieces.bos_piece),
            ("eos_token", &pieces.eos_piece),
        ];
        for (role, piece) in names {
            let known = model.id(piece).and_then(|id| model.token(id));
            if known.is_some_and(|(_, kind)| kind == Kind::Control) {
                let entry = settings.special_tokens.entry(role);
                entry.or_insert_with(|| Value::String(piece.clone()));
            }
        }
        settings.add_bos = settings.add_bos.or(Some(true));
        let backend = Backend::SentencePiece(Box::new(model));
        Self::new(Source::Model, Path::new(file), backend, settings)
    }

    pub(crate) fn new(
        source: Source,
        origin: &Path,
        backend: Backend,
        settings: Settings,
    ) -> Result<Self> {
        let id = |role| {
            let Some(token) = settings.special(role) else {
                return Ok(None);
            };
            backend.id(token).map(Some).ok_or_else(|| Error::Malformed {
                file: format!("{}: {role}", origin.display()),
                expected: "a token of the vocabulary".to_owned(),
                found: format!("{token:?}"),
            })
        };
        let (own_bos, own_eos) = (id("bos_token")?, id("eos_token")?);
        let ends = match (&backend, settings.add_bos, settings.add_eos) {
            (Backend::Json(json), None, None) => json.ends().clone(),
            (_, bos, eos) => {
                let end = |add: Option<bool>, id: Option<u32>| {
                    Vec::from_iter(id.filter(|_| add == Some(true)))
                };
                Ends {
                    before: end(bos, own_bos),
                    behind: end(eos, own_eos),
                }
            }
        };
        let mut eos: BTreeSet<u32> = settings.eos_ids;
        eos.extend(own_eos);
        Ok(Self {
            source,
            origin: origin.display().to_string(),
            bos: own_bos.or(settings.bos_id),
            eos: eos.into_iter().collect(),
            ends,
            special_tokens: settings.special_tokens,
            template: settings.template,
            backend,
        })
    }

    pub(crate) fn with_source(self, source: Source) -> Self {
        Self { source, ..self }
    }

    /// Which kind of file the tokenizer was read from.
    pub fn source(&self) -> Source {
        self.source
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The ids of `text`. Special tokens spelled in the text become their ids; with `special`,
    /// what the tokenizer adds to raw text (usually BOS) is added too, but never a second BOS at
    /// the start. Encode a rendered chat template with `special` false.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let mut ids = match &self.backend {
            Backend::Json(json) => json.encode(text)?,
            Backend::SentencePiece(model) => model.encode(text)?,
        };
        if special {
            let begun = ids
                .first()
                .is_some_and(|first| self.ends.before.first() == Some(first));
            if !begun {
                ids.splice(0..0, self.ends.before.iter().copied());
            }
            ids.extend(&self.ends.behind);
        }
        Ok(ids)
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
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let size = self.vocab_size();
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= size) {
            return Err(Error::UnknownId { id, size });
        }
        let mut text = String::new();
        let mut stream = self.detokenizer(skip_special);
        for &id in ids {
            stream.push_to(id, &mut text);
        }
        stream.finish_to(&mut text);
        Ok(text)
    }

    /// A stream that turns ids into text one by one.
    pub fn detokenizer(&self, skip_special: bool) -> Detokenizer<'_> {
        Detokenizer::new(self, skip_special)
    }

    /// The beginning-of-sequence id, if the tokenizer has one.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// The ids that end a generation, ascending: the union of what `config.json`,
    /// `generation_config.json` and the tokenizer itself say. May be empty.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos
    }

    /// The token of `id` as the vocabulary spells it (`Ġhello`, `▁hello`, `<0x0A>`).
    pub fn token(&self, id: u32) -> Option<String> {
        match &self.backend {
            Backend::Json(json) => json.token(id),
            Backend::SentencePiece(model) => model.token(id).map(|(text, _)| text.to_owned()),
        }
    }

    /// The id of `token` as the vocabulary spells it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.backend.id(token)
    }

    /// One more than the largest id, added tokens included.
    pub fn vocab_size(&self) -> usize {
        match &self.backend {
            Backend::Json(json) => json.vocab_size(),
            Backend::SentencePiece(model) => model.vocab_size(),
        }
    }

    /// The model's own chat template, with the special tokens in scope; [`Error::NoTemplate`] if
    /// the model has none, [`Error::TemplateSyntax`] if it is not valid. Compiles it: keep the
    /// result.
    pub fn chat_template(&self) -> Result<ChatTemplate> {
        match &self.template {
            Some((origin, text)) => ChatTemplate::new(origin, text)
                .map(|template| template.with_variables(self.special_tokens.clone())),
            None => Err(Error::NoTemplate {
                origin: self.origin.clone(),
            }),
        }
    }
}
