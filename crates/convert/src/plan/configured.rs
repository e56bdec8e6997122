//! What the written configuration says.

use crate::Options;
use crate::config::Config;
use crate::options::{dtype_name, mode_name};
use crate::plan::{Action, Job, layer};
use crate::rules::{Origin, Rule, Target};
use kiln_plan::{DType, Format};
use serde_json::{Value, json};

/// Makes the configuration say what the output is, in the spellings that programs read. `dtype` is
/// that of weights which are not quantised, where it is one for all.
pub(super) fn complete(
    config: &mut Config,
    jobs: &[Job],
    rules: &[Rule],
    options: &Options,
    dtype: Option<DType>,
) {
    for key in ["_name_or_path", "vision_config"] {
        config.remove(key);
    }
    if let Some(dtype) = dtype {
        config.insert("torch_dtype".into(), dtype_name(dtype).into());
        if let Some(value) = config.get_mut("dtype") {
            *value = dtype_name(dtype).into();
        }
    }
    spell_rope(config);
    let kept = config.remove("quantization");
    config.remove("quantization_config");
    if let Some(quantization) = quantization(kept.as_ref(), jobs, rules, options) {
        config.insert("quantization".into(), quantization.clone());
        config.insert("quantization_config".into(), quantization);
    }
}

/// Programs that know only `rope_theta` and `rope_scaling` would miss `rope_parameters`.
fn spell_rope(config: &mut Config) {
    let Some(parameters) = config.get("rope_parameters").and_then(Value::as_object) else {
        return;
    };
    let mut scaling = parameters.clone();
    let theta = scaling.remove("rope_theta");
    if let Some(theta) = theta
        && config.get("rope_theta").is_none_or(Value::is_null)
    {
        config.insert("rope_theta".into(), theta);
    }
    let plain = scaling
        .get("rope_type")
        .is_none_or(|kind| kind == "default");
    if !plain && config.get("rope_scaling").is_none_or(Value::is_null) {
        config.insert("rope_scaling".into(), scaling.into());
    }
}

/// The `quantization` entry, as mlx_lm writes it: what most layers or `-q` have, then the layers
/// that have something else. A recipe lists every layer, with a null group where none was asked
/// for. What is only kept is said as it was.
fn quantization(
    kept: Option<&Value>,
    jobs: &[Job],
    rules: &[Rule],
    options: &Options,
) -> Option<Value> {
    let formats: Vec<Format> = jobs.iter().filter_map(|job| job.action.format()).collect();
    let unchanged = |job: &Job| match (&job.packed, job.action) {
        (Some(packed), Action::Keep(format)) => alike(packed.format, format),
        (packed, action) => packed.is_none() && action.format().is_none(),
    };
    if let Some(kept) = kept.filter(|_| jobs.iter().all(unchanged)) {
        return Some(kept.clone());
    }
    let asked = options
        .quantise
        .and_then(|quantise| quantise.format(DType::F32).ok());
    let recipe = options
        .recipe
        .and_then(|_| Format::affine(4, 64, DType::F32).ok());
    let default = match asked.or(recipe) {
        Some(format) if !formats.is_empty() => format,
        _ => most_common(&formats)?,
    };
    let mut quantization = entry(default);
    for job in jobs {
        let Some(format) = job.action.format() else {
            continue;
        };
        if options.recipe.is_none() && alike(format, default) {
            continue;
        }
        let mut entry = entry(format);
        if job.rule.is_some_and(|rule| leaves_group_open(&rules[rule])) {
            entry["group_size"] = Value::Null;
        }
        quantization[layer(&job.name)] = entry;
    }
    Some(quantization)
}

fn entry(format: Format) -> Value {
    let mode = mode_name(format.mode());
    json!({"group_size": format.group(), "bits": format.bits(), "mode": mode})
}

/// Whether an entry says the same of both: it does not name the scales' dtype.
pub(super) fn alike(a: Format, b: Format) -> bool {
    (a.mode(), a.bits(), a.group()) == (b.mode(), b.bits(), b.group())
}

fn leaves_group_open(rule: &Rule) -> bool {
    let open = matches!(rule.target, Target::Quantised(quantise) if quantise.group.is_none());
    open && matches!(rule.origin, Origin::Recipe(_))
}

/// The first of those that come most often.
fn most_common(formats: &[Format]) -> Option<Format> {
    let mut counts: Vec<(Format, usize)> = Vec::new();
    for &format in formats {
        match counts.iter_mut().find(|(known, _)| alike(*known, format)) {
            Some((_, count)) => *count += 1,
            None => counts.push((format, 1)),
        }
    }
    let most = counts.iter().map(|(_, count)| *count).max()?;
    let found = counts.iter().find(|(_, count)| *count == most);
    found.map(|(format, _)| *format)
}
