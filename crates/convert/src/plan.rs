//! What happens to every tensor, and everything that can be refused beforehand.

mod configured;
mod names;
mod table;

pub use table::Planned;

use crate::budget::{self, Measured};
use crate::config::{Config, Expected, Llama};
use crate::options::dtype_name;
use crate::rules::{Origin, Rule, Target, wrong};
use crate::source::{Extra, Model};
use crate::write::Progress;
use crate::{Error, Open, Options, Result};
use kiln_array::{DType, Format, Scales};
use kiln_formats::safetensors::Declared;
use kiln_formats::{BlockType, Checkpoint, Tensor, Type};
use names::tensors;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// A conversion that only needs to be carried out: what becomes of every tensor, and why.
#[derive(Debug)]
pub struct Plan {
    /// What messages call the source.
    pub(crate) path: PathBuf,
    pub(crate) checkpoint: Checkpoint,
    /// In the order in which they are written.
    pub(crate) jobs: Vec<Job>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) config: Config,
    pub(crate) files: Vec<Extra>,
    pub(crate) notes: Vec<String>,
}

/// What happens to one tensor of the source.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) source: Tensor,
    /// What else belongs to a quantised source, whose codes are `source`.
    pub(crate) packed: Option<Packed>,
    /// The name it is written under, quantised or not.
    pub(crate) name: String,
    /// What the weights are, however they are stored.
    pub(crate) shape: Vec<usize>,
    /// Rows are what is processed one by one; for a vector whose elements move, its elements.
    pub(crate) rows: usize,
    /// Elements of a row.
    pub(crate) k: usize,
    /// The heads within which rows are interleaved and are put in half-split order.
    pub(crate) heads: Option<usize>,
    pub(crate) action: Action,
    /// Which of the plan's rules decided; `None` where none is about it.
    pub(crate) rule: Option<usize>,
    /// What was measured to choose its bits.
    pub(crate) measured: Option<Measured>,
}

/// MLX's planes beside the codes.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    pub(crate) format: Format,
    pub(crate) scales: Tensor,
    pub(crate) biases: Option<Tensor>,
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
    /// Codes stay; scales and biases are those of this format, rounded once where it has others.
    Keep(Format),
    /// Elements are rounded to the dtype, and quantised from that.
    Quantise(Format, DType),
}

impl Action {
    pub(crate) fn format(self) -> Option<Format> {
        match self {
            Action::Repack(format) | Action::Keep(format) | Action::Quantise(format, _) => {
                Some(format)
            }
            Action::Copy | Action::Cast(_) => None,
        }
    }
}

impl Job {
    /// Weights, those of packed codes counted one by one.
    pub(crate) fn elements(&self) -> u64 {
        self.rows as u64 * self.k as u64
    }

    /// How the source stores it, in a word.
    pub(crate) fn stored_as(&self) -> String {
        match &self.packed {
            Some(packed) => packed.format.to_string(),
            None => self.source.dtype.to_string(),
        }
    }

    /// The tensors that are written: one, or codes, scales and biases.
    pub(crate) fn outputs(&self) -> Vec<Declared> {
        let declared = |name: String, dtype, shape| Declared { name, dtype, shape };
        let Some(format) = self.action.format() else {
            let dtype = match self.action {
                Action::Cast(dtype) => stored(dtype),
                _ => self.source.dtype,
            };
            return vec![declared(self.name.clone(), dtype, self.shape.clone())];
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

    /// The bytes of all of these.
    pub(crate) fn bytes(&self) -> u64 {
        let outputs = self.outputs();
        let sizes = outputs
            .iter()
            .map(|output| output.bytes().unwrap_or(0) as u64);
        sizes.sum()
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

/// Decides on every tensor. Only `options.target` makes it read the weights; `progress` tells of
/// that.
pub(crate) fn plan(
    mut model: Model,
    options: &Options,
    open: &Open<'_>,
    progress: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
) -> Result<Plan> {
    options.check()?;
    let llama = Llama::read(&model.config_path, &model.config)?;
    names::check_layers(&model, &llama)?;
    let mut expected = llama.tensors();
    if let Some(head) = names::head(&mut model, &llama)? {
        expected.push(head);
    }
    names::check_names(&mut model, &expected)?;
    // What is written must run.
    let text = serde_json::Value::Object(model.config.clone()).to_string();
    let config = kiln_model::Config::parse(&model.config_path, &text).map_err(Box::new)?;
    let mut planner = Planner {
        model: &model,
        config,
        options,
        rules: options.rules(llama.layers)?,
        layers: llama.layers,
    };
    let mut jobs = planner.jobs(&expected)?;
    planner.check_rules(&jobs)?;
    let mut notes = Vec::new();
    if let Some(target) = options.target {
        let chosen = budget::choose(&planner, &jobs, target, open, progress)?;
        planner.rules.extend(chosen.rules);
        jobs = planner.jobs(&expected)?;
        for (job, measured) in jobs.iter_mut().zip(chosen.measured) {
            job.measured = measured;
        }
        notes.push(chosen.note);
    }
    note_casts(&jobs, options, &mut notes);
    let rules = planner.rules;
    model.notes.extend(notes);
    let dtype = options.dtype.or(model.dtype);
    configured::complete(&mut model.config, &jobs, &rules, options, dtype);
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
        rules,
        config,
        files,
        notes,
    })
}

/// What decisions are made from.
pub(crate) struct Planner<'a> {
    pub(crate) model: &'a Model,
    config: kiln_model::Config,
    pub(crate) options: &'a Options,
    rules: Vec<Rule>,
    layers: usize,
}

impl Planner<'_> {
    fn jobs(&self, expected: &[Expected]) -> Result<Vec<Job>> {
        expected.iter().map(|expected| self.job(expected)).collect()
    }

    /// Finds the tensor, checks it, and decides what happens to it.
    fn job(&self, expected: &Expected) -> Result<Job> {
        let model = self.model;
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
        let packed = self.packed(expected, source)?;
        if packed.is_none() && source.shape != expected.shape {
            let found = format!("{:?}", source.shape);
            return Err(invalid(format!("shape {:?}", expected.shape), found));
        }
        if packed.is_none() && !model.can_read(source.dtype) {
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
        let path = layer(&expected.name);
        let rule = expected.is_matrix().then(|| self.first(path)).flatten();
        let mut job = Job {
            source: source.clone(),
            packed,
            name: expected.name.clone(),
            shape: expected.shape.clone(),
            rows,
            k,
            heads,
            action: Action::Copy,
            rule,
            measured: None,
        };
        job.action = self.action(&job)?;
        Ok(job)
    }

    /// The planes of a layer that MLX has quantised, checked against the configuration.
    fn packed(&self, expected: &Expected, codes: &Tensor) -> Result<Option<Packed>> {
        let checkpoint = &self.model.checkpoint;
        let plane = |name: &str| checkpoint.tensor(&format!("{}.{name}", layer(&codes.name)));
        let (&[rows, k], Some(quantization), Some(scales)) = (
            &expected.shape[..],
            &self.config.quantization,
            plane("scales"),
        ) else {
            return Ok(None);
        };
        let stored_scales = element(scales.dtype);
        let format = quantization
            .format(
                &self.config,
                layer(&expected.name),
                stored_scales.unwrap_or(DType::BF16),
            )
            .map_err(Box::new)?;
        let check = |tensor: &Tensor, fits: bool, dtype: &str, columns: usize| {
            if fits && tensor.shape == [rows, columns] {
                return Ok(());
            }
            let expected = format!("{dtype} [{rows}, {columns}] for {format}");
            let found = format!("{} {:?}", tensor.dtype, tensor.shape);
            let path = checkpoint.path(tensor);
            Err(kiln_formats::Error::invalid(
                path,
                Some(&tensor.name),
                expected,
                found,
            ))
        };
        if !k.is_multiple_of(format.group()) {
            let expected = format!("rows of whole groups of {}", format.group());
            let found = format!("rows of {k}");
            let path = checkpoint.path(codes);
            let error = kiln_formats::Error::invalid(path, Some(&codes.name), expected, found);
            return Err(error.into());
        }
        let groups = k / format.group();
        check(
            codes,
            codes.dtype == Type::U32,
            "U32",
            k / 32 * format.bits(),
        )?;
        let biases = plane("biases");
        if format.has_biases() {
            check(scales, stored_scales.is_some(), "floats", groups)?;
            let Some(biases) = biases else {
                let name = format!("{}.biases", layer(&codes.name));
                let path = &self.model.path;
                let expected = "biases beside the scales";
                let error = kiln_formats::Error::invalid(path, Some(&name), expected, "none");
                return Err(error.into());
            };
            let dtype = scales.dtype.to_string();
            check(biases, biases.dtype == scales.dtype, &dtype, groups)?;
        } else {
            let bytes = matches!(scales.dtype, Type::U8 | Type::F8E8M0 | Type::F8E4M3);
            check(scales, bytes, "U8", groups)?;
            if let Some(biases) = biases {
                check(biases, false, "no biases: none", 0)?;
            }
        }
        Ok(Some(Packed {
            format,
            scales: scales.clone(),
            biases: biases.cloned(),
        }))
    }

    /// The first rule about the layer at `path`.
    fn first(&self, path: &str) -> Option<usize> {
        self.rules
            .iter()
            .position(|rule| rule.matches(path, self.layers))
    }

    /// Every rule of the user's must decide on something.
    fn check_rules(&self, jobs: &[Job]) -> Result<()> {
        for (number, rule) in self.rules.iter().enumerate() {
            let decides = jobs.iter().any(|job| job.rule == Some(number));
            if decides || rule.origin != Origin::User {
                continue;
            }
            let about =
                |job: &&Job| job.rule.is_some() && rule.matches(layer(&job.name), self.layers);
            let earlier = jobs.iter().find(about).and_then(|job| job.rule);
            let why = match earlier.and_then(|earlier| self.rules.get(earlier)) {
                Some(earlier) => format!(
                    "it decides nothing: the first rule that matches counts, and {earlier:?} comes \
                     before it for every layer",
                    earlier = earlier.to_string()
                ),
                None => format!(
                    "it matches no layer of this model; its layers are named as \
                     model.layers.0.self_attn.q_proj to {} and {}, and only those with a matrix \
                     have rules",
                    self.layers.saturating_sub(1),
                    jobs.iter()
                        .filter(|job| job.shape.len() == 2 && !job.name.contains(".layers."))
                        .map(|job| layer(&job.name))
                        .collect::<Vec<_>>()
                        .join(", "),
                ),
            };
            return Err(wrong(&rule.to_string(), why));
        }
        Ok(())
    }

    /// The dtype of weights that are not quantised, where no rule names one.
    pub(crate) fn dtype(&self, job: &Job) -> DType {
        let packed = job
            .packed
            .as_ref()
            .map(|packed| packed.format.dequantised());
        let named = self.options.dtype.or(self.model.dtype);
        named
            .or(packed)
            .or(element(job.source.dtype))
            .unwrap_or(DType::F16)
    }

    fn action(&self, job: &Job) -> Result<Action> {
        let own = self.dtype(job);
        let target = job
            .rule
            .and_then(|rule| self.rules.get(rule))
            .map(|rule| (rule, rule.target));
        match target {
            Some((rule, Target::Quantised(quantise))) => {
                let format = quantise.format(own)?;
                self.check_group(job, format, &rule.to_string())?;
                match &job.packed {
                    Some(packed) if packed.format == format => Ok(Action::Keep(format)),
                    _ => Ok(Action::Quantise(format, own)),
                }
            }
            Some((_, Target::Float(dtype))) => Ok(as_floats(job, dtype.unwrap_or(own))),
            None => self.kept(job, own),
        }
    }

    /// What happens where no rule says anything: nothing, if possible.
    fn kept(&self, job: &Job, dtype: DType) -> Result<Action> {
        let affine = |bits, group, dtype| {
            Format::affine(bits, group, dtype).map_err(|error| Error::Options(error.to_string()))
        };
        if let Some(Packed { format, .. }) = job.packed {
            return match (format.has_biases(), self.options.dtype) {
                (true, Some(dtype)) => {
                    Ok(Action::Keep(affine(format.bits(), format.group(), dtype)?))
                }
                _ => Ok(Action::Keep(format)),
            };
        }
        if let (None, [_, _], Some(bits)) = (
            self.options.dtype,
            &job.shape[..],
            exact_bits(job.source.dtype),
        ) {
            return Ok(Action::Repack(affine(bits, 32, DType::F16)?));
        }
        Ok(as_floats(job, dtype))
    }

    pub(crate) fn check_group(&self, job: &Job, format: Format, rule: &str) -> Result<()> {
        if job.k.is_multiple_of(format.group()) {
            return Ok(());
        }
        Err(Error::Group {
            path: self.model.path.clone(),
            tensor: job.name.clone(),
            group: format.group(),
            k: job.k,
            rule: rule.to_owned(),
        })
    }
}

fn as_floats(job: &Job, dtype: DType) -> Action {
    if job.packed.is_none() && element(job.source.dtype) == Some(dtype) {
        Action::Copy
    } else {
        Action::Cast(dtype)
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

/// Says what is not stored as it was, and how many tensors.
fn note_casts(jobs: &[Job], options: &Options, notes: &mut Vec<String>) {
    let mut changes = BTreeMap::new();
    for job in jobs {
        let from = job.stored_as();
        let change = match (job.action, &job.packed) {
            (Action::Cast(dtype), Some(_)) => {
                format!("of format {from} dequantised to {}", dtype_name(dtype))
            }
            (Action::Quantise(format, _), Some(_)) => {
                format!("of format {from} requantised to {format} from the numbers they stand for")
            }
            (Action::Keep(format), Some(packed)) if packed.format != format => {
                format!(
                    "of format {from}: scales rounded to {}",
                    dtype_name(format.dequantised())
                )
            }
            (Action::Cast(dtype) | Action::Quantise(_, dtype), None)
                if element(job.source.dtype) != Some(dtype) =>
            {
                format!("of type {from} rounded to {}", dtype_name(dtype))
            }
            _ => continue,
        };
        *changes.entry(change).or_insert(0) += 1;
    }
    let changed = changes
        .into_iter()
        .map(|(change, count)| format!("{} {change}", tensors(count)));
    notes.extend(changed);
    let quantised = |job: &Job| job.packed.is_some() || exact_bits(job.source.dtype).is_some();
    if options.dequantise && !jobs.iter().any(quantised) {
        notes.push("nothing to dequantise: the source holds no quantised layers".into());
    }
}
