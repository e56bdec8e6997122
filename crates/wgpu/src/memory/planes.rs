//! How loaded rows lie in buffers, and how they get there.

use crate::context::Context;
use kiln_plan::{DType, Part, Shape, Spec};
use std::ops::Range;

pub(super) fn rows(shape: &Shape) -> usize {
    shape.first().copied().unwrap_or(1)
}

/// Where the planes of some rows start in their buffer, in bytes.
pub(crate) struct Planes {
    /// Elements or codes, scales, biases.
    pub(crate) starts: Vec<usize>,
    /// In all.
    pub(crate) bytes: usize,
}

impl Planes {
    pub(crate) fn new(dtype: DType, rows: usize, k: usize) -> Planes {
        let sizes = match dtype {
            DType::Quantised(format) => {
                let scales = rows * format.scale_row(k);
                let biases = if format.has_biases() { scales } else { 0 };
                vec![rows * format.code_row(k), scales, biases]
            }
            plain => vec![plain.row_bytes(rows * k)],
        };
        let mut bytes = 0;
        let mut starts = Vec::with_capacity(sizes.len());
        for size in sizes {
            starts.push(bytes);
            bytes = (bytes + size).next_multiple_of(16);
        }
        Planes { starts, bytes }
    }
}

/// The rows of an array that lie in each of its buffers, where one binding holds `limit` bytes.
/// `None` where not even eight rows fit. Depends on nothing else, so that a plan can be compiled
/// before the array is there.
pub(crate) fn pieces(spec: &Spec, limit: u64) -> Option<Vec<Range<usize>>> {
    let rows = rows(&spec.shape);
    let k = spec.shape.elements() / rows.max(1);
    if Planes::new(spec.dtype, rows, k).bytes as u64 <= limit {
        return Some(std::iter::once(0..rows).collect());
    }
    // Eight rows at a time keep every piece's results in words of their own.
    let row = spec.dtype.row_bytes(k) as u64;
    let most = ((limit.saturating_sub(64)) / row.max(1) / 8 * 8) as usize;
    let starts = (0..rows).step_by(most.max(1));
    (most > 0).then(|| starts.map(|from| from..(from + most).min(rows)).collect())
}

/// The bytes of one plane of some rows, block by block.
pub(super) fn slices(
    parts: &[Part],
    range: &Range<usize>,
    plane: usize,
    rows: usize,
    mut each: impl FnMut(&[u8]),
) {
    let mut first = 0;
    for part in parts {
        let bytes = match plane {
            0 => Some(&part.data),
            1 => part.scales.as_ref(),
            _ => part.biases.as_ref(),
        };
        let from = range.start.max(first) - first;
        let to = range.end.min(first + part.rows).saturating_sub(first);
        first += part.rows;
        // A scalar is one row, also where its block says otherwise.
        let row = |bytes: &[u8]| bytes.len() / if rows == 1 { 1 } else { part.rows.max(1) };
        if let Some(bytes) = bytes
            && from < to
        {
            let row = row(bytes);
            each(bytes.get(from * row..to * row).unwrap_or_default());
        }
    }
}

/// Copies bytes into a buffer, some megabytes at a time.
pub(super) struct Upload<'a> {
    context: &'a Context,
    buffer: &'a wgpu::Buffer,
    at: u64,
    pending: Vec<u8>,
}

impl Upload<'_> {
    const CHUNK: usize = 4 << 20;

    pub(super) fn new<'a>(context: &'a Context, buffer: &'a wgpu::Buffer) -> Upload<'a> {
        Upload {
            context,
            buffer,
            at: 0,
            pending: Vec::new(),
        }
    }

    pub(super) fn begin(&mut self, at: usize) {
        self.at = at as u64;
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = Self::CHUNK - self.pending.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == Self::CHUNK {
                self.flush();
                // What is staged for uploads is freed by submissions.
                self.context.queue.submit([]);
                let _ = self.context.device.poll(wgpu::PollType::Poll);
            }
        }
    }

    pub(super) fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let padded = self.pending.len().next_multiple_of(4);
        self.pending.resize(padded, 0);
        self.context
            .queue
            .write_buffer(self.buffer, self.at, &self.pending);
        self.at += padded as u64;
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_plan::Format;

    fn spec(dtype: DType, shape: &[usize]) -> Spec {
        let shape = Shape::new(shape).unwrap();
        Spec { dtype, shape }
    }

    #[test]
    fn a_table_larger_than_a_binding_is_cut_into_rows() {
        let table = spec(DType::F32, &[100, 64]);
        assert_eq!(pieces(&table, 1 << 20).map(|pieces| pieces.len()), Some(1));
        let cut = pieces(&table, 8192).unwrap();
        assert_eq!(cut, [0..24, 24..48, 48..72, 72..96, 96..100]);
        assert_eq!(pieces(&table, 1024), None);
    }

    #[test]
    fn planes_start_at_words_and_do_not_overlap() {
        let format = Format::affine(3, 32, DType::F16).unwrap();
        let planes = Planes::new(DType::Quantised(format), 3, 32);
        assert_eq!(planes.starts, [0, 48, 64]);
        assert_eq!(planes.bytes, 80);
    }
}
