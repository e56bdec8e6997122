//! What happens to every tensor, and everything that can be refused beforehand.

use crate::config::{Config, EMBEDDING, Expected, HEAD, Llama};
use crate::options::{dtype_name, mode_name};
use crate::source::{Extra, Model, Naming};
use crate::{Error, Options, Result, gguf};
use kiln_array::{DType, Format, Scales};
use kiln_formats::safetensors::Declared;
use kiln_formats::{BlockType, Checkpoint, Tensor, Type};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A conversion that only needs to be carried out.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What messages call the source.
    pub(crate) path: PathBuf,
    pub(crate) checkpoint: Checkpoint,
    /// In the order in which they are written.
    pub(crate) jobs: Vec<Job>,
    pub(crate) config: Config,
    pub(crate) files: Vec<Extra>,
    pub(crate) notes: Vec<String>,
}

/// What happens to one tensor of the source.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) source: Tensor,
    /// The name it is written under, quantised or not.
    pub(crate) name: String,
    /// Rows are what is processed one by one; for a vector whose elements move, its elements.
    pub(crate) rows: usize,
    /// Elements of a row.
    pub(crate) k: usize,
    /// The heads within which rows are interleaved and are put in half-split order.
    pub(crate) heads: Option<usize>,
    pub(crate) action: Action,
}

/// What happens to a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Its bytes stay.
    Copy,
    /// Each element is rounded once.
    Cast(DType),
    /// GGUF blocks become the same numbers in an affine format.
    Repack(Format),
    /// Elements are rounded to the dtype, and quantised from that.
    Quantise(Format, DType),
}

impl Action {
    pub(crate) fn format(self) -> Option<Format> {
        match self {
            Action::Repack(format) | Action::Quantise(format, _) => Some(format),
            Action::Copy | Action::Cast(_) => None,
        }
    }
}

impl Job {
    /// The tensors that are written: one, or codes, scales and biases.
    pub(crate) fn outputs(&self) -> Vec<Declared> {
        let declared = |name: String, dtype, shape| Declared { name, dtype, shape };
        let Some(format) = self.action.format() else {
            let dtype = match self.action {
                Action::Cast(dtype) => stored(dtype),
                _ => self.source.dtype,
            };
            return vec![declared(
                self.name.clone(),
                dtype,
                self.source.shape.clone(),
            )];
        };
        let path = layer(&self.name);
        let words = self.k / 32 * format.bits();
        let groups = vec![self.rows, self.k / format.group()];
        let scales = match format.scales() {
            Scales::F16 => Type::F16,
            Scales::BF16 => Type::BF16,
            Scales::F32 => Type::F32,
            Scales::U8 => Type::U8,
        };
        let mut all = vec![
            declared(self.name.clone(), Type::U32, vec![self.rows, words]),
            declared(format!("{path}.scales"), scales, groups.clone()),
        ];
        if format.has_biases() {
            all.push(declared(format!("{path}.biases"), scales, groups));
        }
        all
    }
}

/// The path of the layer that a weight belongs to.
pub(crate) fn layer(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}

pub(crate) fn stored(dtype: DType) -> Type {
    match dtype {
        DType::F16 => Type::F16,
        DType::BF16 => Type::BF16,
        _ => Type::F32,
    }
}

/// The dtype of elements of a stored type, where it is one of those that weights have.
pub(crate) fn element(dtype: Type) -> Option<DType> {
    match dtype {
        Type::F16 => Some(DType::F16),
        Type::BF16 => Some(DType::BF16),
        Type::F32 => Some(DType::F32),
        _ => None,
    }
}

/// Decides on every tensor.
pub(crate) fn plan(mut model: Model, options: &Options) -> Result<Plan> {
    if let Some(quantise) = options.quantise {
        quantise.format(DType::F32)?;
    }
    if let Some(dtype) = options.dtype.filter(|dtype| !dtype.is_float()) {
        return Err(Error::Options(format!(
            "dtype must be f16, bf16 or f32, given {dtype}"
        )));
    }
    let llama = Llama::read(&model.config_path, &model.config)?;
    check_layers(&model, &llama)?;
    let mut expected = llama.tensors();
    if let Some(head) = head(&mut model, &llama)? {
        expected.push(head);
    }
    check_names(&mut model, &expected)?;
    let dtype = options.dtype.or(model.dtype);
    let jobs = expected
        .iter()
        .map(|expected| job(&model, expected, options, dtype))
        .collect::<Result<Vec<_>>>()?;
    // What is written must run.
    let text = Value::Object(model.config.clone()).to_string();
    kiln_model::Config::parse(&model.config_path, &text).map_err(Box::new)?;
    note_casts(&jobs, &mut model.notes);
    complete_config(&mut model.config, &jobs, dtype);
    let Model {
        path,
        checkpoint,
        config,
        files,
        notes,
        ..
    } = model;
    Ok(Plan {
        path,
        checkpoint,
        jobs,
        config,
        files,
        notes,
    })
}

/// Keeps the list of expected tensors in proportion to the file.
fn check_layers(model: &Model, llama: &Llama) -> Result<()> {
    let most = model.checkpoint.len();
    if llama.layers <= most {
        return Ok(());
    }
    let found = format!("{most} tensors in all");
    let expected = format!("the tensors of {} layers", llama.layers);
    Err(kiln_formats::Error::invalid(&model.path, None, expected, found).into())
}

/// Decides by bytes whether the head is the embedding; the result is what the configuration then
/// says. Gives the head that is to be converted, if there is one.
fn head(model: &mut Model, llama: &Llama) -> Result<Option<Expected>> {
    let checkpoint = &model.checkpoint;
    let find = |name| checkpoint.tensor(&model.stored_name(name));
    let (head, embedding) = (find(HEAD), find(EMBEDDING));
    let same = match (head, embedding) {
        (Some(head), Some(embedding)) => {
            head.dtype == embedding.dtype
                && head.shape == embedding.shape
                && checkpoint.bytes(head) == checkpoint.bytes(embedding)
        }
        _ => false,
    };
    let (tied, note) = match (head.is_some(), llama.tied) {
        (true, _) if same => (
            true,
            Some("the head equals the embedding: stored once, tied"),
        ),
        (true, Some(true)) => (
            false,
            Some("the head differs from the embedding though config.json says tied: untied"),
        ),
        (true, _) => (false, None),
        (false, Some(false)) => (false, None),
        (false, _) => (true, None),
    };
    model.notes.extend(note.map(str::to_owned));
    model
        .config
        .insert("tie_word_embeddings".into(), tied.into());
    Ok((!tied).then(|| llama.head()))
}

/// Every tensor of the checkpoint has a place in the model, or is known to be of no use.
fn check_names(model: &mut Model, expected: &[Expected]) -> Result<()> {
    let known: BTreeSet<String> = expected
        .iter()
        .map(|expected| model.stored_name(&expected.name))
        .collect();
    let head = model.stored_name(HEAD);
    let mut unmapped = Vec::new();
    let mut dropped = 0;
    for tensor in &model.checkpoint {
        let name = &tensor.name;
        if known.contains(name) || *name == head {
            continue;
        }
        let computed = match model.naming {
            Naming::HuggingFace => name.ends_with(".rotary_emb.inv_freq"),
            Naming::Gguf => name == gguf::FACTORS,
        };
        if computed {
            dropped += 1
        } else {
            unmapped.push(name.as_str())
        }
    }
    if dropped > 0 {
        model.notes.push(format!(
            "{} with rope frequencies left out",
            tensors(dropped)
        ));
    }
    if unmapped.is_empty() {
        return Ok(());
    }
    let first = unmapped[..unmapped.len().min(5)].join(", ");
    let found = match kind(&unmapped) {
        Some(kind) => format!(
            "{} besides, as {kind} has: {first}",
            tensors(unmapped.len())
        ),
        None => format!("{} besides: {first}", tensors(unmapped.len())),
    };
    let expected = "only the tensors of a Llama model";
    Err(kiln_formats::Error::invalid(&model.path, None, expected, found).into())
}

fn tensors(count: usize) -> String {
    if count == 1 {
        "1 tensor".into()
    } else {
        format!("{count} tensors")
    }
}

/// What kind of checkpoint has tensors of such names.
fn kind(names: &[&str]) -> Option<&'static str> {
    let kinds = [
        (".qweight", "a GPTQ or AWQ checkpoint"),
        (".qzeros", "a GPTQ or AWQ checkpoint"),
        (".scales", "a quantised checkpoint"),
        (".weight_scale", "an FP8 or compressed checkpoint"),
        (".weight_packed", "a compressed checkpoint"),
        ("lora_", "a LoRA adapter"),
        ("vision", "a model with a vision tower"),
        ("experts.", "a mixture of experts"),
        ("_exps.", "a mixture of experts"),
    ];
    kinds
        .into_iter()
        .find(|(part, _)| names.iter().any(|name| name.contains(part)))
        .map(|(_, kind)| kind)
}

/// Finds the tensor, checks it, and decides what happens to it.
fn job(model: &Model, expected: &Expected, options: &Options, dtype: Option<DType>) -> Result<Job> {
    let name = model.stored_name(&expected.name);
    let invalid = |expected: String, found: String| {
        Error::File(kiln_formats::Error::invalid(
            &model.path,
            Some(&name),
            expected,
            found,
        ))
    };
    let Some(source) = model.checkpoint.tensor(&name) else {
        return Err(invalid(
            format!("this tensor, shape {:?}", expected.shape),
            "none".into(),
        ));
    };
    if source.shape != expected.shape {
        let found = format!("{:?}", source.shape);
        return Err(invalid(format!("shape {:?}", expected.shape), found));
    }
    if !model.can_read(source.dtype) {
        let path = model.checkpoint.path(source);
        let what = format!("type {}", source.dtype);
        return Err(kiln_formats::Error::unsupported(path, Some(&name), what).into());
    }
    let heads = model.interleaved_heads(expected);
    let (rows, k) = match expected.shape[..] {
        [rows, k] => (rows, k),
        [rows] if heads.is_some() => (rows, 1),
        _ => (1, expected.shape.iter().product()),
    };
    let action = action(model, expected, source, options, dtype)?;
    Ok(Job {
        source: source.clone(),
        name: expected.name.clone(),
        rows,
        k,
        heads,
        action,
    })
}

fn action(
    model: &Model,
    expected: &Expected,
    source: &Tensor,
    options: &Options,
    dtype: Option<DType>,
) -> Result<Action> {
    let dtype = dtype.or(element(source.dtype)).unwrap_or(DType::F16);
    if let (Some(quantise), true) = (options.quantise, expected.is_matrix()) {
        let format = quantise.format(dtype)?;
        let (group, k) = (format.group(), expected.shape[1]);
        if k % group != 0 {
            let (path, tensor) = (model.path.clone(), expected.name.clone());
            return Err(Error::Group {
                path,
                tensor,
                group,
                k,
            });
        }
        return Ok(Action::Quantise(format, dtype));
    }
    let keeps = options.quantise.is_none() && options.dtype.is_none() && expected.is_matrix();
    if let (true, Some(bits)) = (keeps, exact_bits(source.dtype)) {
        let format = Format::affine(bits, 32, DType::F16)
            .map_err(|error| Error::Options(error.to_string()))?;
        return Ok(Action::Repack(format));
    }
    if element(source.dtype) == Some(dtype) {
        Ok(Action::Copy)
    } else {
        Ok(Action::Cast(dtype))
    }
}

/// The bits of the affine format that holds a block type exactly.
fn exact_bits(dtype: Type) -> Option<usize> {
    match dtype {
        Type::Gguf(BlockType::Q4_0 | BlockType::Q4_1) => Some(4),
        Type::Gguf(BlockType::Q8_0) => Some(8),
        _ => None,
    }
}

/// Says which types are rounded to which, and how many tensors.
fn note_casts(jobs: &[Job], notes: &mut Vec<String>) {
    let mut casts = BTreeMap::new();
    for job in jobs {
        if let Action::Cast(dtype) | Action::Quantise(_, dtype) = job.action
            && element(job.source.dtype) != Some(dtype)
        {
            *casts
                .entry((job.source.dtype.to_string(), dtype_name(dtype)))
                .or_insert(0) += 1;
        }
    }
    for ((from, to), count) in casts {
        notes.push(format!("{} of type {from} rounded to {to}", tensors(count)));
    }
}

/// Makes the configuration say what the output is, in the spellings that programs read.
fn complete_config(config: &mut Config, jobs: &[Job], dtype: Option<DType>) {
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
    if let Some(quantization) = quantization(jobs) {
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

/// The `quantization` entry: the most common format, then the layers that have another.
fn quantization(jobs: &[Job]) -> Option<Value> {
    let entry = |format: Format| {
        let mode = mode_name(format.mode());
        json!({"group_size": format.group(), "bits": format.bits(), "mode": mode})
    };
    let mut counts: Vec<(Format, usize)> = Vec::new();
    for format in jobs.iter().filter_map(|job| job.action.format()) {
        match counts.iter_mut().find(|(known, _)| *known == format) {
            Some((_, count)) => *count += 1,
            None => counts.push((format, 1)),
        }
    }
    let (common, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    let mut quantization = entry(common);
    for job in jobs {
        if let Some(format) = job.action.format().filter(|&format| format != common) {
            quantization[layer(&job.name)] = entry(format);
        }
    }
    Some(quantization)
}
