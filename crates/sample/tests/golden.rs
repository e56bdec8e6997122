//! What MLX, mlx-lm and a second statement of the draw make of the same numbers. Made by scripts/golden/{threefry,sample}.py.

#![allow(clippy::unwrap_used)]

use kiln_sample::{Options, Sampler, filters, penalties, random};
use serde_json::Value;

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn random_golden() -> Value {
    read(include_str!("golden/random.json"))
}

fn sample_golden() -> Value {
    read(include_str!("golden/sample.json"))
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn words(value: &Value) -> Vec<u32> {
    list(value)
        .iter()
        .map(|word| word.as_u64().unwrap() as u32)
        .collect()
}

fn float(value: &Value) -> f32 {
    value.as_f64().unwrap() as f32
}

fn floats(value: &Value) -> Vec<f32> {
    let digits = value.as_str().unwrap().as_bytes();
    let number = |eight: &[u8]| {
        let text = std::str::from_utf8(eight).unwrap();
        f32::from_bits(u32::from_str_radix(text, 16).unwrap())
    };
    digits.chunks(8).map(number).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn kept(values: &[f32]) -> Vec<u32> {
    (0..values.len() as u32)
        .filter(|&id| values[id as usize] > f32::NEG_INFINITY)
        .collect()
}

fn seed(case: &Value) -> random::Key {
    random::key(case["seed"].as_str().unwrap().parse().unwrap())
}

fn uniform_bits(key: random::Key, n: usize) -> Vec<u32> {
    let mut out = vec![0.0; n];
    random::uniform(key, &mut out);
    bits(&out)
}

#[test]
fn uniform_numbers_are_those_of_mlx() {
    let golden = random_golden();
    let cases = list(&golden["uniform"]);
    assert_eq!(cases.len(), 49);
    for case in cases {
        let expected = words(&case["uniform"]);
        assert_eq!(
            uniform_bits(seed(case), expected.len()),
            expected,
            "{}",
            case["seed"]
        );
    }
}

#[test]
fn split_keys_are_those_of_mlx() {
    let golden = random_golden();
    let flat = |keys: [random::Key; 2]| keys.map(|key| key.0.to_vec());
    for case in list(&golden["split"]) {
        let keys = random::split(seed(case));
        let expected = |name: &str| [words(&case[name][0]), words(&case[name][1])];
        assert_eq!(flat(keys), expected("split"));
        assert_eq!(flat(random::split(keys[0])), expected("again"));
    }
}

#[test]
fn a_seeded_chain_is_that_of_mlx() {
    let golden = random_golden();
    let mut state = random::key(5);
    for expected in list(&golden["chain_of_seed_5"]) {
        let [next, used] = random::split(state);
        state = next;
        assert_eq!(uniform_bits(used, 3), words(expected));
    }
}

/// Applies `filter` to each of a case's parameters; returns how many there were.
fn check_filter(case: &Value, name: &str, filter: impl Fn(&mut [f32], f32)) -> usize {
    let logprobs = floats(&case["logprobs"]);
    let runs = list(&case[name]);
    for run in runs {
        let mut values = logprobs.clone();
        filter(&mut values, float(&run[0]));
        assert_eq!(
            kept(&values),
            words(&run[1]),
            "{name} {} of {}",
            run[0],
            case["kind"]
        );
    }
    runs.len()
}

#[test]
fn top_p_keeps_what_mlx_lm_keeps() {
    let golden = sample_golden();
    let top_p = |values: &mut [f32], p| filters::top_p(values, p, &mut Vec::new());
    let runs: usize = list(&golden["filters"])
        .iter()
        .map(|c| check_filter(c, "top_p", top_p))
        .sum();
    assert!(runs > 100, "{runs}");
}

#[test]
fn min_p_keeps_what_mlx_lm_keeps() {
    let golden = sample_golden();
    let runs: usize = list(&golden["filters"])
        .iter()
        .map(|c| check_filter(c, "min_p", filters::min_p))
        .sum();
    assert!(runs > 70, "{runs}");
}

/// The values of some ids in rising order.
fn sorted(values: &[f32], ids: &[u32]) -> Vec<u32> {
    let mut values: Vec<f32> = ids.iter().map(|&id| values[id as usize]).collect();
    values.sort_by(f32::total_cmp);
    bits(&values)
}

/// Which of several equal values stay is not fixed in mlx-lm, so the kept values are compared.
#[test]
fn top_k_keeps_the_values_that_mlx_lm_keeps() {
    let golden = sample_golden();
    for case in list(&golden["filters"]) {
        let logprobs = floats(&case["logprobs"]);
        for run in list(&case["top_k"]) {
            let mut values = logprobs.clone();
            let k = run[0].as_u64().unwrap() as usize;
            filters::top_k(&mut values, k, &mut Vec::new());
            assert_eq!(kept(&values).len(), k);
            let theirs = sorted(&logprobs, &words(&run[1]));
            assert_eq!(
                sorted(&logprobs, &kept(&values)),
                theirs,
                "{k} of {}",
                case["kind"]
            );
        }
    }
}

#[test]
fn filters_in_order_keep_what_mlx_lm_keeps() {
    let golden = sample_golden();
    let cases = list(&golden["chains"]);
    assert!(cases.len() >= 6);
    for case in cases {
        let logprobs = floats(&case["logprobs"]);
        let mut values = logprobs.clone();
        let mut scratch = Vec::new();
        filters::top_p(&mut values, float(&case["top_p"]), &mut scratch);
        filters::min_p(&mut values, float(&case["min_p"]));
        filters::top_k(
            &mut values,
            case["top_k"].as_u64().unwrap() as usize,
            &mut scratch,
        );
        assert_eq!(
            sorted(&logprobs, &kept(&values)),
            sorted(&logprobs, &words(&case["kept"]))
        );
    }
}

fn penalised(case: &Value) -> Options {
    let number = |name: &str, none: f32| case.get(name).map_or(none, float);
    Options {
        repetition_penalty: number("repetition_penalty", 1.0),
        presence_penalty: number("presence_penalty", 0.0),
        frequency_penalty: number("frequency_penalty", 0.0),
        logit_bias: list(&case["logit_bias"])
            .iter()
            .map(|pair| (pair[0].as_u64().unwrap() as u32, float(&pair[1])))
            .collect(),
        ..Options::default()
    }
}

#[test]
fn penalties_give_the_logits_of_mlx_lm_bit_for_bit() {
    let golden = sample_golden();
    let cases = list(&golden["penalties"]);
    assert_eq!(cases.len(), 15);
    for case in cases {
        let options = penalised(case);
        let history = words(&case["history"]);
        let recent = &history[history.len().saturating_sub(penalties::CONTEXT)..];
        let mut logits = floats(&case["logits"]);
        penalties::bias(&mut logits, &options.logit_bias);
        penalties::repetition(&mut logits, recent, options.repetition_penalty);
        penalties::presence(&mut logits, recent, options.presence_penalty);
        penalties::frequency(&mut logits, recent, options.frequency_penalty);
        assert_eq!(bits(&logits), bits(&floats(&case["processed"])), "{case}");
    }
}

#[test]
fn the_greedy_sampler_takes_the_best_of_the_penalised_logits() {
    let golden = sample_golden();
    for case in list(&golden["penalties"]) {
        let logits = floats(&case["logits"]);
        let history = words(&case["history"]);
        let mut sampler = Sampler::new(penalised(case), logits.len()).unwrap();
        let choice = sampler.sample(&logits, &history, 0, 0).unwrap();
        assert_eq!(choice, kiln_sample::argmax(&floats(&case["processed"])));
    }
}

#[test]
fn draws_are_those_of_the_second_statement() {
    let golden = sample_golden();
    for case in list(&golden["draws"]) {
        let logits = floats(&case["logits"]);
        for draw in list(&case["draws"]) {
            let number = |i: usize| draw[i].as_u64().unwrap();
            let temperature = float(&case["temperature"]);
            let options = Options {
                temperature,
                seed: number(0),
                ..Options::default()
            };
            let mut sampler = Sampler::new(options, logits.len()).unwrap();
            let [sequence, step, id] = [1, 2, 3].map(|i| number(i) as u32);
            assert_eq!(
                sampler.sample(&logits, &[], sequence, step).unwrap(),
                id,
                "{draw}"
            );
        }
    }
}
