//! What must hold for any logits and any options.

#![allow(clippy::unwrap_used)]

use kiln_sample::{Error, Options, Sampler, argmax, draw, filters, top_logprobs};
use proptest::prelude::*;

/// Up to three blocks of logits, with ties, masked ids and large magnitudes among them.
fn logits() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![
        6 => -10.0f32..10.0,
        2 => (-4i32..4).prop_map(|whole| whole as f32),
        1 => Just(f32::NEG_INFINITY),
        1 => -1e30f32..1e30,
    ];
    prop::collection::vec(logit, 1..700).prop_filter("one finite logit", |all| {
        all.iter().any(|logit| logit.is_finite())
    })
}

fn options() -> impl Strategy<Value = Options> {
    let temperature = prop_oneof![Just(f32::from_bits(1)), 1e-3f32..5.0, Just(f32::MAX)];
    let share = || {
        prop_oneof![
            Just(0.0f32),
            Just(1.0),
            0.0f32..1.0,
            Just(f32::MIN_POSITIVE)
        ]
    };
    (temperature, share(), share(), 0usize..700, any::<u64>()).prop_map(
        |(temperature, top_p, min_p, top_k, seed)| Options {
            temperature,
            top_p,
            min_p,
            top_k,
            seed,
            ..Options::default()
        },
    )
}

fn sampler(mut options: Options, ids: usize) -> Sampler {
    if options.top_k >= ids {
        options.top_k = 0;
    }
    Sampler::new(options, ids).unwrap()
}

proptest! {
    #[test]
    fn no_filter_removes_the_best_or_changes_what_it_keeps(
        logits in logits(), p in 0.0f32..=1.0, k in 1usize..700,
    ) {
        let best = argmax(&logits) as usize;
        let mut scratch = Vec::new();
        let mut filtered = [logits.clone(), logits.clone(), logits.clone()];
        filters::top_p(&mut filtered[0], p, &mut scratch);
        filters::min_p(&mut filtered[1], p);
        filters::top_k(&mut filtered[2], k, &mut scratch);
        for values in &filtered {
            prop_assert_eq!(values[best], logits[best]);
            for (value, logit) in values.iter().zip(&logits) {
                prop_assert!(value == logit || *value == f32::NEG_INFINITY);
            }
        }
        let kept = filtered[2].iter().filter(|&&value| value > f32::NEG_INFINITY).count();
        let finite = logits.iter().filter(|&&logit| logit > f32::NEG_INFINITY).count();
        prop_assert_eq!(kept, k.min(finite));
    }

    #[test]
    fn what_a_filter_keeps_is_better_than_what_it_removes(
        logits in logits(), p in 0.0f32..=1.0, k in 1usize..700,
    ) {
        let mut values = logits.clone();
        filters::top_p(&mut values, p, &mut Vec::new());
        filters::min_p(&mut values, p);
        filters::top_k(&mut values, k, &mut Vec::new());
        let (kept, removed): (Vec<usize>, Vec<usize>) =
            (0..logits.len()).partition(|&id| values[id] > f32::NEG_INFINITY);
        let worst = kept.iter().map(|&id| logits[id]).fold(f32::INFINITY, f32::min);
        prop_assert!(removed.iter().all(|&id| logits[id] <= worst));
    }

    #[test]
    fn a_sampled_token_was_not_masked(logits in logits(), options in options(), step: u32) {
        let choice = sampler(options, logits.len()).sample(&logits, &[], 0, step).unwrap();
        prop_assert!(logits[choice as usize] > f32::NEG_INFINITY);
    }

    #[test]
    fn a_draw_has_a_weight(
        weights in prop::collection::vec(prop_oneof![Just(0.0f32), 0.0f32..1.0], 0..700), word: u32,
    ) {
        let drawn = draw::draw(&weights, kiln_sample::random::unit(word));
        prop_assert_eq!(drawn.is_some(), weights.iter().any(|&weight| weight > 0.0));
        prop_assert!(drawn.is_none_or(|id| weights[id] > 0.0));
    }

    #[test]
    fn no_temperature_takes_the_lowest_of_the_best(logits in logits(), options in options()) {
        let options = Options { temperature: 0.0, ..options };
        let choice = sampler(options, logits.len()).sample(&logits, &[], 0, 0).unwrap();
        prop_assert_eq!(choice, argmax(&logits));
    }

    #[test]
    fn a_vanishing_temperature_takes_one_of_the_best(logits in logits(), options in options()) {
        let options = Options { temperature: f32::from_bits(1), ..options };
        let choice = sampler(options, logits.len()).sample(&logits, &[], 0, 0).unwrap();
        // The log-softmax in f32 may make equals of neighbours.
        let best = logits[argmax(&logits) as usize];
        prop_assert!(best - logits[choice as usize] <= 1e-5 * best.abs().max(10.0));
    }

    #[test]
    fn renaming_the_ids_renames_what_the_filters_keep(
        logits in logits(), p in 0.01f32..=1.0, shift in 0usize..700,
    ) {
        let shift = shift % logits.len();
        let mut turned = logits.clone();
        turned.rotate_left(shift);
        let mut values = logits;
        filters::min_p(&mut values, p);
        filters::min_p(&mut turned, p);
        values.rotate_left(shift);
        prop_assert_eq!(values, turned);
    }

    #[test]
    fn one_token_is_always_chosen(logit in -1e30f32..1e30, options in options(), step: u32) {
        let choice = sampler(options, 1).sample(&[logit], &[], 0, step).unwrap();
        prop_assert_eq!(choice, 0);
    }

    #[test]
    fn a_broken_logit_is_found(
        logits in logits(), at in any::<prop::sample::Index>(), infinite: bool, options in options(),
    ) {
        let mut logits = logits;
        let id = at.index(logits.len());
        logits[id] = if infinite { f32::INFINITY } else { f32::NAN };
        let error = sampler(options, logits.len()).sample(&logits, &[], 0, 0).unwrap_err();
        let found = matches!(error, Error::NotFinite { id: found, .. } if found as usize == id);
        prop_assert!(found, "{}", error);
        prop_assert!(top_logprobs(&logits, 1).is_err());
    }

    #[test]
    fn the_choice_depends_on_nothing_that_came_before(
        first in logits(), second in logits(), options in options(), step: u32,
    ) {
        let mut used = sampler(options.clone(), second.len());
        let mut padded = first;
        padded.resize(second.len(), 0.0);
        used.sample(&padded, &[], 3, 9).unwrap();
        let fresh = sampler(options, second.len()).sample(&second, &[], 1, step);
        prop_assert_eq!(used.sample(&second, &[], 1, step), fresh);
    }
}

#[test]
fn logits_without_a_choice_are_errors() {
    let mut sampler = Sampler::new(Options::default(), 2).unwrap();
    let masked = [f32::NEG_INFINITY; 2];
    assert_eq!(sampler.sample(&masked, &[], 0, 0), Err(Error::Nothing));
    let length = Error::Length {
        given: 3,
        vocabulary: 2,
    };
    assert_eq!(sampler.sample(&[0.0; 3], &[], 0, 0), Err(length));
    assert_eq!(
        Sampler::new(Options::default(), 0)
            .unwrap()
            .sample(&[], &[], 0, 0),
        Err(Error::Empty)
    );
}

#[test]
fn penalties_that_break_a_logit_are_errors() {
    let options = Options {
        repetition_penalty: 1e-38,
        ..Options::default()
    };
    let mut sampler = Sampler::new(options, 2).unwrap();
    let error = sampler.sample(&[1.0, 100.0], &[1], 0, 0).unwrap_err();
    assert_eq!(error.to_string(), "the logit of id 1 is inf");
    let error = sampler.sample(&[1.0, 2.0], &[7], 0, 0).unwrap_err();
    assert_eq!(
        error,
        Error::Id {
            what: "the history",
            id: 7,
            vocabulary: 2
        }
    );
}

#[test]
fn a_banned_token_is_not_chosen() {
    let options = Options {
        logit_bias: vec![(1, f32::NEG_INFINITY)],
        ..Options::default()
    };
    let choice = Sampler::new(options, 2)
        .unwrap()
        .sample(&[0.0, 9.0], &[], 0, 0)
        .unwrap();
    assert_eq!(choice, 0);
}

#[test]
fn penalties_see_the_last_twenty_tokens() {
    let options = Options {
        presence_penalty: 5.0,
        ..Options::default()
    };
    let mut sampler = Sampler::new(options, 3).unwrap();
    let logits = [0.0, 1.0, 2.0];
    let mut history = vec![2];
    history.extend([0; 19]);
    assert_eq!(sampler.sample(&logits, &history, 0, 0).unwrap(), 1);
    history.push(0);
    assert_eq!(sampler.sample(&logits, &history, 0, 0).unwrap(), 2);
}
