//! Rules: which layers are stored how. The first that matches decides.
//!
//! A rule is one line, `PATTERN=VALUE`. The pattern is for the path of a layer in Hugging Face's
//! terms, `model.layers.0.self_attn.q_proj` or `lm_head`, whose `model.` may be left out:
//!
//! * `*` stands for any run of characters, dots too, and `?` for one character;
//! * `{a,b}` for one of several words;
//! * `{0..3,-1}` for the numbers 0 to 3 and that of the last layer.
//!
//! The value is `BITS` or `BITSgGROUP` (affine), `mxfp4`, `mxfp8`, `nvfp4`, `float16`, `bfloat16`,
//! `float32` (`f16`, `bf16`, `f32`), or `float`: not quantised, in the dtype of the other weights.
//! Rules are for layers that have a matrix: the embedding, the head, linear layers.

mod pattern;
#[cfg(test)]
mod tests;

use crate::options::dtype_named;
use crate::{Error, Open, Quantise, Result};
use kiln_formats::File;
use kiln_plan::{DType, Mode};
use pattern::Pattern;
use serde::Deserialize;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// One rule. Made from text: `"*.down_proj=6g32".parse()`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    text: String,
    pattern: Pattern,
    pub(crate) target: Target,
    pub(crate) origin: Origin,
}

/// How a layer is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    Quantised(Quantise),
    /// In this dtype; `None` for that of the other weights.
    Float(Option<DType>),
}

/// Who wrote a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    User,
    /// The recipe of this name.
    Recipe(&'static str),
    /// An option, spelled like this.
    Option(String),
}

impl Rule {
    /// The rules of a TOML file, in order: `rules = ["layers.{0..3,-1}.*=8", "lm_head=bf16"]`.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, has another key, or a rule cannot be read.
    pub fn file(path: &Path, open: &Open<'_>) -> Result<Vec<Rule>> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Rules {
            rules: Vec<String>,
        }
        let invalid = |found: String| {
            let expected = "rules = [\"PATTERN=VALUE\", …] in TOML";
            kiln_formats::Error::invalid(path, None, expected, found)
        };
        let bytes = open(path).map_err(|source| kiln_formats::Error::Read {
            path: path.to_owned(),
            source,
        })?;
        let file = File::new(path, bytes);
        let text = str::from_utf8(file.bytes()).map_err(|error| invalid(error.to_string()))?;
        let read: Rules = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = 1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count();
            let message: String = error.message().chars().take(200).collect();
            invalid(format!("in line {line}: {}", message.replace('\n', " ")))
        })?;
        let parse = |text: &String| {
            text.parse::<Rule>()
                .map_err(|error| invalid(error.to_string()).into())
        };
        read.rules.iter().map(parse).collect()
    }

    /// A rule that comes from a recipe or an option.
    pub(crate) fn made(pattern: &str, target: Target, origin: Origin) -> Result<Rule> {
        let text = format!("{pattern}={target}");
        let pattern = Pattern::parse(pattern).map_err(|why| wrong(&text, why))?;
        Ok(Rule {
            text,
            pattern,
            target,
            origin,
        })
    }

    /// Whether it is about the layer at `path`, in a model of so many layers.
    pub(crate) fn matches(&self, path: &str, layers: usize) -> bool {
        let short = path.strip_prefix("model.");
        self.pattern.matches(path, layers)
            || short.is_some_and(|short| self.pattern.matches(short, layers))
    }
}

impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Rule> {
        let read = || -> std::result::Result<(Pattern, Target), String> {
            let (pattern, value) = text
                .rsplit_once('=')
                .ok_or("it has no =; a rule is PATTERN=VALUE")?;
            Ok((Pattern::parse(pattern.trim())?, target(value.trim())?))
        };
        let (pattern, target) = read().map_err(|why| wrong(text, why))?;
        if let Target::Quantised(quantise) = target {
            quantise
                .format(DType::F32)
                .map_err(|error| wrong(text, error.to_string()))?;
        }
        Ok(Rule {
            text: text.trim().to_owned(),
            pattern,
            target,
            origin: Origin::User,
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::User => f.write_str(&self.text),
            Origin::Recipe(name) => write!(f, "{name}: {}", self.text),
            Origin::Option(option) => f.write_str(option),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Float(None) => write!(f, "float"),
            Target::Float(Some(dtype)) => write!(f, "{dtype}"),
            Target::Quantised(Quantise { mode, bits, group }) => {
                if *mode != Mode::Affine {
                    return f.write_str(crate::options::mode_name(*mode));
                }
                write!(f, "{}", bits.unwrap_or(4))?;
                group.map_or(Ok(()), |group| write!(f, "g{group}"))
            }
        }
    }
}

pub(crate) fn wrong(rule: &str, why: impl Into<String>) -> Error {
    Error::Rule {
        rule: rule.chars().take(200).collect(),
        why: why.into(),
    }
}

fn target(value: &str) -> std::result::Result<Target, String> {
    let fixed = |mode| {
        Target::Quantised(Quantise {
            mode,
            bits: None,
            group: None,
        })
    };
    let named = match value {
        "float" => Some(Target::Float(None)),
        "f16" => Some(Target::Float(Some(DType::F16))),
        "bf16" => Some(Target::Float(Some(DType::BF16))),
        "f32" => Some(Target::Float(Some(DType::F32))),
        "mxfp4" => Some(fixed(Mode::Mxfp4)),
        "mxfp8" => Some(fixed(Mode::Mxfp8)),
        "nvfp4" => Some(fixed(Mode::Nvfp4)),
        _ => dtype_named(value).map(|dtype| Target::Float(Some(dtype))),
    };
    if let Some(named) = named {
        return Ok(named);
    }
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<usize>().ok().filter(|_| digits)
    };
    let (bits, group) = match value.split_once('g') {
        Some((bits, group)) => (number(bits), number(group).map(Some)),
        None => (number(value), Some(None)),
    };
    match (bits, group) {
        (Some(bits), Some(group)) => Ok(Target::Quantised(Quantise {
            mode: Mode::Affine,
            bits: Some(bits),
            group,
        })),
        _ => Err(format!(
            "{value:?} is none of BITS, BITSgGROUP, mxfp4, mxfp8, nvfp4, float16, bfloat16, \
             float32, float"
        )),
    }
}
