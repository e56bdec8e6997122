//! The tokenizer of a `tokenizer.json`.

mod outline;
mod pattern;

use outline::Outline;
use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::{
    DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl,
};

use crate::{Error, Result};

/// The library's tokenizer for the one model there is here. Its own for any model keeps the whole file
/// twice before it builds one, which takes twice as long.
type Library = TokenizerImpl<
    BPE,
    NormalizerWrapper,
    PreTokenizerWrapper,
    PostProcessorWrapper,
    DecoderWrapper,
>;

/// A loaded `tokenizer.json`.
#[derive(Debug)]
pub(crate) struct Json {
    file: String,
    tokenizer: Library,
    decoder: Decoder,
    vocab_size: usize,
    ends: Ends,
}

/// Ids that go before and behind a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ends {
    pub(crate) before: Vec<u32>,
    pub(crate) behind: Vec<u32>,
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

/// The keys that the library reads of a model.
const MODEL: [&str; 10] = [
    "type",
    "dropout",
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "fuse_unk",
    "byte_fallback",
    "ignore_merges",
    "vocab",
    "merges",
];

/// The library's tokenizer of a file. Its reader of a model stumbles over keys that it does not know, of
/// which there may be some; a file with such is read without them.
fn library(bytes: &[u8]) -> serde_json::Result<Library> {
    serde_json::from_slice(bytes).or_else(|error| {
        let mut file: Value = serde_json::from_slice(bytes)?;
        let model = file.get_mut("model").and_then(Value::as_object_mut);
        let unknown = |key: &String| !MODEL.contains(&key.as_str());
        match model {
            Some(model) if model.keys().any(unknown) => {
                model.retain(|key, _| !unknown(key));
                serde_json::from_slice(&serde_json::to_vec(&file)?)
            }
            _ => Err(error),
        }
    })
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
        let mut tokenizer = library(bytes).map_err(|error| Error::Library {
            file: file.to_owned(),
            reason: error.to_string(),
        })?;
        check.added_tokens(&outline, &tokenizer)?;
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
        tokenizer.with_post_processor(None::<PostProcessorWrapper>);
        let ends = check.ends(&outline.post_processor, vocab_size)?;
        Ok(Self {
            file: file.to_owned(),
            tokenizer,
            decoder,
            vocab_size,
            ends,
        })
    }

    /// The ids of `text` alone.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match self.tokenizer.encode_fast(text, false) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(error) => Err(Error::Library {
                file: self.file.clone(),
                reason: error.to_string(),
            }),
        }
    }

    /// What the post-processor puts before and behind raw text.
    pub(crate) fn ends(&self) -> &Ends {
        &self.ends
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
        // The library has room for no longer ones before it looks for what a merge makes.
        if model.merges.longest > model.vocab.longest {
            return Err(Error::Malformed {
                file: format!("{}: model.merges", self.file),
                expected: "pairs that make a token of the vocabulary".to_owned(),
                found: format!(
                    "one that makes {} bytes, where the longest token has {}",
                    model.merges.longest, model.vocab.longest
                ),
            });
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

    /// The library gives added tokens the next free ids, whatever the file asks for.
    fn added_tokens(&self, outline: &Outline, tokenizer: &Library) -> Result<()> {
        for token in &outline.added_tokens {
            if tokenizer.token_to_id(&token.content) != Some(token.id) {
                return Err(Error::Malformed {
                    file: format!("{}: added token {:?}", self.file, token.content),
                    expected: format!("to get the id {} that it asks for", token.id),
                    found: format!("{:?}", tokenizer.token_to_id(&token.content)),
                });
            }
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

    /// Reads what a post-processor adds, so that the library's own, which trusts its file, need
    /// not run. Of the known kinds only `TemplateProcessing` adds anything.
    fn ends(&self, processor: &Value, vocab_size: usize) -> Result<Ends> {
        let fault = |what: &str| self.unsupported("post_processor", what);
        let one = [processor.clone()];
        let steps = processor.get("processors").and_then(Value::as_array);
        let mut templates = steps
            .map_or(one.as_slice(), Vec::as_slice)
            .iter()
            .filter(|step| {
                step.get("type")
                    .is_some_and(|kind| kind == "TemplateProcessing")
            });
        let Some(template) = templates.next() else {
            return Ok(Ends::default());
        };
        if templates.next().is_some() {
            return Err(fault("a second template"));
        }
        let mut ends = Ends::default();
        let mut text_seen = false;
        let single = template.get("single").and_then(Value::as_array);
        for step in single.ok_or_else(|| fault("no template for a single text"))? {
            if let Some(token) = step.pointer("/SpecialToken/id").and_then(Value::as_str) {
                let ids = template
                    .get("special_tokens")
                    .and_then(|tokens| tokens.get(token));
                let ids = ids
                    .and_then(|token| token.get("ids"))
                    .and_then(Value::as_array);
                let end = if text_seen {
                    &mut ends.behind
                } else {
                    &mut ends.before
                };
                for id in ids.ok_or_else(|| fault("a token without ids"))? {
                    let id = id.as_u64().filter(|&id| id < vocab_size as u64);
                    end.push(id.ok_or_else(|| fault("an id beyond the vocabulary"))? as u32);
                }
            } else if step.pointer("/Sequence/id").is_some_and(|id| id == "A") && !text_seen {
                text_seen = true;
            } else {
                return Err(fault("a template of other parts than one text and tokens"));
            }
        }
        if text_seen {
            Ok(ends)
        } else {
            Err(fault("a template without the text"))
        }
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
