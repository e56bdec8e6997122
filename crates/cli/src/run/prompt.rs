//! From the command line to the prompt's ids.

use super::Run;
use crate::exit::{Code, Refused};
use crate::output;
use anyhow::Context;
use kiln::{Message, Tokenizer};
use kiln_tokenizer::Error;
use serde_json::Map;
use std::io::Read;

/// The longest prompt that is read from standard input.
const LIMIT: u64 = 64 << 20;

/// The prompt's text, from the command line or from standard input; `None` where ids are given.
pub(super) fn text(task: &Run) -> anyhow::Result<Option<String>> {
    match task.prompt.text.as_deref() {
        Some("-") => standard_input().map(Some),
        text => Ok(text.map(str::to_owned)),
    }
}

fn standard_input() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let input = std::io::stdin().lock();
    input
        .take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .context("cannot read standard input")?;
    if bytes.len() as u64 > LIMIT {
        let message = format!("standard input: more than {LIMIT} bytes are not a prompt");
        return Err(Refused::new(Code::Limits, message).into());
    }
    String::from_utf8(bytes)
        .map_err(|error| Error::NotUtf8 {
            at: error.utf8_error().valid_up_to(),
        })
        .context("the prompt on standard input cannot be used")
}

/// The ids of the prompt: given ones as they are, text through the chat template where there is one
/// and it is wanted.
pub(super) fn ids(
    task: &Run,
    text: Option<String>,
    tokenizer: Option<&Tokenizer>,
) -> anyhow::Result<Vec<u32>> {
    let (Some(text), Some(tokenizer)) = (text, tokenizer) else {
        return Ok(task.prompt.ids.clone().unwrap_or_default());
    };
    if task.ignore_chat_template {
        return Ok(tokenizer.encode(&text, true)?);
    }
    let template = match tokenizer.chat_template() {
        Ok(template) => template,
        Err(error @ Error::NoTemplate { .. }) if task.system_prompt.is_some() => {
            return Err(anyhow::Error::new(error).context("--system-prompt needs a chat template"));
        }
        Err(Error::NoTemplate { .. }) => {
            if task.verbose {
                output::say("template: none, the prompt is used as it is");
            }
            return Ok(tokenizer.encode(&text, true)?);
        }
        Err(error) => return Err(error.into()),
    };
    if task.verbose {
        output::say(format_args!("template: {}", template.origin()));
    }
    let system = task
        .system_prompt
        .iter()
        .map(|text| Message::new("system", text));
    let messages: Vec<Message> = system.chain([Message::new("user", text)]).collect();
    let rendered = template.render(&messages, true, &Map::new())?;
    Ok(tokenizer.encode(&rendered, false)?)
}
