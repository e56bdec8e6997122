//! Operations from outside.

use crate::{DType, Kind, Spec};
use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

/// An operation that Kiln does not know, as a plan and a backend see it. What it means is said where
/// arrays are: `CustomOp` of `kiln-array` has the contracts.
pub trait Foreign: Any + fmt::Debug + Send + Sync {
    /// The name, part of the operation's identity.
    fn name(&self) -> &'static str;
    /// The parameters, another part.
    fn parameters(&self) -> Vec<u32>;
    /// The type that says what the operation means, the last part.
    fn meaning(&self) -> TypeId {
        self.type_id()
    }
    /// The result's dtype and shape, or what was expected instead of these operands.
    fn infer(&self, inputs: &[Spec]) -> std::result::Result<Spec, String>;
    /// How the processor computes it, if it does.
    fn function(&self, _inputs: &[Spec]) -> Option<Function> {
        None
    }
    /// How a GPU computes it, if it does.
    fn wgsl(&self, _inputs: &[Spec]) -> Option<String> {
        None
    }
}

/// A function that computes a custom operation on the processor.
#[derive(Clone)]
pub struct Function {
    /// How many elements of the result one call fills, the last one fewer. Calls happen in any order
    /// and at the same time, so results are the same for every number of threads if a call looks at
    /// nothing but its arguments.
    pub unit: usize,
    /// Roughly how many nanoseconds an element takes.
    pub cost: usize,
    /// Fills the elements of the result from the given one on, row after row; they are then rounded
    /// to the result's dtype. A panic in it breaks the device; it must not evaluate or read arrays of
    /// the device, which waits for it.
    pub fill: Fill,
}

/// Operands, the first element to be filled, and the elements.
pub type Fill = Arc<dyn Fn(&[Elements<'_>], usize, &mut [f32]) + Send + Sync>;

/// An operand's elements in memory, row after row.
#[derive(Clone, Copy, Debug)]
pub struct Elements<'a> {
    /// Dtype and shape.
    pub spec: Spec,
    /// All elements, little-endian, at any alignment.
    pub bytes: &'a [u8],
}

impl<'a> Elements<'a> {
    /// Element `i` as a number.
    pub fn get(&self, i: usize) -> f64 {
        let dtype = self.spec.dtype;
        let bytes = &self.bytes[dtype.row_bytes(i)..dtype.row_bytes(i + 1)];
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(bytes);
        match dtype.kind() {
            Kind::Float => dtype.read_float(bytes, 0).into(),
            Kind::I32 => i32::from_le_bytes(word).into(),
            Kind::U32 | Kind::Bool => u32::from_le_bytes(word).into(),
        }
    }

    /// Elements `range` as f32: borrowed where they lie so in memory, else converted.
    pub fn floats(&self, range: Range<usize>) -> Cow<'a, [f32]> {
        let dtype = self.spec.dtype;
        let bytes = &self.bytes[dtype.row_bytes(range.start)..dtype.row_bytes(range.end)];
        match bytemuck::try_cast_slice(bytes) {
            Ok(floats) if dtype == DType::F32 => Cow::Borrowed(floats),
            _ => range.map(|i| self.get(i) as f32).collect(),
        }
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a function for {} elements", self.unit)
    }
}

/// A shared [`Foreign`] operation, compared by type, name and parameters.
#[derive(Clone, Debug)]
pub struct Custom(pub Arc<dyn Foreign>);

impl Custom {
    /// [`Foreign::function`] where it can be used.
    pub fn function(&self, inputs: &[Spec]) -> Option<Function> {
        let output = self.plain(inputs)?;
        let function = output.dtype.is_float().then(|| self.0.function(inputs))??;
        (function.unit > 0).then_some(function)
    }

    /// [`Foreign::wgsl`] where it can be used.
    pub fn wgsl(&self, inputs: &[Spec]) -> Option<String> {
        self.plain(inputs)?;
        (inputs.len() <= 7).then(|| self.0.wgsl(inputs))?
    }

    /// The result of plain operands.
    fn plain(&self, inputs: &[Spec]) -> Option<Spec> {
        let output = self.0.infer(inputs).ok()?;
        let mut all = inputs.iter().chain([&output]);
        all.all(|spec| !spec.dtype.is_quantised()).then_some(output)
    }
}

impl PartialEq for Custom {
    fn eq(&self, other: &Custom) -> bool {
        let (a, b) = (&self.0, &other.0);
        a.meaning() == b.meaning() && a.name() == b.name() && a.parameters() == b.parameters()
    }
}

impl Eq for Custom {}

impl Hash for Custom {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name().hash(state);
        self.0.parameters().hash(state);
    }
}
