//! What is the GPU's alone: budgets of a token, agreement with the processor.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test panics"
)]

use kiln_array::{DType, Device};
use kiln_conformance::Verified;
use kiln_model::{Event, Model, Request};
use kiln_tests::checkpoint::Llama;
use kiln_tests::devices;
use kiln_wgpu::Options;
use tempfile::TempDir;

/// A model of two layers in 4 bits, and one in f32.
fn models() -> [TempDir; 2] {
    [
        (Llama::quantised(1), DType::F16),
        (Llama::random(2), DType::F32),
    ]
    .map(|(llama, dtype)| {
        let directory = tempfile::tempdir().unwrap();
        llama.write(directory.path(), dtype);
        directory
    })
}

fn tokens(model: &Model, prompt: &[u32], count: usize) -> Vec<u32> {
    let request = Request {
        prompt: prompt.to_vec(),
        max_tokens: count,
        ..Default::default()
    };
    let mut generation = model.generate(request).unwrap();
    generation.by_ref().for_each(|event| drop(event.unwrap()));
    generation.tokens().to_vec()
}

#[test]
fn a_token_is_few_dispatches_one_submission_and_one_read() {
    for directory in models() {
        let Some(gpu) = devices::gpu_backend(&Options::default()) else {
            return;
        };
        let counter = gpu.counter();
        let device = Device::new(gpu);
        let model = Model::load(directory.path(), &device).unwrap();
        let request = Request {
            prompt: vec![1, 2, 3],
            max_tokens: 30,
            ..Default::default()
        };
        let mut generation = model.generate(request).unwrap();
        let token = |event: &kiln_model::Result<Event>| matches!(event, Ok(Event::Token { .. }));
        assert_eq!(generation.by_ref().filter(token).take(6).count(), 6);
        let (before, stats) = (counter.read(), device.stats());
        assert_eq!(generation.by_ref().filter(token).take(20).count(), 20);
        let (after, now) = (counter.read(), device.stats());
        let dispatches = (after.dispatches - before.dispatches) / 20;
        assert!(dispatches <= 11 * 2 + 6, "{dispatches} for two layers");
        assert_eq!(after.submissions - before.submissions, 20, "submissions");
        assert_eq!(after.reads - before.reads, 20, "reads");
        assert_eq!(after.bind_groups, before.bind_groups, "bind groups");
        assert_eq!(after.staging, before.staging, "buffers for reading");
        assert_eq!(after.pipelines, before.pipelines, "pipelines");
        assert_eq!(now.allocations, stats.allocations, "buffers");
        assert_eq!((now.copies, now.misses), (stats.copies, stats.misses));
    }
}

fn model_bytes(directory: &TempDir) -> usize {
    let file = directory.path().join("model.safetensors");
    std::fs::metadata(file).unwrap().len() as usize
}

/// A prompt and some tokens give the processor's tokens, wherever the weights lie.
#[test]
fn tokens_are_the_processors() {
    for directory in models() {
        let processor = Model::load(directory.path(), &devices::best()[0]).unwrap();
        let prompt: Vec<u32> = (0..40).map(|i| (i * 37 + 11) % 96).collect();
        let wanted = tokens(&processor, &prompt, 12);
        let mut held = Vec::new();
        for device in devices::gpu().into_iter().chain(devices::gpu_mapped()) {
            let model = Model::load(directory.path(), &device).unwrap();
            assert_eq!(tokens(&model, &prompt, 12), wanted);
            held.push(device.stats().bytes);
        }
        if let [copied, mapped] = held[..] {
            // All but the norms stayed in their file; parameters are there twice.
            let least = model_bytes(&directory) / 2;
            assert!(
                copied >= mapped + least,
                "{copied} and {mapped} of {least} bytes"
            );
        }
    }
}

/// Every step of a prompt's and a token's plan gives what the processor's gives.
#[test]
fn every_step_of_a_model_agrees_with_the_processor() {
    for directory in models() {
        let Some(gpu) = devices::gpu_backend(&Options::default()) else {
            return;
        };
        let reference = kiln_cpu::Cpu::new(Default::default()).unwrap();
        let device = Device::new(Verified::new(Box::new(gpu), Box::new(reference)));
        let model = Model::load(directory.path(), &device).unwrap();
        assert_eq!(tokens(&model, &[5, 9, 2, 40], 3).len(), 3);
    }
}
