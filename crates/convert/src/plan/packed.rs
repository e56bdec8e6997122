//! Layers of the source that MLX has quantised.

use crate::Result;
use crate::config::Expected;
use crate::plan::{element, layer};
use crate::source::Model;
use crate::stored::Stored;
use kiln_formats::{Error, Type};
use kiln_model::Config;
use kiln_plan::{DType, Format, Mode};

/// MLX's planes beside the codes.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    pub(crate) format: Format,
    pub(crate) scales: Stored,
    pub(crate) biases: Option<Stored>,
}

/// The planes that belong to `codes`, if they are codes, checked against the configuration.
pub(super) fn find(
    model: &Model,
    config: &Config,
    expected: &Expected,
    codes: &Stored,
) -> Result<Option<Packed>> {
    let plane = |name: &str| model.find(&format!("{}.{name}", layer(&expected.name)));
    let (&[rows, k], Some(quantization), Some(scales)) =
        (&expected.shape[..], &config.quantization, plane("scales")?)
    else {
        return Ok(None);
    };
    let dtype = element(scales.dtype).unwrap_or(DType::BF16);
    let format = quantization
        .format(config, layer(&expected.name), dtype)
        .map_err(Box::new)?;
    let packed = Packed {
        format,
        scales,
        biases: plane("biases")?,
    };
    check_planes(model, codes, &packed, rows, k)?;
    Ok(Some(packed))
}

/// Dtypes and shapes are those of `rows` rows of `k` weights.
fn check_planes(
    model: &Model,
    codes: &Stored,
    packed: &Packed,
    rows: usize,
    k: usize,
) -> Result<()> {
    let Packed {
        format,
        scales,
        biases,
    } = packed;
    if !k.is_multiple_of(format.group()) {
        let groups = format!("rows of whole groups of {}", format.group());
        return Err(wrong(codes, groups, format!("rows of {k}")).into());
    }
    let groups = [rows, k / format.group()];
    let words = [rows, k * format.bits() / 32];
    check(codes, "U32", words, *format, codes.dtype == Type::U32)?;
    if !format.has_biases() {
        let own = match format.mode() {
            Mode::Nvfp4 => Type::F8E4M3,
            _ => Type::F8E8M0,
        };
        let bytes = scales.dtype == Type::U8 || scales.dtype == own;
        check(scales, "U8", groups, *format, bytes)?;
        if let Some(biases) = biases {
            let expected = format!("no biases beside {format}");
            return Err(wrong(biases, expected, "some".into()).into());
        }
    } else {
        let floats = element(scales.dtype).is_some();
        check(scales, "floats", groups, *format, floats)?;
        let Some(biases) = biases else {
            let name = format!("{}.biases", layer(&codes.name));
            let expected = "biases beside the scales";
            return Err(Error::invalid(&model.path, Some(&name), expected, "none").into());
        };
        let same = biases.dtype == scales.dtype;
        check(biases, &scales.dtype.to_string(), groups, *format, same)?;
    }
    Ok(())
}

fn check(
    plane: &Stored,
    dtype: &str,
    shape: [usize; 2],
    format: Format,
    dtype_fits: bool,
) -> Result<()> {
    if dtype_fits && plane.shape == shape {
        return Ok(());
    }
    let found = format!("{} {:?}", plane.dtype, plane.shape);
    Err(wrong(plane, format!("{dtype} {shape:?} for {format}"), found).into())
}

fn wrong(plane: &Stored, expected: String, found: String) -> Error {
    Error::invalid(plane.path(), Some(&plane.name), expected, found)
}
