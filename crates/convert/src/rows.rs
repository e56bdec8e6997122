//! One tensor's rows: read, put in order, rounded, quantised, measured; a block at a time.

use crate::blocks::Lanes;
use crate::measure::{Distance, Sums};
use crate::plan::{Action, Job, element};
use crate::quantise::{self, QuantiseError, Quantised};
use crate::stored::Opened;
use crate::{Error, Result};
use half::{bf16, f16};
use kiln_formats::gguf::{dequantise, fives};
use kiln_formats::{BlockType, Type};
use kiln_plan::{DType, Format};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// A tensor of the source; for one that MLX has quantised its codes, scales and biases.
type Planes<'a> = [Opened<'a>];

/// What could not be made of a block, or the block.
type Attempt<T> = std::result::Result<T, Fault>;

fn open_planes(job: &Job) -> Result<Vec<Opened<'_>>> {
    job.planes().map(|plane| plane.open()).collect()
}

/// What comes after a tensor's codes.
pub(crate) struct Rest {
    pub(crate) scales: Vec<u8>,
    pub(crate) biases: Vec<u8>,
    /// How far the numbers that were written are from those of the source.
    pub(crate) distance: Distance,
}

/// Converts a tensor. `emit` gets the rows' bytes or codes in order.
pub(crate) fn convert(
    job: &Job,
    lanes: Lanes,
    emit: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Rest> {
    let planes = &open_planes(job)?;
    let (mut scales, mut biases) = (Vec::new(), Vec::new());
    let mut sums = Sums::default();
    let spare = Spare::default();
    let work = |rows| convert_rows(job, planes, rows, &spare);
    lanes.each(job, &work, &mut |part| {
        let (part, of_rows) = part.map_err(|fault| fault.name(job))?;
        emit(&part.codes)?;
        scales.extend(part.scales);
        biases.extend(part.biases);
        of_rows.into_iter().for_each(|row| sums.add(row));
        Ok(())
    })?;
    Ok(Rest {
        scales,
        biases,
        distance: sums.distance(),
    })
}

/// Room for weights that a block is done with, for the next: fresh memory would have to be cleared.
#[derive(Default)]
struct Spare(Mutex<Vec<Vec<f32>>>);

impl Spare {
    /// Room for `count` weights, whatever they are now.
    fn take(&self, count: usize) -> Vec<f32> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut room = kept.unwrap_or_default();
        room.resize(count, 0.0);
        room
    }

    fn give(&self, room: Vec<f32>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(room);
    }
}

/// How far the weights of a tensor are from those of another of the same shape.
pub(crate) fn compare(before: &Job, after: &Job, lanes: Lanes) -> Result<Distance> {
    let (first, second) = (&open_planes(before)?, &open_planes(after)?);
    let work = |rows: Range<usize>| {
        let of = |job, planes, rows| values(job, planes, rows).map_err(|fault| fault.name(job));
        let one = of(before, first, rows.clone())?;
        let other = of(after, second, rows)?;
        Ok::<_, Error>(row_sums(before.k, &one, &other))
    };
    let mut sums = Sums::default();
    lanes.each(before, &work, &mut |part| {
        part?.into_iter().for_each(|row| sums.add(row));
        Ok(())
    })?;
    Ok(sums.distance())
}

/// The squared errors of a tensor's weights in each of these formats, and their squares. `dtype`
/// is what the weights are rounded to first.
pub(crate) fn errors(
    job: &Job,
    lanes: Lanes,
    formats: &[Format],
    dtype: DType,
) -> Result<(Vec<f64>, f64)> {
    let planes = &open_planes(job)?;
    let (mut errors, mut squares) = (vec![0.0; formats.len()], 0.0);
    let work = |rows: Range<usize>| -> Attempt<(Vec<f64>, f64)> {
        let values = all_rounded(values(job, planes, rows.clone())?, dtype)?;
        let squares: f64 = values.iter().map(|&value| square(value)).sum();
        let mut restored = vec![0.0; values.len()];
        let mut error = |&format: &Format| {
            quantised(job, &values, format, dtype, rows.start, &mut restored)?;
            let differences = values.iter().zip(&restored).map(|(a, b)| square(a - b));
            Ok(differences.sum::<f64>())
        };
        let errors = formats.iter().map(&mut error);
        Ok((errors.collect::<Attempt<Vec<f64>>>()?, squares))
    };
    // Blocks are the same for any number of threads, and are summed in order.
    lanes.each(job, &work, &mut |part| {
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

/// What is wrong with a weight.
enum Fault {
    TooLarge(f32, DType),
    Quantise(QuantiseError),
    Length,
    Other(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Other(error)
    }
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
            Fault::Other(error) => error,
        }
    }
}

/// Converts these rows, and measures each; nothing is measured where nothing can change. Without
/// quantisation, the bytes are in `codes`.
fn convert_rows(
    job: &Job,
    planes: &Planes<'_>,
    rows: Range<usize>,
    spare: &Spare,
) -> Attempt<(Quantised, Vec<Sums>)> {
    let plain = |codes| Quantised {
        codes,
        ..Quantised::default()
    };
    let measured = |format: Format, before: &[f32], made: &Quantised| {
        let mut after = vec![0.0; before.len()];
        let planes = [&made.codes[..], &made.scales, &made.biases];
        match quantise::dequantise(format, planes, job.k, &mut after) {
            true => Ok(row_sums(job.k, before, &after)),
            false => Err(Fault::Length),
        }
    };
    match job.action {
        Action::Copy => Ok((plain(stored_rows(job, planes, rows)?), Vec::new())),
        Action::Cast(dtype) => {
            let before = values(job, planes, rows)?;
            let bytes = rounded(&before, dtype)?;
            let after = all_rounded(before.clone(), dtype)?;
            Ok((plain(bytes), row_sums(job.k, &before, &after)))
        }
        Action::Block(block) => {
            let before = values(job, planes, rows.clone())?;
            finite(&before, job.k, rows.start)?;
            let (mut codes, mut after) = (Vec::new(), vec![0.0; before.len()]);
            let fits = kiln_formats::gguf::quantise(block, &before, &mut codes)
                && dequantise(Type::Gguf(block), &codes, &mut after);
            if !fits {
                let most = before
                    .iter()
                    .fold(0.0f32, |most, value| most.max(value.abs()));
                return Err(Fault::TooLarge(most, DType::F16));
            }
            Ok((plain(codes), row_sums(job.k, &before, &after)))
        }
        Action::Repack(format) => {
            let stored = stored_rows(job, planes, rows)?;
            let made = repack(job.source.dtype, &stored)?;
            let before = dequantised(job, &stored)?;
            let sums = measured(format, &before, &made)?;
            Ok((made, sums))
        }
        Action::Keep(format) => {
            let packed = packed_rows(job, planes, rows)?;
            if packed.0.scales() == format.scales() {
                return Ok((keep(packed, format)?, Vec::new()));
            }
            let before = unpacked(job, &packed)?;
            let made = keep(packed, format)?;
            let sums = measured(format, &before, &made)?;
            Ok((made, sums))
        }
        Action::Quantise(format, dtype) => {
            let start = rows.start;
            let count = rows.len() * job.k;
            let before = values_into(job, planes, rows, spare.take(count))?;
            let mut after = spare.take(count);
            let made = match element(job.source.dtype) == Some(dtype) && job.packed.is_none() {
                true => quantised(job, &before, format, dtype, start, &mut after)?,
                false => {
                    let weights = all_rounded(before.clone(), dtype)?;
                    quantised(job, &weights, format, dtype, start, &mut after)?
                }
            };
            let sums = row_sums(job.k, &before, &after);
            spare.give(before);
            spare.give(after);
            Ok((made, sums))
        }
    }
}

/// Only finite weights have a scale.
fn finite(values: &[f32], k: usize, start: usize) -> Attempt<()> {
    let Some(at) = values.iter().position(|value| !value.is_finite()) else {
        return Ok(());
    };
    Err(Fault::Quantise(QuantiseError::NotFinite {
        row: start + at / k,
        column: at % k,
        value: values[at],
    }))
}

fn row_sums(k: usize, before: &[f32], after: &[f32]) -> Vec<Sums> {
    let rows = before.chunks(k.max(1)).zip(after.chunks(k.max(1)));
    rows.map(|(before, after)| Sums::of(before, after))
        .collect()
}

/// The numbers that the codes stand for are written to `restored`.
fn quantised(
    job: &Job,
    values: &[f32],
    format: Format,
    dtype: DType,
    start: usize,
    restored: &mut [f32],
) -> Attempt<Quantised> {
    quantise::quantise_and_restore(values, job.k, format, dtype, restored)
        .map_err(|error| Fault::Quantise(within_tensor(error, start)))
}

/// Codes as they are; scales and biases too, if their dtype stays.
fn keep((own, [codes, scales, biases]): PackedRows, format: Format) -> Attempt<Quantised> {
    let cast = |plane: Vec<u8>| {
        if own.scales() == format.scales() {
            return Ok(plane);
        }
        let count = plane.len() / own.scale_bytes();
        let values: Vec<f32> = (0..count).map(|i| own.scale(&plane, i)).collect();
        rounded(&values, format.dequantised())
    };
    Ok(Quantised {
        codes,
        scales: cast(scales)?,
        biases: cast(biases)?,
    })
}

/// Codes, scales and biases of some rows, and their format.
type PackedRows = (Format, [Vec<u8>; 3]);

/// These rows of a source that MLX has quantised.
fn packed_rows(job: &Job, planes: &Planes<'_>, rows: Range<usize>) -> Attempt<PackedRows> {
    let packed = job.packed.as_ref().ok_or(Fault::Length)?;
    let plane = |plane: Option<&Opened<'_>>| match plane {
        Some(plane) => in_order(job, plane, rows.clone()),
        None => Ok(Vec::new()),
    };
    let [codes, scales, biases] = [0, 1, 2].map(|number| plane(planes.get(number)));
    Ok((packed.format, [codes?, scales?, biases?]))
}

/// The numbers that such rows stand for.
fn unpacked(job: &Job, (format, packed): &PackedRows) -> Attempt<Vec<f32>> {
    let packed = packed.each_ref().map(|plane| &plane[..]);
    let weights = packed[0].len() * 8 / format.bits();
    let mut values = vec![0.0; weights];
    match quantise::dequantise(*format, packed, job.k, &mut values) {
        true => Ok(values),
        false => Err(Fault::Length),
    }
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
fn stored_rows(job: &Job, planes: &Planes<'_>, rows: Range<usize>) -> Attempt<Vec<u8>> {
    let stored = planes.first().ok_or(Fault::Length)?;
    Ok(in_order(job, stored, rows)?)
}

/// A plane's bytes of output rows `rows`; gathered where a head's rows are turned.
fn in_order(job: &Job, stored: &Opened<'_>, rows: Range<usize>) -> Result<Vec<u8>> {
    let Some(turn) = job.turn else {
        return stored.rows(rows);
    };
    stored.gather(rows.map(|row| turn.place(job.rows, row)).collect())
}

/// The weights of these rows.
fn values(job: &Job, planes: &Planes<'_>, rows: Range<usize>) -> Attempt<Vec<f32>> {
    values_into(job, planes, rows, Vec::new())
}

/// The same, in `room` where that is of use.
fn values_into(
    job: &Job,
    planes: &Planes<'_>,
    rows: Range<usize>,
    room: Vec<f32>,
) -> Attempt<Vec<f32>> {
    let count = rows.len() * job.k;
    let values = match job.packed {
        Some(_) => unpacked(job, &packed_rows(job, planes, rows)?)?,
        None => dequantised_into(job, &stored_rows(job, planes, rows)?, room)?,
    };
    match values.len() == count {
        true => Ok(values),
        false => Err(Fault::Length),
    }
}

/// The weights that rows of the source's own type stand for.
fn dequantised(job: &Job, stored: &[u8]) -> Attempt<Vec<f32>> {
    dequantised_into(job, stored, Vec::new())
}

/// The same, in `values`.
fn dequantised_into(job: &Job, stored: &[u8], mut values: Vec<f32>) -> Attempt<Vec<f32>> {
    let rows = job.source.dtype.bytes(&[job.k]).filter(|&bytes| bytes > 0);
    let rows = rows.map_or(0, |bytes| stored.len() / bytes);
    values.resize(rows * job.k, 0.0);
    match dequantise(job.source.dtype, stored, &mut values) {
        true => Ok(values),
        false => Err(Fault::Length),
    }
}

fn all_rounded(mut values: Vec<f32>, dtype: DType) -> Attempt<Vec<f32>> {
    for value in &mut values {
        *value = round(*value, dtype)?;
    }
    Ok(values)
}

/// `value` in `dtype`. A finite value must not become infinite.
fn round(value: f32, dtype: DType) -> Attempt<f32> {
    let rounded = dtype.round(value);
    if rounded.is_infinite() && value.is_finite() {
        return Err(Fault::TooLarge(value, dtype));
    }
    Ok(rounded)
}

fn rounded(values: &[f32], dtype: DType) -> Attempt<Vec<u8>> {
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
fn repack(dtype: Type, source: &[u8]) -> Attempt<Quantised> {
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
fn scaled(half: [u8; 2], by: f32) -> Attempt<[u8; 2]> {
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
