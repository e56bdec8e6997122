//! Operations from outside that are defined badly, or called alike.

use kiln_array::{Array, CustomOp, DType, Device, Pairing, Result, Rope, Spec};
use kiln_tests::devices;

fn device() -> Device {
    devices::best().remove(0)
}

/// What an operation is called, and what it means.
type Definition = (&'static str, fn(&Array) -> Result<Array>);

const DEFINITIONS: [Definition; 5] = [
    ("scale", |x| x * 2),
    ("scale", |x| x * 3),
    ("chicken", |x| Array::custom(Defined::<3>, &[x])),
    ("egg", |x| Array::custom(Defined::<2>, &[x])),
    ("reads", |x| x + (x + 1)?.to_vec::<f32>()?[0]),
];

/// An operation that keeps dtype and shape: a type of its own for each definition.
#[derive(Debug)]
struct Defined<const N: usize>;

impl<const N: usize> CustomOp for Defined<N> {
    fn name(&self) -> &'static str {
        DEFINITIONS[N].0
    }
    fn parameters(&self) -> Vec<u32> {
        Vec::new()
    }
    fn infer(&self, inputs: &[Spec]) -> std::result::Result<Spec, String> {
        inputs.first().copied().ok_or("an operand".into())
    }
    fn decompose(&self, inputs: &[Array]) -> Result<Array> {
        (DEFINITIONS[N].1)(&inputs[0])
    }
}

#[test]
fn operations_of_one_name_are_those_of_their_types() -> Result<()> {
    let x = Array::new([1.0, 2.0], &device())?;
    assert_eq!(
        Array::custom(Defined::<0>, &[&x])?.to_vec::<f32>()?,
        [2.0, 4.0]
    );
    assert_eq!(
        Array::custom(Defined::<1>, &[&x])?.to_vec::<f32>()?,
        [3.0, 6.0]
    );
    Ok(())
}

#[test]
fn a_definition_that_comes_to_no_end_or_reads_is_an_error() -> Result<()> {
    let device = device();
    let x = Array::new([1.0, 2.0], &device)?;
    let error = |array: Array| array.eval().unwrap_err().to_string();
    let endless = error(Array::custom(Defined::<2>, &[&x])?);
    assert!(endless.contains("comes to an end"), "{endless}");
    let reads = error(Array::custom(Defined::<4>, &[&x])?);
    assert!(reads.contains("within another one"), "{reads}");
    assert!(reads.contains(file!()), "{reads}");
    assert_eq!((&x + 1)?.to_vec::<f32>()?, [2.0, 3.0]);
    Ok(())
}

#[test]
fn numbers_that_no_operation_holds_are_refused() -> Result<()> {
    let device = device();
    let x = Array::zeros(DType::F32, &[1, 1, 4], &device)?;
    let rope = Rope::plain(4, 1e4, Pairing::Halves, &device)?;
    let position = Array::new([0u32], &device)?;
    assert!(x.rope(&position, (1 << 32) + 1, &rope).is_err());
    for size in [3, usize::MAX, usize::MAX - 1] {
        assert!(Rope::plain(size, 1e4, Pairing::Halves, &device).is_err());
    }
    for [start, stop, step] in [
        [0.0, 5.0, 0.0],
        [5.0, 0.0, 0.0],
        [f64::NAN, 1.0, 1.0],
        [0.0, 1.0, f64::NAN],
    ] {
        let error = Array::arange(start, stop, step, DType::F32, &device).unwrap_err();
        assert!(error.to_string().contains("arange"), "{error}");
    }
    Ok(())
}
