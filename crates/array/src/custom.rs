//! Operations from outside.

use crate::{Array, DType, Kind, Result, Spec};
use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

/// An operation that Kiln does not know. Where it tells a backend nothing of how to compute it, its
/// decomposition is run.
pub trait CustomOp: fmt::Debug + Send + Sync {
    /// The name, part of the operation's identity.
    fn name(&self) -> &'static str;
    /// The parameters, the other part: two operations of equal name and parameters are the same.
    fn parameters(&self) -> Vec<u32>;
    /// The result's dtype and shape, or what was expected instead of these operands.
    fn infer(&self, inputs: &[Spec]) -> std::result::Result<Spec, String>;
    /// The same result from simpler operations: what the operation means.
    fn decompose(&self, inputs: &[Array]) -> Result<Array>;
    /// How the processor computes it, if it does. For results of floats and plain operands; others
    /// are decomposed.
    ///
    /// ```
    /// # fn main() -> kiln_array::Result<()> {
    /// use kiln_array::{Array, CustomOp, Function, Spec};
    /// #[derive(Debug)]
    /// struct Twice;
    /// impl CustomOp for Twice {
    ///     fn name(&self) -> &'static str {
    ///         "twice"
    ///     }
    ///     fn parameters(&self) -> Vec<u32> {
    ///         vec![]
    ///     }
    ///     fn infer(&self, inputs: &[Spec]) -> Result<Spec, String> {
    ///         inputs.first().copied().ok_or("an operand".into())
    ///     }
    ///     fn decompose(&self, inputs: &[Array]) -> kiln_array::Result<Array> {
    ///         &inputs[0] + &inputs[0]
    ///     }
    ///     fn function(&self, _: &[Spec]) -> Option<Function> {
    ///         Some(Function {
    ///             unit: 1024,
    ///             cost: 1,
    ///             fill: std::sync::Arc::new(|inputs, from, out| {
    ///                 let x = inputs[0].floats(from..from + out.len());
    ///                 out.iter_mut().zip(&*x).for_each(|(out, x)| *out = 2.0 * x);
    ///             }),
    ///         })
    ///     }
    /// }
    /// let device = kiln_cpu::device(Default::default())?;
    /// let x = Array::new([1.0, 2.0], &device)?;
    /// assert_eq!(Array::custom(Twice, &[&x])?.to_vec::<f32>()?, [2.0, 4.0]);
    /// # Ok(()) }
    /// ```
    fn function(&self, _inputs: &[Spec]) -> Option<Function> {
        None
    }
    /// How a GPU computes it, if it does: WGSL with a function `element(i: u32)` that gives element
    /// `i` of the result, row after row, as f32 for floats and else u32, i32 or bool. Element `i` of
    /// operand 0 is `x0(i)`, and so on. For up to seven plain operands; others are decomposed.
    ///
    /// Indices are checked by the driver. A text that cannot be compiled is an error of the
    /// evaluation; one that does not end may cost the device.
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

/// A shared [`CustomOp`], compared by name and parameters.
#[derive(Clone, Debug)]
pub struct Custom(pub Arc<dyn CustomOp>);

impl Custom {
    /// [`CustomOp::function`] where it can be used.
    pub fn function(&self, inputs: &[Spec]) -> Option<Function> {
        let output = self.plain(inputs)?;
        let function = output.dtype.is_float().then(|| self.0.function(inputs))??;
        (function.unit > 0).then_some(function)
    }

    /// [`CustomOp::wgsl`] where it can be used.
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
        self.0.name() == other.0.name() && self.0.parameters() == other.0.parameters()
    }
}

impl Eq for Custom {}

impl Hash for Custom {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name().hash(state);
        self.0.parameters().hash(state);
    }
}
