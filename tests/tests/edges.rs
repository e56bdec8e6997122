//! Arguments at the edges of what arrays take: an error or the right answer, and never a panic.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use kiln_array::{Array, CustomOp, DType, Device, Error, Result, Slice, Spec, random};

fn device() -> Device {
    kiln_cpu::device(Default::default()).unwrap()
}

#[test]
fn any_number_can_stand_beside_an_array() -> Result<()> {
    let x = Array::new([5.5f32, -2.0], &device())?;
    for number in [1.2, 1.7, 7.3, 1e17, f64::INFINITY, f64::NEG_INFINITY] {
        let found = x.remainder(number)?.to_vec::<f32>()?;
        let n = number as f32;
        for (found, x) in found.iter().zip([5.5f32, -2.0]) {
            let left = x % n;
            let same_sign = left == 0.0 || (left < 0.0) == (n < 0.0);
            assert_eq!(*found, if same_sign { left } else { left + n }, "{x} % {n}");
        }
        assert_eq!(x.floor_divide(number)?.shape(), x.shape());
    }
    assert!(
        x.remainder(f64::NAN)?
            .to_vec::<f32>()?
            .iter()
            .all(|x| x.is_nan())
    );
    Ok(())
}

#[test]
fn rows_of_nothing_are_printed_in_little_time() -> Result<()> {
    let text = Array::zeros(DType::F32, &[1 << 40, 0], &device())?.to_string();
    assert!(text.len() < 1000, "{} bytes", text.len());
    Ok(())
}

#[test]
fn what_fits_no_memory_is_an_error() -> Result<()> {
    let device = device();
    let numbers = Array::arange(0, 1e15, 1, DType::F32, &device);
    assert!(matches!(numbers, Err(Error::Memory { .. })), "{numbers:?}");
    let zeros = Array::zeros(DType::F32, &[1 << 50], &device)?.to_vec::<f32>();
    assert!(matches!(zeros, Err(Error::Memory { .. })), "{zeros:?}");
    Ok(())
}

#[test]
fn places_and_steps_may_be_as_large_as_they_can() -> Result<()> {
    let x = Array::zeros(DType::F32, &[3, 4], &device())?;
    assert!(x.index(usize::MAX).is_err());
    assert_eq!(*x.index(Slice::every(usize::MAX, ..))?.shape(), [1, 4]);
    let nothing = Array::zeros(DType::F32, &[0], &device())?;
    assert!(nothing.chunks(0, usize::MAX).is_err());
    assert_eq!(nothing.chunks(0, 1)?.len(), 1);
    Ok(())
}

#[test]
fn reducing_over_no_axes_changes_nothing_at_any_rank() -> Result<()> {
    let device = device();
    for shape in [&[][..], &[6], &[2, 3], &[1, 2, 3], &[1, 2, 3, 1]] {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|i| i as f32).collect();
        let x = Array::from_slice(&values, shape, &device)?;
        let none: &[i32] = &[];
        assert_eq!(x.sum(none)?.to_vec::<f32>()?, values, "{shape:?}");
        assert_eq!(*x.max(none)?.shape(), *shape);
    }
    Ok(())
}

#[test]
fn a_row_that_is_not_finite_gives_one_of_its_positions() -> Result<()> {
    let device = device();
    let key = random::key(3, &device)?;
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for rows in [1usize, 2] {
            let logits = Array::full(bad, DType::F32, &[rows, 5], &device)?;
            let drawn = random::categorical(&logits, &key)?.to_vec::<u32>()?;
            assert!(drawn.iter().all(|&id| id < 5), "{bad}: {drawn:?}");
        }
    }
    Ok(())
}

/// An operation that is defined by itself.
#[derive(Debug)]
struct Circular;

impl CustomOp for Circular {
    fn name(&self) -> &'static str {
        "circular"
    }
    fn parameters(&self) -> Vec<u32> {
        Vec::new()
    }
    fn infer(&self, inputs: &[Spec]) -> std::result::Result<Spec, String> {
        inputs.first().copied().ok_or("an operand".into())
    }
    fn decompose(&self, inputs: &[Array]) -> Result<Array> {
        Array::custom(Circular, &[&inputs[0]])
    }
}

#[test]
fn a_definition_by_itself_is_an_error() -> Result<()> {
    let x = Array::new([1.0f32], &device())?;
    let error = Array::custom(Circular, &[&x])?.eval().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("a definition by other operations"),
        "{error}"
    );
    Ok(())
}
