//! Layers of four bits that are stored column by column: GPTQ and AWQ.
//!
//! A layer of `n` outputs and `k` inputs has `qweight`, codes in words of 32 bits; `scales`, [groups,
//! n]; `qzeros`, [groups, n / 8], codes that stand for 0. GPTQ's words have eight inputs of one
//! output, AWQ's eight outputs of one input.

use super::{check, is_float, part};
use crate::Result;
use crate::plan::layer;
use crate::stored::{Making, Opened, Stored};
use half::f16;
use kiln_formats::{Checkpoint, Error, Type};
use kiln_plan::DType;
use std::path::Path;

/// The tensors of a layer, and what its weights would be called.
pub(super) const PLANES: [&str; 3] = ["qweight", "qzeros", "scales"];

/// Which output of eight the nibbles of a word belong to, the lowest first.
const IN_ORDER: [usize; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
const INTERLEAVED: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// How codes lie in a file, and what they stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns {
    /// Inputs with one scale; `None` for all of them.
    group: Option<usize>,
    /// Whether words have eight inputs of one output.
    inputs: bool,
    /// The outputs of the nibbles of `qzeros`, and of `qweight` where words have outputs.
    order: [usize; 8],
    /// What is added to a stored zero.
    more: u8,
    /// Whether some scale or bias, which are f32 here, is no number of f16.
    wide: bool,
}

/// One layer's tensors.
struct Layer {
    codes: Stored,
    zeros: Stored,
    scales: Stored,
    n: usize,
    k: usize,
    /// Inputs with one scale.
    group: usize,
}

impl Columns {
    /// In the first version of the format a stored zero is less by one than it is meant.
    pub(super) fn gptq(group: Option<usize>, second: bool) -> Columns {
        Columns {
            group,
            inputs: true,
            order: IN_ORDER,
            more: u8::from(!second),
            wide: false,
        }
    }

    pub(super) fn awq(group: Option<usize>) -> Columns {
        Columns {
            group,
            inputs: false,
            order: INTERLEAVED,
            more: 0,
            wide: false,
        }
    }

    /// The group size of MLX's that divides the scheme's own.
    pub(super) fn group(&self) -> usize {
        let divides = |size: &usize| self.group.is_some_and(|group| group.is_multiple_of(*size));
        [128, 64].into_iter().find(divides).unwrap_or(32)
    }

    /// The dtype in which scales and biases of all layers are exact.
    pub(super) fn exact(&self) -> DType {
        if self.wide { DType::F32 } else { DType::F16 }
    }

    /// Looks at the scales of all layers, and refuses those whose numbers are not certain.
    pub(super) fn checked(mut self, checkpoint: &Checkpoint) -> Result<Columns> {
        let mut layers = 0;
        for tensor in checkpoint {
            let Some(path) = tensor.name.strip_suffix(".qweight") else {
                continue;
            };
            layers += 1;
            let layer = self.layer(checkpoint, path)?;
            check_order(checkpoint, path, &layer)?;
            let (scales, zeros) = (layer.scales.open()?, layer.zeros.open()?);
            for group in 0..layer.k / layer.group {
                for (scale, zero) in self.row(layer.n, &scales, &zeros, group)? {
                    // The two programs that write this format read it differently.
                    if zero > 15 {
                        let what = "a zero point of 16, which some programs read as 0,";
                        let (path, name) = (layer.zeros.path(), &layer.zeros.name);
                        return Err(Error::unsupported(path, Some(name), what).into());
                    }
                    let bias = -scale * f32::from(zero);
                    self.wide |= [scale, bias]
                        .iter()
                        .any(|&x| f16::from_f32(x).to_f32() != x);
                }
            }
        }
        if layers == 0 {
            let path = checkpoint
                .files()
                .first()
                .map_or(Path::new(""), |file| file.path());
            let expected = "quantised layers (qweight), as the configuration says";
            return Err(Error::invalid(path, None, expected, "none").into());
        }
        Ok(self)
    }

    /// What MLX's layout has under this name, if that belongs to a layer of this scheme.
    pub(super) fn find(&self, checkpoint: &Checkpoint, name: &str) -> Result<Option<Stored>> {
        let path = layer(name);
        let path = path
            .strip_suffix(".scales")
            .or(path.strip_suffix(".biases"))
            .unwrap_or(path);
        if checkpoint.tensor(&format!("{path}.qweight")).is_none() {
            return Ok(None);
        }
        let Some(plane) = name
            .strip_prefix(path)
            .map(|rest| rest.trim_start_matches('.'))
        else {
            return Ok(None);
        };
        if let Some(twice) = checkpoint.tensor(&format!("{path}.weight")) {
            let expected = "a layer that is quantised or is not";
            let found = "codes (qweight) and weights";
            let error = Error::invalid(checkpoint.path(twice), Some(path), expected, found);
            return Err(error.into());
        }
        let layer = self.layer(checkpoint, path)?;
        let columns = *self;
        let Layer { n, k, group, .. } = layer;
        if plane == "weight" {
            let (shape, of) = (vec![n, k / 8], vec![layer.codes]);
            let how = move |of: &[Opened<'_>]| columns.codes(of, n, k);
            return Ok(Some(Stored::made(
                name,
                Type::U32,
                shape,
                Making::new(of, how),
            )));
        }
        let bias = match plane {
            "scales" => false,
            "biases" => true,
            _ => return Ok(None),
        };
        let shape = vec![n, k / self.group()];
        let of = vec![layer.scales, layer.zeros];
        let how = move |of: &[Opened<'_>]| columns.scales(of, (n, k, group), bias);
        Ok(Some(Stored::made(
            name,
            Type::F32,
            shape,
            Making::new(of, how),
        )))
    }

    fn layer(&self, checkpoint: &Checkpoint, path: &str) -> Result<Layer> {
        let beside = format!("{path}.qweight");
        let [codes, zeros, scales] =
            PLANES.map(|plane| part(checkpoint, &format!("{path}.{plane}"), &beside));
        let (codes, zeros, scales) = (codes?, zeros?, scales?);
        let (n, k) = match codes.shape[..] {
            [words, n] if self.inputs => (n, words * 8),
            [k, words] => (words * 8, k),
            _ => (0, 0),
        };
        let group = self.group.unwrap_or(k).max(1);
        let (groups, least) = (k / group, self.group());
        let whole = k.is_multiple_of(group) && group.is_multiple_of(least) && n.is_multiple_of(8);
        if n == 0 || k == 0 || !whole {
            let expected = format!("codes of whole groups of {group} inputs and 8 outputs");
            let found = format!("shape {:?}", codes.shape);
            return Err(Error::invalid(codes.path(), Some(&codes.name), expected, found).into());
        }
        check(
            &codes,
            codes.dtype == Type::I32,
            "I32",
            &codes.shape.clone(),
        )?;
        check(&zeros, zeros.dtype == Type::I32, "I32", &[groups, n / 8])?;
        check(&scales, is_float(scales.dtype), "floats", &[groups, n])?;
        Ok(Layer {
            codes,
            zeros,
            scales,
            n,
            k,
            group,
        })
    }

    /// The scales and zeros of one group for all `n` outputs.
    fn row(
        &self,
        n: usize,
        scales: &Opened<'_>,
        zeros: &Opened<'_>,
        group: usize,
    ) -> Result<Vec<(f32, u8)>> {
        let mut values = vec![0.0; n];
        scales.floats(group, &mut values)?;
        let words = zeros.rows(group..group + 1)?;
        let words = words.as_chunks::<4>().0;
        let mut row: Vec<(f32, u8)> = values.into_iter().map(|value| (value, 0)).collect();
        for (word, outputs) in words.iter().zip(row.as_chunks_mut::<8>().0) {
            let word = u32::from_le_bytes(*word);
            for (nibble, &output) in self.order.iter().enumerate() {
                outputs[output].1 = (word >> (4 * nibble) & 15) as u8 + self.more;
            }
        }
        Ok(row)
    }

    /// The codes as rows of one output each.
    fn codes(&self, of: &[Opened<'_>], n: usize, k: usize) -> Result<Vec<u8>> {
        let [stored] = of else { return Ok(Vec::new()) };
        let row_bytes = k / 2;
        let mut out = vec![0; n * row_bytes];
        if self.inputs {
            // Words stay what they are.
            for row in 0..k / 8 {
                let words = stored.rows(row..row + 1)?;
                let outputs = out.chunks_exact_mut(row_bytes);
                for (output, word) in outputs.zip(words.as_chunks::<4>().0) {
                    output[4 * row..4 * row + 4].copy_from_slice(word);
                }
            }
            return Ok(out);
        }
        for input in 0..k {
            let words = stored.rows(input..input + 1)?;
            let outputs = out.chunks_exact_mut(8 * row_bytes);
            for (outputs, word) in outputs.zip(words.as_chunks::<4>().0) {
                let word = u32::from_le_bytes(*word);
                for (nibble, &output) in self.order.iter().enumerate() {
                    let code = (word >> (4 * nibble) & 15) as u8;
                    outputs[output * row_bytes + input / 2] |= code << (4 * (input % 2));
                }
            }
        }
        Ok(out)
    }

    /// Scales or biases as rows of one output each.
    fn scales(
        &self,
        of: &[Opened<'_>],
        (n, k, group): (usize, usize, usize),
        bias: bool,
    ) -> Result<Vec<u8>> {
        let [scales, zeros] = of else {
            return Ok(Vec::new());
        };
        let own = self.group();
        let row_bytes = k / own * 4;
        let mut out = vec![0; n * row_bytes];
        for number in 0..k / group {
            let row = self.row(n, scales, zeros, number)?;
            for (output, (scale, zero)) in out.chunks_exact_mut(row_bytes).zip(row) {
                let value = if bias {
                    -scale * f32::from(zero)
                } else {
                    scale
                };
                for part in 0..group / own {
                    let at = 4 * (number * (group / own) + part);
                    output[at..at + 4].copy_from_slice(&value.to_le_bytes());
                }
            }
        }
        Ok(out)
    }
}

/// Inputs must be in their groups one after the other.
fn check_order(checkpoint: &Checkpoint, path: &str, layer: &Layer) -> Result<()> {
    let name = format!("{path}.g_idx");
    let Some(tensor) = checkpoint.tensor(&name) else {
        return Ok(());
    };
    let order = Stored::one(checkpoint, tensor);
    check(&order, order.dtype == Type::I32, "I32", &[layer.k])?;
    let bytes = order.open()?.all()?;
    let mut groups = bytes.as_chunks::<4>().0.iter().enumerate();
    if groups.all(|(input, group)| i32::from_le_bytes(*group) as usize == input / layer.group) {
        return Ok(());
    }
    let what = "an order of inputs by activation (desc_act)";
    Err(Error::unsupported(order.path(), Some(&name), what).into())
}
