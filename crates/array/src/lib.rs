//! Lazy n-dimensional arrays with pluggable backends.
//!
//! An [`Array`] is a handle on a *node* of a graph. Operations check dtypes and shapes, append a
//! node, and compute nothing. [`eval`] (or reading a value) walks from the wanted arrays to
//! everything pending below them and runs the program that their [`Device`] has for it. How a graph
//! becomes a program, and what a backend is, is in `kiln-plan`; this crate is what one computes with.
//!
//! ```
//! use kiln_array::Array;
//!
//! # fn main() -> kiln_array::Result<()> {
//! let device = kiln_cpu::device(Default::default())?;
//! let x = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2], &device)?;
//! let w = Array::from_slice(&[0.5f32, -1.0], &[1, 2], &device)?;
//! let y = (x.matmul(&w)? + 1.0)?;
//! assert_eq!(y.to_vec::<f32>()?, [-0.5, -1.5]);
//! # Ok(())
//! # }
//! ```
//!
//! # Words
//!
//! - *node*: an operation and its operands, or its result once computed. Results are contiguous.
//! - *view*: an array's [`Layout`] over a node's result; slicing and transposing only make views.
//! - *op*: what a node computes, [`Op`]. *Map*: an elementwise [`Expr`].
//! - *escape*: a node escapes an evaluation if somebody outside holds it; only then is its result
//!   kept.
//! - *format*: how quantised rows are stored, [`Format`].
//!
//! The words of plans are in `kiln-plan`.
//!
//! # Numbers
//!
//! Floats are computed in f32, integers in 32 bits, wrapping; every node rounds its result to its
//! dtype, on every backend, fused or not.
//!
//! # For those who know `mlx.core`
//!
//! Functions have MLX's names and rules, except: `matmul` is [`Array::dot`] ([`Array::matmul`] takes
//! weights, an output a row), `where` is [`Array::select`], `swapaxes` [`Array::transpose`],
//! `transpose` [`Array::permute`], `moveaxis` [`Array::move_axis`], `expand_dims` [`Array::expand`],
//! `split` [`Array::chunks`] and [`Array::split_at`], `take` along an axis [`Array::take_axis`],
//! `astype` [`Array::cast`], indexing [`Array::index`], and `fast.scaled_dot_product_attention`
//! [`Array::attend`]. Reductions keep their axes. u32 and i32 have no joint dtype.

#![forbid(unsafe_code)]

mod array;
mod compare;
mod construct;
mod custom;
mod decompose;
mod dot;
mod elementwise;
mod eval;
mod functions;
mod join;
mod node;
mod print;
mod product;
pub mod random;
mod reduce;
mod sort;
mod trace;
mod views;

pub use array::Array;
pub use construct::Nested;
pub use custom::CustomOp;
pub use decompose::decompose;
pub use elementwise::Other;
pub use eval::eval;
pub use functions::Rope;
pub use join::{concat, stack};
pub use kiln_plan::{
    Backend, Bits, Buffer, Bytes, Constant, Custom, DType, Device, E2M1, Element, Elements, Error,
    Expr, Fill, Format, Function, Instr, Kind, Label, Layout, MAX_RANK, Memory, Mode, Observer, Op,
    Operand, Options, Origin, Pairing, Part, Place, Plan, Program, Recorder, Reduce, Result, Run,
    Scalar, Scales, Shape, Slot, Span, Spec, Stats, Step, Storage, Value, Work, cast, e4m3, e8m0,
    label, math,
};
pub use product::Mask;
pub use reduce::Axes;
pub use views::{Index, Slice, Slices};
