//! Functions that are a few operations: elementwise ones, and those that put arrays together.

use super::map::{on, operands};
use crate::{Case, Expected, Numbers, Random, Values, length, view};
use kiln_array::{Array, DType, Device, Result, Slice, concat, stack};
use proptest::prelude::*;

/// An elementwise function.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Function {
    /// Integer above.
    Ceil,
    /// Sign.
    Sign,
    /// Negative, of unsigned integers too.
    Negative,
    /// Remainder with the divisor's sign.
    Remainder,
    /// Quotient rounded down.
    FloorDivide,
    /// The other way round of less.
    Greater,
    /// The opposite of equal.
    NotEqual,
    /// NaN.
    IsNan,
    /// Infinities.
    IsInf,
    /// Neither.
    IsFinite,
}

const FUNCTIONS: [Function; 10] = [
    Function::Ceil,
    Function::Sign,
    Function::Negative,
    Function::Remainder,
    Function::FloorDivide,
    Function::Greater,
    Function::NotEqual,
    Function::IsNan,
    Function::IsInf,
    Function::IsFinite,
];

/// One of the functions that have no entry of their own in the table, of numbers whose results are
/// exact.
#[derive(Clone, Debug)]
pub struct Composed {
    function: Function,
    operands: Vec<Values>,
}

impl Composed {
    fn whole(function: Function) -> bool {
        matches!(function, Function::Remainder | Function::FloorDivide)
    }

    fn element(&self, a: f64, b: f64) -> f64 {
        let flag = |condition: bool| if condition { 1.0 } else { 0.0 };
        match self.function {
            Function::Ceil => a.ceil(),
            Function::Sign if a == 0.0 || a.is_nan() => 0.0,
            Function::Sign => a.signum(),
            Function::Negative => match self.operands[0].dtype {
                DType::U8 => f64::from((-a) as i64 as u8),
                DType::U32 => f64::from((-a) as i64 as u32),
                DType::I32 => f64::from((-a) as i64 as i32),
                _ => -a,
            },
            Function::Remainder => a - (a / b).floor() * b,
            Function::FloorDivide => (a / b).floor(),
            Function::Greater => flag(a > b),
            Function::NotEqual => flag(a != b),
            Function::IsNan => flag(a.is_nan()),
            Function::IsInf => flag(a.is_infinite()),
            Function::IsFinite => flag(a.is_finite()),
        }
    }
}

impl Case for Composed {
    type Subject = (Function, DType);
    const CASES: u32 = 20;

    fn subjects() -> Vec<(Function, DType)> {
        let numbers = || DType::PLAIN.into_iter().filter(|&d| d != DType::Bool);
        let all = FUNCTIONS.into_iter();
        all.flat_map(|f| numbers().map(move |dtype| (f, dtype)))
            .collect()
    }

    fn any((function, dtype): (Function, DType)) -> BoxedStrategy<Composed> {
        // Whole numbers whose quotients every dtype holds, and divisors that are not 0.
        let (numbers, divisors) = match Composed::whole(function) {
            true => (Numbers::Tame, Numbers::Between(1.0, 9.0)),
            false => (Numbers::Wild, Numbers::Wild),
        };
        let pair = operands(vec![dtype], numbers).prop_flat_map(move |x| {
            let shape = x[0].shape.clone();
            (Just(x), view(dtype, &shape, divisors))
        });
        pair.prop_map(move |(mut operands, divisor)| {
            operands.push(divisor);
            Composed { function, operands }
        })
        .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        let operands = on(&self.operands, device)?;
        let [x, y] = [&operands[0], &operands[1]];
        // Quotients of whole numbers alone are exact on every backend.
        let whole = |array: &Array| array.floor();
        match self.function {
            Function::Ceil => x.ceil(),
            Function::Sign => x.sign(),
            Function::Negative => x.negative(),
            Function::Remainder => whole(x)?.remainder(&whole(y)?),
            Function::FloorDivide => whole(x)?.floor_divide(&whole(y)?),
            Function::Greater => x.greater(y),
            Function::NotEqual => x.not_equal(y),
            Function::IsNan => x.is_nan(),
            Function::IsInf => x.is_inf(),
            Function::IsFinite => x.is_finite(),
        }
    }

    fn expected(&self) -> Expected {
        let whole = |v: f64| {
            if Composed::whole(self.function) {
                v.floor()
            } else {
                v
            }
        };
        let columns: Vec<Vec<f64>> = self.operands.iter().map(Values::to_vec).collect();
        let pairs = columns[0].iter().zip(&columns[1]);
        let elements = pairs.map(|(&a, &b)| self.element(whole(a), whole(b)));
        let dtype = match self.function {
            Function::Greater | Function::NotEqual => DType::Bool,
            Function::IsNan | Function::IsInf | Function::IsFinite => DType::Bool,
            _ => self.operands[0].dtype,
        };
        Expected::equal(dtype, &self.operands[0].shape, elements.collect())
    }
}

/// How elements come together.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Joining {
    /// Behind each other.
    Concat,
    /// Along a new axis.
    Stack,
    /// Several times each.
    Repeat,
    /// Slices by number.
    Take,
    /// Elements by number, for each row its own.
    TakeAlong,
    /// Every so-manieth.
    Every,
}

/// What only moves elements of \[outer, axis, inner\] along the middle axis.
#[derive(Clone, Debug)]
pub struct Joined {
    how: Joining,
    x: Values,
    other: Values,
    count: usize,
    seed: u64,
}

impl Joined {
    fn ids(&self, count: usize) -> Vec<i32> {
        let length = self.x.shape[1];
        let mut random = Random::new(self.seed);
        let id = |_| random.below(2 * length) as i32 - length as i32;
        (0..count).map(id).collect()
    }

    /// Which elements of both operands, one behind the other, the result has along the axis.
    fn along(&self, row: usize) -> Vec<usize> {
        let length = self.x.shape[1];
        let counted = |id: i32| {
            if id < 0 {
                (id + length as i32) as usize
            } else {
                id as usize
            }
        };
        match self.how {
            Joining::Concat => (0..length + self.other.shape[1]).collect(),
            Joining::Stack => vec![],
            Joining::Repeat => (0..length * self.count).map(|i| i / self.count).collect(),
            Joining::Take => self.ids(self.count).into_iter().map(counted).collect(),
            Joining::Every => (0..length).step_by(self.count).collect(),
            Joining::TakeAlong => {
                let rows = self.x.shape[0] * self.x.shape[2];
                let ids = self.ids(rows * self.count);
                let (outer, inner) = (row / self.x.shape[2], row % self.x.shape[2]);
                let at = |i: usize| (outer * self.count + i) * self.x.shape[2] + inner;
                (0..self.count).map(|i| counted(ids[at(i)])).collect()
            }
        }
    }
}

impl Case for Joined {
    type Subject = (Joining, DType);
    const CASES: u32 = 20;

    fn subjects() -> Vec<(Joining, DType)> {
        let all = [
            Joining::Concat,
            Joining::Stack,
            Joining::Repeat,
            Joining::Take,
            Joining::TakeAlong,
            Joining::Every,
        ];
        all.into_iter()
            .flat_map(|how| DType::PLAIN.map(|dtype| (how, dtype)))
            .collect()
    }

    fn any((how, dtype): (Joining, DType)) -> BoxedStrategy<Joined> {
        let counts = (1..4usize, length(80), 1..4usize, 1..20usize, 1..6usize);
        counts
            .prop_flat_map(move |(outer, middle, inner, second, count)| {
                let second = if how == Joining::Stack {
                    middle
                } else {
                    second
                };
                let x = view(dtype, &[outer, middle, inner], Numbers::Wild);
                let other = view(dtype, &[outer, second, inner], Numbers::Wild);
                (x, other, Just(count), any::<u64>())
            })
            .prop_map(move |(x, other, count, seed)| Joined {
                how,
                x,
                other,
                count,
                seed,
            })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        let x = self.x.on(device)?;
        match self.how {
            Joining::Concat => concat(&[&x, &self.other.on(device)?], 1),
            Joining::Stack => stack(&[&x, &self.other.on(device)?], 1),
            Joining::Repeat => x.repeat(1, self.count),
            Joining::Every => x.index((.., Slice::every(self.count, ..)))?.copy(),
            Joining::Take => x.take_axis(&Array::new(self.ids(self.count), device)?, -2),
            Joining::TakeAlong => {
                let lengths = [self.x.shape[0], self.count, self.x.shape[2]];
                let ids = self.ids(lengths.iter().product());
                x.take_along_axis(&Array::from_slice(&ids, &lengths, device)?, 1)
            }
        }
    }

    fn expected(&self) -> Expected {
        let (x, other) = (self.x.to_vec(), self.other.to_vec());
        let [outer, length, inner] = self.x.shape[..] else {
            return Expected::nothing();
        };
        let second = self.other.shape[1];
        if self.how == Joining::Stack {
            let block = length * inner;
            let both = |o: usize| [&x[o * block..][..block], &other[o * block..][..block]].concat();
            let elements = (0..outer).flat_map(both).collect();
            return Expected::exact(self.x.dtype, &[outer, 2, length, inner], elements);
        }
        let columns: Vec<Vec<usize>> = (0..outer * inner).map(|row| self.along(row)).collect();
        let count = columns[0].len();
        let mut elements = Vec::new();
        for (o, i) in (0..outer).flat_map(|o| (0..count).map(move |i| (o, i))) {
            for n in 0..inner {
                let at = columns[o * inner + n][i];
                elements.push(match at.checked_sub(length) {
                    None => x[(o * length + at) * inner + n],
                    Some(at) => other[(o * second + at) * inner + n],
                });
            }
        }
        Expected::exact(self.x.dtype, &[outer, count, inner], elements)
    }
}
