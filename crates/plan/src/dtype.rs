//! Element types, and which of them results have.

use crate::Format;
use half::{bf16, f16};

/// The type of an array's elements.
///
/// ```
/// use kiln_array::{DType, Kind};
/// assert!(DType::F16.is_float() && !DType::F16.is_quantised());
/// assert_eq!(DType::U8.kind(), Kind::U32);
/// assert_eq!((DType::BF16.bytes(), DType::BF16.row_bytes(8)), (2, 16));
/// assert_eq!(DType::F16.join(DType::BF16), Some(DType::F32));
/// assert_eq!(DType::U32.join(DType::I32), None);
/// assert_eq!(DType::BF16.round(1.001), 1.0);
/// assert_eq!(DType::F32.read_float(&2.5f32.to_le_bytes(), 0), 2.5);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned byte.
    U8,
    /// Unsigned 32-bit integer.
    U32,
    /// Signed 32-bit integer.
    I32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// IEEE single precision.
    F32,
    /// Quantised rows: read by `matmul` and `take` only.
    Quantised(Format),
}

/// What a value is while it is computed with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// f32.
    Float,
    /// Wrapping u32.
    U32,
    /// Wrapping i32.
    I32,
    /// 0 or 1.
    Bool,
}

impl DType {
    /// The plain dtypes, without the quantised ones.
    pub const PLAIN: [DType; 7] = [
        DType::Bool,
        DType::U8,
        DType::U32,
        DType::I32,
        DType::F16,
        DType::BF16,
        DType::F32,
    ];

    /// Whether elements are floating-point numbers stored one by one.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::BF16 | DType::F32)
    }

    /// Whether rows are quantised.
    pub const fn is_quantised(self) -> bool {
        matches!(self, DType::Quantised(_))
    }

    /// What elements are computed as. Quantised weights compute as floats.
    pub const fn kind(self) -> Kind {
        match self {
            DType::Bool => Kind::Bool,
            DType::U8 | DType::U32 => Kind::U32,
            DType::I32 => Kind::I32,
            DType::F16 | DType::BF16 | DType::F32 | DType::Quantised(_) => Kind::Float,
        }
    }

    /// Bytes of a row of `k` elements. For a quantised dtype, of its codes, scales and biases.
    pub const fn row_bytes(self, k: usize) -> usize {
        match self {
            DType::Bool | DType::U8 => k,
            DType::F16 | DType::BF16 => 2 * k,
            DType::U32 | DType::I32 | DType::F32 => 4 * k,
            DType::Quantised(format) => format.row(k),
        }
    }

    /// Bytes of one element; 0 for a quantised dtype, which has no single elements.
    pub const fn bytes(self) -> usize {
        match self {
            DType::Quantised(_) => 0,
            plain => plain.row_bytes(1),
        }
    }

    /// The dtype two operands are brought to before they meet (MLX's table within these dtypes).
    /// `None` where MLX would use a dtype that does not exist here: u32 with i32 is i64 there.
    pub const fn join(self, other: DType) -> Option<DType> {
        use DType::*;
        Some(match (self, other) {
            (Quantised(_), _) | (_, Quantised(_)) => return None,
            (U32, I32) | (I32, U32) => return None,
            (F32, _) | (_, F32) => F32,
            (F16, BF16) | (BF16, F16) => F32,
            (F16, _) | (_, F16) => F16,
            (BF16, _) | (_, BF16) => BF16,
            (I32, _) | (_, I32) => I32,
            (U32, _) | (_, U32) => U32,
            (U8, _) | (_, U8) => U8,
            (Bool, Bool) => Bool,
        })
    }

    /// `value` rounded to this float dtype (to nearest, ties to even); unchanged for others.
    #[inline]
    pub fn round(self, value: f32) -> f32 {
        match self {
            DType::F16 => f16::from_f32(value).to_f32(),
            DType::BF16 => bf16::from_f32(value).to_f32(),
            _ => value,
        }
    }

    /// Element `i` of a float dtype's bytes as f32, whatever their alignment.
    /// Zero for a dtype that is not a float.
    #[inline]
    pub fn read_float(self, bytes: &[u8], i: usize) -> f32 {
        match self {
            DType::F16 => f16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32(),
            DType::BF16 => bf16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32(),
            DType::F32 => {
                let at = 4 * i;
                f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
            }
            _ => 0.0,
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DType::Bool => f.write_str("bool"),
            DType::U8 => f.write_str("u8"),
            DType::U32 => f.write_str("u32"),
            DType::I32 => f.write_str("i32"),
            DType::F16 => f.write_str("f16"),
            DType::BF16 => f.write_str("bf16"),
            DType::F32 => f.write_str("f32"),
            DType::Quantised(format) => format.fmt(f),
        }
    }
}

/// A Rust type that arrays can be made from and read into.
pub trait Element: bytemuck::Pod + Send + Sync {
    /// The dtype of this type's arrays.
    const DTYPE: DType;
}

impl Element for u8 {
    const DTYPE: DType = DType::U8;
}
impl Element for u32 {
    const DTYPE: DType = DType::U32;
}
impl Element for i32 {
    const DTYPE: DType = DType::I32;
}
impl Element for f16 {
    const DTYPE: DType = DType::F16;
}
impl Element for bf16 {
    const DTYPE: DType = DType::BF16;
}
impl Element for f32 {
    const DTYPE: DType = DType::F32;
}
