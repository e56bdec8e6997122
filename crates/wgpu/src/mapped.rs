//! Weights that stay in the file they are mapped from: which can, and where their planes lie.

#[cfg(not(all(target_os = "macos", target_arch = "aarch64")))]
use crate::context::Context;
use crate::memory::{Pool, Raw};
use kiln_plan::{Bytes, DType, Part, Spec};
use std::ops::Range;
use std::sync::Arc;

/// What buffers over mapped memory begin and end at: a page.
const PAGE: usize = if cfg!(all(target_os = "macos", target_arch = "aarch64")) {
    16384
} else {
    4096
};

/// Bytes up to which kernels count, in halves of words.
const FAR: usize = 4 << 30;

/// Consecutive rows of a table, and where they lie in their buffer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Block {
    /// Which rows of the table.
    pub(crate) rows: Range<usize>,
    /// The words at which elements or codes, scales and biases start; 0 for what there is not.
    pub(crate) starts: [u32; 3],
}

/// A table in a mapped file, seen through one buffer over all its pages.
pub(crate) struct Mapped {
    pub(crate) raw: Raw,
    pub(crate) blocks: Vec<Block>,
    pub(crate) spec: Spec,
    /// The rows as they were given.
    pub(crate) parts: Vec<Part>,
    _resident: Resident,
}

impl Mapped {
    /// `None` for what has to be copied: small or unaligned tables, owners that do not begin with a
    /// page, planes in different files or far apart. Small ones, because each block of rows is a
    /// launch of its own.
    pub(crate) fn new(pool: &Arc<Pool>, spec: &Spec, parts: &[Part]) -> Option<Mapped> {
        let context = pool.context();
        let least = context.maps?;
        let words = spec
            .dtype
            .row_bytes(spec.shape.last_axis())
            .is_multiple_of(4);
        if spec.bytes() < least || spec.shape.len() != 2 || !words {
            return None;
        }
        let (pages, blocks) = lay_out(spec.dtype, parts)?;
        let most = (2 * (spec.bytes() + PAGE)).min(FAR);
        if pages.is_empty() || pages.len() > most || pages.len() as u64 > context.facts.binding {
            return None;
        }
        let (buffer, resident) = buffer(context, &parts.first()?.data, pages)?;
        Some(Mapped {
            raw: Raw::mapped(pool, buffer, spec.bytes()),
            blocks,
            spec: *spec,
            parts: parts.to_vec(),
            _resident: resident,
        })
    }
}

/// The pages of their file that hold all planes, as bytes of it, and the blocks in these pages.
fn lay_out(dtype: DType, parts: &[Part]) -> Option<(Range<usize>, Vec<Block>)> {
    let file = parts.first()?.data.owner();
    // Vectors of a kernel begin at multiples of their size: eight elements, or four words.
    let aligned = match dtype {
        DType::Quantised(_) => 16,
        plain => 8 * plain.bytes().max(2),
    };
    if !address(file).is_multiple_of(PAGE) {
        return None;
    }
    let place = |plane: &Bytes, aligned: usize| {
        let same = std::ptr::eq(plane.owner(), file);
        let at = address(plane) - address(file);
        (same && at.is_multiple_of(aligned)).then(|| at..at + plane.len())
    };
    let mut planes = Vec::with_capacity(parts.len());
    for part in parts {
        let codes = place(&part.data, aligned)?;
        let further = [&part.scales, &part.biases].map(|plane| match plane {
            Some(plane) => place(plane, 4).map(Some),
            None => Some(None),
        });
        let [scales, biases] = further;
        planes.push([Some(codes), scales?, biases?]);
    }
    let all = || planes.iter().flatten().flatten();
    let first = all().map(|plane| plane.start).min()? / PAGE * PAGE;
    let end = all().map(|plane| plane.end).max()?.next_multiple_of(PAGE);
    let word = |plane: &Option<Range<usize>>| {
        let start = plane.as_ref().map_or(first, |plane| plane.start);
        ((start - first) / 4) as u32
    };
    let mut row = 0;
    let blocks = planes.iter().zip(parts).map(|(planes, part)| {
        let rows = row..row + part.rows;
        row = rows.end;
        Block {
            rows,
            starts: planes.each_ref().map(word),
        }
    });
    Some((first..end, blocks.collect()))
}

fn address(bytes: &[u8]) -> usize {
    bytes.as_ptr() as usize
}

#[cfg(all(target_os = "macos", target_arch = "aarch64"))]
use crate::metal::{Resident, buffer};

/// What a buffer needs to stay resident: nothing.
#[cfg(not(all(target_os = "macos", target_arch = "aarch64")))]
pub(crate) struct Resident;

/// A copy of these pages of the file that `part` is of: only Metal takes the memory itself.
#[cfg(not(all(target_os = "macos", target_arch = "aarch64")))]
fn buffer(
    context: &Arc<Context>,
    part: &Bytes,
    pages: Range<usize>,
) -> Option<(wgpu::Buffer, Resident)> {
    let buffer = context.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: pages.len() as u64,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let file = part.owner();
    let mut bytes = file.get(pages.start..pages.end.min(file.len()))?.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    context.queue.write_buffer(&buffer, 0, &bytes);
    Some((buffer, Resident))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_plan::Format;

    /// A file whose first byte is the first of a page.
    struct File {
        memory: Vec<u8>,
        start: usize,
    }

    impl AsRef<[u8]> for File {
        fn as_ref(&self) -> &[u8] {
            &self.memory[self.start..]
        }
    }

    fn file(bytes: usize) -> Bytes {
        let memory = vec![0; bytes + PAGE];
        let start = address(&memory).next_multiple_of(PAGE) - address(&memory);
        Bytes::new(Arc::new(File { memory, start }), 0..bytes).unwrap()
    }

    fn quantised(file: &Bytes, rows: usize, at: [usize; 3]) -> Part {
        let plane = |at: usize, bytes: usize| file.slice(at..at + bytes).unwrap();
        Part {
            rows,
            data: plane(at[0], rows * 32),
            scales: Some(plane(at[1], rows * 2)),
            biases: Some(plane(at[2], rows * 2)),
        }
    }

    #[test]
    fn blocks_are_found_in_the_pages_that_hold_all_of_them() {
        let dtype = DType::Quantised(Format::affine(4, 64, DType::F16).unwrap());
        let file = file(5 * PAGE);
        let parts = [
            quantised(&file, 8, [3 * PAGE + 16, PAGE + 4, PAGE + 100]),
            quantised(&file, 4, [2 * PAGE, PAGE + 200, 3 * PAGE + 400]),
        ];
        let (pages, blocks) = lay_out(dtype, &parts).unwrap();
        assert_eq!(pages, PAGE..4 * PAGE);
        let words = |bytes: [usize; 3]| bytes.map(|at| (at / 4) as u32);
        let wanted = [
            Block {
                rows: 0..8,
                starts: words([2 * PAGE + 16, 4, 100]),
            },
            Block {
                rows: 8..12,
                starts: words([PAGE, 200, 2 * PAGE + 400]),
            },
        ];
        assert_eq!(blocks, wanted);
    }

    #[test]
    fn what_kernels_cannot_read_in_place_is_copied() {
        let dtype = DType::Quantised(Format::affine(4, 64, DType::F16).unwrap());
        let (one, other) = (file(2 * PAGE), file(2 * PAGE));
        let good = quantised(&one, 4, [0, PAGE, PAGE + 64]);
        assert!(lay_out(dtype, std::slice::from_ref(&good)).is_some());
        for at in [[8, PAGE, PAGE + 64], [0, PAGE + 2, PAGE + 64]] {
            assert_eq!(lay_out(dtype, &[quantised(&one, 4, at)]), None);
        }
        let elsewhere = quantised(&other, 4, [0, PAGE, PAGE + 64]);
        assert_eq!(lay_out(dtype, &[good.clone(), elsewhere.clone()]), None);
        let scales = elsewhere.scales;
        assert_eq!(lay_out(dtype, &[Part { scales, ..good }]), None);
        let memory = Part::plain(4, Bytes::from(vec![0; 4096 + 64]).slice(32..96).unwrap());
        assert_eq!(lay_out(DType::F16, &[memory]), None);
    }
}
