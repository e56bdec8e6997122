//! Which rule decides on a tensor, and what happens to it then.

use crate::config::Expected;
use crate::foreign::Scheme;
use crate::layout::Layout;
use crate::plan::configured::alike;
use crate::plan::packed::{self, Packed};
use crate::plan::{Action, Job, element, layer};
use crate::rules::{Origin, Rule, Target, wrong};
use crate::source::Model;
use crate::{Error, Options, Result};
use kiln_formats::{BlockType, Type};
use kiln_plan::{DType, Format};

/// What decisions are made from.
pub(crate) struct Planner<'a> {
    pub(crate) model: &'a Model,
    pub(super) config: kiln_model::Config,
    pub(crate) options: &'a Options,
    pub(super) rules: Vec<Rule>,
    pub(crate) layers: usize,
}

impl Planner<'_> {
    pub(super) fn jobs(&self, expected: &[Expected]) -> Result<Vec<Job>> {
        expected.iter().map(|expected| self.job(expected)).collect()
    }

    /// Finds the tensor, checks it, and decides what happens to it.
    fn job(&self, expected: &Expected) -> Result<Job> {
        let model = self.model;
        let name = model.names.of(&expected.name);
        let invalid = |expected: String, found: String| {
            Error::File(kiln_formats::Error::invalid(
                &model.path,
                Some(&name),
                expected,
                found,
            ))
        };
        let Some(source) = model.find(&expected.name)? else {
            return Err(invalid(
                format!("this tensor, shape {:?}", expected.shape),
                "none".into(),
            ));
        };
        let packed = packed::find(model, &self.config, expected, &source)?;
        if packed.is_none() && source.shape != expected.shape {
            let found = format!("{:?}", source.shape);
            return Err(invalid(format!("shape {:?}", expected.shape), found));
        }
        if packed.is_none() && !kiln_formats::gguf::is_readable(source.dtype) {
            let what = format!("type {}", source.dtype);
            return Err(kiln_formats::Error::unsupported(source.path(), Some(&name), what).into());
        }
        let turn = model.turn(expected, self.options.layout.has_pairs());
        let (rows, k, source) = match expected.shape[..] {
            [rows, k] => (rows, k, source),
            [rows] if turn.is_some() => (rows, 1, source.upright()),
            _ => (1, expected.shape.iter().product(), source),
        };
        let path = layer(&expected.name);
        let rule = expected.is_matrix().then(|| self.first(path)).flatten();
        let mut job = Job {
            source,
            packed,
            name: expected.name.clone(),
            shape: expected.shape.clone(),
            rows,
            k,
            turn,
            action: Action::Copy,
            rule,
            measured: None,
        };
        job.action = self.action(&job)?;
        Ok(job)
    }

    /// The first rule about the layer at `path`.
    fn first(&self, path: &str) -> Option<usize> {
        self.rules
            .iter()
            .position(|rule| rule.matches(path, self.layers))
    }

    /// Every rule of the user's must decide on something.
    pub(super) fn check_rules(&self, jobs: &[Job]) -> Result<()> {
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

    /// What happens in a GGUF file. Its programs expect vectors in f32.
    fn block_action(&self, job: &Job, own: DType) -> Result<Action> {
        if job.shape.len() != 2 {
            return Ok(as_floats(job, DType::F32));
        }
        let rule = job.rule.and_then(|rule| self.rules.get(rule));
        let wanted = match rule.map(|rule| (rule, rule.target)) {
            Some((rule, Target::Quantised(_))) => {
                let why = "a GGUF file has no such layers; give --gguf-type, or a float type";
                return Err(wrong(&rule.to_string(), why));
            }
            Some((_, Target::Float(dtype))) => {
                return Ok(as_floats(job, dtype.unwrap_or(own)));
            }
            None => self.options.blocks,
        };
        let exact = exact(job.source.dtype).is_some() && job.packed.is_none();
        match wanted {
            Some(block) if job.packed.is_none() && job.source.dtype == Type::Gguf(block) => {
                Ok(Action::Copy)
            }
            Some(_) if !job.k.is_multiple_of(32) => Err(Error::Group {
                path: self.model.path.clone(),
                tensor: job.name.clone(),
                group: 32,
                k: job.k,
                rule: "--gguf-type".into(),
            }),
            Some(block) => Ok(Action::Block(block)),
            None if exact && self.options.dtype.is_none() => Ok(Action::Copy),
            None => Ok(as_floats(job, own)),
        }
    }

    fn action(&self, job: &Job) -> Result<Action> {
        let own = self.dtype(job);
        if self.options.layout == Layout::Gguf {
            return self.block_action(job, own);
        }
        let target = job
            .rule
            .and_then(|rule| self.rules.get(rule))
            .map(|rule| (rule, rule.target));
        match target {
            Some((rule, Target::Quantised(quantise))) => {
                let format = quantise.format(own)?;
                self.check_group(job, format, &rule.to_string())?;
                match &job.packed {
                    Some(packed) if alike(packed.format, format) => Ok(Action::Keep(format)),
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
            let made = self.model.scheme.as_ref().and_then(Scheme::scales);
            return match (format.has_biases(), self.options.dtype.or(made)) {
                (true, Some(dtype)) => {
                    Ok(Action::Keep(affine(format.bits(), format.group(), dtype)?))
                }
                _ => Ok(Action::Keep(format)),
            };
        }
        let exact = exact(job.source.dtype).filter(|_| job.shape.len() == 2);
        if let (None, Some(exact)) = (self.options.dtype, exact) {
            return Ok(Action::Repack(match exact {
                Exact::Affine(bits) => affine(bits, 32, DType::F16)?,
                Exact::Mxfp4 => Format::MXFP4,
            }));
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

/// A format that holds a block type exactly.
#[derive(Clone, Copy, Debug)]
pub(super) enum Exact {
    /// With so many bits.
    Affine(usize),
    Mxfp4,
}

/// The format that holds the blocks of this type exactly.
pub(super) fn exact(dtype: Type) -> Option<Exact> {
    use BlockType::{MXFP4, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
    match dtype {
        Type::Gguf(Q4_0 | Q4_1) => Some(Exact::Affine(4)),
        Type::Gguf(Q5_0 | Q5_1) => Some(Exact::Affine(5)),
        Type::Gguf(Q8_0) => Some(Exact::Affine(8)),
        Type::Gguf(MXFP4) => Some(Exact::Mxfp4),
        _ => None,
    }
}
