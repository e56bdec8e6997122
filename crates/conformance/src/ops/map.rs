//! Elementwise functions: the whole table, casts, promotion, numbers, random programs.

use super::scalar::{apply, result};
use crate::numbers::stored;
use crate::{Case, Expected, Numbers, Span, Values, length, view};
use kiln_array::{Array, DType, Device, Expr, Instr, Op, Result, Scalar};
use proptest::prelude::*;

/// Lengths of up to four axes.
fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![]),
        length(9000).prop_map(|n| vec![n]),
        (1..5usize, length(700)).prop_map(|(a, b)| vec![a, b]),
        (1..4usize, 1..5usize, 1..70usize).prop_map(|(a, b, c)| vec![a, b, c]),
        (1..3usize, 1..4usize, 1..4usize, 1..20usize).prop_map(|(a, b, c, d)| vec![a, b, c, d]),
        Just(vec![3, 0]),
    ]
}

/// Operands of these dtypes as views of one shape.
pub(crate) fn operands(dtypes: Vec<DType>, numbers: Numbers) -> impl Strategy<Value = Vec<Values>> {
    shapes().prop_flat_map(move |shape| {
        dtypes
            .iter()
            .map(|&dtype| view(dtype, &shape, numbers))
            .collect::<Vec<_>>()
    })
}

pub(crate) fn on(values: &[Values], device: &Device) -> Result<Vec<Array>> {
    values.iter().map(|operand| operand.on(device)).collect()
}

/// One function of the table, at one dtype.
#[derive(Clone, Debug)]
pub struct Function {
    f: Scalar,
    dtype: DType,
    operands: Vec<Values>,
}

impl Case for Function {
    type Subject = (Scalar, DType);
    const CASES: u32 = 30;

    fn subjects() -> Vec<(Scalar, DType)> {
        let all = Scalar::ALL
            .iter()
            .flat_map(|&f| DType::PLAIN.map(|dtype| (f, dtype)));
        all.filter(|&(f, dtype)| result(f, dtype).is_some())
            .collect()
    }

    fn any((f, dtype): (Scalar, DType)) -> BoxedStrategy<Function> {
        let mut dtypes = vec![dtype; f.arity()];
        if f == Scalar::Select {
            dtypes[0] = DType::Bool;
        }
        // Beyond 2²⁴ radians the reduction is not exact, and `math` promises nothing; which NaN one
        // is, is open.
        let numbers = match f {
            Scalar::Sin | Scalar::Cos if dtype == DType::F16 => Numbers::Holes,
            Scalar::Sin | Scalar::Cos => Numbers::Between(-16e6, 16e6),
            Scalar::Bits => Numbers::Spread,
            _ => Numbers::Wild,
        };
        operands(dtypes, numbers)
            .prop_map(move |operands| Function { f, dtype, operands })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        let count = self.f.arity() as u8;
        let mut code: Vec<Instr> = (0..count).map(Instr::Input).collect();
        code.push(Instr::Apply(
            self.f,
            [0, 1.min(count - 1), 2.min(count - 1)],
        ));
        code.push(Instr::Cast(
            result(self.f, self.dtype).unwrap_or(self.dtype),
            count,
        ));
        let expr = Expr::new(count as usize, &code, &[]);
        Array::make(Op::Map(expr), on(&self.operands, device)?)
    }

    fn expected(&self) -> Expected {
        let stored = result(self.f, self.dtype).unwrap_or(self.dtype);
        let columns: Vec<Vec<f64>> = self.operands.iter().map(Values::to_vec).collect();
        let element = |i: usize| {
            let argument = |n: usize| columns.get(n).map_or(0.0, |column: &Vec<f64>| column[i]);
            let span = apply(self.f, self.dtype, [argument(0), argument(1), argument(2)]);
            let span = if self.dtype.is_float() && stored.is_float() {
                span.round(DType::F32)
            } else {
                span
            };
            if stored == DType::U8 {
                span.map(|v| f64::from(v as u32 as u8))
            } else {
                span
            }
        };
        let elements = (0..columns[0].len()).map(element).collect();
        Expected::near(stored, &self.operands[0].shape, elements)
    }
}

/// Quotients as the operator gives them: integers divide as floats do.
#[derive(Clone, Debug)]
pub struct Quotient {
    operands: Vec<Values>,
}

impl Case for Quotient {
    type Subject = DType;
    const CASES: u32 = 30;

    fn subjects() -> Vec<DType> {
        DType::PLAIN.to_vec()
    }

    fn any(dtype: DType) -> BoxedStrategy<Quotient> {
        let operands = operands(vec![dtype; 2], Numbers::Wild);
        operands.prop_map(|operands| Quotient { operands }).boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        self.operands[0].on(device)? / self.operands[1].on(device)?
    }

    fn expected(&self) -> Expected {
        let own = self.operands[0].dtype;
        let dtype = if own.is_float() { own } else { DType::F32 };
        let columns: Vec<Vec<f64>> = self.operands.iter().map(Values::to_vec).collect();
        let element = |(a, b): (&f64, &f64)| {
            apply(
                Scalar::Div,
                DType::F32,
                [stored(dtype, *a), stored(dtype, *b), 0.0],
            )
        };
        let elements = columns[0].iter().zip(&columns[1]).map(element).collect();
        Expected::near(dtype, &self.operands[0].shape, elements)
    }
}

/// A choice between arrays of any two dtypes that have a joint one.
#[derive(Clone, Debug)]
pub struct Select {
    operands: Vec<Values>,
}

impl Case for Select {
    type Subject = (DType, DType);
    const CASES: u32 = 10;

    fn subjects() -> Vec<(DType, DType)> {
        let pairs = DType::PLAIN
            .iter()
            .flat_map(|&a| DType::PLAIN.map(|b| (a, b)));
        pairs.filter(|&(a, b)| joint(a, b).is_some()).collect()
    }

    fn any((a, b): (DType, DType)) -> BoxedStrategy<Select> {
        let operands = operands(vec![DType::Bool, a, b], Numbers::Wild);
        operands.prop_map(|operands| Select { operands }).boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        let [condition, yes, no] = &self.operands[..] else {
            return self.operands[0].on(device);
        };
        condition
            .on(device)?
            .select(&yes.on(device)?, &no.on(device)?)
    }

    fn expected(&self) -> Expected {
        let [condition, yes, no] = &self.operands[..] else {
            return Expected::nothing();
        };
        let dtype = joint(yes.dtype, no.dtype).unwrap_or(DType::Bool);
        let columns = (yes.to_vec().into_iter()).zip(no.to_vec());
        let choose = |(condition, (a, b)): (f64, (f64, f64))| match condition != 0.0 {
            true => converted(yes.dtype, dtype, a),
            false => converted(no.dtype, dtype, b),
        };
        let elements = condition
            .to_vec()
            .into_iter()
            .zip(columns)
            .map(choose)
            .collect();
        Expected::exact(dtype, &condition.shape, elements)
    }
}

/// Every dtype to every dtype.
#[derive(Clone, Debug)]
pub struct Cast {
    x: Values,
    to: DType,
}

/// What a number of `from` becomes in `to`.
pub(crate) fn converted(from: DType, to: DType, value: f64) -> f64 {
    let integer = |low: f64, high: f64| match value.is_nan() {
        true => 0.0,
        false => value.trunc().clamp(low, high) + 0.0,
    };
    match (from.is_float(), to) {
        (_, DType::Bool) => f64::from(u8::from(value != 0.0)),
        (true, DType::U8) => integer(0.0, 255.0),
        (true, DType::U32) => integer(0.0, u32::MAX.into()),
        (true, DType::I32) => integer(i32::MIN.into(), i32::MAX.into()),
        (false, DType::U8) => (value as i64 as u8).into(),
        (false, DType::U32) => (value as i64 as u32).into(),
        (false, DType::I32) => (value as i64 as i32).into(),
        (_, float) => stored(float, value),
    }
}

impl Case for Cast {
    type Subject = (DType, DType);
    const CASES: u32 = 30;

    fn subjects() -> Vec<(DType, DType)> {
        DType::PLAIN
            .iter()
            .flat_map(|&from| DType::PLAIN.map(|to| (from, to)))
            .collect()
    }

    fn any((from, to): (DType, DType)) -> BoxedStrategy<Cast> {
        operands(vec![from], Numbers::Wild)
            .prop_map(move |x| Cast {
                x: x[0].clone(),
                to,
            })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        // Not `cast`, which does nothing where the dtype is there already.
        Array::make(Op::Map(Expr::cast(self.to)), vec![self.x.on(device)?])
    }

    fn expected(&self) -> Expected {
        let convert = |value| converted(self.x.dtype, self.to, value);
        let values = self.x.to_vec().into_iter().map(convert).collect();
        Expected::exact(self.to, &self.x.shape, values)
    }
}

/// Sums of any two dtypes that have a joint one, of shapes that broadcast.
#[derive(Clone, Debug)]
pub struct Joined {
    a: Values,
    b: Values,
    shape: Vec<usize>,
}

/// MLX's promotion among these dtypes.
fn joint(a: DType, b: DType) -> Option<DType> {
    use DType::*;
    let order = [Bool, U8, U32, I32, F16, BF16, F32];
    let place = |dtype| order.iter().position(|&d| d == dtype);
    match (a, b) {
        (U32, I32) | (I32, U32) => None,
        (F16, BF16) | (BF16, F16) => Some(F32),
        _ => Some(if place(a) < place(b) { b } else { a }),
    }
}

impl Case for Joined {
    type Subject = (DType, DType);
    const CASES: u32 = 24;

    fn subjects() -> Vec<(DType, DType)> {
        let pairs = DType::PLAIN
            .iter()
            .flat_map(|&a| DType::PLAIN.map(|b| (a, b)));
        pairs
            .filter(|&(a, b)| joint(a, b).is_some_and(|j| j != DType::Bool))
            .collect()
    }

    fn any((a, b): (DType, DType)) -> BoxedStrategy<Joined> {
        let axes = prop::collection::vec((1..12usize, any::<bool>(), any::<bool>()), 1..=4);
        let short = (0..3usize, 0..3usize);
        (axes, short)
            .prop_flat_map(move |(axes, short)| {
                let stretched: Vec<usize> = axes.iter().map(|axis| axis.0).collect();
                let kept = |(n, yes): (usize, bool)| if yes { n } else { 1 };
                let first: Vec<usize> = axes.iter().map(|x| kept((x.0, x.1 || !x.2))).collect();
                let second: Vec<usize> = axes.iter().map(|x| kept((x.0, x.2))).collect();
                // Leading axes of length 1 may be missing.
                let cut = |dims: &[usize], most: usize| {
                    let ones = dims.iter().take_while(|&&n| n == 1).count().min(most);
                    dims[ones..].to_vec()
                };
                let (first, second) = (cut(&first, short.0), cut(&second, short.1));
                let missing = stretched.len() - first.len().max(second.len());
                let shape = stretched[missing..].to_vec();
                let numbers = Numbers::Wild;
                (
                    view(a, &first, numbers),
                    view(b, &second, numbers),
                    Just(shape),
                )
            })
            .prop_map(|(a, b, shape)| Joined { a, b, shape })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        self.a.on(device)? + self.b.on(device)?
    }

    fn expected(&self) -> Expected {
        let dtype = joint(self.a.dtype, self.b.dtype).unwrap_or(DType::Bool);
        let (a, b) = (self.a.to_vec(), self.b.to_vec());
        let at = |own: &[usize], mut i: usize| {
            let (mut at, mut stride) = (0, 1);
            for (axis, &length) in self.shape.iter().enumerate().rev() {
                let behind = self.shape.len() - axis;
                if let Some(&n) = own.len().checked_sub(behind).map(|axis| &own[axis]) {
                    at += i % length % n * stride;
                    stride *= n;
                }
                i /= length;
            }
            at
        };
        let count = self.shape.iter().product();
        let elements = (0..count).map(|i| {
            let x = converted(self.a.dtype, dtype, a[at(&self.a.shape, i)]);
            let y = converted(self.b.dtype, dtype, b[at(&self.b.shape, i)]);
            let sum = apply(Scalar::Add, dtype, [x, y, 0.0]);
            sum.map(|v| converted(dtype, dtype, v))
        });
        let elements: Vec<Span> = elements.collect();
        Expected::near(dtype, &self.shape, elements)
    }
}

/// A function of an array and a number, which takes the array's dtype.
#[derive(Clone, Debug)]
pub struct WithNumber {
    f: Scalar,
    x: Values,
    number: i32,
}

impl Case for WithNumber {
    type Subject = (Scalar, DType);
    const CASES: u32 = 30;

    fn subjects() -> Vec<(Scalar, DType)> {
        let functions = [Scalar::Sub, Scalar::Less];
        let all = functions
            .iter()
            .flat_map(|&f| DType::PLAIN.map(|dtype| (f, dtype)));
        all.filter(|&(_, dtype)| dtype != DType::Bool).collect()
    }

    fn any((f, dtype): (Scalar, DType)) -> BoxedStrategy<WithNumber> {
        (operands(vec![dtype], Numbers::Wild), -4000..4000i32)
            .prop_map(move |(x, number)| WithNumber {
                f,
                x: x[0].clone(),
                number,
            })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        self.x.on(device)?.with_number(self.f, self.number)
    }

    fn expected(&self) -> Expected {
        let dtype = self.x.dtype;
        let stored = result(self.f, dtype).unwrap_or(dtype);
        let number = converted(DType::I32, dtype, self.number.into());
        let element = |x: f64| {
            let span = apply(self.f, dtype, [x, number, 0.0]);
            if stored == DType::U8 {
                span.map(|v| f64::from(v as u32 as u8))
            } else {
                span
            }
        };
        Expected::near(
            stored,
            &self.x.shape,
            self.x.to_vec().into_iter().map(element).collect(),
        )
    }
}
