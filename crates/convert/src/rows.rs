//! One tensor's rows: read, put in order, rounded, quantised; a block at a time, on all cores.

use crate::plan::{Action, Job};
use crate::quantise::{self, QuantiseError, Quantised};
use crate::stored::Opened;
use crate::{Error, Open, Result};
use half::{bf16, f16};
use kiln_array::{DType, Format};
use kiln_formats::gguf::{dequantise, fives};
use kiln_formats::{BlockType, Type};
use std::borrow::Cow;
use std::ops::Range;

/// Elements that one thread takes at a time: 1 MB of f32.
const BLOCK: usize = 1 << 18;

/// A tensor of the source; for one that MLX has quantised its codes, scales and biases.
type Planes<'a> = [Opened<'a>];

/// Opens the files anew, so that what was read of one tensor does not stay in memory.
fn open_planes<'a>(job: &'a Job, open: &Open<'_>) -> Result<Vec<Opened<'a>>> {
    job.planes().map(|plane| plane.open(open)).collect()
}

/// Converts a tensor. `emit` gets the rows' bytes or codes in order. The scales and biases come
/// last, as a whole.
pub(crate) fn convert(
    job: &Job,
    open: &Open<'_>,
    emit: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<(Vec<u8>, Vec<u8>)> {
    let planes = &open_planes(job, open)?;
    let (mut scales, mut biases) = (Vec::new(), Vec::new());
    let work = |rows| convert_rows(job, planes, rows);
    in_blocks(job, &work, &mut |part| {
        let part = part.map_err(|fault| fault.name(job))?;
        emit(&part.codes)?;
        scales.extend(part.scales);
        biases.extend(part.biases);
        Ok(())
    })?;
    Ok((scales, biases))
}

/// The squared errors of a tensor's weights in each of these formats, and their squares. `dtype`
/// is what the weights are rounded to first.
pub(crate) fn errors(
    job: &Job,
    open: &Open<'_>,
    formats: &[Format],
    dtype: DType,
) -> Result<(Vec<f64>, f64)> {
    let planes = &open_planes(job, open)?;
    let (mut errors, mut squares) = (vec![0.0; formats.len()], 0.0);
    let work = |rows: Range<usize>| -> std::result::Result<(Vec<f64>, f64), Fault> {
        let values = rounded_values(job, planes, rows.clone(), dtype)?;
        let squares: f64 = values.iter().map(|&value| square(value)).sum();
        let mut restored = vec![0.0; values.len()];
        let mut error = |&format: &Format| {
            let made = quantised(job, &values, format, dtype, rows.start)?;
            let made = [&made.codes[..], &made.scales, &made.biases];
            if !quantise::dequantise(format, made, job.k, &mut restored) {
                return Err(Fault::Length);
            }
            let differences = values.iter().zip(&restored).map(|(a, b)| square(a - b));
            Ok(differences.sum::<f64>())
        };
        let errors = formats.iter().map(&mut error);
        Ok((
            errors.collect::<std::result::Result<Vec<f64>, Fault>>()?,
            squares,
        ))
    };
    // Blocks are the same for any number of threads, and are summed in order.
    in_blocks(job, &work, &mut |part| {
        let (more, block) = part.map_err(|fault| fault.name(job))?;
        errors
            .iter_mut()
            .zip(more)
            .for_each(|(sum, more)| *sum += more);
        squares += block;
        Ok(())
    })?;
    Ok((errors, squares))
}

fn square(value: f32) -> f64 {
    f64::from(value) * f64::from(value)
}

/// Does `work` on blocks of rows, each on a thread of its own, and gives the results to `take` in
/// order.
fn in_blocks<T: Send>(
    job: &Job,
    work: &(dyn Fn(Range<usize>) -> T + Sync),
    take: &mut dyn FnMut(T) -> Result<()>,
) -> Result<()> {
    if job.k == 0 {
        return Ok(());
    }
    let (threads, block) = (threads(), block(job));
    let mut start = 0;
    while start < job.rows {
        let mut blocks = Vec::new();
        while blocks.len() < threads && start < job.rows {
            let end = job.rows.min(start + block);
            blocks.push(start..end);
            start = end;
        }
        for part in side_by_side(work, blocks) {
            take(part)?;
        }
    }
    Ok(())
}

fn threads() -> usize {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(16)
}

/// Rows that one thread takes at a time.
fn block(job: &Job) -> usize {
    (BLOCK / job.k.max(1)).max(1)
}

/// Bytes that blocks of rows need while they are worked on: values in f32, and as many bytes again
/// for what is gathered and made.
pub(crate) fn working(job: &Job) -> usize {
    let values = block(job).min(job.rows) * job.k;
    8 * values * threads().min(job.rows.div_ceil(block(job)))
}

fn side_by_side<T: Send>(
    work: &(dyn Fn(Range<usize>) -> T + Sync),
    mut blocks: Vec<Range<usize>>,
) -> Vec<T> {
    let Some(first) = blocks.pop() else {
        return Vec::new();
    };
    let mut parts: Vec<Option<T>> = blocks.iter().map(|_| None).collect();
    let last = std::thread::scope(|scope| {
        for (part, rows) in parts.iter_mut().zip(blocks) {
            scope.spawn(move || *part = Some(work(rows)));
        }
        work(first)
    });
    parts.into_iter().flatten().chain([last]).collect()
}

/// What is wrong with a weight.
enum Fault {
    TooLarge(f32, DType),
    Quantise(QuantiseError),
    Length,
}

impl Fault {
    fn name(self, job: &Job) -> Error {
        let (path, tensor) = (job.source.path().to_owned(), job.source.name.clone());
        match self {
            Fault::TooLarge(value, dtype) => Error::Overflow {
                path,
                tensor,
                value,
                dtype,
            },
            Fault::Quantise(source) => Error::Quantise {
                path,
                tensor,
                source,
            },
            Fault::Length => {
                let expected = format!("{} rows of {}", job.rows, job.k);
                let found = "fewer".to_owned();
                kiln_formats::Error::invalid(&path, Some(&tensor), expected, found).into()
            }
        }
    }
}

/// Converts these rows. Without quantisation, the bytes are in `codes`.
fn convert_rows(
    job: &Job,
    planes: &Planes<'_>,
    rows: Range<usize>,
) -> std::result::Result<Quantised, Fault> {
    let plain = |codes| Quantised {
        codes,
        ..Quantised::default()
    };
    match job.action {
        Action::Copy => Ok(plain(stored_rows(job, planes, rows)?.into_owned())),
        Action::Cast(dtype) => Ok(plain(rounded(&values(job, planes, rows)?, dtype)?)),
        Action::Repack(_) => repack(job.source.dtype, &stored_rows(job, planes, rows)?),
        Action::Keep(format) => keep(job, planes, rows, format),
        Action::Quantise(format, dtype) => {
            let start = rows.start;
            let values = rounded_values(job, planes, rows, dtype)?;
            quantised(job, &values, format, dtype, start)
        }
    }
}

fn quantised(
    job: &Job,
    values: &[f32],
    format: Format,
    dtype: DType,
    start: usize,
) -> std::result::Result<Quantised, Fault> {
    quantise::quantise(values, job.k, format, dtype)
        .map_err(|error| Fault::Quantise(within_tensor(error, start)))
}

/// Codes as they are; scales and biases too, if their dtype stays.
fn keep(
    job: &Job,
    planes: &Planes<'_>,
    rows: Range<usize>,
    format: Format,
) -> std::result::Result<Quantised, Fault> {
    let (own, [codes, scales, biases]) = packed_rows(job, planes, rows)?;
    let cast = |plane: Cow<'_, [u8]>| {
        if own.scales() == format.scales() {
            return Ok(plane.into_owned());
        }
        let count = plane.len() / own.scale_bytes();
        let values: Vec<f32> = (0..count).map(|i| own.scale(&plane, i)).collect();
        rounded(&values, format.dequantised())
    };
    Ok(Quantised {
        codes: codes.into_owned(),
        scales: cast(scales)?,
        biases: cast(biases)?,
    })
}

/// Codes, scales and biases of some rows, and their format.
type PackedRows<'a> = (Format, [Cow<'a, [u8]>; 3]);

/// These rows of a source that MLX has quantised.
fn packed_rows<'a>(
    job: &Job,
    planes: &'a Planes<'_>,
    rows: Range<usize>,
) -> std::result::Result<PackedRows<'a>, Fault> {
    let packed = job.packed.as_ref().ok_or(Fault::Length)?;
    let plane = |plane: Option<&'a Opened<'_>>| match plane {
        Some(plane) => in_order(job, plane, rows.clone()).ok_or(Fault::Length),
        None => Ok(Cow::default()),
    };
    let [codes, scales, biases] = [0, 1, 2].map(|number| plane(planes.get(number)));
    Ok((packed.format, [codes?, scales?, biases?]))
}

/// Rows are counted from the tensor's first.
fn within_tensor(error: QuantiseError, start: usize) -> QuantiseError {
    match error {
        QuantiseError::NotFinite { row, column, value } => QuantiseError::NotFinite {
            row: start + row,
            column,
            value,
        },
        other => other,
    }
}

/// The stored bytes of output rows `rows`.
fn stored_rows<'a>(
    job: &Job,
    planes: &'a Planes<'_>,
    rows: Range<usize>,
) -> std::result::Result<Cow<'a, [u8]>, Fault> {
    let stored = planes.first().ok_or(Fault::Length)?;
    in_order(job, stored, rows).ok_or(Fault::Length)
}

/// A plane's bytes of output rows `rows`: in place, or gathered where a head's rows are
/// interleaved. `None` if the source is too short.
fn in_order<'a>(job: &Job, stored: &'a Opened<'_>, rows: Range<usize>) -> Option<Cow<'a, [u8]>> {
    let Some(heads) = job.heads else {
        return stored.rows(rows);
    };
    let half = job.rows / heads / 2;
    let place = |row: usize| {
        let (head, side, pair) = (row / (2 * half), row / half % 2, row % half);
        head * 2 * half + 2 * pair + side
    };
    stored.gather(rows.map(place)).map(Cow::Owned)
}

/// The weights of these rows.
fn values(
    job: &Job,
    planes: &Planes<'_>,
    rows: Range<usize>,
) -> std::result::Result<Vec<f32>, Fault> {
    let mut values = vec![0.0; rows.len() * job.k];
    let whole = match job.packed {
        Some(_) => {
            let (format, packed) = packed_rows(job, planes, rows)?;
            let packed = packed.each_ref().map(|plane| &plane[..]);
            quantise::dequantise(format, packed, job.k, &mut values)
        }
        None => {
            let source = stored_rows(job, planes, rows)?;
            dequantise(job.source.dtype, &source, &mut values)
        }
    };
    if whole {
        Ok(values)
    } else {
        Err(Fault::Length)
    }
}

fn rounded_values(
    job: &Job,
    planes: &Planes<'_>,
    rows: Range<usize>,
    dtype: DType,
) -> std::result::Result<Vec<f32>, Fault> {
    let mut values = values(job, planes, rows)?;
    for value in &mut values {
        *value = round(*value, dtype)?;
    }
    Ok(values)
}

/// `value` in `dtype`. A finite value must not become infinite.
fn round(value: f32, dtype: DType) -> std::result::Result<f32, Fault> {
    let rounded = dtype.round(value);
    if rounded.is_infinite() && value.is_finite() {
        return Err(Fault::TooLarge(value, dtype));
    }
    Ok(rounded)
}

fn rounded(values: &[f32], dtype: DType) -> std::result::Result<Vec<u8>, Fault> {
    let mut bytes = Vec::with_capacity(values.len() * dtype.bytes());
    for &value in values {
        let value = round(value, dtype)?;
        match dtype {
            DType::F16 => bytes.extend(f16::from_f32(value).to_le_bytes()),
            DType::BF16 => bytes.extend(bf16::from_f32(value).to_le_bytes()),
            _ => bytes.extend(value.to_le_bytes()),
        }
    }
    Ok(bytes)
}

/// GGUF blocks as codes, scales and biases of the same numbers. `scale · code + bias` with scale
/// `d` is: Q4_0, bias −8d; Q5_0, −16d; Q4_1 and Q5_1, m; Q8_0, −128d and signed codes made unsigned.
/// The blocks of MXFP4 are those of the format of that name, but for the order of their codes.
fn repack(dtype: Type, source: &[u8]) -> std::result::Result<Quantised, Fault> {
    let mut out = Quantised::default();
    match dtype {
        Type::Gguf(BlockType::Q4_0) => {
            for block in source.as_chunks::<18>().0 {
                let [d0, d1, nibbles @ ..] = block;
                push(&mut out, [*d0, *d1], scaled([*d0, *d1], -8.0)?);
                push_nibbles(&mut out.codes, nibbles);
            }
        }
        Type::Gguf(BlockType::Q4_1) => {
            for block in source.as_chunks::<20>().0 {
                let [d0, d1, m0, m1, nibbles @ ..] = block;
                push(&mut out, [*d0, *d1], [*m0, *m1]);
                push_nibbles(&mut out.codes, nibbles);
            }
        }
        Type::Gguf(BlockType::Q5_0) => {
            for block in source.as_chunks::<22>().0 {
                let [d0, d1, h0, h1, h2, h3, nibbles @ ..] = block;
                push(&mut out, [*d0, *d1], scaled([*d0, *d1], -16.0)?);
                push_fives(&mut out.codes, &fives(&[*h0, *h1, *h2, *h3], nibbles));
            }
        }
        Type::Gguf(BlockType::Q5_1) => {
            for block in source.as_chunks::<24>().0 {
                let [d0, d1, m0, m1, h0, h1, h2, h3, nibbles @ ..] = block;
                push(&mut out, [*d0, *d1], [*m0, *m1]);
                push_fives(&mut out.codes, &fives(&[*h0, *h1, *h2, *h3], nibbles));
            }
        }
        Type::Gguf(BlockType::MXFP4) => {
            for block in source.as_chunks::<17>().0 {
                let [exponent, nibbles @ ..] = block;
                // There it stands for what is no number, in a block for 2^128.
                if *exponent == u8::MAX {
                    return Err(Fault::TooLarge(f32::INFINITY, DType::BF16));
                }
                out.scales.push(*exponent);
                push_nibbles(&mut out.codes, nibbles);
            }
        }
        Type::Gguf(BlockType::Q8_0) => {
            for block in source.as_chunks::<34>().0 {
                let [d0, d1, codes @ ..] = block;
                push(&mut out, [*d0, *d1], scaled([*d0, *d1], -128.0)?);
                out.codes.extend(codes.iter().map(|code| code ^ 0x80));
            }
        }
        _ => return Err(Fault::Length),
    }
    Ok(out)
}

fn push(out: &mut Quantised, scale: [u8; 2], bias: [u8; 2]) {
    out.scales.extend(scale);
    out.biases.extend(bias);
}

/// An f16 times a power of two: exact unless it overflows, which is an error.
fn scaled(half: [u8; 2], by: f32) -> std::result::Result<[u8; 2], Fault> {
    let value = f16::from_le_bytes(half).to_f32() * by;
    Ok(f16::from_f32(round(value, DType::F16)?).to_le_bytes())
}

/// Low nibbles are elements 0 to 15, high ones 16 to 31; they become pairs of neighbours.
fn push_nibbles(codes: &mut Vec<u8>, nibbles: &[u8; 16]) {
    let pairs = nibbles.as_chunks::<2>().0;
    codes.extend(pairs.iter().map(|[even, odd]| even & 15 | odd << 4));
    codes.extend(pairs.iter().map(|[even, odd]| even >> 4 | odd & 0xf0));
}

/// Codes of five bits as one stream of bits, the lowest first.
fn push_fives(out: &mut Vec<u8>, codes: &[u8; 32]) {
    for eight in codes.as_chunks::<8>().0 {
        let bits = eight
            .iter()
            .rev()
            .fold(0u64, |bits, &code| bits << 5 | u64::from(code));
        out.extend_from_slice(&bits.to_le_bytes()[..5]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_blocks_are_the_same_numbers() {
        use BlockType::{MXFP4, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
        let affine = |bits| Format::affine(bits, 32, DType::F16).unwrap();
        for (block, format) in [
            (Q4_0, affine(4)),
            (Q4_1, affine(4)),
            (Q5_0, affine(5)),
            (Q5_1, affine(5)),
            (Q8_0, affine(8)),
            (MXFP4, Format::MXFP4),
        ] {
            let dtype = Type::Gguf(block);
            let size = dtype.block_bytes();
            let mut bytes: Vec<u8> = (0..size * 8).map(|i| (i * 37 + i / size) as u8).collect();
            for (i, block) in bytes.chunks_mut(size).enumerate() {
                if block.len() == 17 {
                    block[0] = [0, 1, 100, 127, 254][i % 5];
                    continue;
                }
                let d = f16::from_f32([0.0, 1e-7, -0.01, 3.5, 500.0][i % 5]);
                block[..2].copy_from_slice(&d.to_le_bytes());
                if matches!(size, 20 | 24) {
                    block[2..4].copy_from_slice(&f16::from_f32(-0.37 * i as f32).to_le_bytes());
                }
            }
            let mut expected = vec![0.0; 256];
            assert!(dequantise(dtype, &bytes, &mut expected));
            let Ok(kept) = repack(dtype, &bytes) else {
                panic!("{dtype} is not kept")
            };
            let mut values = vec![0.0; 256];
            format.dequantise(&kept.codes, &kept.scales, &kept.biases, 0, &mut values);
            assert_eq!(values, expected, "{dtype}");
        }
    }

    #[test]
    fn a_bias_that_overflows_is_refused() {
        let mut bytes = vec![0; 34];
        bytes[..2].copy_from_slice(&f16::from_f32(512.0).to_le_bytes());
        let kept = repack(Type::Gguf(BlockType::Q8_0), &bytes);
        assert!(matches!(kept, Err(Fault::TooLarge(-65536.0, DType::F16))));
    }
}
