//! What a conversion is asked to do.

use crate::rules::{Origin, Target};
use crate::{Error, Layout, Recipe, Result, Rule, Verify};
use kiln_formats::BlockType;
use kiln_plan::{DType, Format, Mode};

/// What a conversion is asked to do. The default changes no value.
#[derive(Clone, Default, Debug)]
pub struct Options {
    /// Which layers are stored how; the first that matches decides. What no rule is about goes by
    /// `recipe`, `quantise`, `target` or `dequantise`, and stays as it is without these.
    pub rules: Vec<Rule>,
    /// Quantise the embedding, the head and all linear layers. Its group size is also that of rules
    /// and recipes that name none.
    pub quantise: Option<Quantise>,
    /// Quantise with the bits of a recipe. What `quantise` says is then only a default for programs
    /// that read the configuration; it must be affine.
    pub recipe: Option<Recipe>,
    /// Quantise to at most so many bits per weight of the whole model: layers get 2 to 8 bits by the
    /// error that is measured. `quantise` may only name a group size then.
    pub target: Option<f64>,
    /// Store quantised layers as floats, in the dtype that MLX computes with them in.
    pub dequantise: bool,
    /// The dtype of weights, and of the scales of quantised ones: f16, bf16 or f32. By default what
    /// the configuration says, f16 for a GGUF file; quantised sources keep their own.
    pub dtype: Option<DType>,
    /// How the output is laid out.
    pub layout: Layout,
    /// In a GGUF file: the blocks that matrices are stored in, where no rule names a float type.
    pub blocks: Option<BlockType>,
    /// Replace a destination that exists.
    pub force: bool,
    /// Go on with what an earlier run has left, and leave what is done when this one fails or is
    /// interrupted.
    pub resume: bool,
    /// Bytes of memory that the conversion may need, the program included; fewer threads and smaller
    /// blocks of rows keep it.
    pub max_memory: Option<u64>,
    /// What to compare the converted model with the source on.
    pub verify: Option<Verify>,
}

impl Options {
    /// Options that contradict each other, bits or groups that do not exist.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(quantise) = self.quantise {
            quantise.format(DType::F32)?;
        }
        if let Some(dtype) = self.dtype.filter(|dtype| !dtype.is_float()) {
            let why = format!("dtype must be f16, bf16 or f32, given {dtype}");
            return Err(Error::Options(why));
        }
        let (recipe, target) = (self.recipe.is_some(), self.target.is_some());
        let has = |wanted: &dyn Fn(Quantise) -> bool| self.quantise.is_some_and(wanted);
        let quantise = has(&|_| true) || recipe || target;
        let other_mode = has(&|quantise| quantise.mode != Mode::Affine);
        let contradictions = [
            (
                quantise && self.dequantise,
                "asked to quantise and to dequantise: give one of them",
            ),
            (
                recipe && target,
                "both a recipe and a target choose the bits: give one of them",
            ),
            (
                recipe && other_mode,
                "a recipe is affine and goes with no other mode",
            ),
            (
                target && other_mode,
                "a target is reached with affine formats and no other mode",
            ),
            (
                self.layout == Layout::Gguf && quantise,
                "a GGUF file has blocks of its own: give --gguf-type",
            ),
            (
                self.layout != Layout::Gguf && self.blocks.is_some(),
                "--gguf-type goes with --format gguf",
            ),
            (
                target && has(&|quantise| quantise.bits.is_some()),
                "a target chooses the bits: give no others",
            ),
        ];
        match contradictions.into_iter().find(|(found, _)| *found) {
            Some((_, why)) => Err(Error::Options(why.into())),
            None => Ok(()),
        }
    }

    /// The group size that `-q` names for affine formats.
    pub(crate) fn group(&self) -> Option<usize> {
        let affine = self
            .quantise
            .filter(|quantise| quantise.mode == Mode::Affine);
        affine.and_then(|quantise| quantise.group)
    }

    /// All rules, the user's first. A group that a rule leaves open is filled in where `-q` names
    /// one.
    pub(crate) fn rules(&self, layers: usize) -> Result<Vec<Rule>> {
        let group = self.group();
        let mut rules = self.rules.clone();
        for rule in &mut rules {
            if let Target::Quantised(quantise) = &mut rule.target
                && quantise.mode == Mode::Affine
            {
                quantise.group = quantise.group.or(group);
            }
        }
        let option = |text: &str| Origin::Option(text.to_owned());
        if let Some(recipe) = self.recipe {
            rules.extend(recipe.rules(layers, group)?);
        } else if let (Some(quantise), None) = (self.quantise, self.target) {
            rules.push(Rule::made("*", Target::Quantised(quantise), option("-q"))?);
        } else if self.dequantise {
            rules.push(Rule::made(
                "*",
                Target::Float(None),
                option("--dequantize"),
            )?);
        }
        Ok(rules)
    }
}

/// How to quantise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quantise {
    /// How a code becomes a number.
    pub mode: Mode,
    /// Bits per weight; `None` for the mode's own (4, mxfp8: 8).
    pub bits: Option<usize>,
    /// Weights per scale; `None` for the mode's own (affine 64, mxfp4 and mxfp8 32, nvfp4 16).
    pub group: Option<usize>,
}

impl Quantise {
    /// The format for weights of `dtype`.
    ///
    /// # Errors
    /// Bits or a group size that the mode does not have.
    pub(crate) fn format(self, dtype: DType) -> Result<Format> {
        let fixed = match self.mode {
            Mode::Affine => {
                let (bits, group) = (self.bits.unwrap_or(4), self.group.unwrap_or(64));
                return Format::affine(bits, group, dtype)
                    .map_err(|error| Error::Options(error.to_string()));
            }
            Mode::Mxfp4 => Format::MXFP4,
            Mode::Mxfp8 => Format::MXFP8,
            Mode::Nvfp4 => Format::NVFP4,
        };
        for (what, asked, has) in [
            ("bits", self.bits, fixed.bits()),
            ("group size", self.group, fixed.group()),
        ] {
            if let Some(asked) = asked.filter(|&asked| asked != has) {
                let mode = mode_name(self.mode);
                return Err(Error::Options(format!(
                    "{mode} has {what} {has}, given {asked}"
                )));
            }
        }
        Ok(fixed)
    }
}

/// A mode's name in files and options.
pub(crate) fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Affine => "affine",
        Mode::Mxfp4 => "mxfp4",
        Mode::Mxfp8 => "mxfp8",
        Mode::Nvfp4 => "nvfp4",
    }
}

/// The dtype that a configuration or option calls `name`.
pub(crate) fn dtype_named(name: &str) -> Option<DType> {
    match name {
        "float16" => Some(DType::F16),
        "bfloat16" => Some(DType::BF16),
        "float32" => Some(DType::F32),
        _ => None,
    }
}

/// What a configuration calls a float dtype.
pub(crate) fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    }
}
