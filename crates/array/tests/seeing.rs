//! What can be seen of a graph.

use kiln_array::{Array, Result, label};

#[test]
fn each_node_is_drawn_once_with_its_operation_shape_and_line() -> Result<()> {
    let device = kiln_cpu::device(Default::default())?;
    let x = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2], &device)?;
    let line = line!() + 1;
    let y = label("part", 4, || &x + 1.0f32)?;
    let product = y.matmul(&y.slice(0, 0..1)?)?;
    let dot = product.to_dot();
    assert_eq!(dot.matches("[label=\"map").count(), 1, "{dot}");
    for part in [
        "n0 [label=\"matmul\\nf32[2, 1]",
        "n1 -> n0;",
        "n1 -> n0 [label=\"[1, 2]\"];",
        "n2 [label=\"ready\\nf32[2, 2]",
        &format!("part 4, {}:{line}\"", file!()),
    ] {
        assert!(dot.contains(part), "{part} in {dot}");
    }
    product.eval()?;
    let dot = product.to_dot();
    assert!(dot.contains("ready") && !dot.contains("matmul"), "{dot}");
    Ok(())
}
