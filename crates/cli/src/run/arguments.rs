//! The command line of `kiln run`.

use crate::machine::Machine;
use clap::{Args, ValueEnum};
use kiln::sample::Options;
use std::path::PathBuf;

/// Answer a prompt
///
/// The prompt goes through the model's chat template, if it has one. The text is printed as it is
/// generated.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The model: a directory as kiln convert or mlx_lm.convert writes it, or ORG/NAME[@REVISION] on
    /// a hub
    #[arg(
        long,
        visible_alias = "model-path",
        value_name = "DIR",
        default_value = "mlx_model"
    )]
    pub(super) model: PathBuf,

    #[command(flatten)]
    pub(super) prompt: Prompt,

    /// The most tokens to generate
    #[arg(short, long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_tokens: u32,

    #[command(flatten)]
    pub(super) sampling: Sampling,

    /// Print text every N tokens
    #[arg(
        long,
        visible_alias = "write-every",
        value_name = "N",
        default_value_t = 1
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) tokens_per_eval: u32,

    /// Take the prompt as it is, without the chat template
    #[arg(long)]
    pub(super) ignore_chat_template: bool,

    /// What the chat template puts before the prompt, as the system's words
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    #[arg(conflicts_with_all = ["ignore_chat_template", "prompt_ids"])]
    pub(super) system_prompt: Option<String>,

    /// Do not stop at the end-of-sequence token
    #[arg(long)]
    pub(super) ignore_eos: bool,

    /// What to cut from a prompt that does not fit the model's context, rather than fail
    #[arg(long, value_enum, value_name = "END", num_args = 0..=1, default_missing_value = "head")]
    pub(super) truncate: Option<Truncate>,

    /// With --json: the log-probability of every token, and the N likeliest at its place
    #[arg(long, value_name = "N", requires = "json")]
    pub(super) top_logprobs: Option<usize>,

    #[command(flatten)]
    pub(super) machine: Machine,

    /// Print one JSON object at the end instead of text
    #[arg(long)]
    pub(super) json: bool,

    /// Say more: seed, device, template, what the device did
    #[arg(short, long, conflicts_with = "quiet")]
    pub(super) verbose: bool,

    /// No statistics
    #[arg(short, long)]
    pub(super) quiet: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Prompt {
    /// The prompt; - reads it from standard input
    #[arg(
        short = 'p',
        long = "prompt",
        value_name = "TEXT",
        allow_hyphen_values = true
    )]
    pub(super) text: Option<String>,

    /// The prompt as token ids, used as they are
    #[arg(
        long = "prompt-ids",
        id = "prompt_ids",
        value_name = "ID,ID,…",
        value_delimiter = ','
    )]
    pub(super) ids: Option<Vec<u32>>,
}

#[derive(Debug, Args)]
pub(super) struct Sampling {
    /// Temperature; 0 takes the likeliest token
    #[arg(
        long,
        value_name = "T",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    temp: f32,

    /// Keep the likeliest tokens that together have this probability
    #[arg(
        long,
        value_name = "P",
        default_value_t = 1.0,
        allow_negative_numbers = true
    )]
    top_p: f32,

    /// Keep this many of the likeliest tokens; 0 keeps all
    #[arg(long, value_name = "N", default_value_t = 0)]
    top_k: usize,

    /// Keep tokens with at least this share of the likeliest one's probability
    #[arg(
        long,
        value_name = "P",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    min_p: f32,

    /// Where random numbers start
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    pub(super) seed: u64,

    /// Divides the logits of recent tokens; 1 does nothing
    #[arg(
        long,
        value_name = "X",
        default_value_t = 1.0,
        allow_negative_numbers = true
    )]
    repetition_penalty: f32,

    /// Subtracted once from the logits of recent tokens
    #[arg(
        long,
        value_name = "X",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    presence_penalty: f32,

    /// Subtracted from the logits of recent tokens for each time they occur
    #[arg(
        long,
        value_name = "X",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    frequency_penalty: f32,

    /// Added to the logit of a token; can be given many times
    #[arg(long, value_name = "ID=V", value_parser = bias)]
    logit_bias: Vec<(u32, f32)>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Truncate {
    /// The first tokens go
    Head,
    /// The last tokens go
    Tail,
}

impl From<Truncate> for kiln::Truncate {
    fn from(end: Truncate) -> kiln::Truncate {
        match end {
            Truncate::Head => kiln::Truncate::Head,
            Truncate::Tail => kiln::Truncate::Tail,
        }
    }
}

impl Sampling {
    pub(super) fn options(&self) -> Options {
        Options {
            temperature: self.temp,
            top_p: self.top_p,
            min_p: self.min_p,
            top_k: self.top_k,
            seed: self.seed,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: self.logit_bias.clone(),
        }
    }
}

fn bias(text: &str) -> Result<(u32, f32), String> {
    let (id, value) = text
        .split_once('=')
        .ok_or("expected ID=V, such as 42=-1.5")?;
    let id = id
        .trim()
        .parse()
        .map_err(|error| format!("token id {id:?}: {error}"))?;
    let value = value
        .trim()
        .parse()
        .map_err(|error| format!("bias {value:?}: {error}"))?;
    Ok((id, value))
}

#[cfg(test)]
mod tests {
    use super::bias;

    #[test]
    fn a_bias_is_an_id_and_a_number() {
        assert_eq!(bias("42=-1.5"), Ok((42, -1.5)));
        assert_eq!(bias(" 7 = -inf"), Ok((7, f32::NEG_INFINITY)));
        for wrong in ["", "5", "=1", "5=", "-1=2", "x=1", "1=y", "99999999999=1"] {
            assert!(bias(wrong).is_err(), "{wrong}");
        }
    }
}
