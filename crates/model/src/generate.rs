//! Generation: a prompt in, a stream of tokens out.

use crate::{Cache, Error, Model, Result};
use kiln_array::{Array, DType};
use kiln_sample::{Options, Sampler, top_logprobs};

/// What to generate.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt's ids.
    pub prompt: Vec<u32>,
    /// The most tokens to generate.
    pub max_tokens: usize,
    /// Ids that end the answer; the one that does is its last token.
    pub eos: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Options,
    /// Which stream of random numbers the draws use.
    pub sequence: u32,
    /// What to cut from a prompt that is too long; `None` is an error then.
    pub truncate: Option<Truncate>,
    /// How many most likely alternatives to report with each token, if log-probabilities are
    /// wanted at all.
    pub top_logprobs: Option<usize>,
}

impl Default for Request {
    /// 100 tokens, greedy.
    fn default() -> Request {
        Request {
            prompt: Vec::new(),
            max_tokens: 100,
            eos: Vec::new(),
            sampling: Options::default(),
            sequence: 0,
            truncate: None,
            top_logprobs: None,
        }
    }
}

/// Which end of a prompt is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Truncate {
    /// The first tokens go.
    Head,
    /// The last tokens go.
    Tail,
}

/// Why a generation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finish {
    /// At an end-of-sequence token.
    Stop,
    /// At the most tokens asked for.
    Length,
}

/// What happens during a generation.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// This much of the prompt has been computed.
    Prefill {
        /// Tokens done.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token was chosen.
    Token {
        /// The token.
        id: u32,
        /// Its log-probability in the model's own distribution, before penalties and filters.
        logprob: f32,
        /// The most likely tokens of that distribution; empty unless asked for.
        top: Vec<(u32, f32)>,
    },
}

/// A running generation: an iterator of events. It ends after an error, too.
pub struct Generation<'a> {
    model: &'a Model,
    sampler: Sampler,
    cache: Cache,
    request: Request,
    /// The prompt as used, and what was generated.
    history: Vec<u32>,
    prompt: usize,
    cut: usize,
    logits: Option<Array>,
    finish: Option<Finish>,
    failed: bool,
}

impl Model {
    /// Starts a generation. Nothing is computed yet.
    ///
    /// An empty prompt, an id outside the vocabulary, an option out of its range and, unless
    /// truncation is allowed, a prompt that leaves no room for the tokens asked for are errors.
    pub fn generate(&self, request: Request) -> Result<Generation<'_>> {
        let context = self.config().context;
        let (mut history, new) = (request.prompt.clone(), request.max_tokens);
        if history.is_empty() || new == 0 {
            let what = if new == 0 {
                "no tokens asked for"
            } else {
                "the prompt is empty"
            };
            return Err(Error::Request(what.into()));
        }
        self.check_ids(&history)?;
        let excess = history.len().saturating_add(new).saturating_sub(context);
        match request.truncate {
            _ if excess == 0 => {}
            Some(Truncate::Head) if new < context => drop(history.drain(..excess)),
            Some(Truncate::Tail) if new < context => history.truncate(history.len() - excess),
            _ => {
                return Err(Error::Context {
                    prompt: history.len(),
                    new,
                    context,
                });
            }
        }
        Ok(Generation {
            model: self,
            sampler: Sampler::new(request.sampling.clone(), self.config().vocab)?,
            cache: self.cache(history.len() + new)?,
            prompt: history.len(),
            cut: excess,
            history,
            request,
            logits: None,
            finish: None,
            failed: false,
        })
    }
}

impl Generation<'_> {
    /// Why the generation ended; `None` while it has not.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// The ids generated so far.
    pub fn tokens(&self) -> &[u32] {
        &self.history[self.prompt..]
    }

    /// The prompt as it was used, after truncation.
    pub fn prompt(&self) -> &[u32] {
        &self.history[..self.prompt]
    }

    /// How many tokens of the prompt were cut.
    pub fn truncated(&self) -> usize {
        self.cut
    }

    /// The keys and values so far.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The next chunk of the prompt.
    fn prefill(&mut self) -> Result<Event> {
        let (done, total) = (self.cache.len(), self.prompt);
        let next = self
            .model
            .next_chunk(&self.history[done..total], &mut self.cache)?;
        if let Some(logits) = next {
            let logits = logits.cast(DType::F32)?;
            // Reading waits: the prompt is done when the device is, not when its work is queued.
            logits.to_vec::<f32>()?;
            self.logits = Some(logits);
        }
        Ok(Event::Prefill {
            done: self.cache.len(),
            total,
        })
    }

    fn advance(&mut self) -> Result<Event> {
        let Some(logits) = self.logits.take() else {
            return self.prefill();
        };
        let logits = logits.cast(DType::F32)?.to_vec::<f32>()?;
        let step = self.tokens().len() as u32;
        let choice = self
            .sampler
            .sample(&logits, &self.history, self.request.sequence, step)?;
        let top = match self.request.top_logprobs {
            Some(n) => top_logprobs(&logits, n)?,
            None => Vec::new(),
        };
        self.history.push(choice.id);
        if self.request.eos.contains(&choice.id) {
            self.finish = Some(Finish::Stop);
        } else if self.tokens().len() >= self.request.max_tokens {
            self.finish = Some(Finish::Length);
        } else {
            self.logits = Some(self.model.forward(&[choice.id], &mut self.cache)?);
        }
        Ok(Event::Token {
            id: choice.id,
            logprob: choice.logprob,
            top,
        })
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        if self.finish.is_some() || self.failed {
            return None;
        }
        let event = self.advance();
        self.failed = event.is_err();
        Some(event)
    }
}
