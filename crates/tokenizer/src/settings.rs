//! What the small files next to a tokenizer say about it.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use crate::sentencepiece::Added;
use crate::{Error, Result};

/// The settings of `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`,
/// `config.json`, `generation_config.json` and `chat_template.jinja`; each file is optional.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// The special tokens by role (`bos_token`), as a chat template sees them.
    pub(crate) special_tokens: Map<String, Value>,
    /// `add_bos_token` and `add_eos_token`, where the tokenizer's own file does not decide.
    pub(crate) add_bos: Option<bool>,
    pub(crate) add_eos: Option<bool>,
    /// `legacy`: whether text after a special token gets a space in front.
    pub(crate) legacy: bool,
    /// Tokens with their ids, beyond the vocabulary or special within it.
    pub(crate) added: Vec<Added>,
    /// The end-of-sequence ids of the model's configuration.
    pub(crate) eos_ids: BTreeSet<u32>,
    /// The beginning-of-sequence id of the model's configuration.
    pub(crate) bos_id: Option<u32>,
    /// Where the chat template came from, and its text.
    pub(crate) template: Option<(String, String)>,
}

const ROLES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

impl Settings {
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let mut settings = Self::default();
        for name in ["config.json", "generation_config.json"] {
            let file = File::read(directory, name)?;
            settings.eos_ids.extend(file.ids("eos_token_id")?);
            settings.bos_id = settings
                .bos_id
                .or(file.ids("bos_token_id")?.first().copied());
        }
        let config = File::read(directory, "tokenizer_config.json")?;
        let map = File::read(directory, "special_tokens_map.json")?;
        for role in ROLES {
            if let Some(token) = config.token(role)?.or(map.token(role)?) {
                settings
                    .special_tokens
                    .insert(role.to_owned(), Value::String(token));
            }
        }
        settings.add_bos = config.flag("add_bos_token")?;
        settings.add_eos = config.flag("add_eos_token")?;
        settings.legacy = config.flag("legacy")?.unwrap_or(false);
        settings.added = config.added_tokens()?;
        if settings.added.is_empty() {
            settings.added = File::read(directory, "added_tokens.json")?.token_ids()?;
        }
        settings.template = match read(&directory.join("chat_template.jinja"))? {
            Some(bytes) => {
                let path = directory.join("chat_template.jinja").display().to_string();
                let text = String::from_utf8(bytes)
                    .map_err(|_| malformed(&path, "utf-8 text", "other bytes"))?;
                Some((path, text))
            }
            None => config.template()?,
        };
        Ok(settings)
    }

    /// The text of the special token with this role.
    pub(crate) fn special(&self, role: &str) -> Option<&str> {
        self.special_tokens.get(role).and_then(Value::as_str)
    }
}

/// The bytes of a file; `None` if there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn malformed(file: &str, expected: impl ToString, found: impl ToString) -> Error {
    Error::Malformed {
        file: file.to_owned(),
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

/// One of the files, an object; empty if the file does not exist.
struct File {
    path: String,
    fields: Map<String, Value>,
}

impl File {
    fn read(directory: &Path, name: &str) -> Result<Self> {
        let path = directory.join(name);
        let fields = match read(&path)? {
            None => Map::new(),
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| malformed(&path.display().to_string(), "a json object", error))?,
        };
        Ok(Self {
            path: path.display().to_string(),
            fields,
        })
    }

    fn fault(&self, name: &str, expected: &str, found: &Value) -> Error {
        malformed(&format!("{}: {name}", self.path), expected, found)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.get(name)
            .map(|value| {
                value
                    .as_bool()
                    .ok_or_else(|| self.fault(name, "true or false", value))
            })
            .transpose()
    }

    /// A token id, or a list of them.
    fn ids(&self, name: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| {
            value
                .as_u64()
                .and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| self.fault(name, "a token id or a list of them", value))
        };
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(ids)) => ids.iter().map(id).collect(),
            Some(value) => id(value).map(|id| vec![id]),
        }
    }

    /// A token, as its text or as an object with its `content`.
    fn token(&self, name: &str) -> Result<Option<String>> {
        self.get(name)
            .map(|value| {
                let text = value.get("content").unwrap_or(value).as_str();
                text.map(str::to_owned)
                    .ok_or_else(|| self.fault(name, "a token's text", value))
            })
            .transpose()
    }

    /// `added_tokens_decoder`: tokens by id.
    fn added_tokens(&self) -> Result<Vec<Added>> {
        let name = "added_tokens_decoder";
        let Some(tokens) = self.get(name) else {
            return Ok(Vec::new());
        };
        let map = tokens
            .as_object()
            .ok_or_else(|| self.fault(name, "an object", tokens))?;
        map.iter()
            .map(|(id, token)| {
                let flag = |name| token.get(name).and_then(Value::as_bool).unwrap_or(false);
                let added = Added {
                    id: id
                        .parse()
                        .map_err(|_| self.fault(name, "an id", &id.as_str().into()))?,
                    text: token
                        .get("content")
                        .and_then(Value::as_str)
                        .ok_or_else(|| self.fault(name, "a token with its content", token))?
                        .to_owned(),
                    special: flag("special"),
                    strips: flag("lstrip") || flag("rstrip") || flag("single_word"),
                };
                Ok(added)
            })
            .collect()
    }

    /// `added_tokens.json`: ids by token.
    fn token_ids(&self) -> Result<Vec<Added>> {
        self.fields
            .iter()
            .map(|(text, id)| {
                let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
                let id = number.ok_or_else(|| self.fault(text, "a token id", id))?;
                Ok(Added {
                    id,
                    text: text.clone(),
                    special: false,
                    strips: false,
                })
            })
            .collect()
    }

    /// `chat_template`: a text, or a list of named ones of which `default` is taken.
    fn template(&self) -> Result<Option<(String, String)>> {
        let name = "chat_template";
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let text = match value {
            Value::Array(templates) => templates
                .iter()
                .find(|template| template.get("name").is_some_and(|name| name == "default"))
                .and_then(|template| template.get("template")),
            value => Some(value),
        };
        match text.and_then(Value::as_str) {
            Some(text) => Ok(Some((self.path.clone(), text.to_owned()))),
            None => Err(self.fault(name, "a text, or a list with a default", &"neither".into())),
        }
    }
}
