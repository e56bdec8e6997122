//! The chain: check, penalties, greedy or filters, temperature, draw.

use crate::draw::draw;
use crate::penalties::CONTEXT;
use crate::softmax::{checked_max, log_sum, weigh};
use crate::{Error, Options, Result, filters, penalties, random};

/// A chosen token.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Choice {
    /// The token.
    pub id: u32,
    /// Its log-probability in the logits as they were given, before penalties and filters.
    pub logprob: f32,
}

/// Chooses tokens. Keeps working memory of two numbers per id and no state beside: what it chooses
/// depends on the arguments of the call alone.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: Options,
    vocabulary: usize,
    values: Vec<f32>,
    scratch: Vec<f32>,
}

impl Sampler {
    /// A sampler for logits of `vocabulary` ids. Fails where [`Options::check`] does.
    pub fn new(options: Options, vocabulary: usize) -> Result<Sampler> {
        options.check(vocabulary)?;
        Ok(Sampler {
            options,
            vocabulary,
            values: Vec::new(),
            scratch: Vec::new(),
        })
    }

    /// The options given.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Chooses the token that follows `history` (prompt and answer so far, of which penalties see
    /// the last [`CONTEXT`]). `sequence` and `step` number the draw: a sequence's own number, and
    /// how many of its tokens were chosen before.
    ///
    /// Fails on NaN or +∞ (also where a penalty makes one), if all logits are -∞, if there is not
    /// one logit per id, or if a penalised token is not in the vocabulary. Costs a few passes over
    /// the logits; allocates on the first call only.
    pub fn sample(
        &mut self,
        logits: &[f32],
        history: &[u32],
        sequence: u32,
        step: u32,
    ) -> Result<Choice> {
        if logits.len() != self.vocabulary {
            let (given, vocabulary) = (logits.len(), self.vocabulary);
            return Err(Error::Length { given, vocabulary });
        }
        let max = checked_max(logits)?;
        let sum = log_sum(logits, max);
        let choose = |id: usize| Choice {
            id: id as u32,
            logprob: logits[id] - sum,
        };
        let greedy = self.options.temperature == 0.0;
        if greedy && !self.penalises() {
            return first(logits, max).map(choose);
        }
        self.values.clear();
        self.values.extend_from_slice(logits);
        let (max, sum) = if self.penalises() {
            self.penalise(history)?;
            let max = checked_max(&self.values)?;
            (max, log_sum(&self.values, max))
        } else {
            (max, sum)
        };
        if greedy {
            return first(&self.values, max).map(choose);
        }
        for value in &mut self.values {
            *value -= sum;
        }
        self.filter();
        let scale = (1.0 / self.options.temperature).min(f32::MAX);
        weigh(&self.values, max - sum, scale, &mut self.scratch);
        let u = random::at(self.options.seed, sequence, step);
        draw(&self.scratch, u).map(choose).ok_or(Error::Nothing)
    }

    fn penalises(&self) -> bool {
        let options = &self.options;
        !options.logit_bias.is_empty()
            || active_repetition(options)
            || options.presence_penalty != 0.0
            || options.frequency_penalty != 0.0
    }

    fn penalise(&mut self, history: &[u32]) -> Result<()> {
        let recent = &history[history.len().saturating_sub(CONTEXT)..];
        if let Some(&id) = recent.iter().find(|&&id| id as usize >= self.vocabulary) {
            let vocabulary = self.vocabulary;
            return Err(Error::Id {
                what: "the history",
                id,
                vocabulary,
            });
        }
        let options = &self.options;
        penalties::bias(&mut self.values, &options.logit_bias);
        if active_repetition(options) {
            penalties::repetition(&mut self.values, recent, options.repetition_penalty);
        }
        if options.presence_penalty != 0.0 {
            penalties::presence(&mut self.values, recent, options.presence_penalty);
        }
        if options.frequency_penalty != 0.0 {
            penalties::frequency(&mut self.values, recent, options.frequency_penalty);
        }
        Ok(())
    }

    fn filter(&mut self) {
        filters::top_p(&mut self.values, self.options.top_p, &mut self.scratch);
        filters::min_p(&mut self.values, self.options.min_p);
        filters::top_k(&mut self.values, self.options.top_k, &mut self.scratch);
    }
}

fn active_repetition(options: &Options) -> bool {
    options.repetition_penalty != 0.0 && options.repetition_penalty != 1.0
}

fn first(values: &[f32], max: f32) -> Result<usize> {
    values
        .iter()
        .position(|&value| value == max)
        .ok_or(Error::Nothing)
}
