//! A conversation rendered by the model's chat template.

use serde_json::{Map, Value};

use crate::{Error, Result};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant` or what else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn of `role` saying `content`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
        }
    }
}

/// A date and time of day, as `strftime_now` of a template shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime {
    /// Year of the Gregorian calendar.
    pub year: i32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 60.
    pub second: u32,
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    origin: String,
}

impl ChatTemplate {
    /// Compiles `text`; `origin` says in errors where it came from.
    pub fn new(origin: impl Into<String>, _text: &str) -> Result<Self> {
        Ok(Self {
            origin: origin.into(),
        })
    }

    /// Where the template came from.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The same template with `variables` (such as `bos_token`) always in scope.
    pub fn with_variables(self, _variables: Map<String, Value>) -> Self {
        self
    }

    /// The same template with `now` for the time that `strftime_now` shows, in place of the clock.
    pub fn at(self, _now: DateTime) -> Self {
        self
    }

    /// The prompt text of a conversation. `add_generation_prompt` ends it with the opening of the
    /// assistant's turn; `extra` variables go before those of [`ChatTemplate::with_variables`].
    /// A template that runs too long or too deep, or that calls `raise_exception`, is an error.
    pub fn render(
        &self,
        _messages: &[Message],
        _add_generation_prompt: bool,
        _extra: &Map<String, Value>,
    ) -> Result<String> {
        Err(Error::NoTemplate {
            origin: self.origin.clone(),
        })
    }
}
