//! Random quantised weights, and their values in f64.

use crate::Random;
use crate::file::File;
use crate::numbers::{encode, round};
use kiln_array::{Array, Bytes, DType, Device, Format, Mode, Part, Result, Scales};
use proptest::prelude::*;
use std::sync::Arc;

/// Random quantised rows in one or several blocks whose bytes are not aligned.
#[derive(Clone, Debug)]
pub struct Rows {
    /// How they are stored.
    pub format: Format,
    /// How many there are.
    pub rows: usize,
    /// Weights of a row.
    pub k: usize,
    /// In how many blocks.
    pub blocks: usize,
    /// Bytes in front of every plane.
    pub misaligned: usize,
    /// What makes the numbers.
    pub seed: u64,
}

/// The parts of a weight's value, which is `scale · code + bias`.
#[derive(Clone, Copy, Debug)]
pub struct Weight {
    /// What the code stands for.
    pub code: f64,
    /// The group's factor.
    pub scale: f64,
    /// The group's bias; 0 for formats without.
    pub bias: f64,
}

impl Weight {
    /// The value: the product and the sum are each rounded to f32.
    pub fn value(self) -> f64 {
        round(
            DType::F32,
            round(DType::F32, self.scale * self.code) + self.bias,
        )
    }

    /// How large the numbers are that add up to the value.
    pub fn size(self) -> f64 {
        (self.scale * self.code).abs() + self.bias.abs()
    }
}

impl Rows {
    /// Any rows of a format, `k` weights each.
    pub fn any(format: Format, rows: usize, k: usize) -> impl Strategy<Value = Rows> + use<> {
        (1..=3usize, 0..8usize, any::<u64>()).prop_map(move |(blocks, misaligned, seed)| Rows {
            format,
            rows,
            k,
            blocks,
            misaligned,
            seed,
        })
    }

    fn groups(&self) -> usize {
        self.k / self.format.group()
    }

    /// Codes, scales and biases as they are stored, for all rows.
    fn stored(&self) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let mut random = Random::new(self.seed);
        let bits = self.format.bits();
        let codes = (0..self.rows * self.k).map(|_| {
            let code = random.bits() as u8 & ((1u16 << bits) - 1) as u8;
            // 0x7f and 0xff are NaN in E4M3.
            if self.format.mode() == Mode::Mxfp8 && code & 0x7f == 0x7f {
                code ^ 1
            } else {
                code
            }
        });
        let codes = codes.collect();
        let (mut scales, mut biases) = (Vec::new(), Vec::new());
        for _ in 0..self.rows * self.groups() {
            match self.format.mode() {
                Mode::Affine => {
                    let dtype = self.format.dequantised();
                    let step = random.between(-1.0, 1.0) / (1u32 << bits) as f64;
                    let bias = random.between(-0.6, 0.6);
                    encode(dtype, round(dtype, step), &mut scales);
                    encode(dtype, round(dtype, bias), &mut biases);
                }
                Mode::Nvfp4 => {
                    let byte = random.bits() as u8;
                    scales.push(if byte & 0x7f == 0x7f { 0 } else { byte });
                }
                Mode::Mxfp4 | Mode::Mxfp8 => scales.push(117 + random.below(14) as u8),
            }
        }
        (codes, scales, biases)
    }

    /// The weights, row after row.
    pub fn weights(&self) -> Vec<Weight> {
        let (codes, scales, biases) = self.stored();
        let format = self.format;
        let number = |plane: &[u8], group: usize| match (format.mode(), format.scales()) {
            (Mode::Nvfp4, _) => float8(plane[group]),
            (_, Scales::U8) => 2f64.powi(i32::from(plane[group]) - 127),
            (_, Scales::F32) => {
                let at = 4 * group;
                let bytes = [plane[at], plane[at + 1], plane[at + 2], plane[at + 3]];
                f64::from(f32::from_le_bytes(bytes))
            }
            (_, Scales::F16) => {
                half::f16::from_le_bytes([plane[2 * group], plane[2 * group + 1]]).to_f64()
            }
            (_, Scales::BF16) => {
                half::bf16::from_le_bytes([plane[2 * group], plane[2 * group + 1]]).to_f64()
            }
        };
        let weight = |(i, &code): (usize, &u8)| Weight {
            code: match format.mode() {
                Mode::Affine => f64::from(code),
                Mode::Mxfp4 | Mode::Nvfp4 => float4(code),
                Mode::Mxfp8 => float8(code),
            },
            scale: number(&scales, i / format.group()),
            bias: if biases.is_empty() {
                0.0
            } else {
                number(&biases, i / format.group())
            },
        };
        codes.iter().enumerate().map(weight).collect()
    }

    /// The rows on a device.
    pub fn on(&self, device: &Device) -> Result<Array> {
        let (codes, scales, biases) = self.stored();
        let code_row = self.format.code_row(self.k);
        let mut packed = vec![0u8; self.rows * code_row];
        for (row, codes) in packed
            .chunks_mut(code_row.max(1))
            .zip(codes.chunks(self.k.max(1)))
        {
            for (i, &code) in codes.iter().enumerate() {
                for bit in 0..self.format.bits() {
                    let at = i * self.format.bits() + bit;
                    row[at / 8] |= (code >> bit & 1) << (at % 8);
                }
            }
        }
        let scale_row = self.format.scale_row(self.k);
        let bias_row = if self.format.has_biases() {
            scale_row
        } else {
            0
        };
        let planes = [(packed, code_row), (scales, scale_row), (biases, bias_row)];
        let mut file = File::default();
        let planes = planes.map(|(bytes, row)| (file.add(&bytes, self.misaligned), row));
        let owner: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::new(file.paged());
        let blocks = self.blocks.clamp(1, self.rows.max(1));
        let part = |block: usize| {
            let (start, end) = (self.rows * block / blocks, self.rows * (block + 1) / blocks);
            let cut = |plane: usize| {
                let (from, row) = planes[plane];
                Bytes::new(owner.clone(), from + start * row..from + end * row)
            };
            let biases = if self.format.has_biases() {
                cut(2)
            } else {
                None
            };
            Some(Part {
                rows: end - start,
                data: cut(0)?,
                scales: cut(1),
                biases,
            })
        };
        let parts = (0..blocks).filter_map(part).collect();
        Array::from_parts(
            DType::Quantised(self.format),
            &[self.rows, self.k],
            parts,
            device,
        )
    }
}

/// A sign, two bits of exponent, one of mantissa.
fn float4(code: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(code >> 1 & 3), f64::from(code & 1));
    let size = match exponent {
        0 => mantissa / 2.0,
        _ => (1.0 + mantissa / 2.0) * 2f64.powi(exponent - 1),
    };
    if code & 8 == 0 { size } else { -size }
}

/// A sign, four bits of exponent, three of mantissa.
fn float8(code: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7));
    let size = match exponent {
        0 => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7),
    };
    if code & 0x80 == 0 { size } else { -size }
}
