//! Products of bytes, four at a time: codes, which have no sign, and numbers of vectors, which do.
//! Codes are exact as bytes; a vector is rounded to the multiples of a unit for each group of its
//! elements, a 127th of the largest. Sums of products of bytes are exact.
//!
//! Blocks are those of `pairs`: a word is four bytes here, the first in the lowest.

use super::{Isa, PairBlock};

/// A table's register tile of bytes.
pub(crate) struct Quads {
    /// Rows and columns of the tile.
    pub(super) tile: (usize, usize),
    /// Whether this machine has the instructions; a table may lack them.
    pub(super) available: fn() -> bool,
    pub(super) codes: unsafe fn(usize, &[u8], &mut [u8]),
    pub(super) whole: unsafe fn(&[f32], &mut [u8]) -> f32,
    pub(super) multiply: unsafe fn(PairBlock<'_>, &mut [f32]),
}

impl Quads {
    /// Rows and columns of the register tile.
    pub(crate) fn tile(&self) -> (usize, usize) {
        self.tile
    }

    /// Integer codes of `bits` bits each as bytes. Their number is a multiple of 32.
    #[inline]
    pub(crate) fn codes(&self, bits: usize, bytes: &[u8], out: &mut [u8]) {
        assert!(out.len().is_multiple_of(32) && bytes.len() * 8 >= out.len() * bits);
        // SAFETY: `Isa::quads` has asked whether this machine has the instructions.
        unsafe { (self.codes)(bits, bytes, out) }
    }

    /// Floats as the nearest multiples of a unit, which is returned: NaN where one is not finite.
    #[inline]
    pub(crate) fn whole(&self, values: &[f32], out: &mut [u8]) -> f32 {
        // SAFETY: `Isa::quads` has asked whether this machine has the instructions.
        unsafe { (self.whole)(values, out) }
    }

    /// The products of all rows with all panels, which have groups with units, beside each other.
    #[inline]
    pub(crate) fn multiply(&self, block: PairBlock<'_>, out: &mut [f32]) {
        if [block.tiles, block.panels, block.pairs].contains(&0) {
            return;
        }
        assert!(block.terms == 1 && block.fits(self.tile, out.len()));
        assert!(block.groups.is_some_and(|groups| groups.units.is_some()));
        // SAFETY: `Isa::quads` has asked whether this machine has the instructions; the operands are
        // as large as the block says.
        unsafe { (self.multiply)(block, out) }
    }
}

impl Isa {
    /// Register tiles of bytes, if this machine has them.
    pub(crate) fn quads(&'static self) -> Option<&'static Quads> {
        self.quads.as_ref().filter(|quads| (quads.available)())
    }
}

/// [`Quads::whole`] for any instruction set.
#[inline(always)]
pub(super) fn whole(values: &[f32], out: &mut [u8]) -> f32 {
    // Adding 1.5 · 2²³ leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // Bits of magnitudes are in the order of these, infinity and NaN last.
    let bits = values.iter().map(|x| x.to_bits() & 0x7fff_ffff);
    let largest = f32::from_bits(bits.fold(0, u32::max));
    // Of smaller numbers the inverse would be infinite; these become zeros.
    let unit = (largest / 127.0).max(f32::MIN_POSITIVE);
    let inverse = 1.0 / unit;
    for (x, out) in values.iter().zip(out) {
        *out = (x * inverse + ROUND).to_bits() as u8;
    }
    if largest.is_finite() { unit } else { f32::NAN }
}
