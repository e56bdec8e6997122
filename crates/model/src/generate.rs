//! Generation: a prompt in, a stream of tokens out.

use crate::choose::{Choice, Chooser};
use crate::{Cache, Error, Model, Result};
use kiln_array::{Array, DType, eval};
use kiln_sample::{Options, Sampler, log_sum_exp, top_logprobs};

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
        /// Log-probabilities, if they were asked for.
        logprobs: Option<Logprobs>,
    },
}

/// Log-probabilities of one place in the model's own distribution, before penalties and filters.
#[derive(Clone, PartialEq, Debug)]
pub struct Logprobs {
    /// That of the chosen token.
    pub chosen: f32,
    /// The most likely tokens, as many as were asked for.
    pub top: Vec<(u32, f32)>,
}

/// What the next token comes from.
enum Next {
    /// Logits that the host chooses from.
    Logits(Array),
    /// A choice that the device makes.
    Chosen(Choice),
    /// What went wrong on the way there.
    Failed(Error),
}

/// A running generation: an iterator of events. It ends after an error, too.
pub struct Generation<'a> {
    model: &'a Model,
    sampler: Sampler,
    /// On devices that queue their work, if the options are plain enough.
    chooser: Option<Chooser>,
    cache: Cache,
    request: Request,
    /// The prompt as used, and what was generated.
    history: Vec<u32>,
    prompt: usize,
    cut: usize,
    next: Option<Next>,
    finish: Option<Finish>,
    failed: bool,
}

impl Model {
    /// Starts a generation. Nothing is computed yet.
    ///
    /// An empty prompt, an id outside the vocabulary, an option out of its range and, unless
    /// truncation is allowed, a prompt that leaves no room for the tokens asked for are errors.
    pub fn generate(&self, request: Request) -> Result<Generation<'_>> {
        let (history, excess) = self.checked(&request)?;
        let new = request.max_tokens;
        let plain = request.sampling.is_plain() && request.top_logprobs.is_none();
        let chooser = (plain && self.device().queues()).then(|| {
            let vocab = self.config().vocab;
            Chooser::new(&request.sampling, request.sequence, vocab, self.device())
        });
        Ok(Generation {
            model: self,
            chooser: chooser.transpose()?,
            sampler: Sampler::new(request.sampling.clone(), self.config().vocab)?,
            cache: self.cache(history.len() + new)?,
            prompt: history.len(),
            cut: excess,
            history,
            request,
            next: None,
            finish: None,
            failed: false,
        })
    }

    /// The prompt as it is used, and how much of it was cut.
    pub(crate) fn checked(&self, request: &Request) -> Result<(Vec<u32>, usize)> {
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
        request.sampling.check(self.config().vocab)?;
        Ok((history, excess))
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

    /// The keys and values so far: of the prompt and, unless the answer has ended, all its tokens.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The next chunk of the prompt.
    fn prefill(&mut self) -> Result<Event> {
        let before = self.cache.len();
        let outcome = self.read_chunk();
        outcome.map_err(|error| error.among(before..self.cache.len().max(before + 1)))
    }

    fn read_chunk(&mut self) -> Result<Event> {
        let (done, total) = (self.cache.len(), self.prompt);
        let logits = self
            .model
            .next_chunk(&self.history[done..total], &mut self.cache)?;
        if let Some(logits) = logits {
            // Reading waits: the prompt is done when the device is, not when its work is queued.
            match self.next.insert(self.follow(logits, 0)?) {
                Next::Logits(logits) => drop(logits.slice(1, 0..1)?.to_vec::<f32>()?),
                Next::Chosen(choice) => {
                    eval(&choice.arrays())?;
                    choice.wait()?;
                }
                Next::Failed(_) => {}
            }
        }
        Ok(Event::Prefill {
            done: self.cache.len(),
            total,
        })
    }

    /// How token number `step` comes from its logits.
    fn follow(&self, logits: Array, step: u32) -> Result<Next> {
        Ok(match &self.chooser {
            Some(chooser) => Next::Chosen(chooser.choose(&logits, step)?),
            None => Next::Logits(logits.cast(DType::F32)?),
        })
    }

    fn advance(&mut self) -> Result<Event> {
        let step = self.tokens().len() as u32;
        match self.next.take() {
            Some(Next::Chosen(choice)) => {
                let length = self.cache.len();
                let more = step as usize + 1 < self.request.max_tokens;
                let next = if more {
                    Some(self.ahead(&choice, step + 1))
                } else {
                    None
                };
                let id = choice.read()?;
                if self.accept(id) {
                    // An error of the next token does not take this one away.
                    self.next = next.map(|next| next.unwrap_or_else(Next::Failed));
                } else {
                    self.cache.truncate(length);
                }
                Ok(Event::Token { id, logprobs: None })
            }
            next => {
                self.next = next;
                let event = self.step()?;
                if let Some(id) = self.wanted() {
                    let logits = self.model.forward(&[id], &mut self.cache)?;
                    self.give(logits)?;
                }
                Ok(event)
            }
        }
    }

    /// A chunk of the prompt, or a token; what follows a token is not computed.
    pub(crate) fn step(&mut self) -> Result<Event> {
        let step = self.tokens().len() as u32;
        let (id, logprobs) = match self.next.take() {
            None => return self.prefill(),
            Some(Next::Logits(logits)) => {
                let length = self.cache.len();
                let of_last = |error| Error::Array(error).among(length - 1..length);
                self.sample(&logits.to_vec::<f32>().map_err(of_last)?, step)?
            }
            Some(Next::Chosen(choice)) => (choice.read()?, None),
            Some(Next::Failed(error)) => return Err(error),
        };
        self.accept(id);
        Ok(Event::Token { id, logprobs })
    }

    fn sample(&mut self, logits: &[f32], step: u32) -> Result<(u32, Option<Logprobs>)> {
        let (history, sequence) = (&self.history, self.request.sequence);
        let id = self.sampler.sample(logits, history, sequence, step)?;
        let logprobs = match self.request.top_logprobs {
            None => None,
            Some(n) => Some(Logprobs {
                chosen: logits[id as usize] - log_sum_exp(logits)?,
                top: top_logprobs(logits, n)?,
            }),
        };
        Ok((id, logprobs))
    }

    /// The token whose logits are wanted: the last one, unless it ended the answer.
    pub(crate) fn wanted(&self) -> Option<u32> {
        let waits = self.next.is_none() && self.finish.is_none();
        let last = self.tokens().last().copied();
        last.filter(|_| waits)
    }

    /// Takes the logits of the token that was [`Generation::wanted`]. Lazy.
    pub(crate) fn give(&mut self, logits: Array) -> Result<()> {
        let step = self.tokens().len() as u32;
        self.next = Some(self.follow(logits, step)?);
        Ok(())
    }

    /// What has to be evaluated for the next token.
    pub(crate) fn pending(&self) -> Vec<&Array> {
        match &self.next {
            Some(Next::Logits(logits)) => vec![logits],
            Some(Next::Chosen(choice)) => choice.arrays().to_vec(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn cache_mut(&mut self) -> &mut Cache {
        &mut self.cache
    }

    /// Submits the work for token number `step`, which follows a choice that nobody has seen yet.
    fn ahead(&mut self, choice: &Choice, step: u32) -> Result<Next> {
        let logits = self.model.forward_one(&choice.id, &mut self.cache)?;
        let next = self.follow(logits, step)?;
        if let Next::Chosen(next) = &next {
            eval(&next.arrays())?;
        }
        Ok(next)
    }

    /// Adds a token to the answer; tells whether another one follows.
    fn accept(&mut self, id: u32) -> bool {
        self.history.push(id);
        if self.request.eos.contains(&id) {
            self.finish = Some(Finish::Stop);
        } else if self.tokens().len() >= self.request.max_tokens {
            self.finish = Some(Finish::Length);
        }
        self.finish.is_none()
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
