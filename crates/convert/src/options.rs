//! What a conversion is asked to do.

use crate::{Error, Result};
use kiln_array::{DType, Format, Mode};

/// What a conversion is asked to do. The default changes no value.
#[derive(Clone, Default, Debug)]
pub struct Options {
    /// Quantise the embedding, the head and all linear layers.
    pub quantise: Option<Quantise>,
    /// The dtype of weights, and of the scales of quantised ones: f16, bf16 or f32. By default what
    /// the configuration says, f16 for a GGUF file.
    pub dtype: Option<DType>,
    /// Replace a destination that exists.
    pub force: bool,
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
