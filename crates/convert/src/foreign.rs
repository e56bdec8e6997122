//! Layers that other programs have quantised: GPTQ, AWQ, FP8.
//!
//! What the first two store are the numbers of MLX's affine format, `scale · code + bias` with bias
//! `−scale · zero`, column by column; they are put in its order. FP8 becomes bf16. All of it is made
//! when a tensor is opened, of one tensor at a time.

mod columns;
mod fp8;

use crate::Result;
use crate::config::Config;
use crate::plan::{element, layer};
use crate::stored::Stored;
use columns::Columns;
use kiln_formats::{Checkpoint, Error, Type};
use kiln_plan::DType;
use serde_json::{Map, Value, json};
use std::path::Path;

/// How the layers of a checkpoint are quantised.
#[derive(Clone, Debug)]
pub(crate) enum Scheme {
    Columns(Columns),
    /// Rows and columns that have a scale in common; `None` for one scale of the whole.
    Fp8(Option<[usize; 2]>),
}

/// What a layer of each scheme has beside the tensors that become its weights.
const UNUSED: [&str; 2] = ["g_idx", "input_scale"];

impl Scheme {
    /// The scheme that a configuration names. The configuration then says what MLX would of the
    /// layers that there are.
    ///
    /// # Errors
    /// A method, a version or a setting that is not known.
    pub(crate) fn read(
        path: &Path,
        config: &mut Config,
        checkpoint: &Checkpoint,
    ) -> Result<Option<Scheme>> {
        let Some(settings) = config.get("quantization_config") else {
            return Ok(None);
        };
        let Value::Object(settings) = settings.clone() else {
            config.remove("quantization_config");
            return Ok(None);
        };
        let settings = Settings {
            path,
            map: &settings,
        };
        let scheme = match settings.text("quant_method")? {
            Some("gptq") => Scheme::Columns(gptq(&settings)?),
            Some("awq") => Scheme::Columns(awq(&settings)?),
            Some("fp8") => Scheme::Fp8(fp8_blocks(&settings)?),
            method => {
                let method = method.unwrap_or("unknown");
                let what = format!(
                    "a checkpoint quantised with method {method:?} (awq, fp8, gptq and MLX's are)"
                );
                return Err(Error::unsupported(path, None, what).into());
            }
        };
        let scheme = match scheme {
            Scheme::Columns(columns) => {
                let columns = columns.checked(checkpoint)?;
                let quantization = json!({"group_size": columns.group(), "bits": 4});
                config.insert("quantization".into(), quantization);
                Scheme::Columns(columns)
            }
            fp8 => fp8,
        };
        config.remove("quantization_config");
        Ok(Some(scheme))
    }

    /// The tensor that MLX's layout, or one without quantisation, would have under this name; `None`
    /// where the checkpoint's own is it.
    ///
    /// # Errors
    /// Parts of a layer that are missing or do not fit to each other.
    pub(crate) fn find(&self, checkpoint: &Checkpoint, name: &str) -> Result<Option<Stored>> {
        match self {
            Scheme::Columns(columns) => columns.find(checkpoint, name),
            Scheme::Fp8(blocks) => fp8::find(*blocks, checkpoint, name),
        }
    }

    /// The dtype that scales and biases of MLX's format are stored in, where they are made here.
    pub(crate) fn scales(&self) -> Option<DType> {
        match self {
            Scheme::Columns(columns) => Some(columns.exact()),
            Scheme::Fp8(_) => None,
        }
    }

    /// The names of the tensors that a layer of this scheme consists of.
    pub(crate) fn planes(&self, weight: &str) -> Vec<String> {
        let own = match self {
            Scheme::Columns(_) => &columns::PLANES[..],
            Scheme::Fp8(_) => &fp8::SCALES[..],
        };
        let names = own.iter().chain(&UNUSED);
        names
            .map(|plane| format!("{}.{plane}", layer(weight)))
            .collect()
    }
}

/// The entries of `quantization_config`.
struct Settings<'a> {
    path: &'a Path,
    map: &'a Map<String, Value>,
}

impl Settings<'_> {
    fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.invalid(key, "text", other)),
        }
    }

    fn invalid(&self, key: &str, expected: &str, found: &Value) -> crate::Error {
        let key = format!("quantization_config.{key}");
        let found: String = found.to_string().chars().take(80).collect();
        Error::invalid(self.path, Some(&key), expected, found).into()
    }

    /// Refuses every value of a key but these.
    fn require(&self, key: &str, known: &[Value]) -> Result<()> {
        let value = self.map.get(key).unwrap_or(&Value::Null);
        if known.contains(value) {
            return Ok(());
        }
        let known: Vec<String> = known
            .iter()
            .filter(|known| !known.is_null())
            .map(Value::to_string)
            .collect();
        let value: String = value.to_string().chars().take(80).collect();
        let key = format!("quantization_config.{key}");
        let what = format!("{value} ({} is)", known.join(" or "));
        Err(Error::unsupported(self.path, Some(&key), what).into())
    }

    /// Inputs that have a scale in common; `None` where all of a row have.
    fn group(&self) -> Result<Option<usize>> {
        let value = self.map.get("group_size").unwrap_or(&Value::Null);
        match value.as_i64() {
            Some(-1) => Ok(None),
            Some(group @ 32..=0x7fff_ffff) if group % 32 == 0 => Ok(Some(group as usize)),
            _ => {
                let key = Some("quantization_config.group_size");
                let what = format!("{value:.40} (-1 and multiples of 32 are)");
                Err(Error::unsupported(self.path, key, what).into())
            }
        }
    }
}

fn gptq(settings: &Settings<'_>) -> Result<Columns> {
    settings.require("bits", &[json!(4)])?;
    let formats = [Value::Null, json!("gptq"), json!("gptq_v2")];
    settings.require("checkpoint_format", &formats)?;
    let second = settings.text("checkpoint_format")? == Some("gptq_v2");
    Ok(Columns::gptq(settings.group()?, second))
}

fn awq(settings: &Settings<'_>) -> Result<Columns> {
    settings.require("bits", &[json!(4)])?;
    let versions = [Value::Null, json!("gemm"), json!("GEMM")];
    settings.require("version", &versions)?;
    settings.require("zero_point", &[json!(true)])?;
    Ok(Columns::awq(settings.group()?))
}

fn fp8_blocks(settings: &Settings<'_>) -> Result<Option<[usize; 2]>> {
    settings.require("fmt", &[Value::Null, json!("e4m3")])?;
    let value = settings
        .map
        .get("weight_block_size")
        .unwrap_or(&Value::Null);
    let sizes: Option<Vec<usize>> = match value {
        Value::Null => return Ok(None),
        Value::Array(sizes) => sizes
            .iter()
            .map(|size| Some(size.as_u64().filter(|&size| size > 0)? as usize))
            .collect(),
        _ => None,
    };
    match sizes.as_deref() {
        Some(&[rows, columns]) => Ok(Some([rows, columns])),
        _ => Err(settings.invalid("weight_block_size", "two positive numbers", value)),
    }
}

/// A tensor of a layer, which must be there.
fn part(checkpoint: &Checkpoint, name: &str, beside: &str) -> Result<Stored> {
    let Some(tensor) = checkpoint.tensor(name) else {
        let path = checkpoint
            .tensor(beside)
            .map(|beside| checkpoint.path(beside));
        let path = path.unwrap_or(Path::new(""));
        let expected = format!("this tensor beside {beside}");
        return Err(Error::invalid(path, Some(name), expected, "none").into());
    };
    Ok(Stored::one(checkpoint, tensor))
}

/// Checks a tensor's type and shape.
fn check(tensor: &Stored, fits: bool, expected: &str, shape: &[usize]) -> Result<()> {
    if fits && tensor.shape == shape {
        return Ok(());
    }
    let found = format!("{} {:?}", tensor.dtype, tensor.shape);
    let expected = format!("{expected} {shape:?}");
    Err(Error::invalid(tensor.path(), Some(&tensor.name), expected, found).into())
}

fn is_float(dtype: Type) -> bool {
    element(dtype).is_some()
}
