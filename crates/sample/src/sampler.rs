//! The chain: check, penalties, greedy or filters, temperature, draw.

use crate::draw::draw;
use crate::penalties::CONTEXT;
use crate::softmax::{checked_max, log_sum, weigh};
use crate::{Error, Options, Result, filters, penalties, random};

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
    ) -> Result<u32> {
        if logits.len() != self.vocabulary {
            let (given, vocabulary) = (logits.len(), self.vocabulary);
            return Err(Error::Length { given, vocabulary });
        }
        let mut max = checked_max(logits)?;
        let greedy = self.options.temperature == 0.0;
        if greedy && !self.options.penalises() {
            return first(logits, max);
        }
        self.values.clear();
        self.values.extend_from_slice(logits);
        if self.options.penalises() {
            self.penalise(history)?;
            max = checked_max(&self.values)?;
        }
        if greedy {
            return first(&self.values, max);
        }
        let sum = log_sum(&self.values, max);
        for value in &mut self.values {
            *value -= sum;
        }
        self.filter();
        let scale = (1.0 / self.options.temperature).min(f32::MAX);
        weigh(&self.values, max - sum, scale, &mut self.scratch);
        let u = random::at(self.options.seed, sequence, step);
        let drawn = draw(&self.scratch, u).ok_or(Error::Nothing)?;
        Ok(drawn as u32)
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
        if options.repeats() {
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

fn first(values: &[f32], max: f32) -> Result<u32> {
    let id = values.iter().position(|&value| value == max);
    id.map(|id| id as u32).ok_or(Error::Nothing)
}
