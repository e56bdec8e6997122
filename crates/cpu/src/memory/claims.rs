//! What the units of a running step have asked for: the check behind [`super::Memory`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The slots read and the ranges written.
#[derive(Default)]
pub(super) struct Claims {
    read: BTreeSet<u32>,
    written: BTreeMap<(u32, usize), usize>,
}

impl Claims {
    pub(super) fn clear(&mut self) {
        self.read.clear();
        self.written.clear();
    }

    pub(super) fn read(&mut self, slot: u32) {
        let mut written = self.written.range((slot, 0)..=(slot, usize::MAX));
        assert!(
            written.next().is_none(),
            "a step read slot {slot}, which it writes"
        );
        self.read.insert(slot);
    }

    pub(super) fn write(&mut self, slot: u32, range: Range<usize>) {
        assert!(
            !self.read.contains(&slot),
            "a step wrote slot {slot}, which it reads"
        );
        if range.is_empty() {
            return;
        }
        let before = self.written.range(..(slot, range.end)).next_back();
        if let Some((&(other, _), &end)) = before {
            assert!(
                other != slot || end <= range.start,
                "two units wrote slot {slot} at {range:?}"
            );
        }
        self.written.insert((slot, range.start), range.end);
    }
}
