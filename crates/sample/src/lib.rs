//! From logits to a token: pure functions and a documented chain.
//!
//! A model leaves one *logit* per id of the vocabulary. [`Sampler::sample`] turns them into one id:
//!
//! 1. the logits are checked: NaN and +∞ are errors, -∞ marks an id that cannot be drawn;
//! 2. penalties, in this order: logit bias, repetition, presence, frequency ([`penalties`]);
//! 3. temperature 0: the largest logit wins, the lowest id among equals. Everything below is skipped;
//! 4. filters, in this order: top-p, min-p, top-k ([`filters`]). They see probabilities before the
//!    temperature and never scale what they keep;
//! 5. temperature, then one draw ([`draw`]) with a uniform number that depends on the seed, the
//!    sequence and the step alone ([`random`]).
//!
//! The same logits, options, sequence and step give the same id on every machine: exponentials,
//! logarithms and sums are defined here in f32, without the platform's mathematics library.
//!
//! ```
//! use kiln_sample::{Options, Sampler};
//!
//! let options = Options { temperature: 0.8, top_k: 2, seed: 7, ..Options::default() };
//! let mut sampler = Sampler::new(options, 4)?;
//! let id = sampler.sample(&[0.1, 2.0, 1.5, -1.0], &[], 0, 0)?;
//! assert!([1, 2].contains(&id));
//! # Ok::<(), kiln_sample::Error>(())
//! ```

#![forbid(unsafe_code)]

mod error;
mod options;
mod sampler;
mod softmax;

pub mod draw;
pub mod filters;
pub mod penalties;
pub mod random;

pub use error::{Error, Result};
pub use options::Options;
pub use sampler::Sampler;
pub use softmax::{argmax, exp, log_sum_exp, top_logprobs};
