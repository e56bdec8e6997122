//! What a caller may ask of the sampler, and which of it makes sense.

use crate::{Error, Result};

/// How tokens are chosen. The default is greedy: temperature 0, nothing filtered or penalised.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Divides log-probabilities before the draw; 0 takes the best token.
    pub temperature: f32,
    /// Keeps the best tokens that hold this share of the probability; 0 and 1 keep all.
    pub top_p: f32,
    /// Keeps tokens with at least this share of the best one's probability; 0 keeps all.
    pub min_p: f32,
    /// Keeps this many of the best tokens; 0 keeps all.
    pub top_k: usize,
    /// Where random numbers start. Every seed is a seed, 0 too.
    pub seed: u64,
    /// Positive logits of recent tokens are divided by it, negative ones multiplied; 1 and 0 do
    /// nothing.
    pub repetition_penalty: f32,
    /// Subtracted once from the logit of each recent token.
    pub presence_penalty: f32,
    /// Subtracted from a recent token's logit once per occurrence.
    pub frequency_penalty: f32,
    /// Added to the logits of these ids. -∞ bans an id.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            temperature: 0.0,
            top_p: 1.0,
            min_p: 0.0,
            top_k: 0,
            seed: 0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
        }
    }
}

impl Options {
    /// Whether a token depends on the logits, the temperature and the random number alone: nothing
    /// is filtered or penalised. A device can then choose by itself.
    pub fn is_plain(&self) -> bool {
        let filtered = (0.0 < self.top_p && self.top_p < 1.0) || self.min_p > 0.0 || self.top_k > 0;
        !self.penalises() && (self.temperature == 0.0 || !filtered)
    }

    pub(crate) fn penalises(&self) -> bool {
        !self.logit_bias.is_empty()
            || self.repeats()
            || self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
    }

    pub(crate) fn repeats(&self) -> bool {
        self.repetition_penalty != 0.0 && self.repetition_penalty != 1.0
    }

    /// Fails on the first option that is out of range for a vocabulary of `vocabulary` ids.
    pub fn check(&self, vocabulary: usize) -> Result<()> {
        let positive = |value: f32| value.is_finite() && value >= 0.0;
        let share = |value: f32| (0.0..=1.0).contains(&value);
        let ranges = [
            (
                "temperature",
                "finite and at least 0",
                self.temperature,
                positive(self.temperature),
            ),
            ("top-p", "between 0 and 1", self.top_p, share(self.top_p)),
            ("min-p", "between 0 and 1", self.min_p, share(self.min_p)),
            (
                "repetition penalty",
                "finite and at least 0",
                self.repetition_penalty,
                positive(self.repetition_penalty),
            ),
            (
                "presence penalty",
                "finite",
                self.presence_penalty,
                self.presence_penalty.is_finite(),
            ),
            (
                "frequency penalty",
                "finite",
                self.frequency_penalty,
                self.frequency_penalty.is_finite(),
            ),
        ];
        for (name, range, value, fits) in ranges {
            if !fits {
                return Err(Error::Option {
                    name,
                    range,
                    value: value.into(),
                });
            }
        }
        if self.top_k != 0 && self.top_k >= vocabulary {
            return Err(Error::TopK {
                value: self.top_k,
                vocabulary,
            });
        }
        for &(id, bias) in &self.logit_bias {
            if id as usize >= vocabulary {
                return Err(Error::Id {
                    what: "a logit bias",
                    id,
                    vocabulary,
                });
            }
            if bias.is_nan() || bias == f32::INFINITY {
                let value = bias.into();
                return Err(Error::Option {
                    name: "logit bias",
                    range: "finite or -inf",
                    value,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses(options: Options, name: &str) {
        let message = options.check(10).expect_err(name).to_string();
        assert!(message.starts_with(name), "{message}");
    }

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        let base = Options::default;
        assert_eq!(base().check(10), Ok(()));
        for bad in [-0.1, f32::NAN, f32::INFINITY] {
            refuses(
                Options {
                    temperature: bad,
                    ..base()
                },
                "temperature",
            );
            refuses(
                Options {
                    repetition_penalty: bad,
                    ..base()
                },
                "repetition penalty",
            );
        }
        for bad in [-0.1, 1.1, f32::NAN] {
            refuses(
                Options {
                    top_p: bad,
                    ..base()
                },
                "top-p",
            );
            refuses(
                Options {
                    min_p: bad,
                    ..base()
                },
                "min-p",
            );
        }
        for bad in [f32::NAN, f32::NEG_INFINITY] {
            refuses(
                Options {
                    presence_penalty: bad,
                    ..base()
                },
                "presence penalty",
            );
            refuses(
                Options {
                    frequency_penalty: bad,
                    ..base()
                },
                "frequency penalty",
            );
        }
        refuses(
            Options {
                top_k: 10,
                ..base()
            },
            "top-k",
        );
        refuses(
            Options {
                logit_bias: vec![(3, f32::NAN)],
                ..base()
            },
            "logit bias",
        );
        refuses(
            Options {
                logit_bias: vec![(10, 1.0)],
                ..base()
            },
            "a logit bias names id 10",
        );
    }

    #[test]
    fn the_edges_of_the_ranges_are_accepted() {
        let edges = Options {
            temperature: f32::MIN_POSITIVE,
            top_p: 0.0,
            min_p: 1.0,
            top_k: 9,
            repetition_penalty: 0.0,
            presence_penalty: -2.0,
            logit_bias: vec![(9, f32::NEG_INFINITY)],
            ..Options::default()
        };
        assert_eq!(edges.check(10), Ok(()));
    }
}
