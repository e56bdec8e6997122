//! Elementwise functions: straight-line programs over the table of scalar functions.

use crate::few::Few;
use crate::{DType, Kind, Scalar};
use std::fmt;

/// One instruction. Registers are numbered by the instruction that fills them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Instr {
    /// An element of operand `n`.
    Input(u8),
    /// Constant `n`.
    Const(u8),
    /// A function of registers; arguments past its arity are 0.
    Apply(Scalar, [u8; 3]),
    /// A register converted to a dtype: rounded to a float dtype, cut to the bits of an integer,
    /// compared with 0 for bool. A float becomes the nearest integer towards zero; out of range it
    /// becomes the closest integer, NaN becomes 0.
    Cast(DType, u8),
}

/// A number written into a program, with the dtype it was given in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Constant {
    /// The dtype; the value is representable in it.
    pub dtype: DType,
    /// The register's bits: an f32 for the float dtypes.
    pub bits: u32,
}

impl Constant {
    /// A number rounded to a plain dtype.
    pub fn new(dtype: DType, value: f64) -> Constant {
        let bits = match dtype.kind() {
            _ if dtype == DType::U8 => u32::from(value as i64 as u8),
            Kind::Float => dtype.round(value as f32).to_bits(),
            Kind::U32 => value as i64 as u32,
            Kind::I32 => value as i64 as i32 as u32,
            Kind::Bool => (value != 0.0) as u32,
        };
        Constant { dtype, bits }
    }
}

/// An elementwise function of arrays: a straight-line program whose last instruction is the cast
/// to the result's dtype.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kiln_array::{Array, Constant, DType, Expr, Instr, Kind, Op, Scalar};
/// let two = Constant { dtype: DType::F32, bits: 2f32.to_bits() };
/// let code = [
///     Instr::Input(0),
///     Instr::Const(0),
///     Instr::Apply(Scalar::Mul, [0, 1, 0]),
///     Instr::Cast(DType::F16, 2),
/// ];
/// let double = Expr::new(1, &code, &[two]);
/// assert_eq!(double.check(&[DType::F32])?, DType::F16);
/// assert_eq!(double.kinds(&[DType::F32])?, [Kind::Float; 4]);
/// assert_eq!((double.inputs(), double.code().len(), double.constants().len()), (1, 4, 1));
/// assert_eq!(kiln_array::cast(Kind::Float, DType::U8, 7.9f32.to_bits()), 7);
///
/// let device = kiln_cpu::device(Default::default())?;
/// let x = Array::new([1.5], &device)?;
/// let y = Array::make(Op::Map(double), vec![x.clone()])?;
/// assert_eq!(y.cast(DType::F32)?.item::<f32>()?, 3.0);
/// // The same function by the table, and with a number.
/// assert_eq!(x.binary(Scalar::Add, &x)?.item::<f32>()?, 3.0);
/// assert_eq!(x.with_number(Scalar::Mul, 2)?.unary(Scalar::Neg)?.item::<f32>()?, -3.0);
/// # Ok(()) }
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Expr {
    inputs: u8,
    code: Few<Instr, 4>,
    constants: Few<Constant, 1>,
}

impl Expr {
    /// The longest program; fusion stops there.
    pub const MAX_CODE: usize = 64;

    /// A program over `inputs` operands. [`Expr::check`] says whether it makes sense.
    pub fn new(inputs: usize, code: &[Instr], constants: &[Constant]) -> Expr {
        let zero = Constant {
            dtype: DType::F32,
            bits: 0,
        };
        Expr {
            inputs: inputs as u8,
            code: Few::new(code, Instr::Input(0)),
            constants: Few::new(constants, zero),
        }
    }

    /// Number of operands.
    pub fn inputs(&self) -> usize {
        self.inputs as usize
    }

    /// The instructions.
    pub fn code(&self) -> &[Instr] {
        &self.code
    }

    /// The constants.
    pub fn constants(&self) -> &[Constant] {
        &self.constants
    }

    /// The kind of every register for operands of these dtypes, or what is wrong.
    pub fn kinds(&self, inputs: &[DType]) -> Result<Vec<Kind>, String> {
        let mut kinds = vec![Kind::Float; self.code.len()];
        self.fill(&mut kinds, |n| inputs.get(n).copied())?;
        Ok(kinds)
    }

    /// The dtype of the result for operands of these dtypes, or what is wrong.
    pub fn check(&self, inputs: &[DType]) -> Result<DType, String> {
        self.result(inputs.len(), |n| inputs.get(n).copied())
    }

    /// [`Expr::check`] of `inputs` operands, the dtypes of which `dtype` knows.
    pub(crate) fn result(
        &self,
        inputs: usize,
        dtype: impl Fn(usize) -> Option<DType>,
    ) -> Result<DType, String> {
        let mut few = [Kind::Float; 8];
        match few.get_mut(..self.code.len()) {
            Some(kinds) => self.fill(kinds, dtype)?,
            None => self.fill(&mut vec![Kind::Float; self.code.len()], dtype)?,
        }
        match self.code.last() {
            Some(Instr::Cast(dtype, _)) if inputs == self.inputs() => Ok(*dtype),
            _ => Err(format!("{} operands and a last cast", self.inputs)),
        }
    }

    /// Writes the kind of every register, or says what is wrong.
    fn fill(
        &self,
        kinds: &mut [Kind],
        dtype: impl Fn(usize) -> Option<DType>,
    ) -> Result<(), String> {
        for (at, instr) in self.code.iter().enumerate() {
            let of = |r: u8| {
                let filled = kinds[..at].get(r as usize).copied();
                filled.ok_or("a register before its value")
            };
            kinds[at] = match *instr {
                Instr::Input(n) => {
                    let dtype = dtype(n as usize).ok_or("an operand that is not there")?;
                    if dtype.is_quantised() {
                        return Err("operands that are not quantised".into());
                    }
                    dtype.kind()
                }
                Instr::Const(n) => self
                    .constants
                    .get(n as usize)
                    .ok_or("a constant that is not there")?
                    .dtype
                    .kind(),
                Instr::Cast(dtype, r) => {
                    of(r)?;
                    if dtype.is_quantised() {
                        return Err("a cast to a plain dtype".into());
                    }
                    dtype.kind()
                }
                Instr::Apply(scalar, arguments) => {
                    let arguments = &arguments[..scalar.arity()];
                    let kind = of(arguments[scalar.arity() - 1])?;
                    for (i, &argument) in arguments.iter().enumerate() {
                        let condition = scalar == Scalar::Select && i == 0;
                        if of(argument)? != if condition { Kind::Bool } else { kind } {
                            return Err(format!("{scalar:?} of operands of one kind"));
                        }
                    }
                    scalar
                        .result(kind)
                        .ok_or_else(|| format!("{scalar:?} not of {kind:?}"))?
                }
            };
        }
        Ok(())
    }

    /// This program with operand `n` called `numbers[n]`, of `inputs` operands.
    pub(crate) fn renumber(&self, numbers: &[u8], inputs: usize) -> Expr {
        let renumbered = |instr: &Instr| match *instr {
            Instr::Input(n) => Instr::Input(numbers[n as usize]),
            other => other,
        };
        let code: Vec<Instr> = self.code.iter().map(renumbered).collect();
        Expr::new(inputs, &code, &self.constants)
    }

    /// This program with operand `at` computed by `producer`. `operands` maps this program's
    /// operands, and `producer_operands` the producer's, to those of the result.
    pub(crate) fn inline(
        &self,
        at: usize,
        operands: &[u8],
        producer: &Expr,
        producer_operands: &[u8],
        inputs: usize,
    ) -> Expr {
        let mut code = Vec::with_capacity(self.code.len() + producer.code.len());
        let mut constants = producer.constants.to_vec();
        for instr in &*producer.code {
            code.push(match *instr {
                Instr::Input(n) => Instr::Input(producer_operands[n as usize]),
                other => other,
            });
        }
        let produced = (code.len() - 1) as u8;
        let mut registers = Vec::with_capacity(self.code.len());
        for instr in &*self.code {
            let moved = |r: u8| registers.get(r as usize).copied().unwrap_or(0);
            let instr = match *instr {
                Instr::Input(n) if n as usize == at => {
                    registers.push(produced);
                    continue;
                }
                Instr::Input(n) => Instr::Input(operands[n as usize]),
                Instr::Const(n) => {
                    constants.push(self.constants[n as usize]);
                    Instr::Const((constants.len() - 1) as u8)
                }
                Instr::Apply(scalar, r) => Instr::Apply(scalar, r.map(moved)),
                Instr::Cast(dtype, r) => Instr::Cast(dtype, moved(r)),
            };
            code.push(instr);
            registers.push((code.len() - 1) as u8);
        }
        Expr::new(inputs, &code, &constants)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, instr) in self.code.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            match instr {
                Instr::Input(n) => write!(f, "r{i}=in{n}")?,
                Instr::Const(n) => {
                    let constant = self.constants[*n as usize];
                    match constant.dtype.kind() {
                        Kind::Float => write!(f, "r{i}={}", f32::from_bits(constant.bits))?,
                        _ => write!(f, "r{i}={}", constant.bits)?,
                    }
                }
                Instr::Apply(scalar, r) => write!(f, "r{i}={scalar:?}{:?}", &r[..scalar.arity()])?,
                Instr::Cast(dtype, r) => write!(f, "r{i}={dtype}(r{r})")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Converts register bits of kind `from` to `dtype`'s register bits: the meaning of
/// [`Instr::Cast`].
#[inline(always)]
pub fn cast(from: Kind, dtype: DType, bits: u32) -> u32 {
    match (from, dtype) {
        (Kind::Float, DType::Bool) => (f32::from_bits(bits) != 0.0) as u32,
        (Kind::Float, DType::U8) => f32::from_bits(bits) as u8 as u32,
        (Kind::Float, DType::U32) => f32::from_bits(bits) as u32,
        (Kind::Float, DType::I32) => f32::from_bits(bits) as i32 as u32,
        (Kind::Float, float) => float.round(f32::from_bits(bits)).to_bits(),
        (_, DType::Bool) => (bits != 0) as u32,
        (_, DType::U8) => bits & 0xff,
        (_, DType::U32 | DType::I32) => bits,
        (Kind::I32, float) => float.round(bits as i32 as f32).to_bits(),
        (_, float) => float.round(bits as f32).to_bits(),
    }
}
