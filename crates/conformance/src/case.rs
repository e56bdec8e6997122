//! What a case is, and how it is run on a device.

use crate::{Expected, numbers, same_bits};
use kiln_array::{Array, DType, Device};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use std::cell::RefCell;
use std::fmt::Debug;

/// Something that every device must do right: random operands, what is built from them, and what
/// the result may be.
pub trait Case: Debug + Clone + 'static {
    /// What is gone through one by one: dtypes, formats, functions.
    type Subject: Debug + Copy;
    /// How many random cases there are of each subject.
    const CASES: u32;
    /// All of them.
    fn subjects() -> Vec<Self::Subject>;
    /// Random operands.
    fn any(subject: Self::Subject) -> BoxedStrategy<Self>;
    /// The result, not evaluated.
    fn build(&self, device: &Device) -> kiln_array::Result<Array>;
    /// What the result may be, from loops in f64.
    fn expected(&self) -> Expected;
}

/// A GPU runs one of so many random cases of each subject: every one waits for it, and software
/// drivers are slow.
const GPU_SHARE: u32 = 10;

/// How many cases to run where `usual` is the number for this machine's patience. `PROPTEST_CASES`
/// is read as a percentage of it, so 100 changes nothing.
pub fn cases(usual: u32) -> u32 {
    let variable = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|v| v.parse::<u32>().ok());
    (usual * variable.unwrap_or(100)).div_ceil(100).max(1)
}

/// Every how many subjects one is run: `KILN_PART`, or 1. For devices whose kernels take long to
/// compile.
fn part() -> usize {
    std::env::var("KILN_PART")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(1)
        .max(1)
}

/// The seed of all random cases: `KILN_SEED`, or 1.
fn seed() -> u64 {
    std::env::var("KILN_SEED")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(1)
}

/// FNV-1a of a name: different subjects get different numbers, the same ones on every machine.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The source of a subject's random values.
fn runner(what: &str, count: u32) -> TestRunner {
    let config = Config {
        cases: count,
        failure_persistence: None,
        max_shrink_iters: 400,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed().to_le_bytes());
    // Not of the device: every device gets the same cases.
    let subject = what.split(" on ").next().unwrap_or(what);
    bytes[8..16].copy_from_slice(&name_hash(subject).to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    TestRunner::new_with_rng(config, rng)
}

/// `count` random values.
pub(crate) fn draw<T: Debug>(
    what: &str,
    count: u32,
    strategy: &impl Strategy<Value = T>,
) -> Vec<T> {
    let mut runner = runner(what, count);
    let value = |_| Some(strategy.new_tree(&mut runner).ok()?.current());
    (0..count).filter_map(value).collect()
}

/// Does something with the random numbers that `device` can be expected to get right.
pub(crate) fn lenient<R>(device: &Device, task: impl FnOnce() -> R) -> R {
    numbers::for_gpu(on_gpu(device));
    let result = task();
    numbers::for_gpu(false);
    result
}

/// Runs `test` on random values; says in a panic which one failed, made as small as possible.
#[allow(clippy::panic, reason = "a failed test panics")]
pub fn run<T: Debug>(
    what: &str,
    count: u32,
    strategy: &impl Strategy<Value = T>,
    test: impl Fn(&T) -> Result<(), String>,
) {
    let outcome =
        runner(what, cases(count)).run(strategy, |value| test(&value).map_err(TestCaseError::fail));
    if let Err(failure) = outcome {
        panic!("{what}, KILN_SEED={}: {failure}", seed());
    }
}

/// Runs a case on devices.
pub fn check<C: Case>(devices: fn() -> Vec<Device>) {
    for (n, device) in devices().into_iter().enumerate() {
        numbers::for_gpu(on_gpu(&device));
        // A kernel that panics breaks its device; the search for a smaller case needs a whole one.
        let current = RefCell::new(device);
        for subject in C::subjects().into_iter().step_by(part()) {
            let what = format!("{} {subject:?} on {}", name::<C>(), current.borrow());
            let count = if numbers::are_for_gpu() {
                C::CASES.div_ceil(GPU_SHARE)
            } else {
                C::CASES
            };
            run(&what, count, &C::any(subject), |case| {
                let device = current.borrow().clone();
                let guard = Renew(|| current.replace(devices().swap_remove(n)));
                verify(case, &device).inspect(|()| std::mem::forget(guard))
            });
        }
    }
}

/// Does something when it is dropped, also by a panic.
struct Renew<R, F: Fn() -> R>(F);

impl<R, F: Fn() -> R> Drop for Renew<R, F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn name<C>() -> &'static str {
    std::any::type_name::<C>()
        .rsplit("::")
        .next()
        .unwrap_or_default()
}

/// Runs a case on devices that must give the same bits.
pub fn agree<C: Case>(devices: fn() -> Vec<Device>) {
    let devices = devices();
    let Some((first, others)) = devices.split_first() else {
        return;
    };
    for subject in C::subjects() {
        let what = format!("{} {subject:?} on devices that must agree", name::<C>());
        let values = |case: &C, device: &Device| {
            let result = case.build(device).and_then(|result| numbers_of(&result));
            result.map_err(|error| format!("{device}: {error}"))
        };
        run(&what, C::CASES.div_ceil(4), &C::any(subject), |case| {
            let wanted = values(case, first)?;
            others.iter().enumerate().try_for_each(|(n, device)| {
                same_bits(&values(case, device)?, &wanted)
                    .map_err(|difference| format!("{device}, number {n}: {difference}"))
            })
        });
    }
}

/// Builds and evaluates one random case of every subject, for a device that watches.
pub fn sample<C: Case>(device: &Device) {
    for subject in C::subjects() {
        run("sample", 1, &C::any(subject), |case| {
            let result = case.build(device).map_err(|error| error.to_string())?;
            result.eval().map_err(|error| error.to_string())
        });
    }
}

/// Whether a case's result is as expected.
pub fn verify(case: &impl Case, device: &Device) -> Result<(), String> {
    let result = case
        .build(device)
        .map_err(|error| format!("not built: {error}"))?;
    result
        .eval()
        .map_err(|error| format!("not evaluated: {error}"))?;
    let values = numbers_of(&result).map_err(|error| format!("not read: {error}"))?;
    let mut expected = case.expected();
    if on_gpu(device) {
        expected = expected.on_gpu();
    }
    expected.compare(result.dtype(), &result.shape(), &values)
}

/// Whether a device is a GPU, which may flush subnormals and knows no rules for what is not finite.
fn on_gpu(device: &Device) -> bool {
    device.to_string().starts_with("gpu")
}

/// The elements of an array of any plain dtype.
pub fn numbers_of(array: &Array) -> kiln_array::Result<Vec<f64>> {
    array.eval()?;
    Ok(match array.dtype() {
        DType::Bool => array
            .cast(DType::U8)?
            .to_vec::<u8>()?
            .into_iter()
            .map(f64::from)
            .collect(),
        DType::U8 => array.to_vec::<u8>()?.into_iter().map(f64::from).collect(),
        DType::U32 => array.to_vec::<u32>()?.into_iter().map(f64::from).collect(),
        DType::I32 => array.to_vec::<i32>()?.into_iter().map(f64::from).collect(),
        DType::F16 => array
            .to_vec::<half::f16>()?
            .into_iter()
            .map(f64::from)
            .collect(),
        DType::BF16 => array
            .to_vec::<half::bf16>()?
            .into_iter()
            .map(f64::from)
            .collect(),
        _ => array.to_vec::<f32>()?.into_iter().map(f64::from).collect(),
    })
}
