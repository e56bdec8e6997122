//! From named tensors to arrays, without copying, each checked against the configuration.

use crate::{Config, Error, Result};
use kiln_array::{Array, Bytes, DType, Device, Part};
use kiln_formats::{Checkpoint, Tensor, Type};
use std::collections::HashSet;
use std::path::Path;

/// The tensors of a checkpoint that have not been given a place yet.
pub(crate) struct Weights<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a Config,
    device: &'a Device,
    directory: &'a Path,
    used: HashSet<String>,
}

/// A linear layer: `x · weightᵀ + bias`.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) weight: Array,
    bias: Option<Array>,
}

impl Linear {
    #[track_caller]
    pub(crate) fn forward(&self, x: &Array) -> kiln_array::Result<Array> {
        let product = x.matmul(&self.weight)?;
        match &self.bias {
            Some(bias) => product + bias,
            None => Ok(product),
        }
    }
}

/// One layer's rows as they lie in the file.
struct Rows {
    dtype: DType,
    outputs: usize,
    part: Part,
    bias: Option<(DType, Part)>,
}

impl<'a> Weights<'a> {
    pub(crate) fn new(
        checkpoint: &'a Checkpoint,
        config: &'a Config,
        device: &'a Device,
        directory: &'a Path,
    ) -> Weights<'a> {
        Weights {
            checkpoint,
            config,
            device,
            directory,
            used: HashSet::new(),
        }
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.checkpoint.tensor(name).is_some()
    }

    /// Marks tensors as looked at, although the model does not need them.
    pub(crate) fn ignore(&mut self, wanted: impl Fn(&str) -> bool) {
        let names = self.checkpoint.iter().map(|tensor| &tensor.name);
        self.used.extend(names.filter(|name| wanted(name)).cloned());
    }

    fn tensor(&mut self, name: &str, expected: &str) -> Result<&'a Tensor> {
        let missing = || Error::Tensor {
            path: self.directory.to_path_buf(),
            name: name.into(),
            expected: expected.into(),
            found: "no such tensor".into(),
        };
        let tensor = self.checkpoint.tensor(name).ok_or_else(missing)?;
        self.used.insert(name.into());
        Ok(tensor)
    }

    fn wrong(&self, tensor: &Tensor, expected: String) -> Error {
        Error::Tensor {
            path: self.checkpoint.path(tensor).to_path_buf(),
            name: tensor.name.clone(),
            expected,
            found: format!("{}{:?}", tensor.dtype, tensor.shape),
        }
    }

    /// The bytes of a tensor, still where they are mapped.
    fn bytes(&self, tensor: &Tensor) -> Result<Bytes> {
        let owner = self
            .checkpoint
            .files()
            .get(tensor.file)
            .map(|file| file.owner().clone());
        owner
            .and_then(|owner| Bytes::new(owner, tensor.range.clone()))
            .ok_or_else(|| self.wrong(tensor, "bytes inside the file".into()))
    }

    /// A tensor of plain floats of the given shape.
    fn floats(&mut self, name: &str, shape: &[usize]) -> Result<(DType, &'a Tensor)> {
        let expected = format!("floats {shape:?}");
        let tensor = self.tensor(name, &expected)?;
        match float(tensor.dtype) {
            Some(dtype) if tensor.shape == shape => Ok((dtype, tensor)),
            _ => Err(self.wrong(tensor, expected)),
        }
    }

    /// A vector of weights: a norm's.
    pub(crate) fn vector(&mut self, name: &str, length: usize) -> Result<Array> {
        let (dtype, tensor) = self.floats(name, &[length])?;
        let bytes = self.bytes(tensor)?;
        Ok(Array::from_bytes(dtype, &[length], bytes, self.device)?)
    }

    /// A table or a head of `outputs` rows of `inputs` weights.
    pub(crate) fn matrix(&mut self, layer: &str, outputs: usize, inputs: usize) -> Result<Array> {
        let rows = self.rows(layer, outputs, inputs, false)?;
        Ok(Array::from_parts(
            rows.dtype,
            &[outputs, inputs],
            vec![rows.part],
            self.device,
        )?)
    }

    /// Layers that read the same vector: one array of row blocks if their formats allow it, else
    /// one for each.
    pub(crate) fn linears(
        &mut self,
        layers: &[(String, usize)],
        inputs: usize,
        bias: bool,
    ) -> Result<Vec<Linear>> {
        let mut rows = Vec::with_capacity(layers.len());
        for (layer, outputs) in layers {
            rows.push(self.rows(layer, *outputs, inputs, bias)?);
        }
        let alike = |r: &Rows| {
            let bias = |r: &Rows| r.bias.as_ref().map(|(dtype, _)| *dtype);
            r.dtype == rows[0].dtype && bias(r) == bias(&rows[0])
        };
        if rows.iter().all(alike) {
            return Ok(vec![self.linear(rows, inputs)?]);
        }
        rows.into_iter()
            .map(|one| self.linear(vec![one], inputs))
            .collect()
    }

    fn linear(&self, rows: Vec<Rows>, inputs: usize) -> Result<Linear> {
        let outputs: usize = rows.iter().map(|r| r.outputs).sum();
        let mut dtype = DType::F32;
        let mut parts = Vec::with_capacity(rows.len());
        let mut biases = Vec::new();
        for one in rows {
            dtype = one.dtype;
            parts.push(one.part);
            biases.extend(one.bias);
        }
        let weight = Array::from_parts(dtype, &[outputs, inputs], parts, self.device)?;
        let bias = match biases.first() {
            Some(&(dtype, _)) => {
                let parts = biases.into_iter().map(|(_, part)| part).collect();
                Some(Array::from_parts(dtype, &[outputs], parts, self.device)?)
            }
            None => None,
        };
        Ok(Linear { weight, bias })
    }

    fn rows(&mut self, layer: &str, outputs: usize, inputs: usize, bias: bool) -> Result<Rows> {
        let (dtype, part) = match self.contains(&format!("{layer}.scales")) {
            true => self.quantised(layer, outputs, inputs)?,
            false => {
                let (dtype, tensor) =
                    self.floats(&format!("{layer}.weight"), &[outputs, inputs])?;
                (dtype, Part::plain(outputs, self.bytes(tensor)?))
            }
        };
        let name = format!("{layer}.bias");
        let bias = match bias || self.contains(&name) {
            true => {
                let (dtype, tensor) = self.floats(&name, &[outputs])?;
                Some((dtype, Part::plain(outputs, self.bytes(tensor)?)))
            }
            false => None,
        };
        Ok(Rows {
            dtype,
            outputs,
            part,
            bias,
        })
    }

    /// MLX's three tensors: `weight` (u32 words of codes), `scales`, and `biases` where the mode
    /// has them.
    fn quantised(&mut self, layer: &str, outputs: usize, inputs: usize) -> Result<(DType, Part)> {
        let scales = self.tensor(&format!("{layer}.scales"), "scales")?;
        let config = self.config;
        let Some(quantization) = &config.quantization else {
            let expected = "no scales: config.json has no quantization".into();
            return Err(self.wrong(scales, expected));
        };
        let scale_dtype = float(scales.dtype).unwrap_or(DType::BF16);
        let format = quantization.format(config, layer, scale_dtype)?;
        let groups = inputs / format.group();
        if !inputs.is_multiple_of(format.group()) {
            let expected = format!(
                "rows of {inputs}, a multiple of the group {}",
                format.group()
            );
            return Err(self.wrong(scales, expected));
        }
        let stored = match format.has_biases() {
            true => float(scales.dtype).is_some(),
            false => matches!(scales.dtype, Type::U8 | Type::F8E8M0 | Type::F8E4M3),
        };
        if !stored || scales.shape != [outputs, groups] {
            let kind = if format.has_biases() {
                "floats"
            } else {
                "bytes"
            };
            return Err(self.wrong(scales, format!("{kind} [{outputs}, {groups}] for {format}")));
        }
        let words = inputs * format.bits() / 32;
        let expected = format!("u32 [{outputs}, {words}] for {format}");
        let codes = self.tensor(&format!("{layer}.weight"), &expected)?;
        if codes.dtype != Type::U32 || codes.shape != [outputs, words] {
            return Err(self.wrong(codes, expected));
        }
        let biases = match format.has_biases() {
            true => {
                let expected = format!("as the scales, {}{:?}", scales.dtype, scales.shape);
                let biases = self.tensor(&format!("{layer}.biases"), &expected)?;
                if biases.dtype != scales.dtype || biases.shape != scales.shape {
                    return Err(self.wrong(biases, expected));
                }
                Some(self.bytes(biases)?)
            }
            false => None,
        };
        let part = Part {
            rows: outputs,
            data: self.bytes(codes)?,
            scales: Some(self.bytes(scales)?),
            biases,
        };
        Ok((DType::Quantised(format), part))
    }

    /// An error if any tensor was left without a place.
    pub(crate) fn finish(self) -> Result<()> {
        let left = self.checkpoint.iter().map(|tensor| tensor.name.as_str());
        let left: Vec<&str> = left.filter(|name| !self.used.contains(*name)).collect();
        if left.is_empty() {
            return Ok(());
        }
        let mut names = left[..left.len().min(5)].join(", ");
        if left.len() > 5 {
            names.push_str(", …");
        }
        Err(Error::Unmapped {
            path: self.directory.to_path_buf(),
            model: self.config.model_type.clone(),
            count: left.len(),
            names,
        })
    }
}

fn float(stored: Type) -> Option<DType> {
    match stored {
        Type::F16 => Some(DType::F16),
        Type::BF16 => Some(DType::BF16),
        Type::F32 => Some(DType::F32),
        _ => None,
    }
}
