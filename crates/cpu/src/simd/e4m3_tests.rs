//! E4M3 as codes and as scales: every byte, in every table.

use super::tests::{arranged, isas_and_vectors, same, scalar};
use super::*;
use kiln_plan::Format;

/// Products of rows of codes with scales of one byte and `x`, by every table and for each dtype of
/// vectors.
fn products(w: Weights<'_>, rows: usize, x: &[f32]) -> Vec<(&'static str, Vec<f32>)> {
    let product = |(isa, vector): (&'static Isa, DType)| {
        let order = isa.order(w.dtype, vector);
        let vector = Vector {
            x: &arranged(order, x),
            elements: order.elements,
            sums: &[],
        };
        let mut room = vec![f32::NAN; Isa::matvec_room(w.dtype, w.k, rows)];
        let mut out = vec![0.0; rows];
        isa.matvec(w, vector, &mut room, &mut out);
        (isa.name(), out)
    };
    isas_and_vectors().map(product).collect()
}

#[test]
fn products_of_single_codes_of_mxfp8_are_exact() {
    // Subnormal codes among them, in whole pieces and in what is left of a row.
    let codes: Vec<u8> = (0..288).map(|i| i as u8).collect();
    let codes: Vec<u8> = codes
        .into_iter()
        .map(|code| if code & 0x7f == 0x7f { 1 } else { code })
        .collect();
    for scale in [0, 1, 100, 127, 200, 246, 247, 254] {
        let scales = [scale; 9];
        let w = Weights {
            dtype: DType::Quantised(Format::MXFP8),
            k: 288,
            data: &codes,
            scales: &scales,
            biases: &[],
        };
        let mut values = [0.0; 288];
        scalar().dequantise(w, 0, &mut values);
        for (i, value) in values.iter().enumerate() {
            let mut x = [0.0; 288];
            x[i] = 1.0;
            for (name, out) in products(w, 1, &x) {
                assert_eq!(out[0], *value, "{name}: code {} times {scale}", codes[i]);
            }
        }
    }
}

#[test]
fn a_nan_code_anywhere_makes_its_row_nan() {
    let k = 96;
    for (at, byte) in (0..k).flat_map(|at| [(at, 0x7f), (at, 0xff)]) {
        let mut codes = vec![0x38; 3 * k];
        codes[k + at] = byte;
        let w = Weights {
            dtype: DType::Quantised(Format::MXFP8),
            k,
            data: &codes,
            scales: &[127; 9],
            biases: &[],
        };
        for (name, out) in products(w, 3, &vec![0.0; k]) {
            assert!(out[1].is_nan(), "{name}: byte {at}");
            assert_eq!([out[0], out[2]], [0.0; 2], "{name}: byte {at}");
        }
    }
}

#[test]
fn every_scale_of_nvfp4_is_its_number() {
    let scales: Vec<u8> = (0..=255).collect();
    // Sixteen ones.
    let codes = [0x22; 256 * 8];
    let dtype = DType::Quantised(Format::NVFP4);
    let w = Weights {
        dtype,
        k: 16,
        data: &codes,
        scales: &scales,
        biases: &[],
    };
    for (name, out) in products(w, 256, &[1.0; 16]) {
        for (scale, out) in out.iter().enumerate() {
            let exact = 16.0 * kiln_plan::e4m3(scale as u8);
            assert!(
                same(out.to_bits(), exact.to_bits()) || *out == exact,
                "{name}: {scale}"
            );
        }
    }
    for isa in Isa::all() {
        let mut out = vec![0.0; 4096];
        isa.dequantise(Weights { k: 4096, ..w }, 0, &mut out);
        for (i, out) in out.iter().enumerate() {
            let exact = kiln_plan::e4m3((i / 16) as u8);
            assert!(
                same(out.to_bits(), exact.to_bits()),
                "{}: {}",
                isa.name(),
                i / 16
            );
        }
    }
}
