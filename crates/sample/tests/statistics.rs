//! Draws come out as often as the options say they should.
//!
//! Seeds are fixed, so a test either always passes or never does. A chi-square statistic has mean
//! `df` and variance `2 df`; six standard deviations above the mean would happen by chance about
//! once in a billion seeds (the upper tail is heavier than a normal one, but not by much).

#![allow(clippy::unwrap_used)]

use kiln_sample::{Options, Sampler, random};

const IDS: usize = 600;
const DRAWS: u32 = 100_000;

/// Logits over more than two blocks of the draw, with a spread of about e^6.
fn logits() -> Vec<f32> {
    let mut uniform = vec![0.0; IDS];
    random::uniform(random::key(11), &mut uniform);
    uniform.iter().map(|u| 6.0 * u - 3.0).collect()
}

/// What should come out, in f64 and by the plainest means: sort, cut, divide.
fn expected(logits: &[f32], options: &Options) -> Vec<f64> {
    let mut order: Vec<usize> = (0..IDS).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let weight = |id: usize| f64::from(logits[id]).exp();
    let total: f64 = (0..IDS).map(weight).sum();
    let mut above = 0.0;
    let mut keep = Vec::new();
    for (rank, &id) in order.iter().enumerate() {
        let enough = options.top_p < 1.0 && above >= f64::from(options.top_p) * total;
        let rare = weight(id) < f64::from(options.min_p) * weight(order[0]);
        let beyond = options.top_k > 0 && rank >= options.top_k;
        if !(enough || rare || beyond) {
            keep.push(id);
        }
        above += weight(id);
    }
    let tempered = |id: usize| (f64::from(logits[id]) / f64::from(options.temperature)).exp();
    let total: f64 = keep.iter().map(|&id| tempered(id)).sum();
    let mut shares = vec![0.0; IDS];
    for id in keep {
        shares[id] = tempered(id) / total;
    }
    shares
}

fn counts(logits: &[f32], options: &Options, index: impl Fn(u32) -> (u32, u32)) -> Vec<u32> {
    let mut sampler = Sampler::new(options.clone(), IDS).unwrap();
    let mut counts = vec![0; IDS];
    for i in 0..DRAWS {
        let (sequence, step) = index(i);
        counts[sampler.sample(logits, &[], sequence, step).unwrap() as usize] += 1;
    }
    counts
}

fn check(options: Options) {
    let logits = logits();
    let shares = expected(&logits, &options);
    let counts = counts(&logits, &options, |i| (i % 7, i / 7));
    let mut statistic = 0.0;
    let mut cells = 0;
    let (mut rest_share, mut rest_count) = (0.0, 0);
    for (&share, &count) in shares.iter().zip(&counts) {
        let mean = share * f64::from(DRAWS);
        if share == 0.0 {
            assert_eq!(count, 0, "a token that was filtered out was drawn");
        } else if mean < 10.0 {
            rest_share += mean;
            rest_count += count;
        } else {
            statistic += (f64::from(count) - mean).powi(2) / mean;
            cells += 1;
        }
    }
    if rest_share > 10.0 {
        statistic += (f64::from(rest_count) - rest_share).powi(2) / rest_share;
        cells += 1;
    }
    let freedom = f64::from(cells - 1);
    let bound = freedom + 6.0 * (2.0 * freedom).sqrt();
    assert!(
        statistic < bound,
        "chi-square {statistic} of {freedom} degrees, bound {bound}"
    );
}

#[test]
fn temperature_alone() {
    for temperature in [0.3, 1.0, 2.5] {
        check(Options {
            temperature,
            seed: 1,
            ..Options::default()
        });
    }
}

#[test]
fn top_k() {
    check(Options {
        temperature: 1.0,
        top_k: 5,
        seed: 2,
        ..Options::default()
    });
    check(Options {
        temperature: 0.7,
        top_k: 300,
        seed: 0,
        ..Options::default()
    });
}

#[test]
fn top_p() {
    check(Options {
        temperature: 1.0,
        top_p: 0.9,
        seed: 3,
        ..Options::default()
    });
    check(Options {
        temperature: 1.8,
        top_p: 0.2,
        seed: 4,
        ..Options::default()
    });
}

#[test]
fn min_p() {
    check(Options {
        temperature: 1.0,
        min_p: 0.1,
        seed: 5,
        ..Options::default()
    });
}

#[test]
fn all_filters_together() {
    let base = Options {
        temperature: 1.3,
        top_p: 0.95,
        min_p: 0.05,
        top_k: 150,
        ..Options::default()
    };
    check(Options {
        seed: u64::MAX,
        ..base
    });
}

#[test]
fn draws_of_different_seeds_sequences_and_steps_do_not_repeat_each_other() {
    let logits = logits();
    let draws = |seed, sequence| {
        let options = Options {
            temperature: 1.0,
            seed,
            ..Options::default()
        };
        let mut sampler = Sampler::new(options, IDS).unwrap();
        let ids = (0..2000).map(|step| sampler.sample(&logits, &[], sequence, step).unwrap());
        ids.collect::<Vec<_>>()
    };
    let same = |a: &[u32], b: &[u32]| a.iter().zip(b).filter(|(a, b)| a == b).count();
    let base = draws(0, 0);
    assert_eq!(base, draws(0, 0));
    for other in [draws(1, 0), draws(0, 1), draws(1 << 32, 0)] {
        assert!(
            same(&base, &other) < 100,
            "{} of 2000 equal",
            same(&base, &other)
        );
    }
    assert!(same(&base[1..], &base[..1999]) < 100);
}
