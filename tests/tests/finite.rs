//! Where numbers stop being finite: step, layer, token and line.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test panics"
)]

use kiln_array::{Backend, DType, Device};
use kiln_conformance::Finite;
use kiln_model::{Error, Event, Model, Request};
use kiln_tests::checkpoint::Llama;
use kiln_tests::devices;
use tempfile::TempDir;

/// The processor and the GPU, watched.
fn watched() -> Vec<Device> {
    let cpu = kiln_cpu::Cpu::new(Default::default()).unwrap();
    let gpu = devices::gpu_backend(&Default::default());
    let gpu = gpu.map(|gpu| Box::new(gpu) as Box<dyn Backend>);
    let backends = [Some(Box::new(cpu) as Box<dyn Backend>), gpu];
    let backends = backends.into_iter().flatten();
    backends.map(|b| Device::new(Finite::new(b))).collect()
}

fn load(llama: &Llama, device: &Device) -> (TempDir, Model) {
    let directory = tempfile::tempdir().unwrap();
    llama.write(directory.path(), DType::F16);
    let model = Model::load(directory.path(), device).unwrap();
    (directory, model)
}

fn request(prompt: Vec<u32>) -> Request {
    Request {
        prompt,
        max_tokens: 4,
        ..Default::default()
    }
}

/// The error that a generation ends with.
fn failure(model: &Model, prompt: Vec<u32>) -> Error {
    let mut events = model.generate(request(prompt)).unwrap();
    events.find_map(|event| event.err()).expect("an error")
}

#[test]
fn a_sound_model_passes() {
    for device in watched() {
        let (_directory, model) = load(&Llama::random(1), &device);
        let events = model.generate(request(vec![1, 2, 3])).unwrap();
        let tokens = events.filter(|event| matches!(event, Ok(Event::Token { .. })));
        assert_eq!(tokens.count(), 4, "{device}");
    }
}

/// An embedding whose numbers f16 holds, but not what the second layer's MLP makes of them.
fn overflowing() -> Llama {
    let mut llama = Llama::random(2);
    let name = "model.layers.1.mlp.up_proj.weight";
    llama.floats.get_mut(name).unwrap().1.fill(6e4);
    llama
}

#[test]
fn an_overflow_is_named_with_step_layer_token_and_line() {
    for device in watched() {
        let (_directory, model) = load(&overflowing(), &device);
        let error = failure(&model, vec![5, 6, 7]).to_string();
        for part in ["token ", "step ", "layer 1, ", "model/src/", " is ", "f16["] {
            assert!(error.contains(part), "{part} in {error}, {device}");
        }
        assert!(!error.contains("layer 0"), "{error}");
    }
}

#[test]
fn a_token_that_is_broken_is_counted_from_the_start() {
    let mut llama = Llama::random(3);
    let table = &mut llama.floats.get_mut("model.embed_tokens.weight").unwrap().1;
    table[90 * 64..91 * 64].fill(f32::NAN);
    for device in watched() {
        let (_directory, model) = load(&llama, &device);
        let error = failure(&model, vec![5, 6, 90, 7]).to_string();
        for part in [
            "token 2: ",
            "take of f16[96, 64]",
            "[2, 0] is NaN; operand 0",
        ] {
            assert!(error.contains(part), "{part} in {error}, {device}");
        }
    }
}
