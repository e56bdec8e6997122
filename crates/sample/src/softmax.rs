//! Exponentials, their sums, and probabilities: in f32, and the same on every machine.

use crate::draw::sum_of;
use crate::{Error, Result};

const LOG2_E: f32 = std::f32::consts::LOG2_E;
// ln 2 in two parts: the first has few bits, so that its product with a small integer is exact.
const LN2_HIGH: f32 = 355.0 / 512.0;
const LN2_LOW: f32 = -2.121_944_4e-4;
const ROUND: f32 = 12_582_912.0;

/// `e^x` for `x <= 0`, within two units in the last place; 0 below -87, where f32 loses precision.
///
/// `x = n·ln 2 + r` with `|r| <= ln 2 / 2`; then seven terms of the series for `e^r`, times `2^n`.
#[inline]
pub fn exp(x: f32) -> f32 {
    let rounded = x * LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.0 / 5040.0;
    for term in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = p * r + term;
    }
    let exponent = rounded
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
        .wrapping_add(127);
    let scaled = p * f32::from_bits(exponent << 23);
    if x >= -87.0 { scaled } else { 0.0 }
}

/// The id of the largest logit, the lowest among equals; 0 for no logits. NaN never wins.
pub fn argmax(logits: &[f32]) -> u32 {
    let best = largest(logits);
    logits.iter().position(|&logit| logit == best).unwrap_or(0) as u32
}

/// `ln Σ e^logit`, which a logit's log-probability is relative to. Fails as
/// [`Sampler::sample`](crate::Sampler::sample) does on logits that have none.
pub fn log_sum_exp(logits: &[f32]) -> Result<f32> {
    Ok(log_sum(logits, checked_max(logits)?))
}

/// The `n` most probable ids with their log-probabilities (log-softmax in f32 of `logits` as they
/// are), best first, lower ids first among equals. Fewer where there are fewer ids.
pub fn top_logprobs(logits: &[f32], n: usize) -> Result<Vec<(u32, f32)>> {
    let sum = log_sum_exp(logits)?;
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    let order = |a: &u32, b: &u32| {
        let [first, second] = [logits[*a as usize], logits[*b as usize]];
        second
            .partial_cmp(&first)
            .unwrap_or(std::cmp::Ordering::Equal)
            .then(a.cmp(b))
    };
    if n < ids.len() {
        ids.select_nth_unstable_by(n, order);
        ids.truncate(n);
    }
    ids.sort_unstable_by(order);
    Ok(ids
        .into_iter()
        .map(|id| (id, logits[id as usize] - sum))
        .collect())
}

/// The largest logit, once all of them are known to make sense: some finite, none NaN or +∞.
pub(crate) fn checked_max(logits: &[f32]) -> Result<f32> {
    if logits.is_empty() {
        return Err(Error::Empty);
    }
    let broken = |logit: f32| logit.is_nan() || logit == f32::INFINITY;
    if logits.iter().fold(false, |any, &logit| any | broken(logit)) {
        let id = logits.iter().position(|&logit| broken(logit)).unwrap_or(0);
        return Err(Error::NotFinite {
            id: id as u32,
            value: logits[id],
        });
    }
    match largest(logits) {
        f32::NEG_INFINITY => Err(Error::Nothing),
        max => Ok(max),
    }
}

/// Sets `weights` to `e^((logit - max) · scale)`.
pub(crate) fn weigh(logits: &[f32], max: f32, scale: f32, weights: &mut Vec<f32>) {
    weights.clear();
    weights.extend(logits.iter().map(|&logit| exp((logit - max) * scale)));
}

/// `Σ e^(logit - max)`, added as the draw adds weights.
pub(crate) fn total(logits: &[f32], max: f32) -> f32 {
    sum_of(logits, |logit| exp(logit - max))
}

/// [`log_sum_exp`] with a known maximum.
pub(crate) fn log_sum(logits: &[f32], max: f32) -> f32 {
    max + libm::logf(total(logits, max))
}

pub(crate) fn largest(logits: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    lanes
        .iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for step in 0..870_000 {
            let x = step as f32 * -1e-4;
            let exact = f64::from(x).exp();
            let ulp = f64::from(exact as f32 * f32::EPSILON);
            worst = worst.max((f64::from(exp(x)) - exact).abs() / ulp);
        }
        assert!(worst < 2.0, "{worst} units in the last place");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(-87.5), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::MIN), 0.0);
    }

    #[test]
    fn top_logprobs_are_ordered_and_sum_to_one() {
        let logits = [0.0, 2.0, -1.0, 2.0, f32::NEG_INFINITY];
        let all = top_logprobs(&logits, 9).unwrap();
        assert_eq!(
            all.iter().map(|top| top.0).collect::<Vec<_>>(),
            [1, 3, 0, 2, 4]
        );
        let total: f64 = all.iter().map(|top| f64::from(top.1).exp()).sum();
        assert!((total - 1.0).abs() < 1e-6, "{total}");
        assert_eq!(top_logprobs(&logits, 2).unwrap(), all[..2]);
        assert_eq!(top_logprobs(&logits, 0).unwrap(), []);
    }

    #[test]
    fn the_lowest_id_wins_a_tie() {
        let mut logits = vec![-1.0; 100];
        logits[37] = 5.0;
        logits[90] = 5.0;
        assert_eq!(argmax(&logits), 37);
        assert_eq!(argmax(&[f32::NEG_INFINITY; 3]), 0);
    }
}
