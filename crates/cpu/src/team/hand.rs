//! The pieces of a kernel that a thread has in hand.

use super::sync::{AtomicU64, Ordering};
use std::ops::Range;

/// A thread's pieces: consecutive ones, so that it reads memory in order, of which others take the
/// last first. One word holds the number of the stretch after theirs, the first and the end, so
/// that who takes a piece knows which kernel it is of.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Hand(AtomicU64);

/// Bits of a piece's number.
const BITS: u32 = 20;
const MASK: u64 = (1 << BITS) - 1;

/// In place of a stretch's number: there is no more work.
pub(super) const HOME: usize = (1 << (64 - 2 * BITS)) - 1;

impl Hand {
    /// Gives pieces; tells what stretch's number was there.
    pub(super) fn put(&self, next: usize, pieces: Range<usize>) -> usize {
        let word = pack(next as u64, pieces.start as u64, pieces.end as u64);
        (self.0.swap(word, Ordering::AcqRel) >> (2 * BITS)) as usize
    }

    pub(super) fn is_home(&self) -> bool {
        self.0.load(Ordering::Acquire) >> (2 * BITS) == HOME as u64
    }

    /// The first piece, with its stretch's number.
    pub(super) fn take_first(&self) -> Option<(usize, usize)> {
        self.take(|first, end| (first, (first + 1, end)))
    }

    /// The last piece, with its stretch's number.
    pub(super) fn take_last(&self) -> Option<(usize, usize)> {
        self.take(|first, end| (end - 1, (first, end - 1)))
    }

    fn take(&self, take: impl Fn(u64, u64) -> (u64, (u64, u64))) -> Option<(usize, usize)> {
        let mut seen = self.0.load(Ordering::Acquire);
        loop {
            let (next, first, end) = (seen >> (2 * BITS), seen >> BITS & MASK, seen & MASK);
            if first >= end {
                return None;
            }
            let (piece, (first, end)) = take(first, end);
            let rest = pack(next, first, end);
            let swapped =
                self.0
                    .compare_exchange_weak(seen, rest, Ordering::AcqRel, Ordering::Acquire);
            match swapped {
                Ok(_) => return Some((next as usize, piece as usize)),
                Err(now) => seen = now,
            }
        }
    }
}

fn pack(next: u64, first: u64, end: u64) -> u64 {
    next << (2 * BITS) | first << BITS | end
}
