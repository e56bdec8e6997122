//! Products of bf16, two at a time: what the tables that have them give, and its definition.
//!
//! A panel holds the columns that a register tile multiplies its rows with. Its word
//! `i · columns + j` is a pair: elements `2i` and `2i + 1` of column `j`, the first in the low half.

use super::Isa;

/// A table's register tile of bf16.
pub(crate) struct Pairs {
    /// Rows and columns of the tile.
    pub(super) tile: (usize, usize),
    /// An f32 is the sum of three bf16, an f16 of two. So many at most are multiplied faster than
    /// floats are.
    pub(super) terms: usize,
    pub(super) codes: unsafe fn(usize, &[u8], &mut [u16]),
    pub(super) split: unsafe fn(&mut [f32], &mut [u16]),
    pub(super) multiply: unsafe fn(PairBlock<'_>, &mut [f32]),
}

/// Rows of bf16 and the panels they meet. Counts and distances of elements are even.
#[derive(Clone, Copy)]
pub(crate) struct PairBlock<'a> {
    /// How many tiles the rows fill.
    pub(crate) tiles: usize,
    /// The rows: of each, `terms` that are to be added up.
    pub(crate) x: &'a [u16],
    /// From one tile to the next, from one row of a tile to the next, from one term to the next.
    pub(crate) tile: usize,
    pub(crate) stride: usize,
    pub(crate) term: usize,
    /// Terms of a row.
    pub(crate) terms: usize,
    /// How many panels.
    pub(crate) panels: usize,
    /// The panels.
    pub(crate) panel: &'a [u32],
    /// From one panel to the next.
    pub(crate) panel_stride: usize,
    /// Pairs of the inner product, a multiple of 16.
    pub(crate) pairs: usize,
    /// How the products count, if not as they are.
    pub(crate) groups: Option<Scaled<'a>>,
    /// Whether to add to what is there.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(crate) add: bool,
    /// From one row of results to the next.
    pub(crate) out_stride: usize,
}

/// Scales and biases of the groups of the panels' columns.
#[derive(Clone, Copy)]
pub(crate) struct Scaled<'a> {
    /// Pairs of a group, a multiple of 16.
    pub(crate) group: usize,
    /// What a group's products are multiplied with: a row of all panels' columns for each group.
    pub(crate) scales: &'a [f32],
    /// What the sum of a row's elements in a group is multiplied with.
    pub(crate) biases: &'a [f32],
    /// These sums, of each row.
    pub(crate) sums: &'a [f32],
    /// Of rows of bytes: what these are multiples of, in each group of each row.
    pub(crate) units: Option<&'a [f32]>,
    /// From one tile's sums (and units) to the next's, from one row's to the next's.
    pub(crate) tile: usize,
    pub(crate) stride: usize,
}

impl PairBlock<'_> {
    /// Pairs that are added up before they are scaled, and how often.
    pub(super) fn parts(&self) -> (usize, usize) {
        let part = self.groups.map_or(self.pairs, |groups| groups.group);
        (part, self.pairs / part.max(1))
    }

    pub(super) fn fits(&self, (rows, columns): (usize, usize), out: usize) -> bool {
        let (part, parts) = self.parts();
        let row = (self.terms - 1) * self.term + 2 * self.pairs;
        let last = |tile, stride| (self.tiles - 1) * tile + (rows - 1) * stride;
        let width = self.panels * columns;
        let scaled = self.groups.is_none_or(|groups| {
            groups.scales.len() >= parts * width
                && groups.biases.len() >= parts * width
                && groups.sums.len() >= last(groups.tile, groups.stride) + parts
                && groups
                    .units
                    .is_none_or(|units| units.len() >= groups.sums.len())
        });
        let panels = (self.panels - 1) * self.panel_stride + self.pairs * columns;
        self.pairs.is_multiple_of(16)
            && part.is_multiple_of(16)
            && part * parts == self.pairs
            && self.panel.len() >= panels
            && self.x.len() >= last(self.tile, self.stride) + row
            && out >= (self.tiles * rows - 1) * self.out_stride + width
            && scaled
    }
}

impl Pairs {
    /// Rows and columns of the register tile.
    pub(crate) fn tile(&self) -> (usize, usize) {
        self.tile
    }

    /// How many bf16 a float may be split into.
    pub(crate) fn terms(&self) -> usize {
        self.terms
    }

    /// Integer codes of `bits` bits each as bf16. Their number is a multiple of 32.
    #[inline]
    pub(crate) fn codes(&self, bits: usize, bytes: &[u8], out: &mut [u16]) {
        assert!(out.len().is_multiple_of(32) && bytes.len() * 8 >= out.len() * bits);
        // SAFETY: this machine has the table's instructions, see `Isa`.
        unsafe { (self.codes)(bits, bytes, out) }
    }

    /// The leading bf16 of floats, which keep the rest. Of what is not finite nothing remains.
    #[inline]
    pub(crate) fn split(&self, values: &mut [f32], out: &mut [u16]) {
        // SAFETY: this machine has the table's instructions, see `Isa`.
        unsafe { (self.split)(values, out) }
    }

    /// The products of all rows with all panels, these beside each other. Subnormal numbers may count as zeros.
    #[inline]
    pub(crate) fn multiply(&self, block: PairBlock<'_>, out: &mut [f32]) {
        if [block.tiles, block.panels, block.terms, block.pairs].contains(&0) {
            return;
        }
        assert!(block.fits(self.tile, out.len()));
        // SAFETY: this machine has the table's instructions, see `Isa`; the operands are as large
        // as the block says.
        unsafe { (self.multiply)(block, out) }
    }
}

impl Isa {
    /// Register tiles of bf16, if this machine multiplies these faster than floats.
    pub(crate) fn pairs(&'static self) -> Option<&'static Pairs> {
        self.pairs.as_ref()
    }
}

/// [`Pairs::split`] for any instruction set.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
#[inline(always)]
pub(super) fn split(values: &mut [f32], out: &mut [u16]) {
    for (value, out) in values.iter_mut().zip(out) {
        let quiet = if value.is_nan() { 0x0040_0000 } else { 0 };
        let high = (value.to_bits() | quiet) & 0xffff_0000;
        *out = (high >> 16) as u16;
        let rest = *value - f32::from_bits(high);
        *value = if rest.is_nan() { 0.0 } else { rest };
    }
}
