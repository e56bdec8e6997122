//! Choosing a token on the device that has the logits, so that the next token's work can be
//! submitted before this one is known to the host.

use crate::Result;
use kiln_array::{Array, DType, Device, Scalar};
use kiln_sample::draw::BLOCK;
use kiln_sample::{Error, Options, random};

/// What [`Sampler::sample`](kiln_sample::Sampler::sample) does with plain options, but for the
/// rounding of exponentials and sums.
pub(crate) struct Chooser {
    options: Options,
    sequence: u32,
    vocab: usize,
    /// 0, 1, 2, … up to the vocabulary's whole blocks; nothing for greedy choices.
    numbers: Array,
}

/// A token that the host has not seen yet.
pub(crate) struct Choice {
    /// `[1]` u32: the first NaN or infinity, where there is one.
    pub(crate) id: Array,
    /// The largest logit `[1, 1]`, NaN if there is one.
    max: Array,
}

impl Choice {
    /// Waits until the device has chosen.
    pub(crate) fn wait(&self) -> Result<()> {
        self.max.item::<f32>()?;
        Ok(())
    }

    /// Waits for the token. Logits that have none are the sampler's errors.
    pub(crate) fn read(&self) -> Result<u32> {
        let id = self.id.item::<u32>()?;
        match self.max.item::<f32>()? {
            f32::NEG_INFINITY => Err(Error::Nothing.into()),
            max if max.is_finite() => Ok(id),
            value => Err(Error::NotFinite { id, value }.into()),
        }
    }

    /// Both arrays, to be evaluated together.
    pub(crate) fn arrays(&self) -> [&Array; 2] {
        [&self.id, &self.max]
    }
}

impl Chooser {
    pub(crate) fn new(
        options: &Options,
        sequence: u32,
        vocab: usize,
        device: &Device,
    ) -> Result<Chooser> {
        let greedy = options.temperature == 0.0;
        let all = if greedy {
            0
        } else {
            vocab.next_multiple_of(BLOCK)
        };
        let numbers: Vec<u32> = (0..all as u32).collect();
        Ok(Chooser {
            options: options.clone(),
            sequence,
            vocab,
            numbers: Array::from_slice(&numbers, &[all], device)?,
        })
    }

    /// The token after `logits [1, vocab]`, the answer's token number `step`. Lazy.
    pub(crate) fn choose(&self, logits: &Array, step: u32) -> Result<Choice> {
        let logits = logits.cast(DType::F32)?;
        let max = logits.max(-1)?;
        let mut id = logits.argmax(-1)?;
        if self.options.temperature != 0.0 {
            let finite = max
                .with_number(Scalar::Less, f32::INFINITY)?
                .reshape(&[1])?;
            id = finite.select(&self.draw(&logits, &max, step)?, &id)?;
        }
        Ok(Choice { id, max })
    }

    /// The inverse of the weights' running sum: over blocks first, then inside of one.
    fn draw(&self, logits: &Array, max: &Array, step: u32) -> Result<Array> {
        let device = logits.device();
        let scale = (1.0 / self.options.temperature).min(f32::MAX);
        let powers = ((logits - max)? * scale)?;
        let zero = Array::zeros(DType::F32, &[1, 1], device)?;
        // As the host's exponential.
        let nothing = powers.with_number(Scalar::Less, -87.0)?;
        let weights = nothing.select(&zero, &powers.exp()?)?;
        let blocks = self.vocab.div_ceil(BLOCK);
        let weights = self.whole(&weights)?.reshape(&[blocks, BLOCK])?;
        let sums = weights.sum(-1)?.reshape(&[1, blocks])?;
        let running = self.running(&sums)?;
        let u = random::at(self.options.seed, self.sequence, step);
        let u = Array::from_slice(&[u], &[1, 1], device)?;
        let target = (running.slice(0, blocks - 1..blocks)? * u)?;
        let passed = running
            .reshape(&[1, blocks])?
            .binary(Scalar::LessEqual, &target)?;
        let block = passed.cast(DType::U32)?.sum(-1)?;
        let before = passed.select(&sums, &zero)?.sum(-1)?;
        let row = weights.take(&block.reshape(&[1])?)?;
        let running = (self.running(&row)? + before)?;
        let passed = running.binary(Scalar::LessEqual, &target)?;
        let inside = passed.cast(DType::U32)?.sum(0)?;
        // The sum over a block may be larger than its parts one after the other.
        let nowhere = Array::zeros(DType::U32, &[1, 1], device)?;
        let places = self.numbers.slice(0, 0..BLOCK)?.reshape(&[1, BLOCK])?;
        let empty = row.with_number(Scalar::LessEqual, 0.0)?;
        let last = empty.select(&nowhere, &places)?.max(-1)?;
        let inside = inside.binary(Scalar::Min, &last)?;
        Ok(((block * BLOCK as f32)? + inside)?.reshape(&[1])?)
    }

    /// Weights with zeros behind them, up to whole blocks.
    fn whole(&self, weights: &Array) -> Result<Array> {
        let all = self.numbers.shape()[0];
        if all == self.vocab {
            return Ok(weights.clone());
        }
        let mut whole = Array::zeros(DType::F32, &[1, all], weights.device())?.copy()?;
        whole.write(1, &self.numbers.slice(0, 0..self.vocab)?, weights)?;
        Ok(whole)
    }

    /// `[1, n]` to `[n, 1]`: each element and all before it, added up in the same order, so that
    /// the sums never fall.
    fn running(&self, values: &Array) -> Result<Array> {
        let n = values.shape()[1];
        let numbers = self.numbers.slice(0, 0..n)?;
        let below = numbers
            .reshape(&[1, n])?
            .binary(Scalar::LessEqual, &numbers.reshape(&[n, 1])?)?;
        let zero = Array::zeros(DType::F32, &[1, 1], values.device())?;
        Ok(below.select(values, &zero)?.sum(-1)?)
    }
}
