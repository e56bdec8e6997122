//! How quantised weights are stored: mode, bits, group size and the scales' type.
//!
//! A quantised row of `k` weights is three byte strings: *codes* (a little-endian bit stream, least
//! significant bit first, weight `i` at bits `i·bits..(i+1)·bits`), one *scale* per group, and for
//! the affine mode one *bias* per group. This is the layout MLX writes to files.

use crate::{DType, Error, Result};

/// How a code becomes a number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// `scale · code + bias`, code an unsigned integer.
    Affine,
    /// E2M1 codes in groups of 32, E8M0 scales.
    Mxfp4,
    /// E4M3 codes in groups of 32, E8M0 scales.
    Mxfp8,
    /// E2M1 codes in groups of 16, E4M3 scales.
    Nvfp4,
}

/// The dtype of an affine format's scales and biases.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scales {
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// IEEE single precision.
    F32,
    /// One byte per group: the fp modes.
    U8,
}

/// A quantised storage format.
///
/// ```
/// # fn main() -> kiln_array::Result<()> {
/// use kiln_array::{DType, Format, Mode, Scales};
/// let format = Format::affine(4, 32, DType::F16)?;
/// assert_eq!((format.mode(), format.bits(), format.group()), (Mode::Affine, 4, 32));
/// assert_eq!((format.scales(), format.scale_bytes()), (Scales::F16, 2));
/// assert!(format.has_biases());
/// assert_eq!(format.dequantised(), DType::F16);
/// // A row of 32 weights: 16 bytes of codes, a scale and a bias.
/// assert_eq!((format.code_row(32), format.scale_row(32), format.row(32)), (16, 2, 20));
/// assert_eq!(format.code(&[0x21], 1), 2);
/// assert_eq!(Format::MXFP4.code_value(3), 1.5);
/// assert_eq!(Format::NVFP4.scale(&[0x38], 0), kiln_array::e4m3(0x38));
/// assert_eq!(Format::MXFP8.scale(&[128], 0), kiln_array::e8m0(128));
/// let mut weights = [0.0; 2];
/// Format::MXFP4.dequantise(&[0x32; 16], &[128], &[], 0, &mut weights);
/// assert_eq!(weights, [2.0, 3.0]);
/// assert_eq!(Format::all().len(), 66);
/// # Ok(()) }
/// ```
///
/// Made by [`Format::affine`] or one of the constants, so that every
/// value is a combination that the kernels know.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Format {
    mode: Mode,
    bits: u8,
    group: u8,
    scales: Scales,
}

/// The sixteen values of an E2M1 code.
pub const E2M1: [f32; 16] = [
    0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0,
];

/// The value of an E4M3 byte (no infinities; `0x7f` and `0xff` are NaN).
pub const fn e4m3(byte: u8) -> f32 {
    let sign = (byte as u32 & 0x80) << 24;
    let exponent = (byte as u32 >> 3) & 15;
    let mantissa = byte as u32 & 7;
    if exponent == 15 && mantissa == 7 {
        return f32::NAN;
    }
    if exponent == 0 {
        let magnitude = mantissa as f32 / 512.0;
        return f32::from_bits(magnitude.to_bits() | sign);
    }
    f32::from_bits(sign | ((exponent + 120) << 23) | (mantissa << 20))
}

/// The value of an E8M0 byte, `2^(byte - 127)`; byte 0 is the subnormal `2^-127`.
pub const fn e8m0(byte: u8) -> f32 {
    if byte == 0 {
        f32::from_bits(0x0040_0000)
    } else {
        f32::from_bits((byte as u32) << 23)
    }
}

impl Format {
    /// E2M1 in groups of 32.
    pub const MXFP4: Format = Format {
        mode: Mode::Mxfp4,
        bits: 4,
        group: 32,
        scales: Scales::U8,
    };
    /// E4M3 in groups of 32.
    pub const MXFP8: Format = Format {
        mode: Mode::Mxfp8,
        bits: 8,
        group: 32,
        scales: Scales::U8,
    };
    /// E2M1 in groups of 16.
    pub const NVFP4: Format = Format {
        mode: Mode::Nvfp4,
        bits: 4,
        group: 16,
        scales: Scales::U8,
    };

    /// An affine format: 1, 2, 3, 4, 5, 6 or 8 bits; groups of 32, 64 or 128; scales f16, bf16 or
    /// f32. Anything else is an error that says what is allowed.
    pub fn affine(bits: usize, group: usize, scales: DType) -> Result<Format> {
        if !matches!(bits, 1..=6 | 8) {
            return Err(Error::Format(format!(
                "affine bits must be 1 to 6 or 8, given {bits}"
            )));
        }
        if !matches!(group, 32 | 64 | 128) {
            return Err(Error::Format(format!(
                "affine group size must be 32, 64 or 128, given {group}"
            )));
        }
        let scales = match scales {
            DType::F16 => Scales::F16,
            DType::BF16 => Scales::BF16,
            DType::F32 => Scales::F32,
            other => {
                return Err(Error::Format(format!(
                    "affine scales must be f16, bf16 or f32, given {other}"
                )));
            }
        };
        Ok(Format {
            mode: Mode::Affine,
            bits: bits as u8,
            group: group as u8,
            scales,
        })
    }

    /// Every format that exists: 63 affine ones and the three fp modes.
    pub fn all() -> Vec<Format> {
        let mut all = vec![Format::MXFP4, Format::MXFP8, Format::NVFP4];
        for bits in [1, 2, 3, 4, 5, 6, 8] {
            for group in [32, 64, 128] {
                for scales in [Scales::F16, Scales::BF16, Scales::F32] {
                    all.push(Format {
                        mode: Mode::Affine,
                        bits,
                        group,
                        scales,
                    });
                }
            }
        }
        all
    }

    /// How a code becomes a number.
    pub const fn mode(self) -> Mode {
        self.mode
    }

    /// Bits per code.
    pub const fn bits(self) -> usize {
        self.bits as usize
    }

    /// Weights per scale.
    pub const fn group(self) -> usize {
        self.group as usize
    }

    /// The stored type of the scales (and biases).
    pub const fn scales(self) -> Scales {
        self.scales
    }

    /// Whether groups have a bias beside their scale.
    pub const fn has_biases(self) -> bool {
        matches!(self.mode, Mode::Affine)
    }

    /// The dtype of a dequantised row: the scales' own for the affine mode, bf16 for the others
    /// (MLX's rule).
    pub const fn dequantised(self) -> DType {
        match self.scales {
            Scales::F16 => DType::F16,
            Scales::BF16 | Scales::U8 => DType::BF16,
            Scales::F32 => DType::F32,
        }
    }

    /// Bytes of one scale (or bias).
    pub const fn scale_bytes(self) -> usize {
        match self.scales {
            Scales::F16 | Scales::BF16 => 2,
            Scales::F32 => 4,
            Scales::U8 => 1,
        }
    }

    /// Bytes of the codes of a row of `k` weights; `k` is a multiple of the group size.
    pub const fn code_row(self, k: usize) -> usize {
        k / 8 * self.bits as usize
    }

    /// Bytes of the scales (or of the biases) of a row of `k` weights.
    pub const fn scale_row(self, k: usize) -> usize {
        k / self.group as usize * self.scale_bytes()
    }

    /// Bytes of a whole row of `k` weights: codes, scales and biases.
    pub const fn row(self, k: usize) -> usize {
        let planes = if self.has_biases() { 2 } else { 1 };
        self.code_row(k) + planes * self.scale_row(k)
    }

    /// The code of weight `i` of a row.
    #[inline]
    pub fn code(self, codes: &[u8], i: usize) -> u8 {
        let bits = self.bits as usize;
        let at = i * bits;
        let low = codes[at / 8] as u16;
        let high = if at % 8 + bits > 8 {
            codes[at / 8 + 1] as u16
        } else {
            0
        };
        (((low | high << 8) >> (at % 8)) & ((1u16 << bits) - 1)) as u8
    }

    /// The value that a code stands for, before scale and bias.
    #[inline]
    pub fn code_value(self, code: u8) -> f32 {
        match self.mode {
            Mode::Affine => code as f32,
            Mode::Mxfp4 | Mode::Nvfp4 => E2M1[code as usize & 15],
            Mode::Mxfp8 => e4m3(code),
        }
    }

    /// Scale (or bias) number `i` of a row as f32.
    #[inline]
    pub fn scale(self, scales: &[u8], i: usize) -> f32 {
        match (self.mode, self.scales) {
            (Mode::Nvfp4, _) => e4m3(scales[i]),
            (_, Scales::U8) => e8m0(scales[i]),
            (_, Scales::F16) => DType::F16.read_float(scales, i),
            (_, Scales::BF16) => DType::BF16.read_float(scales, i),
            (_, Scales::F32) => DType::F32.read_float(scales, i),
        }
    }

    /// Weights `start..start + out.len()` of a row in f32, `scale · value + bias` with the product
    /// and the sum each rounded to f32. The definition that kernels are tested against.
    pub fn dequantise(
        self,
        codes: &[u8],
        scales: &[u8],
        biases: &[u8],
        start: usize,
        out: &mut [f32],
    ) {
        for (i, out) in (start..).zip(out) {
            let value = self.code_value(self.code(codes, i));
            let group = i / self.group as usize;
            let scaled = self.scale(scales, group) * value;
            *out = if self.has_biases() {
                scaled + self.scale(biases, group)
            } else {
                scaled
            };
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.mode {
            Mode::Affine => {
                write!(f, "q{}g{}", self.bits, self.group)?;
                match self.scales {
                    Scales::F16 => write!(f, "-f16"),
                    Scales::BF16 => write!(f, "-bf16"),
                    _ => write!(f, "-f32"),
                }
            }
            Mode::Mxfp4 => write!(f, "mxfp4"),
            Mode::Mxfp8 => write!(f, "mxfp8"),
            Mode::Nvfp4 => write!(f, "nvfp4"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_one_little_endian_bit_stream() {
        let format = Format::affine(3, 32, DType::F32).unwrap();
        let words: [u32; 3] = [0x6ddb6fff, 0x36dc925b, 0x00124a49];
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let codes: Vec<u8> = (0..32).map(|i| format.code(&bytes, i)).collect();
        assert_eq!(codes[..8], [7, 7, 7, 7, 6, 6, 6, 6]);
        assert_eq!(codes[31], 0);
    }

    #[test]
    fn fp8_values_are_exact() {
        assert_eq!(e4m3(0x7e), 448.0);
        assert_eq!(e4m3(0x01), 1.0 / 512.0);
        assert_eq!(e4m3(0x38), 1.0);
        assert_eq!(e4m3(0x80).to_bits(), (-0.0f32).to_bits());
        assert!(e4m3(0x7f).is_nan());
        assert_eq!(e8m0(127), 1.0);
        assert_eq!(e8m0(0), 2f32.powi(-127));
    }

    #[test]
    fn only_known_formats_can_be_made() {
        assert!(Format::affine(7, 64, DType::F16).is_err());
        assert!(Format::affine(4, 48, DType::F16).is_err());
        assert!(Format::affine(4, 64, DType::U32).is_err());
        assert_eq!(Format::all().len(), 66);
    }
}
