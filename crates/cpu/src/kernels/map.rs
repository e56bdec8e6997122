//! `Map`: an expression over blocks of elements, one loop for each instruction.

use super::walk::Walk;
use super::{Kernel, with_scratch};
use crate::memory::Memory;
use crate::simd::Isa;
use kiln_plan::{DType, Expr, Instr, Kind, Operand, Shape};
use std::ops::Range;

/// Elements of a block: every register of a typical expression stays in the nearest cache.
pub(crate) const BLOCK: usize = 512;
/// Elements of a unit.
const UNIT: usize = 8 * BLOCK;

/// An expression with its operands, ready to run on any stretch of its result.
pub(crate) struct Interpreter {
    isa: &'static Isa,
    code: Vec<Instr>,
    constants: Vec<u32>,
    kinds: Vec<Kind>,
    inputs: Vec<Option<(u32, DType, Walk)>>,
    dtype: DType,
}

impl Interpreter {
    /// `expr` over `inputs`, broadcast to `shape`. `None` stands for the operand that
    /// [`Interpreter::run`] is given as registers, of dtype `given`.
    pub(crate) fn new(
        isa: &'static Isa,
        expr: &Expr,
        inputs: &[Option<Operand>],
        given: DType,
        shape: Shape,
    ) -> Interpreter {
        let dtypes: Vec<DType> = inputs
            .iter()
            .map(|i| i.map_or(given, |i| i.dtype))
            .collect();
        let walk = |i: &Operand| (i.slot, i.dtype, Walk::new(i, shape));
        // An expression that `infer` let pass has kinds and ends with a cast.
        let dtype = match expr.code().last() {
            Some(Instr::Cast(dtype, _)) => *dtype,
            _ => given,
        };
        Interpreter {
            isa,
            code: expr.code().to_vec(),
            constants: expr.constants().iter().map(|c| c.bits).collect(),
            kinds: expr.kinds(&dtypes).unwrap_or_default(),
            inputs: inputs.iter().map(|i| i.as_ref().map(walk)).collect(),
            dtype,
        }
    }

    /// The result's dtype.
    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of instructions.
    pub(crate) fn len(&self) -> usize {
        self.code.len()
    }

    /// Room that [`Interpreter::run`] needs, in registers.
    pub(crate) fn room(&self) -> usize {
        self.code.len() * BLOCK
    }

    /// Elements `from..` of the result into `out`. `given` are the registers of the operand that
    /// has no memory, as many as elements of the result.
    pub(crate) fn run(
        &self,
        memory: &Memory<'_>,
        from: usize,
        given: &[u32],
        room: &mut [u32],
        out: &mut [u8],
    ) {
        let size = self.dtype.bytes();
        self.constants_into(room);
        for (number, out) in out.chunks_mut(BLOCK * size).enumerate() {
            let (start, count) = (number * BLOCK, out.len() / size);
            for at in 0..self.code.len() {
                let given = given.get(start..start + count).unwrap_or_default();
                self.step(memory, at, from + start, count, given, room);
            }
            let last = (self.code.len() - 1) * BLOCK;
            self.isa.store(self.dtype, &room[last..last + count], out);
        }
    }

    fn constants_into(&self, room: &mut [u32]) {
        for (instr, register) in self.code.iter().zip(room.chunks_mut(BLOCK)) {
            if let Instr::Const(n) = instr {
                register.fill(self.constants[*n as usize]);
            }
        }
    }

    fn step(
        &self,
        memory: &Memory<'_>,
        at: usize,
        from: usize,
        count: usize,
        given: &[u32],
        room: &mut [u32],
    ) {
        let (before, rest) = room.split_at_mut(at * BLOCK);
        let out = &mut rest[..count];
        let register = |r: u8| &before[r as usize * BLOCK..][..count];
        match self.code[at] {
            Instr::Const(_) => {}
            Instr::Input(n) => match &self.inputs[n as usize] {
                Some((slot, dtype, walk)) => {
                    gather(self.isa, memory.read(*slot), *dtype, walk, from, out);
                }
                None => out.copy_from_slice(given),
            },
            Instr::Cast(dtype, r) => {
                self.isa
                    .cast(self.kinds[r as usize], dtype, register(r), out);
            }
            Instr::Apply(scalar, arguments) => {
                let mut registers: [&[u32]; 3] = [&[]; 3];
                let arity = scalar.arity();
                for (to, &r) in registers.iter_mut().zip(&arguments[..arity]) {
                    *to = register(r);
                }
                let kind = self.kinds[arguments[arity - 1] as usize];
                self.isa.apply(scalar, kind, out, registers);
            }
        }
    }
}

/// Elements `from..` of a stretched view as registers.
fn gather(isa: &Isa, bytes: &[u8], dtype: DType, walk: &Walk, from: usize, out: &mut [u32]) {
    let size = dtype.bytes();
    let mut done = 0;
    walk.runs(from, out.len(), |run| {
        let out = &mut out[done..done + run.count];
        done += run.count;
        match run.stride {
            1 => isa.load(
                dtype,
                &bytes[run.start * size..(run.start + run.count) * size],
                out,
            ),
            0 => {
                let (first, rest) = out.split_at_mut(1);
                isa.load(
                    dtype,
                    &bytes[run.start * size..(run.start + 1) * size],
                    first,
                );
                rest.fill(first[0]);
            }
            stride => {
                for (i, out) in out.chunks_mut(1).enumerate() {
                    let at = (run.start + i * stride) * size;
                    isa.load(dtype, &bytes[at..at + size], out);
                }
            }
        }
    });
}

/// The kernel of `Op::Map`.
pub(crate) struct Map {
    interpreter: Interpreter,
    slot: u32,
    elements: usize,
}

impl Map {
    /// `expr` of `inputs`, stored in `output`.
    pub(crate) fn new(isa: &'static Isa, expr: &Expr, inputs: &[Operand], output: &Operand) -> Map {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        let shape = output.layout.shape();
        let interpreter = Interpreter::new(isa, expr, &inputs, output.dtype, shape);
        debug_assert_eq!(interpreter.dtype(), output.dtype);
        Map {
            interpreter,
            slot: output.slot,
            elements: shape.elements(),
        }
    }
}

impl Kernel for Map {
    fn units(&self) -> usize {
        self.elements.div_ceil(UNIT)
    }

    fn cost(&self) -> usize {
        self.elements.min(UNIT) * self.interpreter.len() / 4
    }

    fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
        let size = self.interpreter.dtype().bytes();
        let (from, to) = (range.start * UNIT, (range.end * UNIT).min(self.elements));
        let out = memory.write(self.slot, from * size..to * size);
        with_scratch(self.interpreter.room(), |room| {
            self.interpreter
                .run(memory, from, &[], bytemuck::cast_slice_mut(room), out);
        });
    }
}
