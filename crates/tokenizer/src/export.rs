//! The tokenizer of a directory as the metadata of a GGUF file.

use crate::gguf::GgufTokenizer;
use crate::pretokenizer::PreTokenizer;
use crate::settings::{self, Settings};
use crate::{Error, Result, Tokenizer};
use serde_json::Value;
use std::path::Path;

/// What a GGUF file calls a token: plain, special, given by the user, without use.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER: i32 = 4;
const UNUSED: i32 = 5;

impl GgufTokenizer {
    /// What a GGUF file says of the tokenizer in `directory`, so that it gives the same ids there.
    ///
    /// # Errors
    /// A tokenizer that is not BPE over bytes in `tokenizer.json`, or whose way to divide text into
    /// words has no name in GGUF files.
    pub fn from_directory(directory: &Path) -> Result<GgufTokenizer> {
        let path = directory.join("tokenizer.json");
        let file = path.display().to_string();
        let unsupported = |what: &str| Error::Unsupported {
            file: file.clone(),
            what: format!("{what} in a GGUF file"),
            advice: "write another format".to_owned(),
        };
        let Some(bytes) = settings::read(&path)? else {
            return Err(unsupported("a tokenizer that is not in tokenizer.json"));
        };
        // Checks what is read here once more below.
        let tokenizer = Tokenizer::from_directory(directory)?;
        let json: Value = serde_json::from_slice(&bytes).map_err(|error| Error::Malformed {
            file: file.clone(),
            expected: "a tokenizer".to_owned(),
            found: error.to_string(),
        })?;
        let pre = PreTokenizer::of(&json)
            .ok_or_else(|| unsupported("this way to divide text into words"))?;
        let model = &json["model"];
        let (tokens, token_types) =
            tokens(&json).ok_or_else(|| unsupported("a vocabulary with such ids"))?;
        let merges = model["merges"].as_array().map_or(&[][..], Vec::as_slice);
        let merge = |merge: &Value| match merge {
            Value::String(merge) => Some(merge.clone()),
            pair => Some(format!("{} {}", pair[0].as_str()?, pair[1].as_str()?)),
        };
        let merges = merges.iter().map(merge).collect::<Option<Vec<String>>>();
        let special = Settings::read(directory)?;
        let bos = tokenizer.bos_id();
        let begins = tokenizer.encode("", true)?;
        Ok(GgufTokenizer {
            model: "gpt2".to_owned(),
            pre: Some(pre.to_owned()),
            tokens,
            token_types,
            merges: merges.ok_or_else(|| unsupported("such merges"))?,
            bos,
            eos: tokenizer.eos_ids().first().copied(),
            add_bos: Some(bos.is_some() && begins.first().copied() == bos),
            chat_template: special.template.map(|(_, text)| text),
            ..GgufTokenizer::default()
        })
    }
}

/// All tokens and what they are, in the order of their ids; ids that nobody has are filled up.
fn tokens(json: &Value) -> Option<(Vec<String>, Vec<i32>)> {
    let vocabulary = json["model"]["vocab"].as_object()?;
    let added = json["added_tokens"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let most = 2 * (vocabulary.len() + added.len()) + 1024;
    let mut all: Vec<Option<(String, i32)>> = Vec::new();
    let mut put = |id: &Value, token: &str, kind: i32| {
        let id = usize::try_from(id.as_u64()?).ok().filter(|&id| id < most)?;
        if id >= all.len() {
            all.resize(id + 1, None);
        }
        all[id] = Some((token.to_owned(), kind));
        Some(())
    };
    for (token, id) in vocabulary {
        put(id, token, NORMAL)?;
    }
    for token in added {
        let kind = if token["special"] == true {
            CONTROL
        } else {
            USER
        };
        put(&token["id"], token["content"].as_str()?, kind)?;
    }
    let filled = all.into_iter().enumerate();
    Some(
        filled
            .map(|(id, token)| token.unwrap_or((format!("[PAD{id}]"), UNUSED)))
            .unzip(),
    )
}
