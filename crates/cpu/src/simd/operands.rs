//! What the functions of a table take.

use super::integers;
use kiln_plan::DType;

/// Rows of weights or of a table that lie one after the other, from `data`'s first byte on.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    /// The elements' type.
    pub(crate) dtype: DType,
    /// Elements of a row.
    pub(crate) k: usize,
    /// The elements, or the codes.
    pub(crate) data: &'a [u8],
    /// The scales.
    pub(crate) scales: &'a [u8],
    /// The biases.
    pub(crate) biases: &'a [u8],
}

impl<'a> Weights<'a> {
    /// Row `i` alone.
    #[inline(always)]
    pub(crate) fn row(self, i: usize) -> Weights<'a> {
        let (data, scales) = match self.dtype {
            DType::Quantised(format) => (format.code_row(self.k), format.scale_row(self.k)),
            plain => (plain.row_bytes(self.k), 0),
        };
        let biases = if self.biases.is_empty() { 0 } else { scales };
        Weights {
            data: &self.data[i * data..(i + 1) * data],
            scales: &self.scales[i * scales..(i + 1) * scales],
            biases: &self.biases[i * biases..(i + 1) * biases],
            ..self
        }
    }
}

/// Rows of a float dtype at equal distances.
#[derive(Clone, Copy)]
pub(crate) struct Strided<'a> {
    /// The elements' type.
    pub(crate) dtype: DType,
    /// From the first element of the first row on.
    pub(crate) bytes: &'a [u8],
    /// From one row to the next, in bytes.
    pub(crate) stride: usize,
}

impl<'a> Strided<'a> {
    /// Rows of `k` floats, one after the other.
    pub(crate) fn floats(values: &'a [f32], k: usize) -> Strided<'a> {
        let bytes = bytemuck::cast_slice(values);
        Strided {
            dtype: DType::F32,
            bytes,
            stride: DType::F32.row_bytes(k),
        }
    }

    /// These rows without the first `count`, which are not all.
    pub(crate) fn from(self, count: usize) -> Strided<'a> {
        Strided {
            bytes: &self.bytes[count * self.stride..],
            ..self
        }
    }

    pub(super) fn hold(&self, rows: usize, k: usize) -> bool {
        rows == 0 || (rows - 1) * self.stride + self.dtype.row_bytes(k) <= self.bytes.len()
    }
}

/// A vector for [`Isa::matvec`].
#[derive(Clone, Copy)]
pub(crate) struct Vector<'a> {
    /// The elements in the table's order.
    pub(crate) x: &'a [f32],
    /// What they are.
    pub(crate) elements: Elements,
    /// For weights with biases: the sum over each group, filled up with zeros to a multiple of
    /// sixteen.
    pub(crate) sums: &'a [f32],
}

/// How a table's mat-vec wants the elements of its vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Elements {
    Floats,
    /// bf16, of which vectors hold no others; two of them in each float.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    Halves,
    /// What `integers` makes of them.
    Integers(Integers),
}

/// What integers are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Integers {
    /// Elements that have a unit together: a group of weights.
    pub(crate) group: usize,
    /// How much larger the codes are that they meet than what these stand for.
    pub(crate) excess: i32,
}

/// The order in which a table's mat-vec wants the elements of its vector: cut into pieces of
/// `lanes · codes`, each of them a `lanes × codes` matrix, transposed. The last piece is filled up
/// with zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Order {
    /// What the elements become.
    pub(crate) elements: Elements,
    /// Elements that are computed at once.
    pub(crate) lanes: usize,
    /// Consecutive elements that one lane sees in turn.
    pub(crate) codes: usize,
}

impl Order {
    /// The elements as they are.
    pub(crate) const NATURAL: Order = Order {
        elements: Elements::Floats,
        lanes: 1,
        codes: 1,
    };

    /// Elements of a piece.
    pub(crate) const fn piece(self) -> usize {
        self.lanes * self.codes
    }

    /// Floats that `n` elements take.
    pub(crate) const fn floats(self, n: usize) -> usize {
        let pieces = n.div_ceil(self.piece());
        match self.elements {
            Elements::Floats => pieces * self.piece(),
            Elements::Halves => pieces * self.piece() / 2,
            Elements::Integers(of) => integers::floats(pieces, self.codes, of),
        }
    }
}

/// The operands of one register tile: rows, `stride` elements apart, and a panel of as many
/// elements as the tile has columns for each of the `k` inputs.
#[derive(Clone, Copy)]
pub(crate) struct Tile<'a> {
    /// Elements of the inner product.
    pub(crate) k: usize,
    /// The rows.
    pub(crate) rows: &'a [f32],
    /// From one row to the next.
    pub(crate) stride: usize,
    /// The panel.
    pub(crate) panel: &'a [f32],
    /// Whether to add to what is there.
    pub(crate) add: bool,
    /// From one row of results to the next.
    pub(crate) out_stride: usize,
}

/// Rows of words, of which a panel is to have the columns.
#[derive(Clone, Copy)]
pub(crate) struct Turn<'a> {
    /// The rows.
    pub(crate) rows: &'a [u32],
    /// From one row to the next.
    pub(crate) stride: usize,
    /// How many rows, a multiple of 8.
    pub(crate) columns: usize,
    /// Words of a row that count.
    pub(crate) words: usize,
}
