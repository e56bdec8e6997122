//! What lies between lazy arrays and the backends that compute them.
//!
//! `kiln-array` makes graphs of operations and asks a [`Device`] for their *program*: the device looks the
//! graph up among those that it keeps; on a miss it fuses elementwise nodes, orders steps, assigns
//! memory, and lets its [`Backend`] compile the resulting [`Plan`]. A backend depends on this crate
//! alone and never sees an array. Whoever writes one implements [`Backend`] and [`Program`] and runs
//! `kiln-conformance`.
//!
//! ```
//! use kiln_plan::{
//!     Edge, Error, Expr, Graph, GraphNode, Layout, Leaf, Op, Origin, Part, Scalar, Shape,
//!     Source, Spec, Traced, DType,
//! };
//! use std::panic::Location;
//!
//! /// One node: the square root of a leaf of three numbers, for somebody who holds it.
//! struct Root(Spec);
//! impl Traced for Root {
//!     fn matches(&self, known: &Graph) -> bool {
//!         *known == self.graph()
//!     }
//!     fn graph(&self) -> Graph {
//!         let edge = Edge { source: Source::Leaf(0), layout: Layout::contiguous(self.0.shape) };
//!         let node = GraphNode { op: root(), inputs: 0..1, spec: self.0, escapes: true };
//!         let leaf = Leaf { spec: self.0, donatable: false };
//!         Graph { nodes: vec![node], edges: vec![edge], leaves: vec![leaf] }
//!     }
//!     fn origin(&self, _: u32) -> Option<Origin> {
//!         Some(Origin::new(Location::caller()))
//!     }
//! }
//! fn root() -> Op {
//!     Op::Map(Expr::unary(Scalar::Sqrt, DType::F32))
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = kiln_cpu::device(Default::default())?;
//! let traced = Root(Spec { dtype: DType::F32, shape: Shape::new(&[3]).ok_or("too large")? });
//! let bytes: Vec<u8> = [1.0f32, 4.0, 9.0].iter().flat_map(|x| x.to_le_bytes()).collect();
//! let rows = vec![Part::plain(3, bytes.into())];
//! Part::check(&rows, &traced.0)?;
//!
//! let turn = device.begin()?;
//! let program = turn.program(&traced)?;
//! let mut externals = vec![device.backend().load(&traced.0, rows)?];
//! for spec in program.fresh() {
//!     externals.push(device.backend().alloc(spec.bytes())?);
//! }
//! turn.run(&program, &externals, &traced)?;
//!
//! assert_eq!(program.results(), [(0, 1)]);
//! assert_eq!((program.maker(1), turn.sizes()), (Some(0), [1, 1, 1]));
//! assert_eq!((turn.number(), turn.device().stats().steps), (1, 1));
//! let mut roots = [0; 12];
//! device.backend().read(&externals[1], 0, &mut roots)?;
//! assert_eq!(roots[8..], 3.0f32.to_le_bytes());
//!
//! // An error of a step is told with the line that it was written in.
//! let error = Error::Memory { device: "cpu".into(), bytes: 8 }.in_step(0);
//! let error = program.located(error, &traced);
//! assert!(matches!(&error, Error::At { place, .. } if place.op == "map"));
//! # Ok(()) }
//! ```
//!
//! # Words
//!
//! - *op*: what a node computes, [`Op`]. *Map*: an elementwise [`Expr`] over the table of [`Scalar`]
//!   functions, which [`math`] defines.
//! - *graph*: pending nodes as plain data, [`Graph`], which is also the key of its program.
//! - *plan*: a graph made flat, [`Plan`]: *steps* over *slots*; a step's *operands* are views of
//!   slots, each with its [`Layout`]. *Program*: a plan compiled by a backend.
//! - *device*: a backend with its programs and counters. *Buffer*: a backend's memory.
//! - *escape*: a node escapes an evaluation if somebody outside holds it; only then is its result
//!   kept. *Donate*: an updating op takes over its first operand's memory if nobody needs it.
//! - *format*: how quantised rows are stored, [`Format`].
//!
//! # Numbers
//!
//! Floats are computed in f32, integers in 32 bits, wrapping; every node rounds its result to its
//! dtype, on every backend, fused or not.

#![forbid(unsafe_code)]

mod backend;
mod custom;
mod device;
mod dtype;
mod error;
mod expr;
mod few;
mod format;
mod fuse;
mod graph;
mod infer;
mod layout;
mod maps;
pub mod math;
mod op;
mod origin;
mod plan;
mod record;
mod scalar;
mod schedule;
mod shape;
mod work;

pub use backend::{Backend, Buffer, Bytes, Memory, Part, Program, Storage};
pub use custom::{Custom, Elements, Fill, Foreign, Function};
pub use device::{Compiled, Device, Observer, Options, Stats, Turn};
pub use dtype::{DType, Element, Kind};
pub use error::{Error, Result};
pub use expr::{Constant, Expr, Instr, cast};
pub use format::{E2M1, Format, Mode, Scales, e4m3, e8m0};
pub use graph::{Edge, Graph, GraphNode, Leaf, Source, Traced};
pub use layout::Layout;
pub use op::{Bits, Op, Pairing, Reduce};
pub use origin::{Label, Origin, Place, label};
pub use plan::{Operand, Plan, Slot, Step};
pub use record::{Recorder, Run, Span};
pub use scalar::{Scalar, Value};
pub use shape::{MAX_RANK, Shape, Spec};
pub use work::Work;
