//! The conformance list: every operation on every device.

mod attention;
mod complete;
mod custom;
mod map;
mod matmul;
mod moves;
mod program;
mod rope;
mod rows;
mod scalar;

kiln_tests::on_every_device! {
    map: map::Function,
    map_quotient: map::Quotient,
    map_select: map::Select,
    map_cast: map::Cast,
    map_joined: map::Joined,
    map_with_number: map::WithNumber,
    map_program: program::Program,
    copy: moves::Copy,
    take: moves::Take,
    take_quantised: moves::TakeQuantised,
    write: moves::Write,
    reduce: rows::Reduce,
    argmax: rows::ArgMax,
    softmax: rows::Softmax,
    rms_norm: rows::RmsNorm,
    layer_norm: rows::LayerNorm,
    rope: rope::Rope,
    matmul: matmul::Matmul,
    matmul_quantised: matmul::MatmulQuantised,
    matmul_epilogue: matmul::Epilogue,
    attention: attention::Attention,
    custom: custom::Custom,
}
