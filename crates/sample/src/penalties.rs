//! What is added to or taken from the logits of some tokens before the distribution is formed.
//!
//! `recent` are the last tokens of prompt and answer; the caller cuts them to the length it wants
//! ([`CONTEXT`] in the [`Sampler`](crate::Sampler)). Ids outside `logits` are passed over: the
//! sampler refuses them earlier.

/// How many tokens of the past the sampler's penalties look at.
pub const CONTEXT: usize = 20;

/// Adds each bias to its id's logit.
pub fn bias(logits: &mut [f32], biases: &[(u32, f32)]) {
    for &(id, bias) in biases {
        change(logits, id, |logit| logit + bias);
    }
}

/// Divides a recent token's logit by `penalty`, or multiplies it where it is negative. Once per
/// token, however often it occurs.
pub fn repetition(logits: &mut [f32], recent: &[u32], penalty: f32) {
    for id in distinct(recent) {
        change(logits, id, |logit| {
            if logit < 0.0 {
                logit * penalty
            } else {
                logit / penalty
            }
        });
    }
}

/// Subtracts `penalty` from a recent token's logit, once per token.
pub fn presence(logits: &mut [f32], recent: &[u32], penalty: f32) {
    for id in distinct(recent) {
        change(logits, id, |logit| logit - penalty);
    }
}

/// Subtracts `penalty` from a recent token's logit, once per occurrence.
pub fn frequency(logits: &mut [f32], recent: &[u32], penalty: f32) {
    for &id in recent {
        change(logits, id, |logit| logit - penalty);
    }
}

fn change(logits: &mut [f32], id: u32, to: impl Fn(f32) -> f32) {
    if let Some(logit) = logits.get_mut(id as usize) {
        *logit = to(*logit);
    }
}

fn distinct(recent: &[u32]) -> impl Iterator<Item = u32> + '_ {
    let first = |(i, id): &(usize, &u32)| !recent[..*i].contains(id);
    recent.iter().enumerate().filter(first).map(|(_, &id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_moves_either_sign_down_once() {
        let mut logits = [2.0, -2.0, 1.0, 0.0];
        repetition(&mut logits, &[0, 1, 0, 3], 2.0);
        assert_eq!(logits, [1.0, -4.0, 1.0, 0.0]);
    }

    #[test]
    fn presence_counts_tokens_and_frequency_counts_occurrences() {
        let mut logits = [1.0; 3];
        presence(&mut logits, &[2, 0, 2], 0.5);
        assert_eq!(logits, [0.5, 1.0, 0.5]);
        let mut logits = [1.0; 3];
        frequency(&mut logits, &[2, 0, 2], 0.5);
        assert_eq!(logits, [0.5, 1.0, 0.0]);
    }

    #[test]
    fn biases_of_one_id_add_up() {
        let mut logits = [0.0; 2];
        bias(&mut logits, &[(1, 1.5), (1, 2.0)]);
        assert_eq!(logits, [0.0, 3.5]);
    }
}
