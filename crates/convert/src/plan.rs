//! What happens to every tensor, and everything that can be refused beforehand.

mod configured;
mod decide;
mod names;
mod npz;
mod packed;
mod table;

pub(crate) use decide::Planner;
pub use table::Planned;

use crate::blocks::Lanes;
use crate::budget::{self, Measured};
use crate::config::{Config, Llama};
use crate::foreign::Scheme;
use crate::layout::Layout;
use crate::options::dtype_name;
use crate::rules::Rule;
use crate::source::{Extra, Model};
use crate::stored::Stored;
use crate::write::Progress;
use crate::{Options, Result, metadata, receipt};
use decide::exact;
use kiln_formats::safetensors::Declared;
use kiln_formats::{BlockType, Sums, Type};
use kiln_plan::{DType, Format, Scales};
use names::tensors;
use packed::Packed;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// A conversion that only needs to be carried out: what becomes of every tensor, and why.
#[derive(Debug)]
pub struct Plan {
    /// What messages call the source.
    pub(crate) path: PathBuf,
    /// In the order in which they are written.
    pub(crate) jobs: Vec<Job>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) config: Config,
    pub(crate) files: Vec<Extra>,
    pub(crate) notes: Vec<String>,
    /// The files that were read to make the plan, or will be copied, and the checksums that they
    /// have of what they store; no directory.
    pub(crate) sources: BTreeMap<PathBuf, Sums>,
    pub(crate) lanes: Lanes,
    pub(crate) layout: Layout,
}

/// What happens to one tensor of the source.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// For a quantised source its codes.
    pub(crate) source: Stored,
    /// What else belongs to a quantised source.
    pub(crate) packed: Option<Packed>,
    /// The name it is written under, quantised or not.
    pub(crate) name: String,
    /// What the weights are, however they are stored.
    pub(crate) shape: Vec<usize>,
    /// Rows are what is processed one by one; for a vector whose elements move, its elements.
    pub(crate) rows: usize,
    /// Elements of a row.
    pub(crate) k: usize,
    /// How the rows of q and k are put in another order.
    pub(crate) turn: Option<Turn>,
    pub(crate) action: Action,
    /// Which of the plan's rules decided; `None` where none is about it.
    pub(crate) rule: Option<usize>,
    /// What was measured to choose its bits.
    pub(crate) measured: Option<Measured>,
}

/// Another order of the rows of each head: those of a pair are neighbours in Meta's files, and half a
/// head apart in Hugging Face's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// From neighbours to halves, of so many heads.
    ToHalves(usize),
    /// The way back.
    ToPairs(usize),
}

impl Turn {
    /// Which of a source's `rows` rows is row `row` of the output.
    pub(crate) fn place(self, rows: usize, row: usize) -> usize {
        let (Turn::ToHalves(heads) | Turn::ToPairs(heads)) = self;
        let half = rows / heads.max(1) / 2;
        let (head, within) = (row / (2 * half), row % (2 * half));
        let place = match self {
            Turn::ToHalves(_) => 2 * (within % half) + within / half,
            Turn::ToPairs(_) => within % 2 * half + within / 2,
        };
        head * 2 * half + place
    }
}

/// What happens to a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Its bytes stay.
    Copy,
    /// Each element is rounded once.
    Cast(DType),
    /// GGUF blocks become the same numbers in this format.
    Repack(Format),
    /// Codes stay; scales and biases are those of this format, rounded once where it has others.
    Keep(Format),
    /// Elements become blocks of a GGUF file.
    Block(BlockType),
    /// Elements are rounded to the dtype, and quantised from that.
    Quantise(Format, DType),
}

impl Action {
    pub(crate) fn format(self) -> Option<Format> {
        match self {
            Action::Repack(format) | Action::Keep(format) | Action::Quantise(format, _) => {
                Some(format)
            }
            Action::Copy | Action::Cast(_) | Action::Block(_) => None,
        }
    }
}

impl Job {
    /// Weights, those of packed codes counted one by one.
    pub(crate) fn elements(&self) -> u64 {
        self.rows as u64 * self.k as u64
    }

    /// What is stored of it: one tensor, or codes, scales and biases.
    pub(crate) fn planes(&self) -> impl Iterator<Item = &Stored> {
        let packed = self.packed.iter();
        let others = packed.flat_map(|packed| [Some(&packed.scales), packed.biases.as_ref()]);
        [&self.source].into_iter().chain(others.flatten())
    }

    /// Bytes that are read of it.
    pub(crate) fn stored_bytes(&self) -> u64 {
        let sizes = self.planes().map(|plane| plane.dtype.bytes(&plane.shape));
        sizes.map(|size| size.unwrap_or(0) as u64).sum()
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
                Action::Block(block) => Type::Gguf(block),
                _ => self.source.dtype,
            };
            return vec![declared(self.name.clone(), dtype, self.shape.clone())];
        };
        let path = layer(&self.name);
        let words = self.k * format.bits() / 32;
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
    opened: BTreeMap<PathBuf, Sums>,
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
    let layout = options.layout;
    let mut jobs = layout.complete(planner.jobs(&expected)?);
    planner.check_rules(&jobs)?;
    let mut lanes = Lanes::within(&jobs, options.max_memory)?;
    let mut notes = Vec::new();
    if let Some(target) = options.target {
        let chosen = budget::choose(&planner, &jobs, target, lanes, progress)?;
        planner.rules.extend(chosen.rules);
        jobs = layout.complete(planner.jobs(&expected)?);
        for (job, measured) in jobs.iter_mut().zip(chosen.measured) {
            job.measured = measured;
        }
        notes.push(chosen.note);
        lanes = Lanes::within(&jobs, options.max_memory)?;
    }
    let exact = model.scheme.as_ref().and_then(Scheme::scales);
    note_changes(&jobs, options, exact, &mut notes);
    let rules = planner.rules;
    model.notes.extend(notes);
    let dtype = options.dtype.or(model.dtype);
    configured::complete(&mut model.config, &jobs, &rules, options, dtype);
    match layout {
        Layout::Mlx => {}
        Layout::Npz => {
            model.config = npz::config(&model.config_path, &model.config, &llama, &jobs)?;
        }
        Layout::Gguf => metadata::check(&model.config_path, &model.config)?,
    }
    let Model {
        path,
        config,
        files,
        notes,
        ..
    } = model;
    let sources = receipt::sources(opened, &files);
    Ok(Plan {
        path,
        jobs,
        rules,
        config,
        files,
        notes,
        sources,
        lanes,
        layout,
    })
}

/// Says what is not stored as it was, and how many tensors. Scales that were made here are `exact`
/// in this dtype.
fn note_changes(
    jobs: &[Job],
    options: &Options,
    exact_scales: Option<DType>,
    notes: &mut Vec<String>,
) {
    let mut changes = BTreeMap::new();
    for job in jobs {
        let quantised = job.packed.is_some() || matches!(job.source.dtype, Type::Gguf(_));
        let kept = job.packed.as_ref().map(|packed| packed.format);
        let change = match job.action {
            Action::Cast(dtype) if quantised => format!("dequantised to {}", dtype_name(dtype)),
            Action::Quantise(format, _) if quantised => {
                format!("requantised to {format}, from the numbers they stand for")
            }
            Action::Cast(dtype) | Action::Quantise(_, dtype)
                if element(job.source.dtype) != Some(dtype) =>
            {
                format!("rounded to {}", dtype_name(dtype))
            }
            Action::Block(block) if quantised => {
                format!(
                    "requantised to {}, from the numbers they stand for",
                    Type::Gguf(block)
                )
            }
            Action::Keep(format) if exact_scales == Some(format.dequantised()) => continue,
            Action::Keep(format) if kept != Some(format) => {
                format!(
                    "with scales rounded to {}",
                    dtype_name(format.dequantised())
                )
            }
            _ => continue,
        };
        let change = format!("of type {} {change}", job.stored_as());
        *changes.entry(change).or_insert(0) += 1;
    }
    let changed = changes
        .into_iter()
        .map(|(change, count)| format!("{} {change}", tensors(count)));
    notes.extend(changed);
    let quantised = |job: &Job| job.packed.is_some() || exact(job.source.dtype).is_some();
    if options.dequantise && !jobs.iter().any(quantised) {
        notes.push("nothing to dequantise: the source holds no quantised layers".into());
    }
}
