//! Lazy n-dimensional arrays with pluggable backends.
//!
//! An [`Array`] is a handle on a *node* of a graph. Operations check dtypes and shapes, append a
//! node, and compute nothing. [`eval`] (or reading a value) walks from the wanted arrays to
//! everything pending below them, looks the graph's structure up among the programs that the
//! *device* keeps, and runs the one it finds; on a miss it fuses elementwise nodes, assigns memory
//! and lets the *backend* compile a new one.
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
//! - *plan*: a graph made flat, [`Plan`]: *steps* over *slots*; a step's *operands* are views of
//!   slots. *Program*: a plan compiled by a backend.
//! - *device*: a backend with its programs and counters. *Buffer*: a backend's memory.
//! - *escape*: a node escapes an evaluation if somebody outside holds it; only then is its result
//!   kept. *Donate*: an updating op takes over its first operand's memory if nobody needs it.
//! - *format*: how quantised rows are stored, [`Format`].
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
mod backend;
mod compare;
mod construct;
mod custom;
mod decompose;
mod device;
mod dot;
mod dtype;
mod elementwise;
mod error;
mod eval;
mod expr;
mod few;
mod format;
mod functions;
mod fuse;
mod graph;
mod infer;
mod join;
mod layout;
pub mod math;
mod node;
mod op;
mod origin;
mod plan;
mod print;
mod product;
pub mod random;
mod record;
mod reduce;
mod scalar;
mod schedule;
mod shape;
mod sort;
mod trace;
mod views;
mod work;

pub use array::Array;
pub use backend::{Backend, Buffer, Bytes, Memory, Part, Program, Storage};
pub use construct::Nested;
pub use custom::{Custom, CustomOp, Elements, Fill, Function};
pub use device::{Device, Observer, Options, Stats};
pub use dtype::{DType, Element, Kind};
pub use elementwise::Other;
pub use error::{Error, Result};
pub use eval::eval;
pub use expr::{Constant, Expr, Instr, cast};
pub use format::{E2M1, Format, Mode, Scales, e4m3, e8m0};
pub use functions::Rope;
pub use join::{concat, stack};
pub use layout::Layout;
pub use op::{Bits, Op, Pairing, Reduce};
pub use origin::{Label, Origin, Place, label};
pub use plan::{Operand, Plan, Slot, Step};
pub use product::Mask;
pub use record::{Recorder, Run, Span};
pub use reduce::Axes;
pub use scalar::{Scalar, Value};
pub use shape::{MAX_RANK, Shape, Spec};
pub use views::{Index, Slice, Slices};
pub use work::Work;
