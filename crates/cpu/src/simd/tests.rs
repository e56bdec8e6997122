//! Every table against the scalar one: unaligned bytes, odd lengths, all dtypes and formats.

use super::*;
use kiln_plan::{Format, Mode};
use proptest::prelude::*;

const FLOATS: [DType; 3] = [DType::F16, DType::BF16, DType::F32];
const KINDS: [Kind; 4] = [Kind::Float, Kind::U32, Kind::I32, Kind::Bool];

fn others() -> impl Iterator<Item = &'static Isa> {
    Isa::all().filter(|isa| isa.name() != "scalar")
}

pub(super) fn scalar() -> &'static Isa {
    find(Some("scalar")).unwrap()
}

/// A copy of `bytes` that begins `shift` bytes after an aligned address.
struct Shifted(Vec<u8>, usize);

impl Shifted {
    fn new(bytes: &[u8], shift: usize) -> Shifted {
        let mut room = vec![0; bytes.len() + 64 + shift];
        let start = room.as_ptr().align_offset(64) + shift;
        room[start..start + bytes.len()].copy_from_slice(bytes);
        Shifted(room, start)
    }

    fn get(&self, length: usize) -> &[u8] {
        &self.0[self.1..self.1 + length]
    }
}

pub(super) fn same(a: u32, b: u32) -> bool {
    let nan = |bits| f32::from_bits(bits).is_nan();
    a == b || nan(a) && nan(b)
}

/// Numbers of many sizes, and the awkward ones.
fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -4.0f32..4.0,
        2 => any::<f32>(),
        1 => prop::sample::select(vec![0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN]),
    ]
}

proptest! {
    #[test]
    fn loads_and_stores_are_the_scalar_ones(
        numbers in prop::collection::vec(number(), 0..70),
        dtype in prop::sample::select(DType::PLAIN.to_vec()),
        shift in 0usize..8,
    ) {
        let registers: Vec<u32> = numbers.iter().map(|n| n.to_bits()).collect();
        let size = dtype.row_bytes(registers.len());
        for isa in others() {
            let (mut ours, mut theirs) = (vec![0; size], vec![0; size]);
            isa.store(dtype, &registers, &mut ours);
            scalar().store(dtype, &registers, &mut theirs);
            let shifted = Shifted::new(&ours, shift);
            let (mut a, mut b) = (registers.clone(), registers.clone());
            isa.load(dtype, shifted.get(size), &mut a);
            scalar().load(dtype, &theirs, &mut b);
            prop_assert!(a.iter().zip(&b).all(|(&a, &b)| same(a, b)), "{a:x?} {b:x?}");
        }
    }

    #[test]
    fn casts_are_exact(
        numbers in prop::collection::vec(number(), 0..70),
        dtype in prop::sample::select(DType::PLAIN.to_vec()),
        from in prop::sample::select(KINDS.to_vec()),
    ) {
        let bits = |n: &f32| if from == Kind::Bool { u32::from(*n > 0.0) } else { n.to_bits() };
        let registers: Vec<u32> = numbers.iter().map(bits).collect();
        for isa in Isa::all() {
            let mut ours = vec![0; registers.len()];
            isa.cast(from, dtype, &registers, &mut ours);
            for (&bits, &ours) in registers.iter().zip(&ours) {
                let exact = kiln_plan::cast(from, dtype, bits);
                let equal = ours == exact || from == Kind::Float && same(ours, exact);
                prop_assert!(equal, "{from:?} to {dtype}: {bits:x} gave {ours:x}, not {exact:x}");
            }
        }
    }

    #[test]
    fn scalar_functions_have_the_same_bits_everywhere(
        a in prop::collection::vec(number(), 40),
        b in prop::collection::vec(number(), 40),
        c in prop::collection::vec(number(), 40),
        which in prop::sample::select(Scalar::ALL.to_vec()),
    ) {
        let bits = |v: &[f32]| v.iter().map(|n| n.to_bits()).collect::<Vec<_>>();
        let (a, b, c) = (bits(&a), bits(&b), bits(&c));
        for kind in KINDS.into_iter().filter(|&kind| which.result(kind).is_some()) {
            for isa in others() {
                let (mut ours, mut theirs) = (vec![0; 40], vec![0; 40]);
                isa.apply(which, kind, &mut ours, [&a, &b, &c]);
                scalar().apply(which, kind, &mut theirs, [&a, &b, &c]);
                prop_assert!(ours.iter().zip(&theirs).all(|(&a, &b)| same(a, b)), "{which:?}");
            }
        }
    }

    #[test]
    fn reductions_agree(values in prop::collection::vec(-3f32..3.0, 0..200)) {
        let magnitude: f32 = values.iter().map(|v| v * v + v.abs()).sum();
        // Two orders of summing n numbers differ by at most n roundings of the magnitude.
        let bound = magnitude * values.len() as f32 * f32::EPSILON;
        for isa in others() {
            prop_assert!((isa.sum(&values) - scalar().sum(&values)).abs() <= bound);
            let squares = scalar().sum_squares(&values);
            prop_assert!((isa.sum_squares(&values) - squares).abs() <= bound);
            prop_assert_eq!(isa.max(&values), scalar().max(&values));
            let (mut ours, mut theirs) = (values.clone(), values.clone());
            let sums = (isa.exp_sum(&mut ours, 0.5), scalar().exp_sum(&mut theirs, 0.5));
            prop_assert_eq!(ours, theirs);
            prop_assert!((sums.0 - sums.1).abs() <= sums.0 * 200.0 * f32::EPSILON);
        }
    }

    #[test]
    fn the_largest_of_anything_with_nan_is_nan(at in 0usize..50, n in 50usize..60) {
        let mut values = vec![1.0; n];
        values[at] = f32::NAN;
        for isa in Isa::all() {
            prop_assert!(isa.max(&values).is_nan());
        }
    }

    #[test]
    fn plain_rows_agree(
        k in 0usize..150,
        count in 0usize..5,
        gap in 0usize..3,
        dtype in prop::sample::select(FLOATS.to_vec()),
        shift in 0usize..8,
        seed in any::<u32>(),
    ) {
        let values = noise(seed, count * (k + gap));
        let mut bytes = vec![0; dtype.row_bytes(values.len())];
        scalar().narrow(dtype, &values, &mut bytes);
        let shifted = Shifted::new(&bytes, shift);
        let bytes = shifted.get(bytes.len());
        let rows = Strided { dtype, bytes, stride: dtype.row_bytes(k + gap) };
        let x = noise(seed ^ 1, k);
        // Sums of at most 150 products of numbers below 1.
        let bound = 150.0 * f32::EPSILON * 16.0;
        for isa in others() {
            let (mut ours, mut theirs) = (vec![0.0; count], vec![0.0; count]);
            isa.dots(rows, &x, &mut ours);
            scalar().dots(rows, &x, &mut theirs);
            prop_assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() <= bound));
            let w = Weights { dtype, k, data: bytes, scales: &[], biases: &[] };
            let vector = Vector { x: &x, elements: Elements::Floats, sums: &[] };
            if gap == 0 {
                let mut products = vec![0.0; count];
                isa.matvec(w, vector, &mut [], &mut products);
                prop_assert!(products.iter().zip(&theirs).all(|(a, b)| (a - b).abs() <= bound));
            }
            let weights = noise(seed ^ 2, count);
            let (mut ours, mut theirs) = (x.clone(), x.clone());
            isa.mix(rows, &weights, &mut ours);
            scalar().mix(rows, &weights, &mut theirs);
            prop_assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() <= bound));
        }
    }

    #[test]
    fn register_tiles_agree_with_plain_sums(
        k in 0usize..70,
        gap in 0usize..9,
        add in any::<bool>(),
        seed in any::<u32>(),
    ) {
        for isa in Isa::all() {
            let (rows, columns) = isa.tile_size();
            let stride = k + gap;
            let weights = noise(seed, rows * stride);
            let panel = noise(seed ^ 7, k * columns);
            let before = noise(seed ^ 9, rows * columns);
            let mut out = before.clone();
            isa.tile(Tile { k, rows: &weights, stride, panel: &panel, add, out_stride: columns }, &mut out);
            for row in 0..rows {
                for column in 0..columns {
                    let at = row * columns + column;
                    let mut sum = if add { f64::from(before[at]) } else { 0.0 };
                    for i in 0..k {
                        let weight = f64::from(weights[row * stride + i]);
                        sum += weight * f64::from(panel[i * columns + column]);
                    }
                    // k + 1 roundings of sums below k + 1 in magnitude.
                    let bound = ((k + 1) * (k + 1)) as f64 * f64::from(f32::EPSILON);
                    prop_assert!((f64::from(out[at]) - sum).abs() <= bound);
                }
            }
        }
    }
}

/// Repeatable numbers in -1..1.
pub(super) fn noise(seed: u32, count: usize) -> Vec<f32> {
    let mut state = u64::from(seed) | 1 << 40;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn bytes(seed: u32, count: usize) -> Vec<u8> {
    noise(seed, count)
        .iter()
        .map(|v| ((v + 1.0) * 127.9) as u8)
        .collect()
}

/// Codes and scales of `rows` random rows of `k` weights, scales of a harmless size.
fn random_rows(format: Format, rows: usize, k: usize, seed: u32) -> [Vec<u8>; 3] {
    let count = rows * k / format.group();
    let plane = |seed| {
        let values: Vec<f32> = noise(seed, count);
        match format.scales() {
            kiln_plan::Scales::U8 => {
                // E8M0 around 1, or E4M3 below its NaN.
                let byte = |v: &f32| match format.mode() {
                    Mode::Nvfp4 => ((v + 1.0) * 60.0) as u8,
                    _ => (127.0 + v * 4.0) as u8,
                };
                values.iter().map(byte).collect()
            }
            _ => {
                let dtype = format.dequantised();
                let mut bytes = vec![0; dtype.row_bytes(count)];
                scalar().narrow(dtype, &values, &mut bytes);
                bytes
            }
        }
    };
    let mut codes = bytes(seed, rows * format.code_row(k));
    if format.mode() == Mode::Mxfp8 {
        codes
            .iter_mut()
            .filter(|b| **b & 0x7f == 0x7f)
            .for_each(|b| *b = 0);
    }
    let biases = if format.has_biases() {
        plane(seed ^ 3)
    } else {
        Vec::new()
    };
    [codes, plane(seed ^ 2), biases]
}

pub(super) fn arranged(order: Order, x: &[f32]) -> Vec<f32> {
    let mut padded = x.to_vec();
    padded.resize(x.len().next_multiple_of(order.piece()), 0.0);
    if let Elements::Integers(of) = order.elements {
        let mut out = vec![f32::NAN; order.floats(x.len())];
        scalar().integers(order, of, &padded, &mut out);
        return out;
    }
    let mut out = Vec::new();
    for piece in padded.chunks(order.piece()) {
        for code in 0..order.codes {
            out.extend((0..order.lanes).map(|lane| piece[lane * order.codes + code]));
        }
    }
    if order.elements == Elements::Floats {
        return out;
    }
    let (pairs, _) = out.as_chunks::<2>();
    let packed = pairs.iter().map(|pair| {
        let [low, high] = pair.map(|x| x.to_bits() >> 16);
        f32::from_bits(high << 16 | low)
    });
    packed.collect()
}

/// Numbers that are also bf16.
pub(super) fn halves(seed: u32, count: usize) -> Vec<f32> {
    let cut = |x: &f32| f32::from_bits(x.to_bits() & 0xffff_0000);
    noise(seed, count).iter().map(cut).collect()
}

/// The instruction sets with each dtype of vectors that one may treat in a way of its own.
pub(super) fn isas_and_vectors() -> impl Iterator<Item = (&'static Isa, DType)> {
    Isa::all().flat_map(|isa| [DType::F32, DType::BF16].map(|x| (isa, x)))
}

fn check_rows(format: Format, groups: usize, shift: usize, seed: u32) {
    let (rows, k) = (3, groups * format.group());
    let planes = random_rows(format, rows, k, seed);
    let shifted = planes.each_ref().map(|plane| Shifted::new(plane, shift));
    let plane = |i: usize| shifted[i].get(planes[i].len());
    let dtype = DType::Quantised(format);
    let w = Weights {
        dtype,
        k,
        data: plane(0),
        scales: plane(1),
        biases: plane(2),
    };
    let x = halves(seed ^ 5, k);
    let mut exact = vec![0.0f64; rows];
    let mut magnitude = vec![0.0f64; rows];
    for row in 0..rows {
        let mut values = vec![0.0; k];
        scalar().dequantise(w.row(row), 0, &mut values);
        for isa in others() {
            let mut ours = vec![0.0; k - format.group()];
            isa.dequantise(w.row(row), format.group(), &mut ours);
            let equal = ours.iter().zip(&values[format.group()..]);
            assert!(
                equal.clone().all(|(a, b)| a.to_bits() == b.to_bits()),
                "{format} {k}"
            );
        }
        for (i, x) in x.iter().enumerate() {
            exact[row] += f64::from(values[i]) * f64::from(*x);
            // Codes and bias are summed apart, so each counts by itself.
            let bias = match w.biases {
                [] => 0.0,
                _ => f64::from(format.scale(w.row(row).biases, i / format.group())),
            };
            let scaled = f64::from(values[i]) - bias;
            magnitude[row] += (bias.abs() + scaled.abs()) * f64::from(x.abs());
        }
    }
    for (isa, vector) in isas_and_vectors() {
        let order = isa.order(dtype, vector);
        let mut sums: Vec<f32> = x.chunks(format.group()).map(|g| scalar().sum(g)).collect();
        sums.resize(sums.len().next_multiple_of(16), 0.0);
        let mut out = vec![0.0; rows];
        let mut room = vec![f32::NAN; Isa::matvec_room(dtype, k, rows)];
        isa.matvec(
            w,
            Vector {
                x: &arranged(order, &x),
                elements: order.elements,
                sums: &sums,
            },
            &mut room,
            &mut out,
        );
        for row in 0..rows {
            // Sums of k terms in an order of their own; in practice a few roundings.
            let bound = magnitude[row] * 32.0 * f64::from(f32::EPSILON) + 1e-6;
            let error = (f64::from(out[row]) - exact[row]).abs();
            assert!(
                error <= bound,
                "{} {format} k {k}: {} {}",
                isa.name(),
                out[row],
                exact[row]
            );
        }
    }
}

#[test]
fn rows_of_every_format_agree() {
    for format in Format::all() {
        for groups in [1, 2, 3, 5, 8, 9, 33] {
            check_rows(format, groups, groups % 8, groups as u32 * 77);
        }
    }
}

#[test]
fn rows_of_more_groups_than_are_widened_at_a_time_agree() {
    for format in [
        Format::affine(4, 32, DType::BF16),
        Format::affine(1, 32, DType::F32),
    ] {
        check_rows(format.unwrap(), 1037, 1, 4);
    }
    check_rows(Format::NVFP4, 777, 3, 5);
}

#[test]
fn nan_codes_and_scales_stay_nan() {
    let codes: Vec<u8> = (0..32)
        .map(|i| if i == 5 { 0xff } else { i as u8 })
        .collect();
    let w = Weights {
        dtype: DType::Quantised(Format::MXFP8),
        k: 32,
        data: &codes,
        scales: &[127],
        biases: &[],
    };
    for isa in Isa::all() {
        let mut out = [0.0; 32];
        isa.dequantise(w, 0, &mut out);
        assert!(
            out.iter().enumerate().all(|(i, v)| v.is_nan() == (i == 5)),
            "{out:?}"
        );
        let order = isa.order(w.dtype, DType::BF16);
        let vector = Vector {
            x: &arranged(order, &[1.0; 32]),
            elements: order.elements,
            sums: &[],
        };
        let mut product = [0.0];
        let mut room = vec![0.0; Isa::matvec_room(w.dtype, 32, 1)];
        isa.matvec(w, vector, &mut room, &mut product);
        assert!(product[0].is_nan());
    }
}

#[test]
fn a_row_with_nan_scales_leaves_its_neighbours_alone() {
    for format in Format::all() {
        for groups in [1, 3, 9] {
            let (rows, k) = (3, groups * format.group());
            let [codes, mut scales, mut biases] = random_rows(format, rows, k, 8);
            let bytes = format.scale_row(k);
            for plane in [&mut scales, &mut biases]
                .into_iter()
                .filter(|p| !p.is_empty())
            {
                plane[bytes..2 * bytes].fill(0xff);
            }
            let dtype = DType::Quantised(format);
            let w = Weights {
                dtype,
                k,
                data: &codes,
                scales: &scales,
                biases: &biases,
            };
            for (isa, vector) in isas_and_vectors() {
                let order = isa.order(dtype, vector);
                let vector = Vector {
                    x: &arranged(order, &halves(9, k)),
                    elements: order.elements,
                    sums: &vec![0.5; groups.next_multiple_of(16)],
                };
                let mut room = vec![f32::NAN; Isa::matvec_room(dtype, k, rows)];
                let mut out = [0.0; 3];
                isa.matvec(w, vector, &mut room, &mut out);
                assert!(
                    out[0].is_finite() && out[2].is_finite(),
                    "{} {format}",
                    isa.name()
                );
                assert!(!out[1].is_finite(), "{} {format}", isa.name());
            }
        }
    }
}

#[test]
fn tables_are_found_by_name() {
    assert_eq!(find(Some("scalar")).map(|isa| isa.name()), Ok("scalar"));
    assert_eq!(
        find(Some("mmx")).map(|isa| isa.name()),
        Err(Absent::Unknown)
    );
    assert!(find(None).is_ok());
}
