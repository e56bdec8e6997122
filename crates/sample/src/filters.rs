//! Which tokens may be drawn: each filter sets the others' log-probabilities to -∞.
//!
//! The best token always stays. Filters compare and never scale, so they may be given logits as
//! well: only differences count. Values must not be NaN or +∞; `scratch` is working memory whose
//! contents mean nothing before or after.

use crate::softmax::{exp, largest, total};

/// Keeps the best tokens that hold the share `p` of the probability: a token goes if those that are
/// more probable hold `p` or more without it. Equals of the last one kept stay too. `p` outside
/// `0 < p < 1` keeps all.
pub fn top_p(logprobs: &mut [f32], p: f32, scratch: &mut Vec<f32>) {
    let max = largest(logprobs);
    if !(p > 0.0 && p < 1.0) || max == f32::NEG_INFINITY {
        return;
    }
    let enough = p * total(logprobs, max);
    scratch.clear();
    scratch.extend(logprobs.iter().filter(|&&value| value > f32::NEG_INFINITY));
    let mut mass = 0.0;
    let mut least = max;
    let mut sorted = 0;
    let mut chunk = 64;
    'search: while sorted < scratch.len() {
        for &value in best(&mut scratch[sorted..], chunk) {
            if mass >= enough {
                break 'search;
            }
            mass += exp(value - max);
            least = value;
        }
        sorted += chunk;
        chunk *= 4;
    }
    keep(logprobs, |value| value >= least);
}

/// Keeps tokens that are at least `p` times as probable as the best one. `p <= 0` keeps all.
pub fn min_p(logprobs: &mut [f32], p: f32) {
    if p > 0.0 {
        let least = largest(logprobs) + libm::log(p.into()) as f32;
        keep(logprobs, |value| value >= least);
    }
}

/// Keeps the `k` best tokens, the lower ids among equals. 0 keeps all.
pub fn top_k(logprobs: &mut [f32], k: usize, scratch: &mut Vec<f32>) {
    if k == 0 || k >= logprobs.len() {
        return;
    }
    scratch.clear();
    scratch.extend_from_slice(logprobs);
    let (_, &mut least, _) = scratch.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    let above = logprobs.iter().filter(|&&value| value > least).count();
    let mut equals = k - above;
    for value in logprobs {
        if *value == least && equals > 0 {
            equals -= 1;
        } else if *value <= least {
            *value = f32::NEG_INFINITY;
        }
    }
}

fn keep(logprobs: &mut [f32], stays: impl Fn(f32) -> bool) {
    for value in logprobs {
        *value = if stays(*value) {
            *value
        } else {
            f32::NEG_INFINITY
        };
    }
}

/// The `n` largest of `values`, moved to the front, in falling order.
fn best(values: &mut [f32], n: usize) -> &[f32] {
    let falling = |a: &f32, b: &f32| b.total_cmp(a);
    let n = n.min(values.len());
    if n < values.len() {
        values.select_nth_unstable_by(n, falling);
    }
    values[..n].sort_unstable_by(falling);
    &values[..n]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln()).collect()
    }

    fn kept(values: &[f32]) -> Vec<usize> {
        (0..values.len())
            .filter(|&id| values[id] > f32::NEG_INFINITY)
            .collect()
    }

    fn top_p_keeps(probabilities: &[f32], p: f32) -> Vec<usize> {
        let mut values = logs(probabilities);
        top_p(&mut values, p, &mut Vec::new());
        kept(&values)
    }

    #[test]
    fn top_p_stops_once_the_mass_above_is_enough() {
        let four = [0.5, 0.15, 0.3, 0.05];
        assert_eq!(top_p_keeps(&four, 0.45), [0]);
        assert_eq!(top_p_keeps(&four, 0.55), [0, 2]);
        assert_eq!(top_p_keeps(&four, 0.79), [0, 2]);
        assert_eq!(top_p_keeps(&four, 0.81), [0, 1, 2]);
        assert_eq!(top_p_keeps(&four, 0.96), [0, 1, 2, 3]);
        assert_eq!(top_p_keeps(&four, 1.0), [0, 1, 2, 3]);
        assert_eq!(top_p_keeps(&four, 0.0), [0, 1, 2, 3]);
        assert_eq!(top_p_keeps(&four, f32::MIN_POSITIVE), [0]);
    }

    #[test]
    fn top_p_keeps_equals_of_the_last_one() {
        assert_eq!(top_p_keeps(&[0.25, 0.5, 0.25], 0.6), [0, 1, 2]);
        assert_eq!(top_p_keeps(&vec![0.001; 1000], 0.1).len(), 1000);
    }

    #[test]
    fn top_p_looks_as_far_as_it_must() {
        let falling: Vec<f32> = (0..5000).map(|i| -(i as f32) * 1e-4).collect();
        let mut values = falling.clone();
        top_p(&mut values, 0.9, &mut Vec::new());
        let weight = |ids: usize| {
            falling[..ids]
                .iter()
                .map(|&v| f64::from(v).exp())
                .sum::<f64>()
        };
        let expected = (1..5000)
            .find(|&n| weight(n) >= 0.9 * weight(5000))
            .unwrap();
        assert!(kept(&values).len().abs_diff(expected) <= 1, "{expected}");
    }

    #[test]
    fn min_p_is_relative_to_the_best() {
        let mut values = logs(&[0.5, 0.3, 0.15, 0.05]);
        min_p(&mut values, 0.29);
        assert_eq!(kept(&values), [0, 1, 2]);
        min_p(&mut values, 1.0);
        assert_eq!(kept(&values), [0]);
    }

    #[test]
    fn top_k_keeps_k_and_prefers_low_ids_among_equals() {
        let mut values = [1.0, 3.0, 2.0, 2.0, 2.0];
        top_k(&mut values, 3, &mut Vec::new());
        assert_eq!(kept(&values), [1, 2, 3]);
        let mut masked = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
        top_k(&mut masked, 2, &mut Vec::new());
        assert_eq!(kept(&masked), [1]);
    }

    #[test]
    fn top_k_counts_both_zeros_as_equal() {
        let mut values = [-0.0, 0.0, -0.0, -1.0];
        top_k(&mut values, 2, &mut Vec::new());
        assert_eq!(kept(&values), [0, 1]);
    }
}
