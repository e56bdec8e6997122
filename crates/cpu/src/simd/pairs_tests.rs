//! What register tiles of bf16 are, and that every table's are that.

use super::pairs::{PairBlock, Scaled};
use super::tests::{halves, noise};
use super::{Isa, Turn};
use proptest::prelude::*;

fn wide(bf16: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(bf16) << 16))
}

/// Code number `i` of codes of `bits` bits.
pub(super) fn code(bits: usize, bytes: &[u8], i: usize) -> u32 {
    (0..bits).fold(0, |code, bit| {
        let at = i * bits + bit;
        code | u32::from(bytes[at / 8] >> (at % 8) & 1) << bit
    })
}

/// Rows and columns of a tile.
type Size = (usize, usize);

/// One number of the result, and the sum of the magnitudes that it is made of.
fn product(block: &PairBlock<'_>, (rows, columns): Size, row: usize, column: usize) -> [f64; 2] {
    let part = block.groups.map_or(block.pairs, |groups| groups.group);
    let (panel, width) = (column / columns, block.panels * columns);
    let mut total = [0.0; 2];
    for number in 0..block.pairs / part {
        let mut sum = [0.0; 2];
        for term in 0..block.terms {
            let at = row / rows * block.tile + row % rows * block.stride + term * block.term;
            let x = &block.x[at..];
            for i in number * part..(number + 1) * part {
                let at = panel * block.panel_stride + i * columns + column % columns;
                let pair = block.panel[at];
                for (x, w) in [(x[2 * i], pair as u16), (x[2 * i + 1], (pair >> 16) as u16)] {
                    sum[0] += wide(x) * wide(w);
                    sum[1] += (wide(x) * wide(w)).abs();
                }
            }
        }
        let [scale, bias] = match block.groups {
            None => [1.0, 0.0],
            Some(groups) => [groups.scales, groups.biases]
                .map(|plane| f64::from(plane[number * width + column])),
        };
        let given = block.groups.map_or(0.0, |groups| {
            let at = row / rows * groups.tile + row % rows * groups.stride;
            f64::from(groups.sums[at + number])
        });
        total[0] += scale * sum[0] + bias * given;
        total[1] += scale.abs() * sum[1] + (bias * given).abs();
    }
    total
}

fn bf16(seed: u32, count: usize) -> Vec<u16> {
    let bits = |x: &f32| (x.to_bits() >> 16) as u16;
    halves(seed, count).iter().map(bits).collect()
}

fn pairs(seed: u32, count: usize) -> Vec<u32> {
    let words = bf16(seed, 2 * count);
    let (pairs, _) = words.as_chunks::<2>();
    pairs
        .iter()
        .map(|[low, high]| u32::from(*high) << 16 | u32::from(*low))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tiles_of_pairs_are_their_definition(
        tiles in 1usize..4,
        panels in 1usize..3,
        parts in 1usize..4,
        part in prop::sample::select(vec![16usize, 32, 64]),
        terms in 1usize..4,
        scaled in any::<bool>(),
        add in any::<bool>(),
        gap in 0usize..3,
        seed in any::<u32>(),
    ) {
        for table in Isa::all().filter_map(|isa| isa.pairs()) {
            let (rows, columns) = table.tile();
            let (pair_count, width) = (part * parts, panels * columns);
            let stride = terms * 2 * pair_count + 2 * gap;
            let tile = rows * stride + 2 * gap;
            let x = bf16(seed, tiles * tile);
            let panel_stride = pair_count * columns + gap;
            let panel = pairs(seed ^ 1, panels * panel_stride);
            let [scales, biases] = [2, 3].map(|i| noise(seed ^ i, parts * width));
            let sums = noise(seed ^ 4, tiles * (rows * (parts + gap) + gap));
            let block = PairBlock {
                tiles,
                x: &x,
                tile,
                stride,
                term: 2 * pair_count,
                terms,
                panels,
                panel: &panel,
                panel_stride,
                pairs: pair_count,
                groups: scaled.then_some(Scaled {
                    group: part,
                    scales: &scales,
                    biases: &biases,
                    sums: &sums,
                    units: None,
                    tile: rows * (parts + gap) + gap,
                    stride: parts + gap,
                }),
                add,
                out_stride: width + gap,
            };
            let before = noise(seed ^ 5, tiles * rows * (width + gap));
            let mut out = before.clone();
            table.multiply(block, &mut out);
            for row in 0..tiles * rows {
                for column in 0..width + gap {
                    let at = row * (width + gap) + column;
                    if column >= width {
                        prop_assert_eq!(out[at], before[at]);
                        continue;
                    }
                    let [mut exact, magnitude] = product(&block, (rows, columns), row, column);
                    exact += if add { f64::from(before[at]) } else { 0.0 };
                    // Roundings of sums that never exceed the magnitude, of at most this many terms.
                    let count = (2 * pair_count * terms + 4) as f64;
                    let bound = (magnitude + 1.0) * count * f64::from(f32::EPSILON);
                    prop_assert!((f64::from(out[at]) - exact).abs() <= bound, "{} {exact}", out[at]);
                }
            }
        }
    }

    #[test]
    fn codes_are_their_numbers(bits in 1usize..9, count in 0usize..5, seed in any::<u32>()) {
        let bytes: Vec<u8> = noise(seed, 4 * bits * count)
            .iter()
            .map(|x| (x * 1e6) as i32 as u8)
            .collect();
        for tile in Isa::all().filter_map(|isa| isa.pairs()) {
            let mut out = vec![0; 32 * count];
            tile.codes(bits, &bytes, &mut out);
            for (i, out) in out.iter().enumerate() {
                prop_assert_eq!(wide(*out), f64::from(code(bits, &bytes, i)));
            }
        }
    }

    #[test]
    fn parts_add_up_to_the_float(bits in prop::collection::vec(any::<u32>(), 0..40)) {
        let floats: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
        for tile in Isa::all().filter_map(|isa| isa.pairs()) {
            let mut rest = floats.clone();
            let mut terms = [(); 3].map(|()| vec![0; floats.len()]);
            for term in &mut terms {
                tile.split(&mut rest, term);
            }
            for (i, float) in floats.iter().enumerate() {
                let sum: f64 = terms.iter().map(|term| wide(term[i])).sum();
                // The smallest bf16: what is below it is lost.
                let near = (sum - f64::from(*float)).abs() < 2f64.powi(-133);
                let same = near || sum == f64::from(*float) || sum.is_nan() && float.is_nan();
                prop_assert!(same, "{float:e} became {sum:e}");
            }
        }
    }

    #[test]
    fn turned_rows_are_columns(
        eights in 0usize..6,
        words in 0usize..40,
        gap in 0usize..5,
        seed in any::<u32>(),
    ) {
        let (columns, stride) = (8 * eights, words + gap);
        let rows: Vec<u32> = noise(seed, columns * stride).iter().map(|x| x.to_bits()).collect();
        for isa in Isa::all() {
            let mut out = vec![7; words * columns + gap];
            isa.turn(Turn { rows: &rows, stride, columns, words }, &mut out);
            for i in 0..words {
                for row in 0..columns {
                    prop_assert_eq!(out[i * columns + row], rows[row * stride + i]);
                }
            }
            prop_assert!(out[words * columns..].iter().all(|&word| word == 7));
        }
    }
}

#[test]
fn what_is_not_a_number_stays_so() {
    for tile in Isa::all().filter_map(|isa| isa.pairs()) {
        let (rows, columns) = tile.tile();
        let mut x = vec![0x3f80; rows * 32];
        (x[0], x[32]) = (0x7fc0, 0x7f80);
        let block = PairBlock {
            tiles: 1,
            x: &x,
            tile: 0,
            stride: 32,
            term: 0,
            terms: 1,
            panels: 1,
            panel: &vec![0x3f80_3f80; 16 * columns],
            panel_stride: 0,
            pairs: 16,
            groups: None,
            add: false,
            out_stride: columns,
        };
        let mut out = vec![0.0; rows * columns];
        tile.multiply(block, &mut out);
        assert!(out[..columns].iter().all(|x| x.is_nan()));
        assert!(
            out[columns..2 * columns]
                .iter()
                .all(|x| *x == f32::INFINITY)
        );
        assert!(out[2 * columns..].iter().all(|x| *x == 32.0));
    }
}
