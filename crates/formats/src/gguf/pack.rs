//! Values as blocks, as ggml's own reference makes them.

use crate::BlockType;
use half::f16;

/// Elements of a block.
const BLOCK: usize = 32;

/// Appends the blocks of `values` to `out`. Says whether this type can be made, blocks are whole, and
/// no block's scale is beyond f16; `out` is not to be used otherwise.
pub fn quantise(block: BlockType, values: &[f32], out: &mut Vec<u8>) -> bool {
    let make = match block {
        BlockType::Q4_0 => q4_0,
        BlockType::Q4_1 => q4_1,
        BlockType::Q8_0 => q8_0,
        _ => return false,
    };
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    rest.is_empty() && blocks.iter().all(|block| make(block, out).is_some())
}

/// The bytes of a scale, where it has any in f16.
fn half(value: f32) -> Option<[u8; 2]> {
    let half = f16::from_f32(value);
    half.is_finite().then(|| half.to_le_bytes())
}

fn inverse(value: f32) -> f32 {
    if value == 0.0 { 0.0 } else { 1.0 / value }
}

/// The weight of the largest magnitude is code 0, which stands for −8.
fn q4_0(values: &[f32; BLOCK], out: &mut Vec<u8>) -> Option<()> {
    let mut edge = 0.0f32;
    for &value in values {
        edge = if value.abs() > edge.abs() {
            value
        } else {
            edge
        };
    }
    let scale = edge / -8.0;
    let by = inverse(scale);
    out.extend(half(scale)?);
    nibbles(values, |value| value * by + 8.5, out);
    Some(())
}

/// Codes from the least weight to the greatest.
fn q4_1(values: &[f32; BLOCK], out: &mut Vec<u8>) -> Option<()> {
    let least = values.iter().copied().fold(f32::MAX, f32::min);
    let greatest = values.iter().copied().fold(f32::MIN, f32::max);
    let scale = (greatest - least) / 15.0;
    let by = inverse(scale);
    out.extend(half(scale)?);
    out.extend(half(least)?);
    nibbles(values, |value| (value - least) * by + 0.5, out);
    Some(())
}

/// Signed codes up to 127.
fn q8_0(values: &[f32; BLOCK], out: &mut Vec<u8>) -> Option<()> {
    let most = values
        .iter()
        .fold(0.0f32, |most, value| most.max(value.abs()));
    let scale = most / 127.0;
    let by = inverse(scale);
    out.extend(half(scale)?);
    out.extend(values.iter().map(|value| (value * by).round() as i8 as u8));
    Some(())
}

/// Codes of the first half in the low nibbles, of the second in the high ones. `code` is cut, not
/// rounded.
fn nibbles(values: &[f32; BLOCK], code: impl Fn(f32) -> f32, out: &mut Vec<u8>) {
    let code = |value: f32| (code(value) as i32).clamp(0, 15) as u8;
    let (low, high) = values.split_at(BLOCK / 2);
    out.extend(
        low.iter()
            .zip(high)
            .map(|(&low, &high)| code(low) | code(high) << 4),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What gguf-py 0.19 makes of [`values`].
    const GOLDEN: [(BlockType, &str); 3] = [
        (
            BlockType::Q4_0,
            "4036f258be1379df359bf147ac0268ce248a40b653fd9731db852fca640ea842fc9630db008088888888888888888888888888888888003300000000000000000000000000000000660ee046acf258bd1379df358be046acf268",
        ),
        (
            BlockType::Q4_1,
            "893640c2f257bd1379cf358ae146ac0268bd24797736e0c1ad0368ce248ad0469bf257bd1379cf250000000000000000000000000000000000000000000000bf00000000000000000000000000000000d40e669ad0369bf157bd1369ce258ae0469cf258",
        ),
        (
            BlockType::Q8_0,
            "4d269dfb59b61472d02e8be947a50361be1c7ad73593f14fac0a68c62481df3d9af84d2656b41270cd2b89e745a2005ebb1977d53390ee4caa0866c3217fdc3a98f654b1000000000000000000000000000000000000000000000000000000000000000000000e2381818181818181818181818181818181818181818181818181818181818181819d0181df3d9af856b41270cd2b89e745a2005ebb1977d53390ee4caa0866c3217fdc",
        ),
    ];

    /// Two blocks of everything, one of zeros, one of equal weights, one of small ones.
    fn values() -> Vec<f32> {
        let value = |i: i32| match i / 32 {
            2 => 0.0,
            3 => -1.75,
            4 => ((i * 37 + 11) % 101 - 50) as f32 / 16.0 * 0.001,
            _ => ((i * 37 + 11) % 101 - 50) as f32 / 16.0,
        };
        (0..160).map(value).collect()
    }

    #[test]
    fn blocks_are_those_of_the_reference() {
        for (block, expected) in GOLDEN {
            let mut bytes = Vec::new();
            assert!(quantise(block, &values(), &mut bytes));
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digits, expected, "{}", crate::Type::Gguf(block));
        }
    }

    #[test]
    fn what_has_no_blocks_is_refused() {
        let mut out = Vec::new();
        assert!(!quantise(BlockType::Q6_K, &[0.0; 256], &mut out));
        assert!(!quantise(BlockType::Q8_0, &[0.0; 33], &mut out));
        assert!(!quantise(BlockType::Q8_0, &[1e9; 32], &mut out));
    }
}
