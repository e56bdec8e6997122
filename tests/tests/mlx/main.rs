//! Kiln's array functions give what MLX's give: the cases of `scripts/golden/arrays.py` on every kind
//! of device, and every difference on purpose is one of a list.

mod call;
mod difference;
mod file;

use difference::Differences;
use file::{Case, Golden};
use kiln_array::{DType, Device};
use kiln_conformance::{numbers, numbers_of};
use kiln_tests::devices;
use std::fmt;

/// How far a function may be from MLX, in last places of f32, and of 16-bit dtypes, each counted for
/// numbers of at least the third number's size; and why.
///
/// Two correctly rounded results are equal, and those of sums and of elementary functions are a last
/// place of f32 or two apart: one place of a 16-bit dtype where they fall on either side of a middle.
const TOLERANCES: &[(&str, f64, f64, f64, &str)] = &[
    (
        "exp",
        48.0,
        1.0,
        0.0,
        "MLX's loses places with the size of x: its exp(61) is off by 2e-6",
    ),
    (
        "log",
        4.0,
        1.0,
        1.0,
        "two functions of two places; MLX's has an absolute error near 1",
    ),
    ("sin", 4.0, 1.0, 1.0, "absolute errors"),
    ("cos", 4.0, 1.0, 1.0, "absolute errors"),
    ("tanh", 6.0, 1.0, 0.0, "three places here, and MLX's own"),
    (
        "sigmoid",
        6.0,
        1.0,
        0.0,
        "an exponential, a sum and a quotient",
    ),
    (
        "silu",
        8.0,
        2.0,
        0.0,
        "MLX rounds the sigmoid to the dtype before it multiplies",
    ),
    (
        "erf",
        8.0,
        1.0,
        1.0,
        "5e-7, which is 4 places at 1, and MLX's own polynomial",
    ),
    (
        "erfinv",
        8.0,
        1.0,
        0.0,
        "four places here, and MLX's own polynomial",
    ),
    (
        "rsqrt",
        2.0,
        1.0,
        0.0,
        "the root is rounded before it divides",
    ),
    ("power", 4.0, 2.0, 0.0, "MLX's powers of 16-bit dtypes"),
    (
        "remainder",
        4.0,
        1.0,
        4.0,
        "MLX computes in the dtype, from quotients",
    ),
    ("sum", 4.0, 4.0, 64.0, "other orders of addition"),
    (
        "mean",
        4.0,
        4.0,
        4.0,
        "other orders of addition; MLX multiplies by a rounded 1/n",
    ),
    (
        "var",
        8.0,
        8.0,
        8.0,
        "other orders of addition; MLX rounds to the dtype in between",
    ),
    ("std", 8.0, 8.0, 4.0, "as var"),
    (
        "cumsum",
        4.0,
        4.0,
        64.0,
        "added in pairs here, one after the other in the dtype there",
    ),
    ("logsumexp", 4.0, 2.0, 8.0, "other orders of addition"),
    (
        "softmax",
        48.0,
        4.0,
        0.1,
        "MLX's exponential; it accumulates in the dtype",
    ),
    ("dot", 8.0, 2.0, 16.0, "other orders of addition"),
    (
        "rms_norm",
        4.0,
        2.0,
        1.0,
        "other orders of addition, two roundings",
    ),
    (
        "layer_norm",
        6.0,
        4.0,
        2.0,
        "other orders of addition, three roundings",
    ),
    (
        "rope",
        192.0,
        8.0,
        4.0,
        "angles of 1,000 positions; MLX rounds sines to the dtype",
    ),
    (
        "attend",
        12.0,
        12.0,
        4.0,
        "MLX rounds queries, scores and weights to the dtype",
    ),
    (
        "quantise",
        1.0,
        2.0,
        8.0,
        "MLX rounds the product to the dtype before it adds the bias",
    ),
    ("take_quantised", 1.0, 2.0, 8.0, "as quantise"),
    (
        "matmul_quantised",
        16.0,
        16.0,
        64.0,
        "other orders of addition; MLX accumulates in the dtype",
    ),
    ("normal", 8.0, 1.0, 0.0, "the inverse error function"),
];

/// What is wrong with a case's results, if anything is.
fn compare(case: &Case, golden: &Golden, device: &Device) -> Result<(), Wrong> {
    let results = match (call::call(case, golden, device), &case.outputs) {
        (Err(_), None) => return Ok(()),
        (Err(error), Some(_)) => return Err(Wrong::Error(error)),
        (Ok(_), None) => return Err(Wrong::Accepted),
        (Ok(results), Some(outputs)) if results.len() == outputs.len() => results,
        (Ok(results), _) => return Err(Wrong::Count(results.len())),
    };
    let gpu = device.to_string().starts_with("gpu");
    for (result, output) in results.iter().zip(case.outputs.iter().flatten()) {
        let found = numbers_of(result).map_err(|error| Wrong::Error(error.to_string()))?;
        let (dtype, lengths) = (result.dtype().to_string(), result.shape().to_vec());
        if dtype != output.dtype || lengths != output.lengths {
            return Err(Wrong::Spec(dtype, lengths));
        }
        let wanted = golden.numbers(output);
        for (at, (&found, &wanted)) in found.iter().zip(&wanted).enumerate() {
            if !near(&case.function, result.dtype(), gpu, found, wanted) {
                return Err(Wrong::Value(at, found, wanted));
            }
        }
    }
    Ok(())
}

fn near(function: &str, dtype: DType, gpu: bool, found: f64, wanted: f64) -> bool {
    if found == wanted || found.is_nan() && wanted.is_nan() {
        return true;
    }
    // A GPU knows no rules for what is not finite.
    if gpu && !wanted.is_finite() && dtype.is_float() {
        return true;
    }
    if !dtype.is_float() {
        return false;
    }
    let entry = TOLERANCES.iter().find(|entry| entry.0 == function);
    let (places, size) = match entry {
        Some(&(_, single, _, size, _)) if dtype == DType::F32 => (single, size),
        Some(&(_, _, half, size, _)) => (half, size),
        None => (0.0, 0.0),
    };
    // Vulkan lets quotients and roots be 2.5 places of f32 off.
    let places = match gpu {
        true if dtype == DType::F32 => places + 4.0,
        true => places + 1.0,
        false => places,
    };
    (found - wanted).abs() <= places * numbers::ulp(dtype, wanted.abs().max(size))
}

/// How a result differs from MLX's.
pub(crate) enum Wrong {
    Error(String),
    Accepted,
    Count(usize),
    Spec(String, Vec<usize>),
    Value(usize, f64, f64),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Error(error) => write!(f, "an error: {error}"),
            Wrong::Accepted => f.write_str("no error"),
            Wrong::Count(count) => write!(f, "{count} results"),
            Wrong::Spec(dtype, lengths) => write!(f, "{dtype}{lengths:?}"),
            Wrong::Value(at, found, wanted) => write!(f, "{found:?} at {at}, not {wanted:?}"),
        }
    }
}

/// Runs every case; those that differ have to be on the list, and everything on it has to differ.
#[allow(clippy::panic, reason = "a failed test panics")]
fn all(device: &Device, every: usize) {
    let golden = Golden::read();
    let mut differences = Differences::read();
    let mut wrong = Vec::new();
    for case in golden.cases.iter().step_by(every) {
        if let Err(found) = compare(case, &golden, device)
            && !differences.allow(case, &found)
        {
            wrong.push(format!("{case} is {found}"));
        }
    }
    let count = wrong.len();
    let first: Vec<String> = wrong.into_iter().take(40).collect();
    assert!(
        count == 0,
        "{count} cases on {device}:\n{}",
        first.join("\n")
    );
    let unused = differences.unused();
    assert!(
        every > 1 || unused.is_empty(),
        "no case differs so: {unused:#?}"
    );
}

#[test]
fn the_processor_gives_what_mlx_gives() {
    all(&devices::best().remove(0), 1);
}

#[test]
fn compositions_alone_give_what_mlx_gives() {
    all(&devices::decomposed().remove(0), 1);
}

#[test]
fn a_gpu_gives_what_mlx_gives() {
    if let Some(device) = devices::gpu().pop() {
        all(&device, 1);
    }
}

#[test]
fn every_function_has_fifteen_cases_and_is_refused_something() {
    let golden = Golden::read();
    assert!(golden.cases.len() >= 1500, "{} cases", golden.cases.len());
    for (function, cases) in golden.by_function() {
        let errors = cases.iter().filter(|case| case.outputs.is_none()).count();
        let views = cases
            .iter()
            .filter(|case| case.inputs.iter().any(|i| !i.view.is_empty()))
            .count();
        let takes = cases.iter().any(|case| !case.inputs.is_empty());
        assert!(cases.len() >= 15, "{function} has {} cases", cases.len());
        assert!(errors > 0, "{function} has no error");
        assert!(views > 0 || !takes, "{function} has no view");
    }
}
