//! The conformance list: every operation.

mod attention;
mod composed;
mod custom;
mod map;
mod matmul;
mod moves;
mod ordered;
mod products;
mod program;
mod rope;
mod rows;
mod scalar;
mod words;

pub use attention::Attention;
pub use composed::{Composed, Joined as Moved};
pub use custom::{Custom, CustomNative};
pub use map::{Cast, Function, Joined, Quotient, Select, WithNumber};
pub use matmul::{Epilogue, Matmul, MatmulQuantised};
pub use moves::{Copy, Take, TakeQuantised, Write};
pub use ordered::Ordered;
pub use products::{Attend, Dot};
pub use program::Program;
pub use rope::Rope;
pub use rows::{ArgMax, LayerNorm, Reduce, RmsNorm, Softmax};
pub use words::Words;

/// Calls another macro with the list: `name: type,` for each case.
#[macro_export]
macro_rules! every_case {
    ($then:path) => {
        $then! {
            map: $crate::ops::Function,
            map_quotient: $crate::ops::Quotient,
            map_select: $crate::ops::Select,
            map_cast: $crate::ops::Cast,
            map_joined: $crate::ops::Joined,
            map_with_number: $crate::ops::WithNumber,
            map_program: $crate::ops::Program,
            copy: $crate::ops::Copy,
            take: $crate::ops::Take,
            take_quantised: $crate::ops::TakeQuantised,
            write: $crate::ops::Write,
            reduce: $crate::ops::Reduce,
            argmax: $crate::ops::ArgMax,
            softmax: $crate::ops::Softmax,
            rms_norm: $crate::ops::RmsNorm,
            layer_norm: $crate::ops::LayerNorm,
            rope: $crate::ops::Rope,
            matmul: $crate::ops::Matmul,
            matmul_quantised: $crate::ops::MatmulQuantised,
            matmul_epilogue: $crate::ops::Epilogue,
            attention: $crate::ops::Attention,
            custom: $crate::ops::Custom,
            custom_native: $crate::ops::CustomNative,
            composed: $crate::ops::Composed,
            joined: $crate::ops::Moved,
            ordered: $crate::ops::Ordered,
            dot: $crate::ops::Dot,
            attend: $crate::ops::Attend,
            words: $crate::ops::Words,
        }
    };
}
