//! How elements are stored in files.

use std::fmt;

/// The type of a stored tensor's elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Type {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned byte.
    U8,
    /// Signed byte.
    I8,
    /// Unsigned 16-bit integer.
    U16,
    /// Signed 16-bit integer.
    I16,
    /// Unsigned 32-bit integer.
    U32,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 64-bit integer.
    U64,
    /// Signed 64-bit integer.
    I64,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// 8-bit float, 4 exponent bits, no infinities.
    F8E4M3,
    /// 8-bit float, 5 exponent bits.
    F8E5M2,
    /// A power of two in one byte.
    F8E8M0,
    /// Two f32: real and imaginary part.
    C64,
    /// A row of GGUF blocks.
    Gguf(BlockType),
}

/// The names of the plain types in a safetensors header.
const NAMES: [(Type, &str, usize); 17] = [
    (Type::Bool, "BOOL", 1),
    (Type::U8, "U8", 1),
    (Type::I8, "I8", 1),
    (Type::U16, "U16", 2),
    (Type::I16, "I16", 2),
    (Type::U32, "U32", 4),
    (Type::I32, "I32", 4),
    (Type::U64, "U64", 8),
    (Type::I64, "I64", 8),
    (Type::F16, "F16", 2),
    (Type::BF16, "BF16", 2),
    (Type::F32, "F32", 4),
    (Type::F64, "F64", 8),
    (Type::F8E4M3, "F8_E4M3", 1),
    (Type::F8E5M2, "F8_E5M2", 1),
    (Type::F8E8M0, "F8_E8M0", 1),
    (Type::C64, "C64", 8),
];

impl Type {
    /// The type that a safetensors header calls `name`; `None` for names that are not known.
    pub fn from_safetensors(name: &str) -> Option<Type> {
        NAMES
            .iter()
            .find(|entry| entry.1 == name)
            .map(|entry| entry.0)
    }

    /// What a safetensors header calls this type; `None` for GGUF blocks, which it cannot hold.
    pub fn safetensors(self) -> Option<&'static str> {
        NAMES
            .iter()
            .find(|entry| entry.0 == self)
            .map(|entry| entry.1)
    }

    /// Elements per block; 1 for plain types.
    pub fn block(self) -> usize {
        match self {
            Type::Gguf(block) => block.size().0,
            _ => 1,
        }
    }

    /// Bytes per block; of one element for plain types.
    pub fn block_bytes(self) -> usize {
        match self {
            Type::Gguf(block) => block.size().1,
            _ => NAMES
                .iter()
                .find(|entry| entry.0 == self)
                .map_or(0, |entry| entry.2),
        }
    }

    /// Bytes of a tensor of this type. `None` if that overflows, or if blocks do not divide the
    /// rows (the last dimension).
    pub fn bytes(self, shape: &[usize]) -> Option<usize> {
        let block = self.block();
        if block > 1 && shape.last().is_none_or(|row| row % block != 0) {
            return None;
        }
        let elements = elements(shape)?;
        (elements / block).checked_mul(self.block_bytes())
    }

    /// Whether elements are floating-point numbers, in blocks or not.
    pub fn is_float(self) -> bool {
        use Type::*;
        matches!(self, F16 | BF16 | F32 | F64 | F8E4M3 | F8E5M2 | Gguf(_))
    }
}

/// The number of elements of a shape; `None` on overflow.
pub(crate) fn elements(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size))
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Gguf(block) => f.write_str(block.name()),
            _ => f.write_str(self.safetensors().unwrap_or("?")),
        }
    }
}

/// A GGUF block format: a fixed number of elements in a fixed number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the names are the formats' own")]
#[allow(non_camel_case_types, reason = "the names are the formats' own")]
pub enum BlockType {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
    IQ2_XXS,
    IQ2_XS,
    IQ3_XXS,
    IQ1_S,
    IQ4_NL,
    IQ3_S,
    IQ2_S,
    IQ4_XS,
    IQ1_M,
    TQ1_0,
    TQ2_0,
    MXFP4,
}

/// Block formats: number in a file, name, elements and bytes per block.
const BLOCKS: [(u32, BlockType, &str, usize, usize); 24] = [
    (2, BlockType::Q4_0, "Q4_0", 32, 18),
    (3, BlockType::Q4_1, "Q4_1", 32, 20),
    (6, BlockType::Q5_0, "Q5_0", 32, 22),
    (7, BlockType::Q5_1, "Q5_1", 32, 24),
    (8, BlockType::Q8_0, "Q8_0", 32, 34),
    (9, BlockType::Q8_1, "Q8_1", 32, 40),
    (10, BlockType::Q2_K, "Q2_K", 256, 84),
    (11, BlockType::Q3_K, "Q3_K", 256, 110),
    (12, BlockType::Q4_K, "Q4_K", 256, 144),
    (13, BlockType::Q5_K, "Q5_K", 256, 176),
    (14, BlockType::Q6_K, "Q6_K", 256, 210),
    (15, BlockType::Q8_K, "Q8_K", 256, 292),
    (16, BlockType::IQ2_XXS, "IQ2_XXS", 256, 66),
    (17, BlockType::IQ2_XS, "IQ2_XS", 256, 74),
    (18, BlockType::IQ3_XXS, "IQ3_XXS", 256, 98),
    (19, BlockType::IQ1_S, "IQ1_S", 256, 50),
    (20, BlockType::IQ4_NL, "IQ4_NL", 32, 18),
    (21, BlockType::IQ3_S, "IQ3_S", 256, 110),
    (22, BlockType::IQ2_S, "IQ2_S", 256, 82),
    (23, BlockType::IQ4_XS, "IQ4_XS", 256, 136),
    (29, BlockType::IQ1_M, "IQ1_M", 256, 56),
    (34, BlockType::TQ1_0, "TQ1_0", 256, 54),
    (35, BlockType::TQ2_0, "TQ2_0", 256, 66),
    (39, BlockType::MXFP4, "MXFP4", 32, 17),
];

impl BlockType {
    /// The format's usual name.
    pub fn name(self) -> &'static str {
        BLOCKS
            .iter()
            .find(|entry| entry.1 == self)
            .map_or("?", |entry| entry.2)
    }

    /// Elements and bytes per block.
    pub fn size(self) -> (usize, usize) {
        BLOCKS
            .iter()
            .find(|entry| entry.1 == self)
            .map_or((1, 0), |entry| (entry.3, entry.4))
    }
}

impl Type {
    /// The type that a GGUF file numbers `number`; `None` for numbers that are not known.
    pub fn from_gguf(number: u32) -> Option<Type> {
        Some(match number {
            0 => Type::F32,
            1 => Type::F16,
            24 => Type::I8,
            25 => Type::I16,
            26 => Type::I32,
            27 => Type::I64,
            28 => Type::F64,
            30 => Type::BF16,
            _ => Type::Gguf(BLOCKS.iter().find(|entry| entry.0 == number)?.1),
        })
    }
}
