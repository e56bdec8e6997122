//! The golden files are MLX's own results; scripts/golden/quantise.py makes them.

use super::*;
use kiln_plan::Scales;
use serde_json::Value;
use sha2::{Digest, Sha256};

const BYTES: &[u8] = include_bytes!("../../tests/golden/quantise.bin");

fn manifest() -> Value {
    serde_json::from_str(include_str!("../../tests/golden/quantise.json")).unwrap()
}

fn range(value: &Value) -> &'static [u8] {
    let number = |i: usize| value[i].as_u64().unwrap() as usize;
    if value.is_null() {
        &[]
    } else {
        &BYTES[number(0)..number(0) + number(1)]
    }
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn dtype(name: &str) -> DType {
    DType::PLAIN
        .into_iter()
        .find(|dtype| dtype.to_string() == name)
        .unwrap()
}

fn weights(golden: &Value, name: &str) -> Vec<f32> {
    let bytes = range(&golden["inputs"][name]);
    let dtype = dtype(name);
    (0..bytes.len() / dtype.bytes())
        .map(|i| dtype.read_float(bytes, i))
        .collect()
}

fn format(case: &Value) -> Format {
    match case["mode"].as_str().unwrap() {
        "mxfp4" => Format::MXFP4,
        "mxfp8" => Format::MXFP8,
        "nvfp4" => Format::NVFP4,
        _ => {
            let dtype = dtype(case["dtype"].as_str().unwrap());
            Format::affine(number(&case["bits"]), number(&case["group"]), dtype).unwrap()
        }
    }
}

fn first_difference(ours: &[u8], theirs: &[u8]) -> Option<usize> {
    if ours.len() != theirs.len() {
        return Some(ours.len().min(theirs.len()));
    }
    ours.iter().zip(theirs).position(|(a, b)| a != b)
}

#[test]
fn dequantised_weights_have_the_bytes_of_mlx() {
    let golden = manifest();
    let k = number(&golden["k"]);
    for case in golden["cases"].as_array().unwrap() {
        let format = format(case);
        let planes = ["codes", "scales", "biases"].map(|plane| range(&case[plane]));
        let mut values = vec![0.0; planes[0].len() * 8 / format.bits()];
        assert!(dequantise(format, planes, k, &mut values));
        let mut hash = Sha256::new();
        for value in values {
            let value = if value.is_nan() { f32::NAN } else { value };
            hash.update(value.to_le_bytes());
        }
        let hash: String = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let name = &case["dtype"];
        assert_eq!(
            hash,
            case["dequantised"].as_str().unwrap(),
            "{format} from {name}"
        );
    }
}

#[test]
fn planes_of_another_length_are_not_dequantised() {
    let format = Format::affine(4, 32, DType::F16).unwrap();
    let made = quantise(&[0.5; 64], 64, format, DType::F16).unwrap();
    let planes = [&made.codes[..], &made.scales, &made.biases];
    let mut values = [9.0; 64];
    for short in 0..3 {
        let mut planes = planes;
        planes[short] = &planes[short][1..];
        assert!(!dequantise(format, planes, 64, &mut values));
    }
    assert!(!dequantise(format, planes, 64, &mut values[1..]));
    assert!(!dequantise(format, planes, 48, &mut [9.0; 48]));
    assert!(!dequantise(format, planes, 0, &mut values));
    assert_eq!(values, [9.0; 64]);
    assert!(dequantise(format, planes, 64, &mut values));
    assert_eq!(values, [0.5; 64]);
}

#[test]
fn every_format_has_the_bytes_of_mlx() {
    let golden = manifest();
    let k = number(&golden["k"]);
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 63 + 9);
    for case in cases {
        let name = case["dtype"].as_str().unwrap();
        let values = weights(&golden, name);
        let made = quantise(&values, k, format(case), dtype(name)).unwrap();
        let planes = [
            ("codes", made.codes),
            ("scales", made.scales),
            ("biases", made.biases),
        ];
        for (plane, bytes) in planes {
            let at = first_difference(&bytes, range(&case[plane]));
            assert_eq!(at, None, "{plane} of {} from {name}", format(case));
        }
    }
}

#[test]
fn the_golden_files_cover_every_format() {
    let golden = manifest();
    let cases = golden["cases"].as_array().unwrap();
    for format_there_is in Format::all() {
        assert!(
            cases.iter().any(|case| format(case) == format_there_is),
            "{format_there_is}"
        );
    }
}

#[test]
fn rows_in_blocks_give_the_bytes_of_one_call() {
    let golden = manifest();
    let k = number(&golden["k"]);
    let values = weights(&golden, "bf16");
    for format in Format::all() {
        if !matches!(format.scales(), Scales::BF16 | Scales::U8) {
            continue;
        }
        let whole = quantise(&values, k, format, DType::BF16).unwrap();
        let mut parts = Quantised::default();
        for block in values.chunks(3 * k) {
            let part = quantise(block, k, format, DType::BF16).unwrap();
            parts.codes.extend(part.codes);
            parts.scales.extend(part.scales);
            parts.biases.extend(part.biases);
        }
        assert_eq!(parts, whole, "{format}");
    }
}

/// Half a step from rounding, and up to another half at the far end of the range, where stretching
/// the scale may leave the last code short.
#[test]
fn dequantised_weights_are_within_one_step() {
    let golden = manifest();
    let k = number(&golden["k"]);
    for bits in [2, 3, 4, 5, 6, 8] {
        let format = Format::affine(bits, 64, DType::F32).unwrap();
        let values = weights(&golden, "f32");
        let made = quantise(&values[..4 * k], k, format, DType::F32).unwrap();
        for (row, weights) in values[..4 * k].chunks(k).enumerate() {
            let plane = |bytes: &'_ [u8], size: usize| bytes[row * size..][..size].to_vec();
            let codes = plane(&made.codes, format.code_row(k));
            let scales = plane(&made.scales, format.scale_row(k));
            let biases = plane(&made.biases, format.scale_row(k));
            let mut back = vec![0.0; k];
            format.dequantise(&codes, &scales, &biases, 0, &mut back);
            for (i, (weight, back)) in weights.iter().zip(&back).enumerate() {
                let step = format.scale(&scales, i / 64).abs();
                assert!(
                    (weight - back).abs() <= 1.001 * step,
                    "{bits} bits: {weight} {back}"
                );
            }
        }
    }
}

#[test]
fn weights_that_are_not_finite_are_errors_with_their_place() {
    for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vec![0.5; 200 * 64];
        values[150 * 64 + 7] = broken;
        for format in [Format::affine(4, 64, DType::F32).unwrap(), Format::MXFP4] {
            let error = quantise(&values, 64, format, DType::F32).unwrap_err();
            assert!(matches!(
                error,
                QuantiseError::NotFinite {
                    row: 150,
                    column: 7,
                    ..
                }
            ));
        }
    }
}

#[test]
fn broken_shapes_and_dtypes_are_errors() {
    let format = Format::affine(4, 64, DType::F16).unwrap();
    let said =
        |values: &[f32], k, dtype| quantise(values, k, format, dtype).unwrap_err().to_string();
    assert_eq!(
        said(&[0.0; 96], 96, DType::F16),
        "q4g64-f16 needs rows of whole groups of 64 weights, given rows of 96"
    );
    assert_eq!(
        said(&[0.0; 96], 64, DType::F16),
        "expected whole rows of 64 weights, given 96 weights"
    );
    assert_eq!(
        said(&[0.0; 64], 64, DType::BF16),
        "q4g64-f16 is made from f16 weights, given bf16"
    );
    assert!(quantise(&[0.0; 64], 64, Format::NVFP4, DType::U32).is_err());
    assert!(quantise(&[0.0; 64], 0, Format::NVFP4, DType::F32).is_err());
    assert_eq!(
        quantise(&[], 64, format, DType::F16),
        Ok(Quantised::default())
    );
}

#[test]
fn scales_below_every_power_of_two_are_clamped() {
    let mut values = vec![0.0; 32];
    values[3] = 448.0 * 2f32.powi(-131);
    let made = quantise(&values, 32, Format::MXFP8, DType::F32).unwrap();
    assert_eq!(made.scales, [0]);
}
