//! Groups of small floats: E2M1 or E4M3 codes under one E8M0 or E4M3 scale.

use super::Quantised;
use kiln_plan::{DType, E2M1, Format, Mode, e4m3, e8m0};

/// Appends the groups of `values` to `out`. The group's largest magnitude, divided by the largest
/// code value, is rounded to `dtype` before the scale is found: `dtype` shows in the result.
pub(super) fn quantise(values: &[f32], format: Format, dtype: DType, out: &mut Quantised) {
    let mode = format.mode();
    let most = if mode == Mode::Mxfp8 { 448.0 } else { 6.0 };
    for group in values.chunks_exact(format.group()) {
        let wanted = dtype.round(magnitude(group) / most);
        let scale = if mode == Mode::Nvfp4 {
            to_e4m3(wanted)
        } else {
            to_e8m0(wanted)
        };
        out.scales.push(scale);
        match mode {
            Mode::Nvfp4 if scale == 0 => {
                out.codes.extend(group.as_chunks::<2>().0.iter().map(|_| 0))
            }
            Mode::Nvfp4 => {
                let unit = e4m3(scale);
                let code = |weight: f32| nearest(weight / unit, dtype);
                fours(group, code, &mut out.codes);
            }
            // Division by a power of two is exact wherever a code can tell the difference.
            Mode::Mxfp4 => {
                let inverse = 1.0 / e8m0(scale);
                fours(group, |weight| to_e2m1(weight * inverse), &mut out.codes);
            }
            _ => {
                let inverse = 1.0 / e8m0(scale);
                out.codes
                    .extend(group.iter().map(|&weight| to_e4m3(weight * inverse)));
            }
        }
    }
}

fn magnitude(group: &[f32]) -> f32 {
    // Magnitudes are ordered as their bits are.
    f32::from_bits(
        group
            .iter()
            .fold(0, |most, weight| most.max(weight.abs().to_bits())),
    )
}

fn fours(group: &[f32], code: impl Fn(f32) -> u8, codes: &mut Vec<u8>) {
    codes.extend(group.as_chunks::<2>().0.iter().map(|pair| {
        let [low, high] = pair.map(&code);
        low | high << 4
    }));
}

/// The nearest E2M1 code, of two equally near ones that of the smaller magnitude. What is nearest
/// to zero gets code 0 whatever its sign.
fn to_e2m1(value: f32) -> u8 {
    let size = value.abs();
    let halfway = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0];
    let code = halfway
        .iter()
        .map(|&limit| u8::from(size > limit))
        .sum::<u8>();
    code | (u8::from(value < 0.0 && code != 0) << 3)
}

/// The E2M1 code at the least distance in f32. Far outside of E2M1's range several distances are one
/// number: the first of their codes wins, 0 in the end. Weights of more than 2,688, the largest that
/// an E4M3 scale reaches, can be that far out; only there does rounding to `dtype` show.
fn nearest(value: f32, dtype: DType) -> u8 {
    if value.abs() < 256.0 {
        return to_e2m1(value);
    }
    let value = dtype.round(value);
    let distance = |code: usize| (value - E2M1[code]).abs();
    let closer = |best, code| {
        if distance(code) < distance(best) {
            code
        } else {
            best
        }
    };
    (1..E2M1.len()).fold(0, closer) as u8
}

/// The nearest E4M3 byte, ties to even; 448 from there on. Zero keeps its sign.
fn to_e4m3(value: f32) -> u8 {
    const LARGEST: u32 = 448f32.to_bits();
    const SMALLEST_NORMAL: f32 = 1.0 / 64.0;
    // Of a sum with 2^14, the last bits count in units of 2^-9: the subnormals' unit.
    const SUBNORMALS: f32 = 16_384.0;
    let bits = value.to_bits();
    let sign = (bits >> 24) as u8 & 0x80;
    let size = bits & 0x7fff_ffff;
    let low = (f32::from_bits(size) + SUBNORMALS)
        .to_bits()
        .wrapping_sub(SUBNORMALS.to_bits());
    let even = (size >> 20) & 1;
    let high = (size.wrapping_sub(120 << 23).wrapping_add(0x7_ffff + even)) >> 20;
    let rounded = if f32::from_bits(size) < SMALLEST_NORMAL {
        low
    } else {
        high
    };
    let code = if size >= LARGEST { 0x7e } else { rounded as u8 };
    code | sign
}

/// The byte of the least power of two that is not below `value`; that of 1 for 0.
fn to_e8m0(value: f32) -> u8 {
    const SMALLEST: u32 = 1 << 22;
    let bits = value.to_bits();
    match bits {
        0 => 127,
        1..=SMALLEST => 0,
        _ => ((bits + 0x7f_ffff) >> 23) as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e2m1_ties_go_to_the_smaller_magnitude() {
        let values = [
            0.25, 0.26, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 5.01, -0.25, -0.3, -5.0, -9.0,
        ];
        assert_eq!(
            values.map(to_e2m1),
            [0, 1, 1, 2, 3, 4, 5, 6, 7, 0, 9, 14, 15]
        );
        assert_eq!([0.0, -0.0].map(to_e2m1), [0, 0]);
    }

    #[test]
    fn every_e4m3_value_keeps_its_byte_and_ties_go_to_even() {
        for byte in (0..=0x7e).chain(0x80..=0xfe) {
            assert_eq!(to_e4m3(e4m3(byte)), byte);
        }
        for byte in 0..0x7e {
            let middle = (e4m3(byte) + e4m3(byte + 1)) / 2.0;
            let even = byte + byte % 2;
            assert_eq!(to_e4m3(middle), even, "{middle}");
            assert_eq!(to_e4m3(-middle), even | 0x80);
            assert_eq!(to_e4m3(middle.next_down()), byte);
            assert_eq!(to_e4m3(middle.next_up()), byte + 1);
        }
        assert_eq!([449.0, f32::MAX, -1e9].map(to_e4m3), [0x7e, 0x7e, 0xfe]);
    }

    #[test]
    fn e8m0_rounds_up_exactly() {
        for byte in 1..=254 {
            let power = e8m0(byte);
            assert_eq!(to_e8m0(power), byte);
            assert_eq!(to_e8m0(power.next_down()), if byte == 1 { 1 } else { byte });
            assert_eq!(to_e8m0(power.next_up()), byte.saturating_add(1));
        }
        assert_eq!([0.0, f32::from_bits(1), e8m0(0)].map(to_e8m0), [127, 0, 0]);
    }
}
