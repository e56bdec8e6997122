//! Random elementwise programs.

use super::map::{converted, on, operands};
use super::scalar::{apply, result};
use crate::{Case, Expected, Numbers, Values, numbers};
use kiln_array::{Array, Constant, DType, Device, Expr, Instr, Kind, Op, Result, Scalar};
use proptest::prelude::*;

/// A random program of functions that f64 can follow exactly: any missing, added or moved rounding
/// changes a bit.
#[derive(Clone, Debug)]
pub struct Program {
    operands: Vec<Values>,
    code: Vec<Instr>,
    constants: Vec<Constant>,
}

const EXACT: [Scalar; 22] = [
    Scalar::Add,
    Scalar::Sub,
    Scalar::Mul,
    Scalar::Div,
    Scalar::Neg,
    Scalar::Abs,
    Scalar::Min,
    Scalar::Max,
    Scalar::Sqrt,
    Scalar::Floor,
    Scalar::Nearest,
    Scalar::And,
    Scalar::Or,
    Scalar::Xor,
    Scalar::Not,
    Scalar::ShiftLeft,
    Scalar::ShiftRight,
    Scalar::Equal,
    Scalar::Less,
    Scalar::LessEqual,
    Scalar::Rem,
    Scalar::Select,
];

/// Instructions over operands of these dtypes, from random choices. `Min` and `Max` of zeros may
/// have either sign, so nothing divides by what could be one: divisors are constants.
fn program(dtypes: &[DType], choices: &[[u8; 5]]) -> (Vec<Instr>, Vec<Constant>) {
    let mut code: Vec<Instr> = (0..dtypes.len()).map(|n| Instr::Input(n as u8)).collect();
    let mut kinds: Vec<Kind> = dtypes.iter().map(|dtype| dtype.kind()).collect();
    let mut constants = Vec::new();
    for &[what, f, a, b, c] in choices {
        let register = |choice: u8| choice % kinds.len() as u8;
        let of_kind = |kind: Kind, choice: u8| {
            let fitting: Vec<usize> = (0..kinds.len()).filter(|&r| kinds[r] == kind).collect();
            fitting
                .get(choice as usize % fitting.len().max(1))
                .map(|&r| r as u8)
        };
        let (instr, kind) = match what % 8 {
            0 => {
                let dtype = DType::PLAIN[a as usize % 7];
                let value = f64::from(b & 63) - if dtype == DType::I32 { 32.0 } else { 0.0 };
                let bits = match dtype.kind() {
                    Kind::Float => (value as f32 + 0.5).to_bits(),
                    Kind::Bool => u32::from(b & 1),
                    _ => value as i64 as u32,
                };
                constants.push(Constant { dtype, bits });
                (Instr::Const((constants.len() - 1) as u8), dtype.kind())
            }
            1 | 2 => {
                let dtype = DType::PLAIN[f as usize % 7];
                (Instr::Cast(dtype, register(a)), dtype.kind())
            }
            _ => {
                let f = EXACT[f as usize % EXACT.len()];
                let last = register(a);
                let kind = kinds[last as usize];
                let Some(kept) = f.result(kind) else { continue };
                // A GPU may leave the last place of a quotient or root open, and may round a
                // product and its sum with another number once.
                let open = matches!(f, Scalar::Div | Scalar::Sqrt | Scalar::Mul);
                if open && kind == Kind::Float && numbers::are_for_gpu() {
                    continue;
                }
                let Some(other) = of_kind(kind, b) else {
                    continue;
                };
                let arguments = match (f, f.arity()) {
                    (Scalar::Select, _) => match of_kind(Kind::Bool, c) {
                        Some(condition) => [condition, other, last],
                        None => continue,
                    },
                    (Scalar::Div | Scalar::Rem, _) => {
                        if !matches!(code[other as usize], Instr::Const(_)) {
                            continue;
                        }
                        [last, other, 0]
                    }
                    (_, 1) => [last, 0, 0],
                    _ => [other, last, 0],
                };
                (Instr::Apply(f, arguments), kept)
            }
        };
        code.push(instr);
        kinds.push(kind);
    }
    let result = DType::PLAIN[choices.first().map_or(0, |c| c[4] as usize % 7)];
    code.push(Instr::Cast(result, (code.len() - 1) as u8));
    (code, constants)
}

impl Case for Program {
    type Subject = ();
    const CASES: u32 = 1000;

    fn subjects() -> Vec<()> {
        vec![()]
    }

    fn any((): ()) -> BoxedStrategy<Program> {
        let dtypes = prop::collection::vec(prop::sample::select(&DType::PLAIN[..]), 1..=5);
        let choices = prop::collection::vec(any::<[u8; 5]>(), 1..40);
        (dtypes, choices)
            .prop_flat_map(|(dtypes, choices)| {
                let (code, constants) = program(&dtypes, &choices);
                operands(dtypes, Numbers::Wild).prop_map(move |operands| Program {
                    operands,
                    code: code.clone(),
                    constants: constants.clone(),
                })
            })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        let expr = Expr::new(self.operands.len(), &self.code, &self.constants);
        Array::make(Op::Map(expr), on(&self.operands, device)?)
    }

    fn expected(&self) -> Expected {
        let columns: Vec<Vec<f64>> = self.operands.iter().map(Values::to_vec).collect();
        let Some(Instr::Cast(dtype, _)) = self.code.last() else {
            return Expected::nothing();
        };
        let elements = (0..columns[0].len())
            .map(|i| self.element(&columns, i))
            .collect();
        Expected::equal(*dtype, &self.operands[0].shape, elements)
    }
}

impl Program {
    /// Element `i`: every register in f64 with the dtype whose numbers it holds.
    fn element(&self, columns: &[Vec<f64>], i: usize) -> f64 {
        let plain = |kind: Kind| match kind {
            Kind::Float => DType::F32,
            Kind::U32 => DType::U32,
            Kind::I32 => DType::I32,
            Kind::Bool => DType::Bool,
        };
        let mut registers: Vec<(DType, f64)> = Vec::new();
        for instr in &self.code {
            registers.push(match *instr {
                Instr::Input(n) => (
                    plain(self.operands[n as usize].dtype.kind()),
                    columns[n as usize][i],
                ),
                Instr::Const(n) => {
                    let Constant { dtype, bits } = self.constants[n as usize];
                    let value = match dtype.kind() {
                        Kind::Float => f32::from_bits(bits).into(),
                        Kind::I32 => (bits as i32).into(),
                        _ => bits.into(),
                    };
                    (plain(dtype.kind()), value)
                }
                Instr::Cast(to, r) => {
                    let (from, value) = registers[r as usize];
                    (plain(to.kind()), converted(from, to, value))
                }
                Instr::Apply(f, r) => {
                    let of = |n: usize| registers[r[n] as usize];
                    let last = of(f.arity() - 1).0;
                    let span = apply(f, last, [0, 1, 2].map(|n| of(n).1));
                    (plain(result(f, last).unwrap_or(last).kind()), span.low())
                }
            });
        }
        registers.last().map_or(0.0, |r| r.1)
    }
}
