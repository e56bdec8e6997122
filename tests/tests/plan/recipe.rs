//! Random graphs: instructions that make new arrays of those that are still held, and drop,
//! evaluate or read some on the way.

use kiln_array::{Array, CustomOp, DType, Device, Format, Pairing, Result, Rope, Spec, eval};
use kiln_tests::numbers::encode;
use kiln_tests::{Numbers, Rows, numbers_at, numbers_of};
use proptest::prelude::*;

const SHAPE: [usize; 2] = [4, 32];
const HEADS: [usize; 3] = [4, 4, 8];
const FLOATS: [DType; 3] = [DType::F16, DType::BF16, DType::F32];
/// How many operations [`Graph::apply`] knows.
const OPERATIONS: u8 = 20;

/// One operation of held arrays `a` and `b`, and what happens then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instruction {
    operation: u8,
    a: u8,
    b: u8,
    n: u8,
    then: Then,
}

/// What happens after an operation.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Then {
    Nothing,
    DropA,
    DropB,
    DropResult,
    EvalResult,
    EvalSome,
    EvalAll,
    ReadA,
}

/// A whole graph.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    instructions: Vec<Instruction>,
}

impl Recipe {
    pub(crate) fn any() -> impl Strategy<Value = Recipe> {
        let then = prop_oneof![
            6 => Just(Then::Nothing),
            4 => Just(Then::DropA),
            2 => Just(Then::DropB),
            1 => Just(Then::DropResult),
            1 => Just(Then::EvalResult),
            1 => Just(Then::EvalSome),
            1 => Just(Then::EvalAll),
            1 => Just(Then::ReadA),
        ];
        let instruction =
            (0..OPERATIONS, any::<[u8; 3]>(), then).prop_map(|(operation, [a, b, n], then)| {
                Instruction {
                    operation,
                    a,
                    b,
                    n,
                    then,
                }
            });
        prop::collection::vec(instruction, 1..40).prop_map(|instructions| Recipe { instructions })
    }

    /// The same instructions but for one, which reads other operands or has another parameter.
    pub(crate) fn varied(&self, [at, what, by]: [u8; 3]) -> Recipe {
        let mut instructions = self.instructions.clone();
        let at = at as usize % instructions.len();
        let Instruction { a, b, n, .. } = &mut instructions[at];
        let byte = [a, b, n].into_iter().nth(what as usize % 3);
        byte.into_iter()
            .for_each(|byte| *byte = byte.wrapping_add(by));
        Recipe { instructions }
    }

    /// Runs it with data from `seed`: the values of what is held in the end. If `eager`, every
    /// result is computed, read and loaded again at once, so that nothing can be fused, shared or
    /// overwritten.
    pub(crate) fn run(&self, device: &Device, seed: u64, eager: bool) -> Result<Vec<Vec<f64>>> {
        let mut graph = Graph::new(device, seed)?;
        for instruction in &self.instructions {
            let result = graph.apply(*instruction)?;
            let result = if eager { reloaded(&result)? } else { result };
            graph.then(*instruction, result)?;
        }
        graph.held.iter().map(numbers_of).collect()
    }
}

/// The same values, loaded.
fn reloaded(array: &Array) -> Result<Array> {
    let mut bytes = Vec::new();
    for value in numbers_of(array)? {
        encode(array.dtype(), value, &mut bytes);
    }
    Array::from_bytes(array.dtype(), &array.shape(), bytes.into(), array.device())
}

struct Graph {
    held: Vec<Array>,
    weights: Array,
    quantised: Array,
    norm: Array,
    frequencies: Array,
    device: Device,
}

fn leaf(dtype: DType, shape: &[usize], seed: u64, device: &Device) -> Result<Array> {
    let mut bytes = Vec::new();
    for value in numbers_at(Numbers::Tame, dtype, seed, shape.iter().product()) {
        encode(dtype, value, &mut bytes);
    }
    Array::from_bytes(dtype, shape, bytes.into(), device)
}

impl Graph {
    fn new(device: &Device, seed: u64) -> Result<Graph> {
        let rows = Rows {
            format: Format::MXFP4,
            rows: 32,
            k: 32,
            blocks: 2,
            misaligned: 1,
            seed: seed ^ 1,
        };
        let held = FLOATS.iter().zip(2u64..);
        let held = held.map(|(&dtype, n)| leaf(dtype, &SHAPE, seed.wrapping_add(n), device));
        Ok(Graph {
            held: held.collect::<Result<_>>()?,
            weights: leaf(DType::F16, &[32, 32], seed ^ 11, device)?,
            quantised: rows.on(device)?,
            norm: leaf(DType::F16, &[32], seed ^ 12, device)?,
            frequencies: leaf(DType::F32, &[4], seed ^ 13, device)?,
            device: device.clone(),
        })
    }

    fn held(&self, n: u8) -> &Array {
        &self.held[n as usize % self.held.len()]
    }

    fn positions(&self, positions: &[u32]) -> Result<Array> {
        Array::from_slice(positions, &[positions.len()], &self.device)
    }

    fn apply(&self, instruction: Instruction) -> Result<Array> {
        let Instruction {
            operation, a, b, n, ..
        } = instruction;
        let (a, b) = (self.held(a), self.held(b));
        let n32 = u32::from(n);
        match operation {
            0 => a + b,
            1 => a * b,
            2 => a.silu(),
            3 => (a * 0.5)? + i32::from(n % 4),
            4 => a.cast(FLOATS[n as usize % 3]),
            5 => a.softmax(-1),
            6 => a.rms_norm(&self.norm, 1e-5),
            7 => a.matmul(&self.weights)? + b,
            8 => a.matmul(&self.quantised)?.silu(),
            9 => self.rope(a, n),
            10 => self.write(a, 0, &[n32 % 5, n32 % 3], &b.slice(0, 1..3)?),
            11 => self.write(a, 1, &[n32 % 33, 1, 2, n32 % 4], &b.slice(1, 8..12)?),
            12 => a.transpose(0, 1)?.reshape(&SHAPE),
            13 => a - a.max(-1)?,
            14 => a.take(&self.positions(&[3, n32 % 4, 0, n32 % 4])?),
            15 => self.attention(a, b, n),
            16 => {
                let half = (a.slice(1, 16..32)? + b.slice(1, 0..16)?)?;
                self.write(b, 1, &(0..16).collect::<Vec<u32>>(), &half)
            }
            17 => a + b.argmax(-1)?.reshape(&[4, 1])?.cast(DType::F32)?,
            18 => Array::custom(Twice, &[a]),
            _ => a + b.sum(0)?,
        }
    }

    fn write(&self, target: &Array, axis: i32, at: &[u32], source: &Array) -> Result<Array> {
        let mut target = target.clone();
        target.write(axis, &self.positions(at)?, source)?;
        Ok(target)
    }

    fn rope(&self, x: &Array, n: u8) -> Result<Array> {
        let pairing = if n & 8 == 0 {
            Pairing::Halves
        } else {
            Pairing::Neighbours
        };
        let rope = Rope {
            pairing,
            frequencies: self.frequencies.clone(),
            scale: 1.0,
        };
        let positions = self.positions(&[0, 1, u32::from(n), 3])?;
        x.reshape(&HEADS)?
            .rope(&positions, n as usize % 5, &rope)?
            .reshape(&SHAPE)
    }

    fn attention(&self, a: &Array, b: &Array, n: u8) -> Result<Array> {
        let cache = b.reshape(&HEADS)?.transpose(0, 1)?;
        let positions = self.positions(&[0, 1, u32::from(n) % 6, 3])?;
        let q = a.reshape(&HEADS)?;
        q.attention(&cache, &cache, &positions, 0.35, n as usize % 3)?
            .reshape(&SHAPE)
    }

    fn then(&mut self, instruction: Instruction, result: Array) -> Result<()> {
        let Instruction { a, b, n, then, .. } = instruction;
        let count = self.held.len();
        let (a, b) = (a as usize % count, b as usize % count);
        if then != Then::DropResult {
            self.held.push(result);
        }
        match then {
            Then::DropA | Then::DropB if self.held.len() > 2 => {
                self.held
                    .swap_remove(if then == Then::DropA { a } else { b });
            }
            Then::EvalResult => self.held[count].eval()?,
            Then::EvalSome => {
                eval(&[
                    &self.held[a],
                    &self.held[n as usize % self.held.len()],
                    &self.held[b],
                ])?;
            }
            Then::EvalAll => eval(&self.held.iter().collect::<Vec<_>>())?,
            Then::ReadA => drop(numbers_of(&self.held[a])?),
            _ => {}
        }
        Ok(())
    }
}

/// An operation that no backend knows.
#[derive(Debug)]
struct Twice;

impl CustomOp for Twice {
    fn name(&self) -> &'static str {
        "twice"
    }

    fn parameters(&self) -> Vec<u32> {
        vec![]
    }

    fn infer(&self, inputs: &[Spec]) -> std::result::Result<Spec, String> {
        inputs.first().copied().ok_or_else(|| "an operand".into())
    }

    fn decompose(&self, inputs: &[Array]) -> Result<Array> {
        &inputs[0] + &inputs[0]
    }
}
