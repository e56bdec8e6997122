//! The golden files: cases, and the bytes of their values.

use kiln_array::{Array, DType, Device, Format, Result};
use kiln_conformance::numbers::decode;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Where an array of a case lies, and what view of it is meant.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) dtype: String,
    pub(crate) lengths: Vec<usize>,
    pub(crate) offset: usize,
    pub(crate) view: Vec<Value>,
}

/// A call of a function, with what MLX gave; `None` where it is an error.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) function: String,
    pub(crate) arguments: Value,
    pub(crate) inputs: Vec<Entry>,
    pub(crate) outputs: Option<Vec<Entry>>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}", self.function, self.arguments)?;
        for input in &self.inputs {
            let cut = if input.view.is_empty() { "" } else { " cut" };
            write!(f, ", {}{:?}{cut}", input.dtype, input.lengths)?;
        }
        f.write_str(")")
    }
}

pub(crate) struct Golden {
    pub(crate) cases: Vec<Case>,
    values: Vec<u8>,
}

pub(crate) fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/mlx")
}

pub(crate) fn dtype(name: &str) -> Option<DType> {
    let quantised = DType::Quantised(Format::MXFP4);
    let all = DType::PLAIN.into_iter().chain([quantised]);
    all.into_iter().find(|dtype| dtype.to_string() == name)
}

pub(crate) fn lengths(value: &Value) -> Vec<usize> {
    let list = value.as_array().into_iter().flatten();
    list.map(|n| n.as_u64().unwrap_or(0) as usize).collect()
}

fn entry(value: &Value) -> Entry {
    Entry {
        dtype: value[0].as_str().unwrap_or_default().into(),
        lengths: lengths(&value[1]),
        offset: value[2].as_u64().unwrap_or(0) as usize,
        view: value[3].as_array().cloned().unwrap_or_default(),
    }
}

#[allow(clippy::expect_used, reason = "without the files there is no test")]
impl Golden {
    pub(crate) fn read() -> Golden {
        let text = std::fs::read(directory().join("cases.json")).expect("the cases");
        let list: Vec<Value> = serde_json::from_slice(&text).expect("cases in JSON");
        let entries = |value: &Value| Some(value.as_array()?.iter().map(entry).collect());
        let cases = list.into_iter().map(|case| Case {
            function: case[0].as_str().unwrap_or_default().into(),
            arguments: case[1].clone(),
            inputs: entries(&case[2]).unwrap_or_default(),
            outputs: entries(&case[3]),
        });
        Golden {
            cases: cases.collect(),
            values: std::fs::read(directory().join("values.bin")).expect("the values"),
        }
    }

    pub(crate) fn by_function(&self) -> BTreeMap<&str, Vec<&Case>> {
        let mut by_function: BTreeMap<&str, Vec<&Case>> = BTreeMap::new();
        for case in &self.cases {
            by_function.entry(&case.function).or_default().push(case);
        }
        by_function
    }

    fn bytes(&self, entry: &Entry) -> &[u8] {
        let size = dtype(&entry.dtype).map_or(0, DType::bytes);
        &self.values[entry.offset..][..entry.lengths.iter().product::<usize>() * size]
    }

    /// The elements, row after row.
    pub(crate) fn numbers(&self, entry: &Entry) -> Vec<f64> {
        decode(dtype(&entry.dtype).unwrap_or(DType::F32), self.bytes(entry))
    }

    /// The array on a device.
    pub(crate) fn on(&self, entry: &Entry, device: &Device) -> Result<Array> {
        let Some(dtype) = dtype(&entry.dtype) else {
            let row = Array::from_slice(&[1.0f32; 32], &[1, 32], device)?;
            return kiln::quantise(&row, Format::MXFP4);
        };
        let bytes = self.bytes(entry).to_vec().into();
        let mut array = Array::from_bytes(dtype, &entry.lengths, bytes, device)?;
        for step in &entry.view {
            let number = |at: usize| step[at].as_i64().unwrap_or(0) as i32;
            array = match step[0].as_str() {
                Some("t") => array.transpose(number(1), number(2))?,
                Some("b") => array.broadcast(&lengths(&step[1]))?,
                _ => {
                    let range = number(2) as usize..number(3) as usize;
                    array.slice(number(1), range)?
                }
            };
        }
        Ok(array)
    }
}
