//! Budgets of a token: what steady decoding may cost in steps, copies, misses and allocations.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test panics"
)]

use kiln_array::DType;
use kiln_model::{Event, Model, Request};
use kiln_tests::checkpoint::Llama;
use kiln_tests::devices;

#[test]
fn steady_decoding_copies_nothing_compiles_nothing_allocates_nothing() {
    for (llama, dtype) in [
        (Llama::random(2), DType::F32),
        (Llama::random(3), DType::BF16),
        (Llama::quantised(1), DType::F16),
    ] {
        let directory = tempfile::tempdir().unwrap();
        llama.write(directory.path(), dtype);
        let device = &devices::best()[0];
        let model = Model::load(directory.path(), device).unwrap();
        let request = Request {
            prompt: vec![1, 2, 3],
            max_tokens: 30,
            ..Default::default()
        };
        let mut generation = model.generate(request).unwrap();
        let warm = |event: &kiln_model::Result<Event>| matches!(event, Ok(Event::Token { .. }));
        assert_eq!(generation.by_ref().filter(warm).take(4).count(), 4);
        let before = device.stats();
        assert_eq!(generation.by_ref().filter(warm).take(20).count(), 20);
        let after = device.stats();
        assert_eq!(after.evaluations - before.evaluations, 20);
        assert_eq!(after.copies, before.copies, "copies");
        assert_eq!(after.misses, before.misses, "programs compiled");
        assert_eq!(after.allocations, before.allocations, "allocations");
        let steps = (after.steps - before.steps) / 20;
        assert!(steps <= 11 * 2 + 6, "{steps} steps for a token of 2 layers");
        assert_eq!(after.bytes, before.bytes, "bytes held");
    }
}
