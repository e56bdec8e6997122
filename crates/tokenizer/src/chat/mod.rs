//! A conversation rendered by the model's chat template.

mod budget;
mod clock;
mod guard;
mod json;
mod rewrite;

use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error as JinjaError, ErrorKind, context};
use serde_json::{Map, Value};

pub use clock::DateTime;

use crate::{Error, Result};

/// How many instructions of the template engine a conversation may take.
const FUEL: u64 = 10_000_000;
/// How deep macros and loops may nest.
const DEPTH: usize = 200;
const NAME: &str = "chat_template";

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

/// A compiled chat template.
pub struct ChatTemplate {
    origin: String,
    jinja: Environment<'static>,
    variables: Map<String, Value>,
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// Compiles `text`; `origin` says in errors where it came from.
    pub fn new(origin: impl Into<String>, text: &str) -> Result<Self> {
        let origin = origin.into();
        let mut jinja = Environment::new();
        match SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
        {
            Ok(syntax) => jinja.set_syntax(syntax),
            Err(error) => {
                return Err(Error::TemplateSyntax {
                    origin,
                    reason: error.to_string(),
                });
            }
        }
        jinja.set_fuel(Some(FUEL));
        jinja.set_recursion_limit(DEPTH);
        guard::install(&mut jinja);
        budget::install(&mut jinja);
        jinja.add_filter("tojson", json::tojson);
        jinja.add_function("raise_exception", refuse);
        jinja.add_function("strftime_now", |format: &str| {
            DateTime::now().format(format)
        });
        let text = match rewrite::rewrite(text) {
            Ok(text) => text,
            Err(reason) => {
                return Err(Error::TemplateSyntax {
                    origin,
                    reason: reason.to_owned(),
                });
            }
        };
        match jinja.add_template_owned(NAME, text) {
            Ok(()) => Ok(Self {
                origin,
                jinja,
                variables: Map::new(),
            }),
            Err(error) => Err(Error::TemplateSyntax {
                origin,
                reason: error.to_string(),
            }),
        }
    }

    /// Where the template came from.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The same template with `variables` (such as `bos_token`) always in scope.
    pub fn with_variables(mut self, variables: Map<String, Value>) -> Self {
        self.variables.extend(variables);
        self
    }

    /// The same template with `now` for the time that `strftime_now` shows, in place of the clock.
    pub fn at(mut self, now: DateTime) -> Self {
        self.jinja
            .add_function("strftime_now", move |format: &str| now.format(format));
        self
    }

    /// The prompt text of a conversation. `add_generation_prompt` ends it with the opening of the
    /// assistant's turn; `extra` variables go before those of [`ChatTemplate::with_variables`].
    /// A template that runs too long or too deep, makes too much text, or calls `raise_exception`, is an
    /// error.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        extra: &Map<String, Value>,
    ) -> Result<String> {
        // Python passes both as None, and templates tell None from undefined.
        let mut variables = Map::from_iter(["tools", "documents"].map(|n| (n.into(), Value::Null)));
        variables.extend(self.variables.clone());
        variables.extend(extra.clone());
        let scope = context! {
            messages => minijinja::Value::from(Serde(messages)),
            add_generation_prompt,
            ..minijinja::Value::from(Serde(&variables))
        };
        self.jinja
            .get_template(NAME)
            .and_then(|template| template.render(scope))
            .map_err(|error| self.fault(&error))
    }

    fn fault(&self, error: &JinjaError) -> Error {
        let origin = self.origin.clone();
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(link) = cause {
            if let Some(Refusal(message)) = link.downcast_ref() {
                return Error::TemplateRefused {
                    origin,
                    message: message.clone(),
                };
            }
            cause = link.source();
        }
        Error::TemplateFailed {
            origin,
            reason: error.to_string(),
        }
    }
}

/// The error behind `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

fn refuse(message: String) -> std::result::Result<minijinja::Value, JinjaError> {
    Err(
        JinjaError::new(ErrorKind::InvalidOperation, "raise_exception")
            .with_source(Refusal(message)),
    )
}
