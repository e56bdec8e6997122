//! The slice functions that decide throughput: one table for each instruction set, one of which
//! is chosen when the backend is made.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_dequantise;
#[cfg(target_arch = "x86_64")]
mod avx2_products;
#[cfg(target_arch = "x86_64")]
mod avx2_rows;
#[cfg(target_arch = "x86_64")]
mod avx2_scales;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
#[cfg(target_arch = "x86_64")]
mod avx512_e4m3;
#[cfg(target_arch = "x86_64")]
mod avx512_pairs;
#[cfg(target_arch = "x86_64")]
mod avx512_products;
#[cfg(target_arch = "x86_64")]
mod avx512_quads;
#[cfg(target_arch = "x86_64")]
mod avx512_rows;
#[cfg(target_arch = "x86_64")]
mod avx512_scaled;
#[cfg(target_arch = "x86_64")]
mod avx512_tile;
#[cfg(target_arch = "x86_64")]
mod avx512_vnni;
#[cfg(test)]
mod e4m3_tests;
mod integers;
#[cfg(test)]
mod integers_tests;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_codes;
#[cfg(target_arch = "aarch64")]
mod neon_dot;
#[cfg(target_arch = "aarch64")]
mod neon_products;
#[cfg(target_arch = "aarch64")]
mod neon_rows;
mod operands;
mod pairs;
#[cfg(test)]
mod pairs_tests;
mod quads;
#[cfg(test)]
mod quads_tests;
mod scalar;
#[cfg(test)]
mod tests;

use kiln_plan::{DType, Kind, Scalar};

#[cfg(target_arch = "aarch64")]
pub(crate) use neon_dot::sdot;
pub(crate) use operands::{Elements, Integers, Order, Strided, Tile, Turn, Vector, Weights};
pub(crate) use pairs::{PairBlock, Pairs, Scaled};
pub(crate) use quads::Quads;

/// A table of slice functions for one instruction set. Only [`Isa::all`] gives references to
/// tables, and only to those this machine can run, so holding one proves that calling is safe.
pub(crate) struct Isa {
    name: &'static str,
    available: fn() -> bool,
    /// Whether this table is better than those after it.
    preferred: fn() -> bool,
    load: unsafe fn(DType, &[u8], &mut [u32]),
    store: unsafe fn(DType, &[u32], &mut [u8]),
    cast: unsafe fn(Kind, DType, &[u32], &mut [u32]),
    apply: unsafe fn(Scalar, Kind, &mut [u32], [&[u32]; 3]),
    sum: unsafe fn(&[f32]) -> f32,
    sum_squares: unsafe fn(&[f32]) -> f32,
    max: unsafe fn(&[f32]) -> f32,
    exp_sum: unsafe fn(&mut [f32], f32) -> f32,
    dots: unsafe fn(Strided<'_>, &[f32], &mut [f32]),
    mix: unsafe fn(Strided<'_>, &[f32], &mut [f32]),
    order: fn(DType, DType) -> Order,
    integers: unsafe fn(&[f32], usize, Integers, &mut [f32]),
    matvec: unsafe fn(Weights<'_>, Vector<'_>, &mut [f32], &mut [f32]),
    dequantise: unsafe fn(Weights<'_>, usize, &mut [f32]),
    tile: unsafe fn(Tile<'_>, &mut [f32]),
    tile_rows: usize,
    tile_columns: usize,
    turn: unsafe fn(Turn<'_>, &mut [u32]),
    pairs: Option<Pairs>,
    quads: Option<Quads>,
}

/// Every number of E4M3.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
static E4M3: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut byte = 0;
    while byte < 256 {
        values[byte] = kiln_plan::e4m3(byte as u8);
        byte += 1;
    }
    values
};

/// What [`find`] did not find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Absent {
    /// No table has this name.
    Unknown,
    /// This machine cannot run it.
    Unavailable,
}

/// The table called `name`, or the best one.
pub(crate) fn find(name: Option<&str>) -> Result<&'static Isa, Absent> {
    let Some(name) = name else {
        let mut tables = Isa::all();
        return tables
            .find(|isa| (isa.preferred)())
            .ok_or(Absent::Unavailable);
    };
    let table = TABLES.into_iter().find(|isa| isa.name == name);
    let table = table.ok_or(Absent::Unknown)?;
    Some(table)
        .filter(|isa| (isa.available)())
        .ok_or(Absent::Unavailable)
}

#[cfg(target_arch = "x86_64")]
static TABLES: [&Isa; 6] = [
    &amx::TABLE,
    &avx512_bf16::TABLE,
    &avx512_vnni::TABLE,
    &avx512::TABLE,
    &avx2::TABLE,
    &scalar::TABLE,
];
#[cfg(target_arch = "aarch64")]
static TABLES: [&Isa; 3] = [&neon_dot::TABLE, &neon::TABLE, &scalar::TABLE];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
static TABLES: [&Isa; 1] = [&scalar::TABLE];

/// Whether Intel made this machine's processor.
#[cfg(target_arch = "x86_64")]
fn intel() -> bool {
    const GENU: u32 = u32::from_le_bytes(*b"Genu");
    std::arch::x86_64::__cpuid(0).ebx == GENU
}

/// The names of all tables, whether this machine can run them or not.
pub(crate) fn names() -> Vec<&'static str> {
    TABLES.iter().map(|isa| isa.name).collect()
}

impl Isa {
    /// The tables that this machine can run. The best is the first that is `preferred`.
    pub(crate) fn all() -> impl Iterator<Item = &'static Isa> {
        TABLES.into_iter().filter(|isa| (isa.available)())
    }

    /// The name that selects this table.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Elements of a plain dtype as register bits (floats widened to f32).
    #[inline]
    pub(crate) fn load(&self, dtype: DType, bytes: &[u8], out: &mut [u32]) {
        debug_assert_eq!(bytes.len(), dtype.row_bytes(out.len()));
        // SAFETY: this machine has the table's instructions, see `Isa`.
        unsafe { (self.load)(dtype, bytes, out) }
    }

    /// Elements of a float dtype as f32.
    #[inline]
    pub(crate) fn widen(&self, dtype: DType, bytes: &[u8], out: &mut [f32]) {
        self.load(dtype, bytes, bytemuck::cast_slice_mut(out));
    }

    /// Register bits as elements of a plain dtype. Floats are rounded to nearest even.
    #[inline]
    pub(crate) fn store(&self, dtype: DType, registers: &[u32], out: &mut [u8]) {
        debug_assert_eq!(out.len(), dtype.row_bytes(registers.len()));
        // SAFETY: this machine has the table's instructions, see `Isa`.
        unsafe { (self.store)(dtype, registers, out) }
    }

    /// Floats rounded to elements of a float dtype.
    #[inline]
    pub(crate) fn narrow(&self, dtype: DType, values: &[f32], out: &mut [u8]) {
        self.store(dtype, bytemuck::cast_slice(values), out);
    }

    /// `kiln_plan::cast` of every element.
    #[inline]
    pub(crate) fn cast(&self, from: Kind, dtype: DType, input: &[u32], out: &mut [u32]) {
        debug_assert_eq!(input.len(), out.len());
        // SAFETY: this machine has the table's instructions, see `Isa`.
        unsafe { (self.cast)(from, dtype, input, out) }
    }

    /// Values rounded to a float dtype in place.
    #[inline]
    pub(crate) fn round(&self, dtype: DType, values: &mut [f32]) {
        if dtype == DType::F32 {
            return;
        }
        let mut rounded = [0; 64];
        for block in values.chunks_mut(64) {
            let rounded = &mut rounded[..block.len()];
            self.cast(Kind::Float, dtype, bytemuck::cast_slice(block), rounded);
            block.copy_from_slice(bytemuck::cast_slice(rounded));
        }
    }

    /// [`Scalar::apply`].
    #[inline]
    pub(crate) fn apply(&self, scalar: Scalar, kind: Kind, out: &mut [u32], from: [&[u32]; 3]) {
        // SAFETY: this machine has the table's instructions, see `Isa`.
        unsafe { (self.apply)(scalar, kind, out, from) }
    }

    /// Sum, in a fixed order.
    #[inline]
    pub(crate) fn sum(&self, values: &[f32]) -> f32 {
        // SAFETY: this machine has the table's instructions, see `Isa`.
        unsafe { (self.sum)(values) }
    }

    /// Sum of squares, in a fixed order.
    #[inline]
    pub(crate) fn sum_squares(&self, values: &[f32]) -> f32 {
        // SAFETY: this machine has the table's instructions, see `Isa`.
        unsafe { (self.sum_squares)(values) }
    }

    /// The largest value; NaN if there is one, -infinity of nothing.
    #[inline]
    pub(crate) fn max(&self, values: &[f32]) -> f32 {
        // SAFETY: this machine has the table's instructions, see `Isa`.
        unsafe { (self.max)(values) }
    }

    /// Replaces every value by `exp(value - max)`; their sum.
    #[inline]
    pub(crate) fn exp_sum(&self, values: &mut [f32], max: f32) -> f32 {
        // SAFETY: this machine has the table's instructions, see `Isa`.
        unsafe { (self.exp_sum)(values, max) }
    }

    /// Inner products of `out.len()` rows with `x`.
    #[inline]
    pub(crate) fn dots(&self, rows: Strided<'_>, x: &[f32], out: &mut [f32]) {
        debug_assert!(rows.hold(out.len(), x.len()));
        // SAFETY: this machine has the table's instructions, see `Isa`.
        unsafe { (self.dots)(rows, x, out) }
    }

    /// `y += Σ weight · row` over `weights.len()` rows, in order.
    #[inline]
    pub(crate) fn mix(&self, rows: Strided<'_>, weights: &[f32], y: &mut [f32]) {
        debug_assert!(rows.hold(weights.len(), y.len()));
        // SAFETY: this machine has the table's instructions, see `Isa`.
        unsafe { (self.mix)(rows, weights, y) }
    }

    /// How [`Isa::matvec`] wants a vector of dtype `x` for weights of dtype `w`.
    pub(crate) fn order(&self, w: DType, x: DType) -> Order {
        (self.order)(w, x)
    }

    /// A vector, a whole number of pieces, as integers in an order.
    pub(crate) fn integers(&self, order: Order, of: Integers, x: &[f32], out: &mut [f32]) {
        debug_assert_eq!(out.len(), order.floats(x.len()));
        // SAFETY: this machine has the table's instructions, see `Isa`.
        unsafe { (self.integers)(x, order.codes, of, out) }
    }

    /// Inner products of `out.len()` rows of weights with one vector. `room` is scratch memory of
    /// [`Isa::matvec_room`] floats.
    #[inline]
    pub(crate) fn matvec(&self, w: Weights<'_>, x: Vector<'_>, room: &mut [f32], out: &mut [f32]) {
        debug_assert!(room.len() >= Isa::matvec_room(w.dtype, w.k, out.len()));
        // SAFETY: this machine has the table's instructions, see `Isa`.
        unsafe { (self.matvec)(w, x, room, out) }
    }

    /// Floats of scratch memory for `rows` rows of `k` weights: room for scales and biases.
    pub(crate) fn matvec_room(dtype: DType, k: usize, rows: usize) -> usize {
        match dtype {
            DType::Quantised(format) => 2 * (rows * (k / format.group()) + 16),
            _ => 0,
        }
    }

    /// Elements `start..start + out.len()` of the first row in f32. For quantised rows both are
    /// multiples of the group size.
    #[inline]
    pub(crate) fn dequantise(&self, w: Weights<'_>, start: usize, out: &mut [f32]) {
        // SAFETY: this machine has the table's instructions, see `Isa`.
        unsafe { (self.dequantise)(w, start, out) }
    }

    /// Rows and columns of [`Isa::tile`].
    pub(crate) fn tile_size(&self) -> (usize, usize) {
        (self.tile_rows, self.tile_columns)
    }

    /// `out[row][column] = Σ rows[row][i] · panel[i][column]` for one register tile, `i` ascending.
    #[inline]
    pub(crate) fn tile(&self, tile: Tile<'_>, out: &mut [f32]) {
        let before = self.tile_rows - 1;
        assert!(out.len() >= before * tile.out_stride + self.tile_columns);
        assert!(tile.panel.len() >= tile.k * self.tile_columns);
        assert!(tile.rows.len() >= before * tile.stride + tile.k);
        // SAFETY: this machine has the table's instructions, see `Isa`.
        unsafe { (self.tile)(tile, out) }
    }

    /// `out[i][row] = rows[row][i]`.
    #[inline]
    pub(crate) fn turn(&self, turn: Turn<'_>, out: &mut [u32]) {
        if turn.columns == 0 {
            return;
        }
        assert!(turn.columns.is_multiple_of(8) && out.len() >= turn.words * turn.columns);
        assert!(turn.rows.len() >= (turn.columns - 1) * turn.stride + turn.words);
        // SAFETY: this machine has the table's instructions, see `Isa`.
        unsafe { (self.turn)(turn, out) }
    }
}
