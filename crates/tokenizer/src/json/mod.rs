//! The tokenizer of a `tokenizer.json`.

mod outline;
mod pattern;

use outline::Outline;
use serde_json::Value;

use crate::{Error, Result};

/// A loaded `tokenizer.json`.
#[derive(Debug)]
pub(crate) struct Json {
    file: String,
    tokenizer: tokenizers::Tokenizer,
    decoder: Decoder,
    vocab_size: usize,
}

/// How tokens become text.
#[derive(Debug, PartialEq)]
pub(crate) enum Decoder {
    /// Each character of a token is a byte, as in GPT-2.
    ByteLevel,
    /// `▁` is a space; `<0xNN>` is a byte; the text may lose one space in front.
    Pieces { byte_fallback: bool, strip: bool },
    /// The replacement character is a space, except in the first token.
    Metaspace { replacement: char, strip: bool },
}

impl Json {
    /// Checks and loads the file `bytes`.
    pub(crate) fn new(file: &str, bytes: &[u8]) -> Result<Self> {
        let outline: Outline = serde_json::from_slice(bytes).map_err(|error| Error::Malformed {
            file: file.to_owned(),
            expected: "a tokenizer in json".to_owned(),
            found: error.to_string(),
        })?;
        let check = Check { file };
        check.model(&outline.model)?;
        check.parts(
            "normalizer",
            &outline.normalizer,
            "normalizers",
            &NORMALIZERS,
        )?;
        check.parts(
            "pre_tokenizer",
            &outline.pre_tokenizer,
            "pretokenizers",
            &PRE_TOKENIZERS,
        )?;
        check.parts(
            "post_processor",
            &outline.post_processor,
            "processors",
            &POST_PROCESSORS,
        )?;
        let decoder = check.decoder(&outline.decoder)?;
        let mut tokenizer =
            tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| Error::Library {
                file: file.to_owned(),
                reason: error.to_string(),
            })?;
        for token in &outline.added_tokens {
            if tokenizer.token_to_id(&token.content) != Some(token.id) {
                return Err(Error::Malformed {
                    file: format!("{file}: added token {:?}", token.content),
                    expected: format!("to get the id {} that it asks for", token.id),
                    found: format!("{:?}", tokenizer.token_to_id(&token.content)),
                });
            }
        }
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| Error::Library {
                file: file.to_owned(),
                reason: error.to_string(),
            })?;
        let added = outline
            .added_tokens
            .iter()
            .map(|token| token.id as usize + 1)
            .max();
        let vocab_size = outline.model.vocab.end.max(added.unwrap_or(0));
        let json = Self {
            file: file.to_owned(),
            tokenizer,
            decoder,
            vocab_size,
        };
        json.check_added_ids()?;
        Ok(json)
    }

    /// The ids that the post-processor adds must be in the vocabulary.
    fn check_added_ids(&self) -> Result<()> {
        match self
            .encode("", true)?
            .iter()
            .find(|&&id| id as usize >= self.vocab_size)
        {
            None => Ok(()),
            Some(id) => Err(Error::Malformed {
                file: format!("{}: post_processor", self.file),
                expected: format!("ids below {}", self.vocab_size),
                found: id.to_string(),
            }),
        }
    }

    pub(crate) fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        match self.tokenizer.encode_fast(text, special) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(error) => Err(Error::Library {
                file: self.file.clone(),
                reason: error.to_string(),
            }),
        }
    }

    pub(crate) fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    pub(crate) fn token(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    pub(crate) fn id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    pub(crate) fn is_special(&self, token: &str) -> bool {
        self.tokenizer
            .get_added_vocabulary()
            .is_special_token(token)
    }

    pub(crate) fn vocab_size(&self) -> usize {
        self.vocab_size
    }
}

const NORMALIZERS: [&str; 9] = [
    "Prepend",
    "Replace",
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "Lowercase",
    "Strip",
    "StripAccents",
];
const PRE_TOKENIZERS: [&str; 7] = [
    "ByteLevel",
    "Split",
    "Digits",
    "Metaspace",
    "Whitespace",
    "WhitespaceSplit",
    "Punctuation",
];
const POST_PROCESSORS: [&str; 2] = ["ByteLevel", "TemplateProcessing"];

/// Refuses what the library would not survive and what this crate does not do exactly.
struct Check<'a> {
    file: &'a str,
}

impl Check<'_> {
    fn unsupported(&self, place: &str, what: impl ToString) -> Error {
        Error::Unsupported {
            file: format!("{}: {place}", self.file),
            what: what.to_string(),
            advice: "give the prompt as token ids (--prompt-ids) instead".to_owned(),
        }
    }

    fn model(&self, model: &outline::Model) -> Result<()> {
        if model.kind != "BPE" {
            return Err(self.unsupported("model", format!("type {}", model.kind)));
        }
        let affixes = [
            (
                "continuing_subword_prefix",
                &model.continuing_subword_prefix,
            ),
            ("end_of_word_suffix", &model.end_of_word_suffix),
        ];
        for (name, value) in affixes {
            if !value.is_null() && value != "" {
                return Err(self.unsupported("model", format!("{name} {value}")));
            }
        }
        if model.dropout.as_f64().is_some_and(|dropout| dropout != 0.0) {
            return Err(self.unsupported("model", format!("dropout {}", model.dropout)));
        }
        if let Some(id) = model.vocab.shared {
            return Err(Error::Malformed {
                file: format!("{}: model.vocab", self.file),
                expected: "an id for each token".to_owned(),
                found: format!("two tokens with id {id}"),
            });
        }
        Ok(())
    }

    /// Checks that `part` is null, one of `known`, or a sequence of such in its field `list`.
    fn parts(&self, place: &str, part: &Value, list: &str, known: &[&str]) -> Result<()> {
        let Some(kind) = part.get("type").and_then(Value::as_str) else {
            return match part {
                Value::Null => Ok(()),
                _ => Err(self.unsupported(place, "a part without a type")),
            };
        };
        if kind == "Sequence" {
            let steps = part.get(list).and_then(Value::as_array);
            let steps = steps.ok_or_else(|| self.unsupported(place, format!("no {list}")))?;
            return steps.iter().try_for_each(|step| match step.get("type") {
                Some(kind) if kind == "Sequence" => {
                    Err(self.unsupported(place, "a sequence within a sequence"))
                }
                _ => self.parts(place, step, list, known),
            });
        }
        if !known.contains(&kind) {
            return Err(self.unsupported(place, format!("type {kind}")));
        }
        if let Some(regex) = part.pointer("/pattern/Regex").and_then(Value::as_str) {
            pattern::check(regex).map_err(|reason| {
                self.unsupported(place, format!("the pattern {regex:?} ({reason})"))
            })?;
        }
        Ok(())
    }

    fn decoder(&self, decoder: &Value) -> Result<Decoder> {
        let field = |name| decoder.get(name).and_then(Value::as_str);
        let steps = match field("type") {
            Some("ByteLevel") => return Ok(Decoder::ByteLevel),
            Some("Metaspace") => {
                let mut replacement = field("replacement").unwrap_or_default().chars();
                let scheme = field("prepend_scheme").unwrap_or("always");
                let prefix = decoder.get("add_prefix_space") != Some(&Value::Bool(false));
                return match (replacement.next(), replacement.next()) {
                    (Some(replacement), None) => Ok(Decoder::Metaspace {
                        replacement,
                        strip: prefix && scheme != "never",
                    }),
                    _ => Err(self.unsupported("decoder", decoder)),
                };
            }
            Some("Sequence") => decoder.get("decoders").and_then(Value::as_array),
            _ => None,
        };
        let steps = steps.ok_or_else(|| self.unsupported("decoder", decoder))?;
        if let [only] = steps.as_slice()
            && only.get("type").is_some_and(|kind| kind != "Sequence")
        {
            return self.decoder(only);
        }
        let replace = serde_json::json!(
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
        );
        let strip = serde_json::json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
        let is = |step: Option<&Value>, kind: &str| {
            step.and_then(|step| step.get("type"))
                .is_some_and(|found| found == kind)
        };
        let mut rest = steps.iter().peekable();
        let begins = rest.next() == Some(&replace);
        let byte_fallback = rest
            .next_if(|step| is(Some(step), "ByteFallback"))
            .is_some();
        let fuses = is(rest.next(), "Fuse");
        let strips = rest.next_if_eq(&&strip).is_some();
        match begins && fuses && rest.next().is_none() {
            true => Ok(Decoder::Pieces {
                byte_fallback,
                strip: strips,
            }),
            false => Err(self.unsupported("decoder", decoder)),
        }
    }
}
