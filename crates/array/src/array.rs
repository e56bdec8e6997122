//! The array: a handle on a node and a view of its result.

use crate::node::{Node, Pending, State};
use crate::{
    Bytes, DType, Device, Element, Error, Expr, Layout, Op, Part, Result, Shape, Spec, eval,
};
use std::fmt;
use std::ops::Range;
use std::panic::Location;
use std::sync::Arc;

/// A lazy n-dimensional array: a view of a node's result. Cheap to clone; `Send` and `Sync`.
///
/// Making an array checks dtypes and shapes at once and computes nothing; [`eval`] or a read does.
#[derive(Clone)]
pub struct Array {
    pub(crate) node: Arc<Node>,
    pub(crate) layout: Layout,
}

impl Array {
    /// An array with a copy of `values`, row after row, of the lengths `shape`.
    #[track_caller]
    pub fn from_slice<T: Element>(values: &[T], shape: &[usize], device: &Device) -> Result<Array> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        Array::from_bytes(T::DTYPE, shape, bytes.to_vec().into(), device)
    }

    /// An array of little-endian elements, left in place if the device can read them there; of `Bool`, 0 and 1.
    #[track_caller]
    pub fn from_bytes(
        dtype: DType,
        shape: &[usize],
        bytes: Bytes,
        device: &Device,
    ) -> Result<Array> {
        let rows = shape.first().copied().unwrap_or(1);
        Array::from_parts(dtype, shape, vec![Part::plain(rows, bytes)], device)
    }

    /// An array made of blocks of rows, one after the other, that stay where they are if the
    /// device can read them there. The way to make a quantised array.
    #[track_caller]
    pub fn from_parts(
        dtype: DType,
        shape: &[usize],
        parts: Vec<Part>,
        device: &Device,
    ) -> Result<Array> {
        let site = Location::caller();
        let invalid = |expected: String| Error::Invalid {
            op: "from_parts",
            expected,
            inputs: Shape::new(shape)
                .map(|shape| Spec { dtype, shape })
                .into_iter()
                .collect(),
            site,
        };
        let shape = Shape::new(shape)
            .ok_or_else(|| invalid(format!("a shape of at most four axes, given {shape:?}")))?;
        let spec = Spec { dtype, shape };
        Part::check(&parts, &spec).map_err(invalid)?;
        let buffer = device.backend().load(&spec, parts)?;
        let node = Node::new(spec, device.clone(), site, State::Ready(buffer));
        Ok(Array {
            node: Arc::new(node),
            layout: Layout::contiguous(shape),
        })
    }

    /// An array whose every element is `value`, rounded to `dtype`. One element in memory.
    #[track_caller]
    pub fn full(value: f32, dtype: DType, shape: &[usize], device: &Device) -> Result<Array> {
        let one = Array::from_slice(&[value], &[], device)?;
        one.cast(dtype)?.broadcast(shape)
    }

    /// An array of zeros. One element in memory.
    #[track_caller]
    pub fn zeros(dtype: DType, shape: &[usize], device: &Device) -> Result<Array> {
        Array::full(0.0, dtype, shape, device)
    }

    /// An array of independent zeros, evaluated: memory that [`Array::write`] can use in place.
    #[track_caller]
    pub fn zeroed(dtype: DType, shape: &[usize], device: &Device) -> Result<Array> {
        let array = Array::make(Op::Copy, vec![Array::zeros(dtype, shape, device)?])?;
        eval(&[&array])?;
        Ok(array)
    }

    /// The result of `op`: the one way nodes are made. A map's operands (and an epilogue's) are
    /// stretched to the result's shape here.
    #[track_caller]
    pub fn make(op: Op, mut inputs: Vec<Array>) -> Result<Array> {
        let site = Location::caller();
        let invalid = |expected: String, inputs: &[Array]| Error::Invalid {
            op: op.name(),
            expected,
            inputs: inputs.iter().map(Array::spec).collect(),
            site,
        };
        let Some(device) = inputs.first().map(|first| first.node.device.clone()) else {
            return Err(invalid("at least one operand".into(), &inputs));
        };
        if inputs.iter().any(|input| input.node.device != device) {
            return Err(invalid(
                format!("operands on one device ({device})"),
                &inputs,
            ));
        }
        let mut few = [inputs[0].spec(); 4];
        let inferred = match few.get_mut(..inputs.len()) {
            Some(specs) => {
                let pairs = specs.iter_mut().zip(&inputs);
                pairs.for_each(|(spec, input)| *spec = input.spec());
                op.infer(specs)
            }
            None => op.infer(&inputs.iter().map(Array::spec).collect::<Vec<Spec>>()),
        };
        let spec = inferred.map_err(|expected| invalid(expected, &inputs))?;
        let first_stretched = match op {
            Op::Map(_) => 0,
            Op::Matmul { .. } => 2,
            _ => inputs.len(),
        };
        for input in &mut inputs[first_stretched..] {
            let Some(stretched) = input.layout.broadcast(spec.shape) else {
                let expected = format!("operands that stretch to {}", spec.shape);
                return Err(invalid(expected, &inputs));
            };
            input.layout = stretched;
        }
        let work = Arc::new(Pending { op, inputs });
        let node = Node::new(spec, device, site, State::Pending(work));
        Ok(Array {
            node: Arc::new(node),
            layout: Layout::contiguous(spec.shape),
        })
    }

    /// Dtype and shape.
    pub fn spec(&self) -> Spec {
        Spec {
            dtype: self.node.spec.dtype,
            shape: self.layout.shape(),
        }
    }

    /// Lengths of the axes.
    pub fn shape(&self) -> Shape {
        self.layout.shape()
    }

    /// Type of the elements.
    pub fn dtype(&self) -> DType {
        self.node.spec.dtype
    }

    /// Where the array lives.
    pub fn device(&self) -> &Device {
        &self.node.device
    }

    /// The call that made this array's node.
    pub fn site(&self) -> &'static Location<'static> {
        self.node.origin.site
    }

    #[track_caller]
    pub(crate) fn invalid<T>(&self, op: &'static str, expected: impl Into<String>) -> Result<T> {
        Err(Error::Invalid {
            op,
            expected: expected.into(),
            inputs: vec![self.spec()],
            site: Location::caller(),
        })
    }

    #[track_caller]
    pub(crate) fn require_device(&self, device: &Device) -> Result<()> {
        match self.device() == device {
            true => Ok(()),
            false => self.invalid("eval", format!("arrays on one device ({device})")),
        }
    }

    /// The axis that `axis` names; negative ones count from the innermost, which is -1.
    #[track_caller]
    pub(crate) fn axis(&self, op: &'static str, axis: i32) -> Result<usize> {
        let rank = self.shape().len() as i32;
        let from_start = if axis < 0 { axis + rank } else { axis };
        match (0..rank).contains(&from_start) {
            true => Ok(from_start as usize),
            false => self.invalid(op, format!("an axis below {rank}, not {axis},")),
        }
    }

    pub(crate) fn view(&self, layout: Layout) -> Array {
        Array {
            node: self.node.clone(),
            layout,
        }
    }

    /// Elements `range` of `axis`, as a view. Of a quantised array, rows only.
    #[track_caller]
    pub fn slice(&self, axis: i32, range: Range<usize>) -> Result<Array> {
        let axis = self.axis("slice", axis)?;
        if self.dtype().is_quantised() && axis != 0 {
            return self.invalid("slice", "rows of quantised weights cut nowhere");
        }
        match self.layout.slice(axis, range.clone()) {
            Some(layout) => Ok(self.view(layout)),
            None => self.invalid(
                "slice",
                format!("a range inside axis {axis}, not {range:?},"),
            ),
        }
    }

    /// The first `at` elements of `axis`, and the rest, as views.
    #[track_caller]
    pub fn split(&self, axis: i32, at: usize) -> Result<[Array; 2]> {
        let length = self.shape()[self.axis("split", axis)?];
        Ok([
            self.slice(axis, 0..at)?,
            self.slice(axis, at.min(length)..length)?,
        ])
    }

    /// Axes `a` and `b` exchanged, as a view.
    #[track_caller]
    pub fn transpose(&self, a: i32, b: i32) -> Result<Array> {
        let (a, b) = (self.axis("transpose", a)?, self.axis("transpose", b)?);
        match self.layout.transpose(a, b) {
            Some(layout) if a == b || !self.dtype().is_quantised() => Ok(self.view(layout)),
            _ => self.invalid("transpose", "weights that are not quantised"),
        }
    }

    /// The same elements in the same order under another shape: a view where strides allow it, a
    /// copy (counted in [`Stats::copies`](crate::Stats::copies)) where they do not.
    #[track_caller]
    pub fn reshape(&self, shape: &[usize]) -> Result<Array> {
        let fits = Shape::new(shape).filter(|s| s.elements() == self.shape().elements());
        let Some(shape) = fits else {
            return self.invalid("reshape", format!("as many elements as {shape:?} has"));
        };
        if self.dtype().is_quantised() && shape != self.shape() {
            return self.invalid("reshape", "weights that are not quantised");
        }
        match self.layout.reshape(shape) {
            Some(layout) => Ok(self.view(layout)),
            None => Array::make(Op::Copy, vec![self.clone()])?.reshape(&shape),
        }
    }

    /// Axes of length 1 repeated until the shape is `shape`, as a view.
    #[track_caller]
    pub fn broadcast(&self, shape: &[usize]) -> Result<Array> {
        let stretched = Shape::new(shape).and_then(|shape| self.layout.broadcast(shape));
        match stretched.filter(|_| !self.dtype().is_quantised()) {
            Some(layout) => Ok(self.view(layout)),
            None => self.invalid("broadcast", format!("a shape that stretches to {shape:?}")),
        }
    }

    /// The elements made contiguous: a copy, even where they already are.
    #[track_caller]
    pub fn copy(&self) -> Result<Array> {
        Array::make(Op::Copy, vec![self.clone()])
    }

    /// Computes the elements and whatever they need: [`eval`] of one array.
    #[track_caller]
    pub fn eval(&self) -> Result<()> {
        eval(&[self])
    }

    /// The elements, row after row, computed if need be. Waits and copies. `T` is the dtype's type.
    #[track_caller]
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if self.dtype() != T::DTYPE {
            return self.invalid("to_vec", format!("an array of {}", T::DTYPE));
        }
        let count = self.shape().elements();
        let mut values = crate::construct::room(count)?;
        values.resize(count, T::zeroed());
        self.read(bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// The only element. Waits.
    #[track_caller]
    pub fn item<T: Element>(&self) -> Result<T> {
        match self.to_vec()?[..] {
            [value] => Ok(value),
            _ => self.invalid("item", "an array of one element"),
        }
    }

    #[track_caller]
    pub(crate) fn read(&self, out: &mut [u8]) -> Result<()> {
        let whole = match self.layout.is_contiguous() {
            true => self.clone(),
            false => self.copy()?,
        };
        eval(&[&whole])?;
        let from = whole.layout.offset() * whole.dtype().bytes();
        match whole.node.state() {
            State::Ready(buffer) => self.device().backend().read(&buffer, from, out),
            State::Pending(_) => self.invalid("read", "an evaluated array"),
        }
    }

    /// Every element converted to `dtype`; the array itself if it has it already.
    #[track_caller]
    pub fn cast(&self, dtype: DType) -> Result<Array> {
        if let DType::Quantised(format) = self.dtype() {
            return self.dequantise(format.dequantised())?.cast(dtype);
        }
        match self.dtype() == dtype {
            true => Ok(self.clone()),
            false => self.map(Expr::cast(dtype)),
        }
    }

    /// All rows of a quantised array, as `dtype`.
    #[track_caller]
    fn dequantise(&self, dtype: DType) -> Result<Array> {
        let rows = self.shape().first().copied().unwrap_or(0) as u32;
        let ids: Vec<u32> = (0..rows).collect();
        let ids = Array::from_slice(&ids, &[rows as usize], self.device())?;
        Array::make(Op::Take, vec![self.clone(), ids])?.cast(dtype)
    }

    /// A map of this array alone.
    #[track_caller]
    pub(crate) fn map(&self, expr: Expr) -> Result<Array> {
        Array::make(Op::Map(expr), vec![self.clone()])
    }
}

impl fmt::Debug for Array {
    /// Dtype, shape and whether the values are there; never computes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.node.state() {
            State::Pending(_) => "pending",
            State::Ready(_) => "ready",
        };
        write!(f, "{} on {}, {state}", self.spec(), self.device())
    }
}
