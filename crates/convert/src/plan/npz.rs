//! The settings of MLX's example programs.

use crate::Result;
use crate::config::{Config, Llama};
use crate::options::mode_name;
use crate::plan::Job;
use kiln_formats::Error;
use kiln_plan::Mode;
use serde_json::{Value, json};
use std::path::Path;

/// `config.json` in the order in which the programs write it. `config` is in Hugging Face's terms.
///
/// # Errors
/// What the programs cannot express: other ropes, biases, layers of different formats.
pub(super) fn config(path: &Path, config: &Config, llama: &Llama, jobs: &[Job]) -> Result<Config> {
    let cannot = |what: &str| Error::unsupported(path, None, format!("{what} in the npz layout"));
    let scaling = config.get("rope_scaling").filter(|value| !value.is_null());
    if scaling.is_some() {
        return Err(cannot("rope_scaling").into());
    }
    if llama.attention_bias || llama.mlp_bias {
        return Err(cannot("a linear layer with a bias").into());
    }
    let window = config
        .get("sliding_window")
        .filter(|value| !value.is_null());
    let mut settings = json!({
        "dim": llama.hidden,
        "n_layers": llama.layers,
        "head_dim": llama.head_dim,
        "hidden_dim": llama.intermediate,
        "n_heads": llama.heads,
        "n_kv_heads": llama.kv_heads,
        "norm_eps": config.get("rms_norm_eps").cloned().unwrap_or(json!(1e-6)),
    });
    if let Some(window) = window {
        settings["sliding_window"] = window.clone();
    }
    settings["vocab_size"] = llama.vocab.into();
    settings["rope_theta"] = config.get("rope_theta").cloned().unwrap_or(json!(10_000.0));
    // The one program writes the kind of model first, the other the quantisation.
    let kind = if window.is_some() { "mistral" } else { "llama" };
    let kind = ("model_type", Some(json!(kind)));
    let quantization = ("quantization", quantization(jobs).map_err(cannot)?);
    let last = match window {
        Some(_) => [quantization, kind],
        None => [kind, quantization],
    };
    for (key, value) in last {
        if let Some(value) = value {
            settings[key] = value;
        }
    }
    match settings {
        Value::Object(settings) => Ok(settings),
        _ => Ok(Config::new()),
    }
}

/// One affine format for all matrices, or none.
fn quantization(jobs: &[Job]) -> std::result::Result<Option<Value>, &'static str> {
    let matrices = jobs.iter().filter(|job| job.shape.len() == 2);
    let mut formats = matrices.map(|job| {
        let format = job.action.format();
        format.map(|format| (format.mode(), format.bits(), format.group()))
    });
    let first = formats.next().flatten();
    if formats.any(|format| format != first) {
        return Err("layers of different formats");
    }
    match first {
        None => Ok(None),
        Some((Mode::Affine, bits, group)) => Ok(Some(json!({"group_size": group, "bits": bits}))),
        Some((mode, ..)) => Err(match mode_name(mode) {
            "mxfp4" => "mxfp4",
            "mxfp8" => "mxfp8",
            _ => "nvfp4",
        }),
    }
}
