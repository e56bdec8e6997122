//! What a converted model makes of a text, compared with what its source makes of it.

use crate::layout::Layout;
use crate::plan::{Job, Plan};
use crate::write::{Progress, Tell};
use crate::{Error, Open, Options, Result, load};
use kiln_formats::Checkpoint;
use kiln_model::{Config, Piece, Streamed};
use kiln_plan::Device;
use kiln_tokenizer::Tokenizer;
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::Path;

/// More tokens of a text are left out.
const TOKENS: usize = 1024;

/// Tokens whose logits are in memory at a time.
const AT_A_TIME: usize = 32;

/// A text to compare two models on, and where they run.
#[derive(Clone, Debug)]
pub struct Verify {
    /// The text; its first 1024 tokens count, or as many as the model's context has.
    pub text: String,
    /// Where both models run.
    pub device: Device,
}

/// How far the logits of a model are from those of its source, over the tokens of a text.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Verified {
    /// Tokens of the text.
    pub tokens: usize,
    /// Whether the text has more tokens, which were left out.
    pub cut: bool,
    /// The mean Kullback-Leibler divergence from the source's distributions, in nats.
    pub divergence: f64,
    /// The largest of them.
    pub most_divergence: f64,
    /// In how many of all places both find the same token the likeliest, from 0 to 1.
    pub agreement: f64,
    /// The perplexity of the text.
    pub perplexity: f64,
    /// Its perplexity with the source.
    pub source_perplexity: f64,
}

/// Takes the text through the source and through what was written, both with one layer's weights in
/// memory at a time.
pub(crate) fn verify(
    plan: &Plan,
    written: &Path,
    how: &Verify,
    open: &Open<'_>,
    tell: Tell<'_>,
) -> Result<Verified> {
    let mut quiet = |_: &Progress<'_>| ControlFlow::Continue(());
    let options = Options::default();
    let source = crate::plan(&plan.path, &options, open, &mut quiet)?;
    let weights = match plan.layout {
        Layout::Gguf => written.join(plan.layout.file(0, 1)),
        _ => written.to_owned(),
    };
    let made = crate::plan(&weights, &options, open, &mut quiet)?;
    let tokenizer = Tokenizer::from_directory(written)?;
    let mut ids = tokenizer.encode(&how.text, true)?;
    let config = load::config(&made)?;
    let most = TOKENS.min(config.context);
    let cut = ids.len() > most;
    ids.truncate(most);
    if ids.len() < 2 {
        let why = "the text to verify with has less than two tokens: give a longer one";
        return Err(Error::Options(why.into()));
    }
    let plans = [&source, &made];
    let mut told = Told {
        tell,
        done: 0,
        total: plans
            .iter()
            .flat_map(|plan| &plan.jobs)
            .map(Job::stored_bytes)
            .sum(),
    };
    let mut run = |plan| streamed(plan, &ids, &how.device, &mut told);
    let streams = [run(&source)?, run(&made)?];
    let mut heads = Vec::with_capacity(2);
    for (plan, stream) in plans.into_iter().zip(&streams) {
        let tensors = tensors(plan, stream.config(), Piece::Head, &mut told)?;
        heads.push(stream.head(&tensors).map_err(Box::new)?);
    }
    let mut sums = Sums::default();
    for start in (0..ids.len()).step_by(AT_A_TIME) {
        let range = start..ids.len().min(start + AT_A_TIME);
        let rows = |head: &kiln_model::Logits<'_>| head.rows(range.clone()).map_err(Box::new);
        let (before, after) = (rows(&heads[0])?, rows(&heads[1])?);
        let vocabulary = before.len() / range.len();
        let places = before
            .chunks(vocabulary)
            .zip(after.chunks(vocabulary))
            .zip(range);
        for ((before, after), place) in places {
            sums.add(before, after, ids.get(place + 1).map(|&id| id as usize));
        }
    }
    Ok(sums.verified(ids.len(), cut))
}

/// Tells how many bytes were read.
struct Told<'a> {
    tell: Tell<'a>,
    done: u64,
    total: u64,
}

fn streamed(plan: &Plan, ids: &[u32], device: &Device, told: &mut Told<'_>) -> Result<Streamed> {
    let config = load::config(plan)?;
    let names = config.clone();
    let mut weights = |piece| tensors(plan, &names, piece, told).map_err(Stopped);
    Streamed::new(config, ids, device, &mut weights).map_err(|Stopped(error)| error)
}

/// An error of either crate.
struct Stopped(Error);

impl From<kiln_model::Error> for Stopped {
    fn from(error: kiln_model::Error) -> Stopped {
        Stopped(Box::new(error).into())
    }
}

/// The tensors of a piece as a conversion without options writes them, in memory.
fn tensors(plan: &Plan, config: &Config, piece: Piece, told: &mut Told<'_>) -> Result<Checkpoint> {
    let jobs = plan
        .jobs
        .iter()
        .filter(|job| piece.holds(config, &job.name));
    load::in_memory(plan, jobs, &mut |job| {
        told.done += job.stored_bytes();
        let (tensor, done, total) = (&job.name[..], told.done.min(told.total), told.total);
        (told.tell)(&Progress {
            tensor,
            done,
            total,
        })
    })
}

#[derive(Default)]
struct Sums {
    places: f64,
    divergence: f64,
    most: f64,
    same: f64,
    /// Of the next tokens' logarithms of probabilities, source and converted.
    likely: [f64; 2],
    next: f64,
}

impl Sums {
    /// The logits of one place, and the token that comes next.
    fn add(&mut self, before: &[f32], after: &[f32], next: Option<usize>) {
        let [norm_before, norm_after] = [before, after].map(log_of_sum);
        let log = |logit: f32, norm: f64| f64::from(logit) - norm;
        let pairs = before.iter().zip(after);
        let divergence: f64 = pairs
            .map(|(&p, &q)| {
                let (p, q) = (log(p, norm_before), log(q, norm_after));
                p.exp() * (p - q)
            })
            .sum();
        self.places += 1.0;
        self.divergence += divergence;
        self.most = self.most.max(divergence);
        self.same += f64::from(u8::from(likeliest(before) == likeliest(after)));
        if let Some(next) = next {
            self.likely[0] += log(before[next], norm_before);
            self.likely[1] += log(after[next], norm_after);
            self.next += 1.0;
        }
    }

    fn verified(self, tokens: usize, cut: bool) -> Verified {
        let [source_perplexity, perplexity] = self.likely.map(|sum| (-sum / self.next).exp());
        Verified {
            tokens,
            cut,
            divergence: self.divergence / self.places,
            most_divergence: self.most,
            agreement: self.same / self.places,
            perplexity,
            source_perplexity,
        }
    }
}

fn log_of_sum(logits: &[f32]) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let most = f64::from(most);
    let sum: f64 = logits
        .iter()
        .map(|&logit| (f64::from(logit) - most).exp())
        .sum();
    most + sum.ln()
}

fn likeliest(logits: &[f32]) -> usize {
    let mut best = 0;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = id;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measures_are_those_of_the_definitions() {
        let mut sums = Sums::default();
        // Probabilities 1/2, 1/4, 1/4 and 1/4, 1/2, 1/4.
        let (two, one) = (2f32.ln(), 0.0);
        sums.add(
            &[two, one, one],
            &[one + 5.0, two + 5.0, one + 5.0],
            Some(0),
        );
        sums.add(&[two, one, one], &[two, one, one], None);
        let verified = sums.verified(2, false);
        let expected = 0.5 * 2f64.ln() - 0.25 * 2f64.ln();
        assert!((verified.divergence - expected / 2.0).abs() < 1e-6);
        assert!((verified.most_divergence - expected).abs() < 1e-6);
        assert_eq!(verified.agreement, 0.5);
        assert!((verified.source_perplexity - 2.0).abs() < 1e-6);
        assert!((verified.perplexity - 4.0).abs() < 1e-6);
    }
}
