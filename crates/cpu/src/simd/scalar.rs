//! The table for every machine, and the definitions that the others are tested against.

use super::{Isa, Order, Strided, Tile, Turn, Vector, Weights, integers};
use kiln_plan::{DType, Kind, Scalar, math};

pub(super) static TABLE: Isa = Isa {
    name: "scalar",
    available: || true,
    preferred: || true,
    load,
    store,
    cast,
    apply,
    sum,
    sum_squares,
    max,
    exp_sum,
    dots,
    mix,
    order: |_, _| Order::NATURAL,
    integers: integers::store,
    matvec,
    dequantise,
    tile: tile::<4, 8>,
    tile_rows: 4,
    tile_columns: 8,
    turn,
    pairs: None,
    quads: None,
};

/// Partial sums that reductions keep, so that loops over them vectorise.
const LANES: usize = 8;

#[inline(always)]
fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&b| u32::from_le_bytes(b))
}

#[inline(always)]
fn halves(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|&b| u16::from_le_bytes(b))
}

#[inline(always)]
pub(super) fn load(dtype: DType, bytes: &[u8], out: &mut [u32]) {
    match dtype {
        DType::Bool | DType::U8 => {
            out.iter_mut()
                .zip(bytes)
                .for_each(|(out, &b)| *out = u32::from(b));
        }
        DType::U32 | DType::I32 | DType::F32 => {
            out.iter_mut()
                .zip(words(bytes))
                .for_each(|(out, w)| *out = w);
        }
        DType::BF16 => {
            out.iter_mut()
                .zip(halves(bytes))
                .for_each(|(out, h)| *out = u32::from(h) << 16);
        }
        DType::F16 => {
            let wide = |h| half::f16::from_bits(h).to_f32().to_bits();
            out.iter_mut()
                .zip(halves(bytes))
                .for_each(|(out, h)| *out = wide(h));
        }
        DType::Quantised(_) => unreachable!("quantised rows have no elements"),
    }
}

/// bf16 to nearest even, NaN kept; in integers, so that loops over it vectorise.
#[inline(always)]
pub(super) fn bf16(bits: u32) -> u16 {
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let nan = bits & 0x7fff_ffff > 0x7f80_0000;
    (if nan { bits >> 16 | 0x40 } else { rounded }) as u16
}

#[inline(always)]
pub(super) fn store(dtype: DType, registers: &[u32], out: &mut [u8]) {
    match dtype {
        DType::Bool | DType::U8 => {
            out.iter_mut()
                .zip(registers)
                .for_each(|(out, &r)| *out = r as u8);
        }
        DType::U32 | DType::I32 | DType::F32 => {
            let out = out.as_chunks_mut::<4>().0;
            out.iter_mut()
                .zip(registers)
                .for_each(|(out, r)| *out = r.to_le_bytes());
        }
        DType::BF16 => {
            let out = out.as_chunks_mut::<2>().0;
            out.iter_mut()
                .zip(registers)
                .for_each(|(out, &r)| *out = bf16(r).to_le_bytes());
        }
        DType::F16 => {
            let out = out.as_chunks_mut::<2>().0;
            let narrow = |r| half::f16::from_f32(f32::from_bits(r)).to_le_bytes();
            out.iter_mut()
                .zip(registers)
                .for_each(|(out, &r)| *out = narrow(r));
        }
        DType::Quantised(_) => unreachable!("quantised rows have no elements"),
    }
}

#[inline(always)]
fn each(input: &[u32], out: &mut [u32], f: impl Fn(u32) -> u32) {
    out.iter_mut()
        .zip(input)
        .for_each(|(out, &bits)| *out = f(bits));
}

/// One loop for each dtype, so that the conversion in it is known.
#[inline(always)]
fn cast_from(from: Kind, dtype: DType, input: &[u32], out: &mut [u32]) {
    match dtype {
        DType::Bool => each(input, out, |b| kiln_plan::cast(from, DType::Bool, b)),
        DType::U8 => each(input, out, |b| kiln_plan::cast(from, DType::U8, b)),
        DType::U32 => each(input, out, |b| kiln_plan::cast(from, DType::U32, b)),
        DType::I32 => each(input, out, |b| kiln_plan::cast(from, DType::I32, b)),
        DType::F16 => each(input, out, |b| kiln_plan::cast(from, DType::F16, b)),
        DType::BF16 => {
            let rounded = |b| kiln_plan::cast(from, DType::F32, b);
            each(input, out, |b| u32::from(bf16(rounded(b))) << 16);
        }
        DType::F32 => each(input, out, |b| kiln_plan::cast(from, DType::F32, b)),
        DType::Quantised(_) => unreachable!("no expression casts to quantised rows"),
    }
}

#[inline(always)]
pub(super) fn cast(from: Kind, dtype: DType, input: &[u32], out: &mut [u32]) {
    match from {
        Kind::Float => cast_from(Kind::Float, dtype, input, out),
        Kind::U32 => cast_from(Kind::U32, dtype, input, out),
        Kind::I32 => cast_from(Kind::I32, dtype, input, out),
        Kind::Bool => cast_from(Kind::Bool, dtype, input, out),
    }
}

#[inline(always)]
pub(super) fn apply(scalar: Scalar, kind: Kind, out: &mut [u32], from: [&[u32]; 3]) {
    scalar.apply(kind, out, from);
}

#[inline(always)]
fn fold(values: &[f32], start: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut partial = [start; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        partial
            .iter_mut()
            .zip(block)
            .for_each(|(p, &v)| *p = f(*p, v));
    }
    partial
        .iter_mut()
        .zip(rest)
        .for_each(|(p, &v)| *p = f(*p, v));
    let half: [f32; LANES / 2] = std::array::from_fn(|i| f(partial[i], partial[i + LANES / 2]));
    f(f(half[0], half[2]), f(half[1], half[3]))
}

#[inline(always)]
pub(super) fn sum(values: &[f32]) -> f32 {
    let mut partial = [0.0f32; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        partial.iter_mut().zip(block).for_each(|(p, &v)| *p += v);
    }
    partial.iter_mut().zip(rest).for_each(|(p, &v)| *p += v);
    total(partial)
}

#[inline(always)]
pub(super) fn sum_squares(values: &[f32]) -> f32 {
    let mut partial = [0.0f32; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        partial
            .iter_mut()
            .zip(block)
            .for_each(|(p, &v)| *p += v * v);
    }
    partial.iter_mut().zip(rest).for_each(|(p, &v)| *p += v * v);
    total(partial)
}

#[inline(always)]
fn total(p: [f32; LANES]) -> f32 {
    ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]))
}

#[inline(always)]
pub(super) fn max(values: &[f32]) -> f32 {
    // NaN is neither above the largest so far nor at most it: it replaces it, and stays.
    fold(values, f32::NEG_INFINITY, |a, b| {
        if a > b || a.is_nan() { a } else { b }
    })
}

#[inline(always)]
pub(super) fn exp_sum(values: &mut [f32], max: f32) -> f32 {
    values.iter_mut().for_each(|v| *v = math::exp(*v - max));
    sum(values)
}

/// The elements of a float dtype in blocks of `LANES`, widened.
#[inline(always)]
fn widened(dtype: DType, row: &[u8], mut f: impl FnMut(usize, &[f32])) {
    let mut block = [0u32; LANES];
    let bytes = dtype.row_bytes(LANES);
    for (i, chunk) in row.chunks(bytes).enumerate() {
        let count = chunk.len() / dtype.bytes();
        load(dtype, chunk, &mut block[..count]);
        f(i * LANES, bytemuck::cast_slice(&block[..count]));
    }
}

#[inline(always)]
pub(super) fn dot(dtype: DType, row: &[u8], x: &[f32]) -> f32 {
    let mut partial = [0.0f32; LANES];
    widened(dtype, row, |at, values| {
        let x = &x[at..at + values.len()];
        partial
            .iter_mut()
            .zip(values)
            .zip(x)
            .for_each(|((p, v), x)| *p += v * x);
    });
    total(partial)
}

pub(super) fn dots(rows: Strided<'_>, x: &[f32], out: &mut [f32]) {
    let bytes = rows.dtype.row_bytes(x.len());
    for (i, out) in out.iter_mut().enumerate() {
        *out = dot(rows.dtype, &rows.bytes[i * rows.stride..][..bytes], x);
    }
}

pub(super) fn mix(rows: Strided<'_>, weights: &[f32], y: &mut [f32]) {
    let bytes = rows.dtype.row_bytes(y.len());
    for (i, weight) in weights.iter().enumerate() {
        widened(
            rows.dtype,
            &rows.bytes[i * rows.stride..][..bytes],
            |at, values| {
                y[at..]
                    .iter_mut()
                    .zip(values)
                    .for_each(|(y, v)| *y += weight * v);
            },
        );
    }
}

pub(super) fn matvec(w: Weights<'_>, vector: Vector<'_>, _: &mut [f32], out: &mut [f32]) {
    let Vector { x, sums, .. } = vector;
    for (i, out) in out.iter_mut().enumerate() {
        let row = w.row(i);
        *out = match w.dtype {
            DType::Quantised(_) => dot_codes(row, x, sums),
            plain => dot(plain, row.data, &x[..w.k]),
        };
    }
}

/// `Σ scale · (Σ value · x) + bias · Σ x` over the groups.
pub(super) fn dot_codes(row: Weights<'_>, x: &[f32], sums: &[f32]) -> f32 {
    let DType::Quantised(format) = row.dtype else {
        return 0.0;
    };
    let mut total = 0.0;
    for (group, x) in x[..row.k].chunks(format.group()).enumerate() {
        let start = group * format.group();
        let mut partial = [0.0f32; LANES];
        for (i, &x) in x.iter().enumerate() {
            partial[i % LANES] += format.code_value(format.code(row.data, start + i)) * x;
        }
        total += format.scale(row.scales, group) * self::total(partial);
        if format.has_biases() {
            total += format.scale(row.biases, group) * sums[group];
        }
    }
    total
}

pub(super) fn dequantise(w: Weights<'_>, start: usize, out: &mut [f32]) {
    match w.dtype {
        DType::Quantised(format) => {
            format.dequantise(w.data, w.scales, w.biases, start, out);
        }
        plain => {
            let bytes = plain.row_bytes(start)..plain.row_bytes(start + out.len());
            load(plain, &w.data[bytes], bytemuck::cast_slice_mut(out));
        }
    }
}

pub(super) fn tile<const ROWS: usize, const COLUMNS: usize>(tile: Tile<'_>, out: &mut [f32]) {
    let mut sums = [[0.0f32; COLUMNS]; ROWS];
    for (sums, out) in sums.iter_mut().zip(out.chunks(tile.out_stride)) {
        if tile.add {
            sums.copy_from_slice(&out[..COLUMNS]);
        }
    }
    let (panel, _) = tile.panel.as_chunks::<COLUMNS>();
    for (i, column) in panel[..tile.k].iter().enumerate() {
        for (row, sums) in sums.iter_mut().enumerate() {
            let x = tile.rows[row * tile.stride + i];
            sums.iter_mut()
                .zip(column)
                .for_each(|(sum, weight)| *sum += x * weight);
        }
    }
    for (sums, out) in sums.iter().zip(out.chunks_mut(tile.out_stride)) {
        out[..COLUMNS].copy_from_slice(sums);
    }
}

pub(super) fn turn(turn: Turn<'_>, out: &mut [u32]) {
    for (i, line) in out
        .chunks_exact_mut(turn.columns)
        .take(turn.words)
        .enumerate()
    {
        for (row, word) in line.iter_mut().enumerate() {
            *word = turn.rows[row * turn.stride + i];
        }
    }
}
