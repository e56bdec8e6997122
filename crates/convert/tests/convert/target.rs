//! Bits chosen from measured errors.

use crate::made::*;
use crate::rules::{format, rules};
use kiln_convert::{Options, Planned, Progress, plan, quantise};
use kiln_plan::DType;

const BITS: [usize; 6] = [2, 3, 4, 5, 6, 8];

fn target(bits: f64) -> Options {
    Options {
        target: Some(bits),
        ..Options::default()
    }
}

fn square_sum(values: impl Iterator<Item = f32>) -> f64 {
    values
        .map(|value| f64::from(value) * f64::from(value))
        .sum()
}

#[test]
fn the_errors_are_those_of_the_weights() {
    let place = with_layers(1, DType::F32);
    let plan = place.plan(&target(5.0)).unwrap();
    let mut measured = 0;
    for tensor in plan.tensors() {
        let Some(errors) = &tensor.measured else {
            assert_eq!(tensor.shape.len(), 1);
            continue;
        };
        measured += 1;
        let values = values(&tensor.name, tensor.shape.iter().product());
        assert_eq!(
            errors.iter().map(|(bits, _)| *bits).collect::<Vec<_>>(),
            BITS
        );
        for &(bits, error) in errors {
            let candidate = Planned {
                bits: Some(bits),
                ..tensor.clone()
            };
            let format = format(&candidate, DType::F32).unwrap();
            let k = tensor.shape[1];
            let made = quantise(&values, k, format, DType::F32).unwrap();
            let mut restored = vec![0.0; values.len()];
            let planes = [&made.codes[..], &made.scales, &made.biases];
            assert!(kiln_convert::dequantise(format, planes, k, &mut restored));
            let difference = square_sum(values.iter().zip(&restored).map(|(a, b)| a - b));
            let expected = difference / square_sum(values.iter().copied());
            assert!(
                (error / expected - 1.0).abs() < 1e-9,
                "{} {bits}",
                tensor.name
            );
        }
        assert_eq!(tensor.rule.as_deref(), Some("--target-bpw 5"));
    }
    assert_eq!(measured, 9);
    assert!(plan.notes().iter().any(|note| note.contains("reached ")));
}

/// The bits of the matrices, and the sum of their errors.
fn chosen(tensors: &[Planned]) -> (Vec<usize>, f64) {
    let mut sum = 0.0;
    let mut bits = Vec::new();
    for tensor in tensors.iter().filter(|tensor| tensor.measured.is_some()) {
        let errors = tensor.measured.as_ref().unwrap();
        bits.extend(tensor.bits);
        sum += errors
            .iter()
            .find(|(bits, _)| Some(*bits) == tensor.bits)
            .unwrap()
            .1;
    }
    (bits, sum)
}

#[test]
fn the_budget_is_kept_and_spent_where_it_helps() {
    let place = with_layers(2, DType::BF16);
    let mut last = f64::INFINITY;
    for bits in [3.2, 4.0, 4.8, 6.0, 7.5, 9.0] {
        let plan = place.plan(&target(bits)).unwrap();
        assert!(plan.bits_per_weight() <= bits, "{bits}");
        let (of_layers, error) = chosen(&plan.tensors());
        assert!(error < last, "{bits}: {error}");
        last = error;
        // No step that helps would still fit.
        for (number, tensor) in plan.tensors().iter().enumerate() {
            let Some(own) = tensor.bits.filter(|bits| *bits < 8) else {
                continue;
            };
            let next = BITS[BITS.iter().position(|bits| *bits == own).unwrap() + 1];
            let more = (next - own) as u64 * tensor.shape.iter().product::<usize>() as u64 / 8;
            let all = 8.0 * (plan.bytes() + more) as f64 / plan.parameters() as f64;
            assert!(all > bits, "{number} {}: {own}", tensor.name);
        }
        if bits == 9.0 {
            assert!(of_layers.iter().all(|bits| *bits == 8));
        } else {
            assert!(
                of_layers.iter().any(|bits| *bits != of_layers[0]),
                "{of_layers:?}"
            );
        }
    }
}

/// Layers whose weights are harder to quantise get more bits than their equals.
#[test]
fn a_layer_with_outliers_gets_more_bits() {
    let place = with_layers(2, DType::F32);
    let checkpoint = kiln_formats::safetensors::open(&place.source(), &open).unwrap();
    let tensors: Vec<_> = checkpoint
        .iter()
        .map(|tensor| {
            let mut values = floats(&checkpoint, &tensor.name);
            if tensor.name.contains("layers.1.mlp.gate_proj") {
                values
                    .iter_mut()
                    .step_by(64)
                    .for_each(|value| *value *= 8.0);
            }
            (
                tensor.name.clone(),
                tensor.shape.clone(),
                encode(&values, DType::F32),
            )
        })
        .collect();
    place.put(
        "model.safetensors",
        safetensors_file(&tensors, kiln_formats::Type::F32),
    );
    let plan = place.plan(&target(5.4)).unwrap().tensors();
    let bits = |layer: usize| {
        let name = format!("model.layers.{layer}.mlp.gate_proj.weight");
        plan.iter().find(|tensor| tensor.name == name).unwrap().bits
    };
    assert!(bits(1) > bits(0), "{:?} {:?}", bits(1), bits(0));
}

/// All weights here are alike, so that only sizes and weights of the errors decide.
#[test]
fn the_embedding_and_the_head_count_as_much_as_all_layers() {
    let place = with_layers(8, DType::BF16);
    let tensors = place.plan(&target(5.0)).unwrap().tensors();
    let of = |wanted: &dyn Fn(&str) -> bool| -> Vec<usize> {
        let found = tensors.iter().filter(|tensor| wanted(&tensor.name));
        found.filter_map(|tensor| tensor.bits).collect()
    };
    let outer = of(&|name| !name.contains("layers"));
    let inner = of(&|name| name.contains("gate_proj"));
    assert_eq!((outer.len(), inner.len()), (2, 8));
    assert!(
        outer.iter().min() > inner.iter().max(),
        "{outer:?} {inner:?}"
    );
}

#[test]
fn rules_come_before_the_target_and_count() {
    let place = with_layers(2, DType::F16);
    let options = Options {
        rules: rules(&["lm_head=8", "embed_tokens=float"]),
        ..target(6.5)
    };
    let plan = place.plan(&options).unwrap();
    assert!(plan.bits_per_weight() <= 6.5);
    let tensors = plan.tensors();
    let of = |name: &str| tensors.iter().find(|tensor| tensor.name == name).unwrap();
    assert_eq!(of("lm_head.weight").bits, Some(8));
    assert_eq!(of("lm_head.weight").measured, None);
    assert_eq!(of("model.embed_tokens.weight").kind, "F16");
    place.convert(&options).unwrap();
    let written: usize = place.result().iter().map(|tensor| tensor.range.len()).sum();
    assert_eq!(written as u64, plan.bytes());
}

#[test]
fn a_target_that_cannot_be_reached_says_what_can() {
    let place = with_layers(2, DType::F16);
    let message = place.refused(&target(2.0));
    assert!(
        message.starts_with("2 bits per weight cannot be reached"),
        "{message}"
    );
    let least: f64 = message.rsplit(' ').next().unwrap().parse().unwrap();
    let lowest = place.plan(&target(least + 0.001)).unwrap();
    assert!(chosen(&lowest.tensors()).0.iter().all(|bits| *bits == 2));
    assert!(
        place
            .refused(&target(f64::NAN))
            .contains("cannot be reached")
    );
    let never = &mut |_: &Progress<'_>| panic!("weights are measured for nothing");
    assert!(plan(&place.source(), &target(2.0), &open, never).is_err());
}
