//! Tokens that the device chooses, with the next one submitted before they are read: they are
//! those that the host would choose.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test panics"
)]

use kiln_array::{DType, Device};
use kiln_model::{Finish, Model, Request};
use kiln_sample::Options;
use kiln_tests::checkpoint::Llama;
use kiln_tests::devices;
use tempfile::TempDir;

/// Vocabularies of less than a block, of two and a bit, and of whole blocks.
const VOCABULARIES: [usize; 3] = [96, 600, 512];

fn write(vocab: usize) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let llama = Llama::of_vocabulary(2, vocab);
    llama.write(directory.path(), DType::F32);
    directory
}

fn request(sampling: Options) -> Request {
    Request {
        prompt: vec![1, 2, 3],
        max_tokens: 24,
        sampling,
        ..Default::default()
    }
}

fn tokens(directory: &TempDir, device: &Device, request: &Request) -> Vec<u32> {
    let model = Model::load(directory.path(), device).unwrap();
    let mut generation = model.generate(request.clone()).unwrap();
    generation.by_ref().for_each(|event| drop(event.unwrap()));
    generation.tokens().to_vec()
}

/// Devices that choose, the GPU among them.
fn choosing() -> impl Iterator<Item = Device> {
    std::iter::once(devices::queued()).chain(devices::gpu())
}

#[test]
fn the_device_chooses_as_the_host_does() {
    for vocab in VOCABULARIES {
        let directory = write(vocab);
        let samplings = [0.0, 0.7, 1.0, 3.0].map(|temperature| Options {
            temperature,
            seed: vocab as u64,
            ..Default::default()
        });
        for request in samplings.map(request) {
            let wanted = tokens(&directory, &devices::best()[0], &request);
            for device in choosing() {
                let found = tokens(&directory, &device, &request);
                let temperature = request.sampling.temperature;
                assert_eq!(found, wanted, "{device}, {vocab} ids, {temperature}");
            }
        }
    }
}

#[test]
fn one_token_is_submitted_ahead_and_none_after_the_last() {
    let directory = write(96);
    let (device, log) = devices::logged();
    let model = Model::load(directory.path(), &device).unwrap();
    let request = request(Options::default());
    let mut generation = model.generate(request.clone()).unwrap();
    let mut event = || {
        log.lock().unwrap().clear();
        generation.next().map(|event| event.unwrap());
        log.lock().unwrap().clone()
    };
    let (run, read) = (devices::Call::Run, devices::Call::Read);
    assert_eq!(event(), [run, read], "the prompt");
    for _ in 0..request.max_tokens - 1 {
        assert_eq!(
            event(),
            [run, read, read],
            "the next one's work, then the token"
        );
    }
    assert_eq!(event(), [read, read], "the last token");
    assert_eq!(event(), []);
}

#[test]
fn what_was_computed_behind_the_end_is_forgotten() {
    let directory = write(96);
    let all = tokens(
        &directory,
        &devices::best()[0],
        &request(Options::default()),
    );
    let request = Request {
        eos: vec![all[7]],
        ..request(Options::default())
    };
    let first = all.iter().position(|id| *id == all[7]).unwrap();
    for device in choosing() {
        let model = Model::load(directory.path(), &device).unwrap();
        let mut generation = model.generate(request.clone()).unwrap();
        generation.by_ref().for_each(|event| drop(event.unwrap()));
        assert_eq!(generation.finish(), Some(Finish::Stop), "{device}");
        assert_eq!(generation.tokens(), &all[..=first], "{device}");
        assert_eq!(generation.cache().len(), 3 + first, "{device}");
    }
}

#[test]
fn broken_logits_are_the_samplers_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut llama = Llama::random(2);
    let head = llama.floats.get_mut("lm_head.weight").unwrap();
    head.1[57 * 64..58 * 64].fill(f32::NAN);
    llama.write(directory.path(), DType::F32);
    for temperature in [0.0, 1.0] {
        let request = request(Options {
            temperature,
            ..Default::default()
        });
        for device in choosing().chain(devices::best()) {
            let model = Model::load(directory.path(), &device).unwrap();
            let generation = model.generate(request.clone()).unwrap();
            let error = generation.filter_map(Result::err).next();
            let message = error.expect("an error").to_string();
            assert!(
                message.contains("the logit of id 57 is NaN"),
                "{device}: {message}"
            );
        }
    }
}
