//! Several sequences at once: none can tell that there are others.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test panics"
)]

use kiln_array::{DType, Device, Format, eval};
use kiln_model::{Event, Finish, Model, Request};
use kiln_tests::checkpoint::Llama;
use kiln_tests::devices;
use tempfile::TempDir;

fn load(llama: &Llama, dtype: DType, device: &Device) -> (TempDir, Model) {
    let directory = tempfile::tempdir().unwrap();
    llama.write(directory.path(), dtype);
    let model = Model::load(directory.path(), device).unwrap();
    (directory, model)
}

/// Layers of one format, of several (so that keys and values lie apart), and of floats.
fn models() -> Vec<(Llama, DType)> {
    let mut brain = Llama::quantised(2);
    for format in brain.formats.values_mut() {
        *format = Format::affine(4, 32, DType::BF16).unwrap();
    }
    let mut apart = Llama::quantised(5);
    apart.formats.remove("model.layers.0.self_attn.k_proj");
    vec![
        (Llama::quantised(1), DType::F16),
        (brain, DType::BF16),
        (Llama::random(3), DType::F32),
        (Llama::random(4), DType::BF16),
        (apart, DType::F16),
    ]
}

fn ids(seed: u32, count: usize) -> Vec<u32> {
    (0..count as u32)
        .map(|i| (i * 37 + seed * 13) % 96)
        .collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Lengths on both sides of what kernels call few, in more sequences than run together.
const LENGTHS: [usize; 13] = [1, 2, 7, 8, 9, 33, 300, 1, 5, 64, 3, 12, 2];

#[test]
fn a_row_of_a_batch_has_the_bits_that_it_has_alone() {
    let devices = [devices::best(), devices::each_isa(), devices::plain()].concat();
    for device in devices {
        for (llama, dtype) in models() {
            let (_directory, model) = load(&llama, dtype, &device);
            let read = |seed: usize| {
                let mut cache = model.cache(400).unwrap();
                let prompt = ids(seed as u32, LENGTHS[seed]);
                model.prefill(&prompt, &mut cache).unwrap().eval().unwrap();
                cache
            };
            let mut alone: Vec<_> = (0..LENGTHS.len()).map(read).collect();
            let mut joint: Vec<_> = (0..LENGTHS.len()).map(read).collect();
            for step in 0..3u32 {
                let next: Vec<u32> = (0..LENGTHS.len() as u32)
                    .map(|s| (s * 5 + step) % 96)
                    .collect();
                let mut caches: Vec<_> = joint.iter_mut().collect();
                let found = model.forward_each(&next, &mut caches).unwrap();
                eval(&found.iter().collect::<Vec<_>>()).unwrap();
                for (row, (id, cache)) in next.iter().zip(&mut alone).enumerate() {
                    let wanted = model.forward(&[*id], cache).unwrap();
                    let values = |logits: &kiln_array::Array| {
                        bits(&logits.cast(DType::F32).unwrap().to_vec::<f32>().unwrap())
                    };
                    assert_eq!(values(&found[row]), values(&wanted), "{device}, row {row}");
                }
            }
        }
    }
}

#[test]
fn a_row_of_a_batch_on_a_gpu_is_what_it_is_alone_but_for_rounding() {
    for device in devices::gpu() {
        let (_directory, model) = load(&Llama::quantised(6), DType::F16, &device);
        let caches = || {
            [3, 1, 9].map(|length| {
                let mut cache = model.cache(20).unwrap();
                let logits = model.prefill(&ids(4, length), &mut cache).unwrap();
                logits.eval().unwrap();
                cache
            })
        };
        let (mut alone, mut joint) = (caches(), caches());
        let next = [7, 8, 9];
        let mut joint: Vec<_> = joint.iter_mut().collect();
        let found = model.forward_each(&next, &mut joint).unwrap();
        for ((id, cache), found) in next.iter().zip(&mut alone).zip(found) {
            let wanted = model.forward(&[*id], cache).unwrap();
            let values = |logits: &kiln_array::Array| {
                logits.cast(DType::F32).unwrap().to_vec::<f32>().unwrap()
            };
            for (a, b) in values(&found).iter().zip(values(&wanted)) {
                // Some last places of f16, at logits of a few units.
                assert!((a - b).abs() <= 0.01, "{a} and {b} on {device}");
            }
        }
    }
}

/// What a generation gave: tokens with the bits of their log-probabilities.
type Answer = (Vec<(u32, u32)>, Option<Finish>);

fn token(event: Event) -> Option<(u32, u32)> {
    match event {
        Event::Token { id, logprobs } => Some((id, logprobs.map_or(0, |l| l.chosen.to_bits()))),
        Event::Prefill { .. } => None,
    }
}

fn requests(logprobs: bool) -> Vec<Request> {
    let request = |(number, length): (usize, usize)| Request {
        prompt: ids(number as u32, length),
        max_tokens: 1 + number * 7 % 19,
        eos: vec![number as u32],
        sampling: kiln_sample::Options {
            temperature: [0.0, 1.5][number % 2],
            seed: 3,
            ..Default::default()
        },
        sequence: number as u32,
        top_logprobs: logprobs.then_some(1),
        ..Default::default()
    };
    LENGTHS.into_iter().enumerate().map(request).collect()
}

fn alone(model: &Model, request: Request) -> Answer {
    let mut generation = model.generate(request).unwrap();
    let tokens = generation
        .by_ref()
        .filter_map(|event| token(event.unwrap()));
    (tokens.collect(), generation.finish())
}

#[test]
fn generations_of_a_batch_are_what_each_is_alone() {
    for device in devices::best().into_iter().chain([devices::queued()]) {
        for (llama, dtype) in models() {
            let (_directory, model) = load(&llama, dtype, &device);
            // Without log-probabilities a device that queues chooses the tokens itself.
            for logprobs in [true, false] {
                let requests = requests(logprobs);
                let mut found = vec![(Vec::new(), None); requests.len()];
                let mut batch = model.generate_all(requests.clone()).unwrap();
                for (number, event) in batch.by_ref() {
                    found[number].0.extend(token(event.unwrap()));
                }
                for (number, request) in requests.into_iter().enumerate() {
                    found[number].1 = batch.finish(number);
                    let wanted = alone(&model, request);
                    assert_eq!(found[number], wanted, "{device}, request {number}");
                }
            }
        }
    }
}

/// A model of whose tokens one has no finite embedding.
fn broken() -> Llama {
    let mut llama = Llama::random(7);
    let table = &mut llama.floats.get_mut("model.embed_tokens.weight").unwrap().1;
    table[90 * 64..91 * 64].fill(f32::NAN);
    llama
}

#[test]
fn what_fails_fails_alone() {
    let device = &devices::best()[0];
    let (_directory, model) = load(&broken(), DType::F32, device);
    let request = |prompt: Vec<u32>| Request {
        prompt,
        max_tokens: 5,
        ..Default::default()
    };
    let requests = [vec![1, 2], vec![1, 90], vec![3]].map(request).to_vec();
    let wanted = [0, 2].map(|number| alone(&model, requests[number].clone()).0);
    let mut found = [Vec::new(), Vec::new(), Vec::new()];
    let mut errors = Vec::new();
    for (number, event) in model.generate_all(requests).unwrap() {
        match event {
            Ok(event) => found[number].extend(token(event)),
            Err(error) => errors.push((number, error.to_string())),
        }
    }
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].0, 1);
    assert_eq!([&found[0], &found[2]], [&wanted[0], &wanted[1]]);
}

#[test]
fn a_request_that_cannot_be_is_refused_before_any_begins() {
    let device = &devices::best()[0];
    let (_directory, model) = load(&Llama::random(8), DType::F32, device);
    let request = |prompt: Vec<u32>| Request {
        prompt,
        ..Default::default()
    };
    let outcome = model.generate_all(vec![request(vec![1]), request(vec![96])]);
    let error = outcome.err().unwrap().to_string();
    assert!(error.contains("id 96"), "{error}");
    let mut cache = model.cache(1).unwrap();
    let error = model.forward_each(&[1, 2], &mut [&mut cache]).unwrap_err();
    assert_eq!(error.to_string(), "2 ids for 1 caches");
}

#[test]
fn the_last_hidden_state_is_what_the_head_sees_and_the_first_the_embedding() {
    let device = &devices::best()[0];
    let llama = Llama::random(9);
    let (_directory, model) = load(&llama, DType::F32, device);
    let ids = ids(1, 6);
    let mut cache = model.cache(6).unwrap();
    let states = model.hidden_states(&ids, &mut cache).unwrap();
    assert_eq!((states.len(), cache.len()), (3, 6));
    let table = &llama.floats["model.embed_tokens.weight"].1;
    let embedded: Vec<f32> = ids
        .iter()
        .flat_map(|id| table[*id as usize * 64..][..64].to_vec())
        .collect();
    assert_eq!(states[0].to_vec::<f32>().unwrap(), embedded);
    let head = &llama.floats["lm_head.weight"].1;
    let head = kiln_array::Array::from_slice(head, &[96, 64], device).unwrap();
    let logits = states[2].matmul(&head).unwrap().to_vec::<f32>().unwrap();
    let wanted = model.logits(&ids).unwrap();
    assert_eq!(&*wanted.shape(), [6, 96]);
    assert_eq!(bits(&logits), bits(&wanted.to_vec::<f32>().unwrap()));
}
