//! Properties of random graphs: whatever is fused, shared, kept or overwritten, every array that
//! is still held has the value that it would have had alone.

use crate::recipe::Recipe;
use kiln_array::{Device, Observer, Op, Options, Plan, Slot};
use kiln_tests::{devices, run, same_bits};
use proptest::prelude::*;
use std::sync::{Arc, Mutex};

/// Every combination of options, and memory that is poisoned.
fn all_devices() -> Vec<(String, Device)> {
    let options = (0..8).map(|bits| Options {
        fuse: bits & 1 != 0,
        reuse: bits & 2 != 0,
        cache: bits & 4 != 0,
    });
    let named = options.map(|options| (format!("{options:?}"), devices::with(options)));
    named
        .chain(
            devices::poisoned()
                .into_iter()
                .map(|d| ("poisoned".into(), d)),
        )
        .collect()
}

/// The first difference of several arrays.
pub(crate) fn same(found: &[Vec<f64>], wanted: &[Vec<f64>]) -> Result<(), String> {
    for (n, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        same_bits(found, wanted).map_err(|difference| format!("array {n}: {difference}"))?;
    }
    if found.len() == wanted.len() {
        Ok(())
    } else {
        Err("another number of arrays".into())
    }
}

#[test]
fn what_is_held_has_the_values_it_would_have_alone() {
    let alone = devices::plain().remove(0);
    let devices = all_devices();
    run(
        "random graphs",
        150,
        &(Recipe::any(), any::<u64>()),
        |(recipe, seed)| {
            let wanted = recipe.run(&alone, *seed, true).map_err(|e| e.to_string())?;
            for (name, device) in &devices {
                let found = recipe
                    .run(device, *seed, false)
                    .map_err(|e| format!("{name}: {e}"))?;
                same(&found, &wanted).map_err(|difference| format!("{name}: {difference}"))?;
            }
            Ok(())
        },
    );
}

#[test]
fn replay_with_other_data_compiles_nothing_and_equals_a_fresh_evaluation() {
    let alone = devices::plain().remove(0);
    run(
        "replays",
        150,
        &(Recipe::any(), any::<u64>()),
        |(recipe, seed)| {
            let device = devices::with(Options::default());
            let text = |e: kiln_array::Error| e.to_string();
            recipe.run(&device, *seed, false).map_err(text)?;
            let misses = device.stats().misses;
            let found = recipe.run(&device, !*seed, false).map_err(text)?;
            // A device keeps eight programs.
            if misses <= 8 && device.stats().misses != misses {
                return Err(format!("{} misses, then {}", misses, device.stats().misses));
            }
            same(&found, &recipe.run(&alone, !*seed, true).map_err(text)?)
        },
    );
}

#[test]
fn graphs_that_differ_a_little_do_not_share_a_program() {
    let alone = devices::plain().remove(0);
    let change = any::<[u8; 3]>();
    run(
        "variations",
        300,
        &(Recipe::any(), change, any::<u64>()),
        |(recipe, change, seed)| {
            let device = devices::with(Options::default());
            let text = |e: kiln_array::Error| e.to_string();
            recipe.run(&device, *seed, false).map_err(text)?;
            let varied = recipe.varied(*change);
            same(
                &varied.run(&device, *seed, false).map_err(text)?,
                &varied.run(&alone, *seed, true).map_err(text)?,
            )
        },
    );
}

/// What a finished plan promises to backends.
fn sound(plan: &Plan) -> Result<(), String> {
    let mut written = vec![false; plan.slots.len()];
    for (slot, written) in plan.slots.iter().zip(&mut written) {
        *written = matches!(slot, Slot::External(_));
    }
    for (n, step) in plan.steps.iter().enumerate() {
        let say = |what: &str| Err(format!("step {n} {what}:\n{plan}"));
        let output = step.output.slot;
        for (i, operand) in step.inputs.iter().enumerate() {
            let in_place = step.op.updates() && i == 0;
            if in_place != (operand.slot == output) {
                return say("reads what it writes, or does not update in place");
            }
            if !step.op.takes_views(i) && !operand.layout.is_contiguous() {
                return say("is given a view that it does not take");
            }
            let row: usize = match (&step.op, i) {
                (Op::Take, 0) => operand.layout.shape().iter().skip(1).product(),
                (Op::Matmul { .. }, 1) => operand.layout.shape().last_axis(),
                _ => 1,
            };
            if operand.layout.offset() % row.max(1) != 0 {
                return say("is given rows that start inside a row");
            }
            if !written[operand.slot as usize] {
                return say("reads memory that nothing has written");
            }
        }
        if !step.output.layout.is_contiguous() || step.output.layout.offset() != 0 {
            return say("writes a view");
        }
        for operand in step.inputs.iter().chain([&step.output]) {
            let bytes = match plan.slots[operand.slot as usize] {
                Slot::External(spec) => spec.bytes(),
                Slot::Temporary { bytes } => bytes,
            };
            let layout = operand.layout;
            let last = (layout.shape().iter().zip(layout.strides()))
                .fold(layout.offset(), |at, (length, stride)| {
                    at + length.saturating_sub(1) * stride
                });
            if (last + 1) * operand.dtype.bytes() > bytes {
                return say("reaches past its memory");
            }
        }
        written[output as usize] = true;
    }
    Ok(())
}

#[test]
fn plans_keep_their_promises() {
    let fault = Arc::new(Mutex::new(Ok(())));
    let record = fault.clone();
    let observer: Observer = Box::new(move |plan| {
        if let Err(what) = sound(plan) {
            *record.lock().unwrap() = Err(what);
        }
    });
    let device = devices::watched(
        Options {
            cache: false,
            ..Options::default()
        },
        observer,
    );
    run(
        "plans",
        300,
        &(Recipe::any(), any::<u64>()),
        |(recipe, seed)| {
            recipe
                .run(&device, *seed, false)
                .map_err(|e| e.to_string())?;
            fault.lock().unwrap().clone()
        },
    );
}

#[test]
fn threads_that_share_a_device_get_their_own_values() {
    let alone = devices::plain().remove(0);
    let shared = devices::best().remove(0);
    run(
        "shared devices",
        20,
        &(Recipe::any(), any::<u64>()),
        |(recipe, seed)| {
            let seeds: Vec<u64> = (0..4).map(|n| seed.wrapping_add(n)).collect();
            let check = |seed: u64| {
                let found = recipe
                    .run(&shared, seed, false)
                    .map_err(|e| e.to_string())?;
                same(
                    &found,
                    &recipe.run(&alone, seed, true).map_err(|e| e.to_string())?,
                )
            };
            std::thread::scope(|scope| {
                let threads: Vec<_> = seeds
                    .iter()
                    .map(|&seed| scope.spawn(move || check(seed)))
                    .collect();
                threads
                    .into_iter()
                    .try_for_each(|t| t.join().unwrap_or(Err("a panic".into())))
            })
        },
    );
}
