//! The tokenizer inside a GGUF file, as Hugging Face files.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::json::Json;
use crate::pretokenizer::{self, PreTokenizer};
use crate::sentencepiece::write;
use crate::settings::Settings;
use crate::tokenizer::Backend;
use crate::{Error, Result, Source, Tokenizer};

const ORIGIN: &str = "gguf metadata";

/// The `tokenizer.*` metadata of a GGUF file, as it stands there.
#[derive(Clone, Debug, Default)]
pub struct GgufTokenizer {
    /// `tokenizer.ggml.model`: `gpt2` or `llama`.
    pub model: String,
    /// `tokenizer.ggml.pre`: the name of the pre-tokenizer.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`, in id order.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.scores`; empty where there are none.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.token_type`: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused,
    /// 6 byte.
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.merges`: two tokens with a space between, best first.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unk: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`.
    pub pad: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
}

/// The files that a converted model's directory needs, by name.
#[derive(Clone, Debug)]
pub struct TokenizerFiles {
    /// Names and contents: `tokenizer.json` or `tokenizer.model`, `tokenizer_config.json` (the
    /// chat template included) and `special_tokens_map.json`.
    pub files: Vec<(&'static str, Vec<u8>)>,
}

/// The vocabulary in either form.
enum Vocabulary {
    Json(Vec<u8>),
    Model(Vec<u8>),
}

impl GgufTokenizer {
    /// The same tokenizer as Hugging Face files: a `gpt2` one becomes a `tokenizer.json`, a
    /// `llama` one a `tokenizer.model`. Exact, or an error that names what is unknown.
    pub fn files(&self) -> Result<TokenizerFiles> {
        let vocabulary = match self.vocabulary()? {
            Vocabulary::Json(bytes) => ("tokenizer.json", bytes),
            Vocabulary::Model(bytes) => ("tokenizer.model", bytes),
        };
        let special = self.special_tokens()?;
        let config = self.config(&special);
        Ok(TokenizerFiles {
            files: vec![
                vocabulary,
                ("tokenizer_config.json", pretty(&config)?),
                ("special_tokens_map.json", pretty(&special)?),
            ],
        })
    }

    pub(crate) fn load(&self) -> Result<Tokenizer> {
        let settings = Settings {
            special_tokens: self.special_tokens()?,
            add_bos: self.add_bos,
            add_eos: self.add_eos,
            eos_ids: BTreeSet::from_iter(self.eos),
            bos_id: self.bos,
            template: self
                .chat_template
                .clone()
                .map(|text| (ORIGIN.to_owned(), text)),
            ..Settings::default()
        };
        match self.vocabulary()? {
            Vocabulary::Json(bytes) => {
                let backend = Backend::Json(Box::new(Json::new(ORIGIN, &bytes)?));
                Tokenizer::new(Source::Gguf, Path::new(ORIGIN), backend, settings)
            }
            Vocabulary::Model(bytes) => Tokenizer::from_model(ORIGIN, bytes, settings)
                .map(|tokenizer| tokenizer.with_source(Source::Gguf)),
        }
    }

    fn vocabulary(&self) -> Result<Vocabulary> {
        if self.token_types.len() != self.tokens.len() {
            return Err(self.mismatch("tokenizer.ggml.token_type", self.token_types.len()));
        }
        match self.model.as_str() {
            "gpt2" => self.tokenizer_json().map(Vocabulary::Json),
            "llama" => self.tokenizer_model().map(Vocabulary::Model),
            other => Err(unsupported(
                format!("tokenizer.ggml.model {other:?}"),
                "gpt2 and llama are; convert from the original model directory",
            )),
        }
    }

    fn tokenizer_json(&self) -> Result<Vec<u8>> {
        let pre = self.pre.as_deref().unwrap_or_default();
        let known = PreTokenizer::named(pre).ok_or_else(|| {
            let names = pretokenizer::names().collect::<Vec<_>>().join(", ");
            let advice = format!("known are {names}; convert from the original model directory");
            unsupported(format!("tokenizer.ggml.pre {pre:?}"), &advice)
        })?;
        let mut seen = HashSet::with_capacity(self.tokens.len());
        if let Some(twice) = self
            .tokens
            .iter()
            .find(|token| !seen.insert(token.as_str()))
        {
            return Err(Error::Malformed {
                file: format!("{ORIGIN}: tokenizer.ggml.tokens"),
                expected: "every token once".to_owned(),
                found: format!("{twice:?} twice"),
            });
        }
        let mut added = Vec::new();
        for ((token, &kind), id) in self.tokens.iter().zip(&self.token_types).zip(0..) {
            if matches!(kind, 3 | 4) {
                added.push(AddedToken::new(id, token, kind == 3));
            }
        }
        let file = TokenizerJson {
            version: "1.0",
            truncation: (),
            padding: (),
            added_tokens: added,
            normalizer: known.normalizer(),
            pre_tokenizer: known.json(),
            post_processor: self.post_processor()?,
            decoder: json!({
                "type": "ByteLevel",
                "add_prefix_space": true,
                "trim_offsets": true,
                "use_regex": true,
            }),
            model: Bpe {
                r#type: "BPE",
                dropout: (),
                unk_token: (),
                continuing_subword_prefix: (),
                end_of_word_suffix: (),
                fuse_unk: false,
                byte_fallback: false,
                ignore_merges: known.ignore_merges,
                vocab: Ids(&self.tokens),
                merges: &self.merges,
            },
        };
        pretty(&file)
    }

    /// What raw text gets in front and behind.
    fn post_processor(&self) -> Result<Value> {
        let ends = [(self.add_bos, self.bos), (self.add_eos, self.eos)];
        let [bos, eos] = ends.map(|(add, id)| id.filter(|_| add == Some(true)));
        if bos.is_none() && eos.is_none() {
            return Ok(Value::Null);
        }
        let (mut single, mut pair, mut special) = (Vec::new(), Vec::new(), Map::new());
        for (sequence, kind) in [("A", 0), ("B", 1)] {
            let mut steps = Vec::new();
            for (end, before) in [(bos, true), (eos, false)] {
                if !before {
                    steps.push(json!({"Sequence": {"id": sequence, "type_id": kind}}));
                }
                if let Some(id) = end {
                    let token = self.spelled(id)?;
                    steps.push(json!({"SpecialToken": {"id": token, "type_id": kind}}));
                    let entry = json!({"id": token, "ids": [id], "tokens": [token]});
                    special.insert(token.to_owned(), entry);
                }
            }
            if kind == 0 {
                single.extend(steps.iter().cloned());
            }
            pair.extend(steps);
        }
        Ok(json!({
            "type": "TemplateProcessing",
            "single": single,
            "pair": pair,
            "special_tokens": special,
        }))
    }

    fn tokenizer_model(&self) -> Result<Vec<u8>> {
        if self.scores.len() != self.tokens.len() {
            return Err(self.mismatch("tokenizer.ggml.scores", self.scores.len()));
        }
        let mut pieces = Vec::with_capacity(self.tokens.len());
        for ((token, &score), &kind) in self.tokens.iter().zip(&self.scores).zip(&self.token_types)
        {
            pieces.push(write::Piece {
                text: token,
                score,
                kind,
            });
        }
        let name = |id: Option<u32>| id.map(|id| self.spelled(id)).transpose();
        Ok(write::model(
            &pieces,
            self.add_space_prefix.unwrap_or(true),
            name(self.bos)?,
            name(self.eos)?,
        ))
    }

    fn spelled(&self, id: u32) -> Result<&str> {
        self.tokens
            .get(id as usize)
            .map(String::as_str)
            .ok_or_else(|| Error::Malformed {
                file: format!("{ORIGIN}: special token"),
                expected: format!("an id below {}", self.tokens.len()),
                found: id.to_string(),
            })
    }

    fn mismatch(&self, list: &str, found: usize) -> Error {
        Error::Malformed {
            file: format!("{ORIGIN}: {list}"),
            expected: format!("{} entries, one for each token", self.tokens.len()),
            found: found.to_string(),
        }
    }

    fn special_tokens(&self) -> Result<Map<String, Value>> {
        let roles = [
            ("bos_token", self.bos),
            ("eos_token", self.eos),
            ("unk_token", self.unk),
            ("pad_token", self.pad),
        ];
        let mut tokens = Map::new();
        for (role, id) in roles {
            if let Some(id) = id {
                tokens.insert(role.to_owned(), self.spelled(id)?.into());
            }
        }
        Ok(tokens)
    }

    fn config(&self, special: &Map<String, Value>) -> Map<String, Value> {
        let mut config = Map::new();
        let mut put = |name: &str, value: Value| config.insert(name.to_owned(), value);
        let bpe = self.model == "gpt2";
        if bpe {
            put("add_prefix_space", false.into());
        }
        for (name, add) in [
            ("add_bos_token", self.add_bos),
            ("add_eos_token", self.add_eos),
        ] {
            if let Some(add) = add {
                put(name, add.into());
            }
        }
        for (role, token) in special {
            put(role, token.clone());
        }
        if let Some(template) = &self.chat_template {
            put("chat_template", template.as_str().into());
        }
        put("clean_up_tokenization_spaces", false.into());
        let class = if bpe {
            "PreTrainedTokenizerFast"
        } else {
            "LlamaTokenizer"
        };
        put("tokenizer_class", class.into());
        config
    }
}

fn unsupported(what: String, advice: &str) -> Error {
    Error::Unsupported {
        file: ORIGIN.to_owned(),
        what,
        advice: advice.to_owned(),
    }
}

/// Json as Python writes it with an indent of 1.
fn pretty(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b" ");
    value
        .serialize(&mut serde_json::Serializer::with_formatter(
            &mut bytes, format,
        ))
        .map(|()| bytes)
        .map_err(|error| Error::Library {
            file: ORIGIN.to_owned(),
            reason: error.to_string(),
        })
}

#[derive(Serialize)]
struct TokenizerJson<'a> {
    version: &'static str,
    truncation: (),
    padding: (),
    added_tokens: Vec<AddedToken<'a>>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: Bpe<'a>,
}

#[derive(Serialize)]
struct AddedToken<'a> {
    id: u32,
    content: &'a str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

impl<'a> AddedToken<'a> {
    fn new(id: u32, content: &'a str, special: bool) -> Self {
        let no = false;
        Self {
            id,
            content,
            single_word: no,
            lstrip: no,
            rstrip: no,
            normalized: no,
            special,
        }
    }
}

#[derive(Serialize)]
struct Bpe<'a> {
    r#type: &'static str,
    dropout: (),
    unk_token: (),
    continuing_subword_prefix: (),
    end_of_word_suffix: (),
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: Ids<'a>,
    merges: &'a [String],
}

/// Tokens in id order, as a map from token to id.
struct Ids<'a>(&'a [String]);

impl Serialize for Ids<'_> {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(0_u32..))
    }
}
