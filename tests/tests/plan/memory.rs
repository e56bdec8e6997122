//! What is kept, overwritten and copied.

use kiln_array::{Array, DType, Device, Pairing, Result, Rope, eval};
use kiln_tests::devices;

fn device() -> Device {
    devices::best().remove(0)
}

fn ones(shape: &[usize], device: &Device) -> Result<Array> {
    Array::full(1.0, DType::F32, shape, device)?.copy()
}

fn position(at: u32, device: &Device) -> Result<Array> {
    Array::from_slice(&[at], &[1], device)
}

#[test]
fn writing_to_a_clone_leaves_the_original_alone() -> Result<()> {
    let device = device();
    let cache = Array::zeroed(DType::F32, &[4, 2], &device)?;
    let mut written = cache.clone();
    written.write(0, &position(1, &device)?, &ones(&[1, 2], &device)?)?;
    assert_eq!(
        written.to_vec::<f32>()?,
        [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    );
    assert_eq!(cache.to_vec::<f32>()?, [0.0; 8]);
    assert_eq!(
        written.to_vec::<f32>()?,
        [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    );
    Ok(())
}

#[test]
fn a_cache_that_nobody_shares_is_written_without_copies_or_new_memory() -> Result<()> {
    let device = device();
    let mut cache = Array::zeroed(DType::F16, &[2, 64, 8], &device)?;
    let mut before = device.stats();
    for step in 0..20u32 {
        let new: Vec<half::f16> = (0..16)
            .map(|i| half::f16::from_f32((step * 16 + i) as f32))
            .collect();
        let new = Array::from_slice(&new, &[2, 1, 8], &device)?;
        cache.write(1, &position(step, &device)?, &new)?;
        let sum = cache.cast(DType::F32)?.sum(1)?.sum(0)?.sum(2)?;
        eval(&[&sum, &cache])?;
        let last = 16 * (step + 1);
        assert_eq!(sum.item::<f32>()?, (last * (last - 1) / 2) as f32);
        let after = device.stats();
        if step > 0 {
            assert_eq!(after.copies, before.copies);
            assert_eq!(after.misses, before.misses);
            assert_eq!(after.allocations, before.allocations);
            assert_eq!(after.bytes, before.bytes);
        }
        before = after;
    }
    Ok(())
}

#[test]
fn a_reader_of_the_old_version_sees_the_old_version() -> Result<()> {
    let device = device();
    let mut cache = Array::zeroed(DType::F32, &[4, 2], &device)?;
    // Made before the write, computed with it.
    let before = (&cache + 5)?;
    cache.write(0, &position(3, &device)?, &ones(&[1, 2], &device)?)?;
    let between = (&cache + 5)?;
    cache.write(0, &position(0, &device)?, &ones(&[1, 2], &device)?)?;
    eval(&[&cache, &between, &before])?;
    assert_eq!(before.to_vec::<f32>()?, [5.0; 8]);
    assert_eq!(
        between.to_vec::<f32>()?,
        [5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 6.0, 6.0]
    );
    assert_eq!(
        cache.to_vec::<f32>()?,
        [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    );
    Ok(())
}

#[test]
fn an_array_can_be_written_into_itself() -> Result<()> {
    let device = device();
    let mut x = (Array::from_slice(&[1.0f32, 2.0, 3.0], &[3], &device)? + 0)?;
    let source = x.slice(0, 0..2)?;
    let positions = Array::from_slice(&[1u32, 2], &[2], &device)?;
    x.write(0, &positions, &source)?;
    drop(source);
    assert_eq!(x.to_vec::<f32>()?, [1.0, 1.0, 2.0]);
    Ok(())
}

#[test]
fn loaded_memory_is_never_overwritten() -> Result<()> {
    let device = device();
    let values: Vec<u8> = (0..8).collect();
    let owner: std::sync::Arc<Vec<u8>> = std::sync::Arc::new(values.clone());
    let bytes = kiln_array::Bytes::new(owner.clone(), 0..8).unwrap();
    let mut x = Array::from_bytes(DType::U8, &[8], bytes, &device)?;
    x.write(
        0,
        &position(2, &device)?,
        &Array::from_slice(&[99u8], &[1], &device)?,
    )?;
    assert_eq!(x.to_vec::<u8>()?, [0, 1, 99, 3, 4, 5, 6, 7]);
    assert_eq!(*owner, values);
    assert_eq!(device.stats().copies, 1);
    Ok(())
}

#[test]
fn rotating_some_heads_of_a_product_copies_nothing() -> Result<()> {
    let device = device();
    let x = ones(&[3, 32], &device)?;
    let w = Array::from_slice(&vec![0.25f32; 24 * 32], &[24, 32], &device)?;
    let frequencies = Array::from_slice(&[1.0f32, 0.1], &[2], &device)?;
    let rope = Rope {
        pairing: Pairing::Halves,
        frequencies,
        scale: 1.0,
    };
    let positions = Array::from_slice(&[0u32, 1, 2], &[3], &device)?;
    x.eval()?;
    let before = device.stats().copies;
    let heads = x
        .matmul(&w)?
        .reshape(&[3, 6, 4])?
        .rope(&positions, 4, &rope)?;
    let [_, values] = heads.split(1, 4)?;
    assert_eq!(values.to_vec::<f32>()?, [8.0; 24]);
    // The one copy is `to_vec`'s own, of a view with gaps.
    assert_eq!(device.stats().copies, before + 1);
    Ok(())
}

#[test]
fn what_nobody_holds_is_not_kept() -> Result<()> {
    let device = device();
    let kept = device.stats().bytes;
    let x = ones(&[1000], &device)?;
    let y = (x.softmax(-1)? * 2.0)?;
    y.eval()?;
    let one = 4000..8192;
    // Of the held nodes: x and y. The softmax was a temporary of a program, which keeps its slot.
    let grown = device.stats().bytes - kept;
    assert!(
        grown <= 3 * one.end,
        "{grown} bytes are more than two results and a temporary"
    );
    drop((x, y));
    let left = device.stats().bytes - kept;
    assert!(left <= one.end, "{left} bytes are more than a temporary");
    Ok(())
}

#[test]
fn a_held_result_is_computed_once() -> Result<()> {
    let device = device();
    let x = ones(&[8], &device)?;
    let y = x.exp()?;
    y.eval()?;
    let nodes = device.stats().nodes;
    y.eval()?;
    assert_eq!(device.stats().nodes, nodes);
    (&y + 1)?.eval()?;
    assert_eq!(device.stats().nodes, nodes + 1);
    Ok(())
}

#[test]
fn views_are_free_and_a_reshape_that_moves_elements_is_counted() -> Result<()> {
    let device = device();
    let x = ones(&[4, 6], &device)?;
    x.eval()?;
    let before = device.stats();
    let view = x
        .transpose(0, 1)?
        .slice(0, 1..3)?
        .reshape(&[2, 2, 2])?
        .slice(2, 0..1)?;
    view.eval()?;
    assert_eq!(device.stats(), before);
    (x.transpose(0, 1)?.reshape(&[24])? + 1)?.eval()?;
    assert_eq!(device.stats().copies, before.copies + 1);
    Ok(())
}

#[test]
fn a_product_its_bias_and_its_activation_are_one_step() -> Result<()> {
    let device = device();
    let x = Array::from_slice(&[1.0f32; 12], &[3, 4], &device)?;
    let bias = Array::from_slice(&[1.0f32; 2], &[2], &device)?;
    let w = Array::from_slice(&[1.0f32; 8], &[2, 4], &device)?;
    let y = (x.matmul(&w)? + bias)?.silu()?;
    y.eval()?;
    assert_eq!(device.stats().steps, 1);
    assert_eq!(device.stats().nodes, 3);
    Ok(())
}

#[test]
fn graphs_that_differ_in_one_number_have_programs_of_their_own() -> Result<()> {
    let device = device();
    let x = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[4], &device)?;
    let ones = Array::from_slice(&[1.0f32; 2], &[2], &device)?;
    let halves = |n: usize| x.slice(0, n..n + 2);
    let zero = |values: Vec<f32>| values.into_iter().map(|v| v.round()).collect::<Vec<_>>();
    assert_eq!((halves(0)? + 1)?.to_vec::<f32>()?, [2.0, 3.0]);
    assert_eq!((halves(1)? + 1)?.to_vec::<f32>()?, [3.0, 4.0]);
    assert_eq!((halves(0)? + 2)?.to_vec::<f32>()?, [3.0, 4.0]);
    assert_eq!(
        zero(x.slice(0, 0..2)?.rms_norm(&ones, 1e-6)?.to_vec()?),
        [1.0, 1.0]
    );
    assert_eq!(
        zero(x.slice(0, 0..2)?.rms_norm(&ones, 1e9)?.to_vec()?),
        [0.0, 0.0]
    );
    // The same graph, whose middle is held the second time.
    let held = |hold: bool| -> Result<Vec<f32>> {
        let middle = (&x + 1)?;
        let sum = (&middle + &ones.sum(0)?)?;
        let middle = hold.then_some(middle);
        sum.eval()?;
        middle.unwrap_or(sum).to_vec()
    };
    assert_eq!(held(false)?, [4.0, 5.0, 6.0, 7.0]);
    assert_eq!(held(true)?, [2.0, 3.0, 4.0, 5.0]);
    assert_eq!(device.stats().misses, 7);
    Ok(())
}
