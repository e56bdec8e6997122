//! Operands in unusual places: views that start inside a row, operations that share their work.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test panics"
)]

use kiln_array::{Array, CustomOp, Result, Spec, eval};
use kiln_tests::devices;

#[test]
fn weights_and_tables_may_start_inside_a_row() {
    for device in [devices::best(), devices::plain(), devices::decomposed()].concat() {
        let numbers: Vec<f32> = (0..13).map(|i| i as f32).collect();
        let wide = Array::from_slice(&numbers, &[1, 13], &device).unwrap();
        let weights = wide.slice(1, 3..8).unwrap();
        let ones = Array::from_slice(&[1.0f32; 5], &[1, 5], &device).unwrap();
        let product = ones.matmul(&weights).unwrap().to_vec::<f32>().unwrap();
        assert_eq!(product, [3.0 + 4.0 + 5.0 + 6.0 + 7.0], "{device}");
        let flat = Array::from_slice(&numbers, &[13], &device).unwrap();
        let table = flat.slice(0, 1..13).unwrap().reshape(&[3, 4]).unwrap();
        let ids = Array::from_slice(&[2u32, 0], &[2], &device).unwrap();
        let rows = table.take(&ids).unwrap().to_vec::<f32>().unwrap();
        assert_eq!(
            rows,
            [9.0, 10.0, 11.0, 12.0, 1.0, 2.0, 3.0, 4.0],
            "{device}"
        );
    }
}

#[derive(Debug)]
struct Identity;

impl CustomOp for Identity {
    fn name(&self) -> &'static str {
        "identity"
    }
    fn parameters(&self) -> Vec<u32> {
        Vec::new()
    }
    fn infer(&self, inputs: &[Spec]) -> std::result::Result<Spec, String> {
        inputs.first().copied().ok_or_else(|| "one operand".into())
    }
    fn decompose(&self, inputs: &[Array]) -> Result<Array> {
        Ok(inputs[0].clone())
    }
}

#[test]
fn a_decomposition_that_is_its_operand_overwrites_nothing_that_is_held() {
    let device = &devices::best()[0];
    let held = Array::zeroed(kiln_array::DType::F32, &[4], device).unwrap();
    let mut written = held.clone();
    let positions = Array::from_slice(&[1u32], &[1], device).unwrap();
    let seven = Array::from_slice(&[7.0f32], &[1], device).unwrap();
    written.write(0, &positions, &seven).unwrap();
    let same = Array::custom(Identity, &[&written]).unwrap();
    eval(&[&same, &written]).unwrap();
    assert_eq!(same.to_vec::<f32>().unwrap(), [0.0, 7.0, 0.0, 0.0]);
    assert_eq!(written.to_vec::<f32>().unwrap(), [0.0, 7.0, 0.0, 0.0]);
    assert_eq!(held.to_vec::<f32>().unwrap(), [0.0; 4]);
}

#[test]
fn attention_without_heads_is_refused() {
    let device = &devices::best()[0];
    let of = |dims: &[usize]| Array::zeros(kiln_array::DType::F32, dims, device).unwrap();
    let positions = Array::from_slice(&[0u32; 20], &[20], device).unwrap();
    let caches = of(&[2, 4, 8]);
    let result = of(&[20, 0, 8]).attention(&caches, &caches, &positions, 1.0, 0);
    assert!(result.unwrap_err().to_string().contains("heads"));
}

#[test]
fn dtypes_that_never_meet_are_named() {
    let device = &devices::best()[0];
    let a = Array::from_slice(&[1u32], &[1], device).unwrap();
    let b = Array::from_slice(&[1i32], &[1], device).unwrap();
    let message = (&a + &b).unwrap_err().to_string();
    assert!(
        message.contains("joint") && message.contains("u32[1], i32[1]"),
        "{message}"
    );
}
