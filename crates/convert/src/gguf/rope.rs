//! A GGUF file's rope settings, in both of Hugging Face's spellings.

use super::Keys;
use crate::Result;
use crate::config::Config;
use kiln_formats::Error;
use kiln_formats::gguf::{Gguf, dequantise};
use serde_json::{Value, json};
use std::f64::consts::TAU;

/// The `llama.` keys that are read here, beside `rope.freq_base`.
pub(super) const UNDERSTOOD: [&str; 5] = [
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scale_linear",
];

/// The factors by which wavelengths are stretched, where a file has its own.
pub(crate) const FACTORS: &str = "rope_freqs.weight";

/// Llama 3's ramp. A GGUF file has only the factors that follow from it.
const LOW: f64 = 1.0;
const HIGH: f64 = 4.0;
const ORIGINAL: f64 = 8192.0;

/// `rope_theta`, `rope_scaling` and `rope_parameters`.
pub(super) fn settings(keys: &Keys<'_>, gguf: &Gguf, head_dim: usize) -> Result<Config> {
    let theta = keys.decimal("llama.rope.freq_base")?.unwrap_or(10_000.0);
    let scaling = match llama3(gguf, theta, head_dim)? {
        Some(llama3) => Some(llama3),
        None => scaling(keys)?,
    };
    let mut parameters = scaling.clone().unwrap_or_default();
    parameters.entry("rope_type").or_insert("default".into());
    parameters.insert("rope_theta".into(), theta.into());
    Ok(Config::from_iter([
        ("rope_theta".into(), theta.into()),
        (
            "rope_scaling".into(),
            scaling.map_or(Value::Null, Value::Object),
        ),
        ("rope_parameters".into(), parameters.into()),
    ]))
}

fn scaling(keys: &Keys<'_>) -> Result<Option<Config>> {
    let kind = "llama.rope.scaling.type";
    let linear = keys.decimal("llama.rope.scale_linear")?;
    let factor = || {
        let key = "llama.rope.scaling.factor";
        let factor = keys.decimal(key)?.or(linear);
        factor.ok_or_else(|| crate::Error::from(keys.invalid(key, "a positive number")))
    };
    let scaling = match keys.text(kind)? {
        None if linear.is_none_or(|factor| factor == 1.0) => return Ok(None),
        Some("none") => return Ok(None),
        None | Some("linear") => json!({"rope_type": "linear", "factor": factor()?}),
        Some("yarn") => {
            let original = keys.required("llama.rope.scaling.original_context_length")?;
            json!({
                "rope_type": "yarn",
                "factor": factor()?,
                "original_max_position_embeddings": original,
            })
        }
        Some(other) => {
            let what = format!("rope scaling {other:?} (none, linear, yarn are)");
            return Err(Error::unsupported(keys.path, Some(kind), what).into());
        }
    };
    Ok(scaling.as_object().cloned())
}

/// The `llama3` settings from which a file's own factors follow; `None` where it has no factors.
fn llama3(gguf: &Gguf, theta: f64, head_dim: usize) -> Result<Option<Config>> {
    let checkpoint = gguf.checkpoint();
    let Some(tensor) = checkpoint.tensor(FACTORS) else {
        return Ok(None);
    };
    let path = checkpoint.path(tensor);
    let pairs = head_dim / 2;
    if tensor.shape != [pairs] {
        let (expected, found) = (format!("shape [{pairs}]"), format!("{:?}", tensor.shape));
        return Err(Error::invalid(path, Some(FACTORS), expected, found).into());
    }
    let mut factors = vec![0.0f32; pairs];
    let read = dequantise(tensor.dtype, checkpoint.bytes(tensor), &mut factors);
    let factor = f64::from(factors.last().copied().unwrap_or(0.0));
    let follows = factors.iter().enumerate().all(|(pair, &found)| {
        let wavelength = TAU * theta.powf(2.0 * pair as f64 / head_dim as f64);
        let expected = stretch(wavelength, factor);
        (f64::from(found) - expected).abs() <= 1e-3 * expected
    });
    if !read || factor < 1.0 || !follows {
        let what = "a set of rope factors other than Llama 3's";
        return Err(Error::unsupported(path, Some(FACTORS), what).into());
    }
    let scaling = json!({
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": LOW,
        "high_freq_factor": HIGH,
        "original_max_position_embeddings": ORIGINAL as u64,
    });
    Ok(scaling.as_object().cloned())
}

/// How much a wavelength is stretched: not at all, fully, or on a ramp between.
fn stretch(wavelength: f64, factor: f64) -> f64 {
    let turns = ORIGINAL / wavelength;
    let ramp = ((turns - LOW) / (HIGH - LOW)).clamp(0.0, 1.0);
    1.0 / ((1.0 - ramp) / factor + ramp)
}
