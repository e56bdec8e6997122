//! What register tiles of bytes are, and that every table's are that.

use super::pairs::{PairBlock, Scaled};
use super::pairs_tests::code;
use super::tests::noise;
use super::{Isa, Quads};
use proptest::prelude::*;

fn tables() -> impl Iterator<Item = &'static Quads> {
    Isa::all().filter_map(|isa| isa.quads())
}

fn bytes(seed: u32, count: usize) -> Vec<u8> {
    let byte = |x: &f32| (x * 1e6) as i32 as u8;
    noise(seed, count).iter().map(byte).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tiles_of_quads_are_their_definition(
        tiles in 1usize..4,
        panels in 1usize..3,
        parts in 1usize..4,
        part in prop::sample::select(vec![16usize, 32]),
        add in any::<bool>(),
        gap in 0usize..3,
        seed in any::<u32>(),
    ) {
        for table in tables() {
            let (rows, columns) = table.tile();
            let (quads, width) = (part * parts, panels * columns);
            // In pairs of bytes, as a block counts.
            let stride = 2 * quads + 2 * gap;
            let tile = rows * stride + 2 * gap;
            let x = bytes(seed, 2 * tiles * tile);
            let panel_stride = quads * columns + gap;
            let panel = bytes(seed ^ 1, 4 * panels * panel_stride);
            let [scales, biases] = [2, 3].map(|i| noise(seed ^ i, parts * width));
            let planes = tiles * (rows * (parts + gap) + gap);
            let [sums, units] = [4, 5].map(|i| noise(seed ^ i, planes));
            let words = |bytes: &[u8]| -> Vec<u16> {
                bytes.as_chunks().0.iter().map(|two| u16::from_le_bytes(*two)).collect()
            };
            let quad = |bytes: &[u8]| -> Vec<u32> {
                bytes.as_chunks().0.iter().map(|four| u32::from_le_bytes(*four)).collect()
            };
            let (places, per_row) = (rows * (parts + gap) + gap, parts + gap);
            let block = PairBlock {
                tiles,
                x: &words(&x),
                tile,
                stride,
                term: 0,
                terms: 1,
                panels,
                panel: &quad(&panel),
                panel_stride,
                pairs: quads,
                groups: Some(Scaled {
                    group: part,
                    scales: &scales,
                    biases: &biases,
                    sums: &sums,
                    units: Some(&units),
                    tile: places,
                    stride: per_row,
                }),
                add,
                out_stride: width + gap,
            };
            let before = noise(seed ^ 6, tiles * rows * (width + gap));
            let mut out = before.clone();
            table.multiply(block, &mut out);
            for (at, out) in out.iter().enumerate() {
                let (row, column) = (at / (width + gap), at % (width + gap));
                if column >= width {
                    prop_assert_eq!(*out, before[at]);
                    continue;
                }
                let mut exact = if add { f64::from(before[at]) } else { 0.0 };
                let mut magnitude = exact.abs() + 1.0;
                for number in 0..parts {
                    let from = 2 * (row / rows * tile + row % rows * stride) + 4 * number * part;
                    let product = |i: usize| {
                        let quad = column / columns * panel_stride
                            + (number * part + i / 4) * columns
                            + column % columns;
                        i64::from(x[i + from] as i8) * i64::from(panel[4 * quad + i % 4])
                    };
                    let sum: i64 = (0..4 * part).map(product).sum();
                    let plane = row / rows * places + row % rows * per_row + number;
                    let scale = f64::from(scales[number * width + column]);
                    let scaled = scale * f64::from(units[plane]) * sum as f64;
                    let bias = f64::from(biases[number * width + column]) * f64::from(sums[plane]);
                    exact += scaled + bias;
                    magnitude += scaled.abs() + bias.abs();
                }
                // Sums are exact; their two factors, and adding up, round three times a part.
                let bound = magnitude * (3 * parts + 1) as f64 * f64::from(f32::EPSILON);
                prop_assert!((f64::from(*out) - exact).abs() <= bound, "{out} {exact}");
            }
        }
    }

    #[test]
    fn codes_are_their_bytes(bits in 1usize..9, count in 0usize..5, seed in any::<u32>()) {
        let packed = bytes(seed, 4 * bits * count);
        for table in tables() {
            let mut out = vec![0; 32 * count];
            table.codes(bits, &packed, &mut out);
            for (i, out) in out.iter().enumerate() {
                prop_assert_eq!(u32::from(*out), code(bits, &packed, i));
            }
        }
    }

    #[test]
    fn whole_numbers_are_within_half_a_unit(seed in any::<u32>(), scale in -120i32..100) {
        let x: Vec<f32> = noise(seed, 64).iter().map(|x| x * 2f32.powi(scale)).collect();
        let largest = x.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        for table in tables() {
            let mut out = vec![0; 64];
            let unit = f64::from(table.whole(&x, &mut out));
            prop_assert!(unit <= f64::from(largest) / 126.9 || unit <= f64::from(f32::MIN_POSITIVE));
            for (x, byte) in x.iter().zip(&out) {
                let value = unit * f64::from(*byte as i8);
                // Half a unit, and what the inverse of the unit rounds.
                prop_assert!((value - f64::from(*x)).abs() <= unit * 0.5001);
            }
        }
    }
}

#[test]
fn what_is_not_finite_has_no_unit() {
    for table in tables() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(table.whole(&[1.0, bad, 2.0], &mut [0; 3]).is_nan());
        }
        assert!(table.whole(&[0.0; 3], &mut [9; 3]).is_finite());
    }
}
