//! Operations from outside.

use crate::{Array, Custom, Function, Op, Result, Spec};
use kiln_plan::Foreign;
use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;

/// An operation that Kiln does not know. Where it tells a backend nothing of how to compute it, its
/// decomposition is run.
pub trait CustomOp: fmt::Debug + Send + Sync {
    /// The name, part of the operation's identity.
    fn name(&self) -> &'static str;
    /// The parameters, the other part: two operations of one type with equal name and parameters are
    /// the same.
    fn parameters(&self) -> Vec<u32>;
    /// The result's dtype and shape, or what was expected instead of these operands.
    fn infer(&self, inputs: &[Spec]) -> std::result::Result<Spec, String>;
    /// The same result from simpler operations: what the operation means. It is called within an
    /// evaluation, where reading an array of the device is an error.
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

/// A [`CustomOp`] as a plan sees it.
#[derive(Debug)]
struct Defined {
    op: Box<dyn CustomOp>,
    meaning: TypeId,
}

impl Foreign for Defined {
    fn name(&self) -> &'static str {
        self.op.name()
    }
    fn parameters(&self) -> Vec<u32> {
        self.op.parameters()
    }
    fn meaning(&self) -> TypeId {
        self.meaning
    }
    fn infer(&self, inputs: &[Spec]) -> std::result::Result<Spec, String> {
        self.op.infer(inputs)
    }
    fn function(&self, inputs: &[Spec]) -> Option<Function> {
        self.op.function(inputs)
    }
    fn wgsl(&self, inputs: &[Spec]) -> Option<String> {
        self.op.wgsl(inputs)
    }
}

/// What `custom` means, of `inputs`; `None` where nobody said.
pub(crate) fn decompose(custom: &Custom, inputs: &[Array]) -> Option<Result<Array>> {
    let foreign: &dyn Any = &*custom.0;
    let defined: &Defined = foreign.downcast_ref()?;
    Some(defined.op.decompose(inputs))
}

impl Array {
    /// An operation from outside, of `inputs` on one device.
    ///
    /// ```
    /// # fn main() -> kiln_array::Result<()> {
    /// use kiln_array::{Array, CustomOp, Spec};
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
    /// }
    /// let device = kiln_cpu::device(Default::default())?;
    /// let x = Array::new([1.0, 2.0], &device)?;
    /// assert_eq!(Array::custom(Twice, &[&x])?.to_vec::<f32>()?, [2.0, 4.0]);
    /// # Ok(()) }
    /// ```
    #[track_caller]
    pub fn custom<C: CustomOp + 'static>(op: C, inputs: &[&Array]) -> Result<Array> {
        let inputs = inputs.iter().map(|&input| input.clone()).collect();
        let (op, meaning) = (Box::new(op), TypeId::of::<C>());
        let custom = Custom(Arc::new(Defined { op, meaning }));
        Array::make(Op::Custom(custom), inputs)
    }
}
