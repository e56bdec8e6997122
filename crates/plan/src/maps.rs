//! The elementwise programs that arrays' functions are made of.

use crate::{Constant, DType, Expr, Instr, Kind, Scalar};

/// ```
/// use kiln_plan::{Constant, DType, Expr, Scalar};
/// let dtype = DType::F16;
/// assert_eq!(Expr::cast(dtype).check(&[DType::I32]), Ok(dtype));
/// assert_eq!(Expr::unary(Scalar::Exp, dtype).check(&[DType::F32]), Ok(dtype));
/// let less = Expr::binary(Scalar::Less, [dtype, DType::F32], DType::F32);
/// assert_eq!(less.check(&[dtype, DType::F32]), Ok(DType::Bool));
/// let twice = Expr::number(Scalar::Mul, dtype, 2.0, false);
/// assert_eq!(twice.constants(), [Constant::new(dtype, 2.0)]);
/// assert_eq!(Expr::select(dtype).check(&[DType::Bool, dtype, dtype]), Ok(dtype));
/// assert_eq!(Expr::threefry(1).check(&[DType::U32; 3]), Ok(DType::U32));
/// ```
impl Expr {
    /// The conversion of one operand to `dtype`.
    pub fn cast(dtype: DType) -> Expr {
        Expr::new(1, &[Instr::Input(0), Instr::Cast(dtype, 0)], &[])
    }

    /// `f` of one operand, as `dtype`.
    pub fn unary(f: Scalar, dtype: DType) -> Expr {
        let code = [
            Instr::Input(0),
            Instr::Apply(f, [0; 3]),
            Instr::Cast(dtype, 1),
        ];
        Expr::new(1, &code, &[])
    }

    /// `f` of two operands of these dtypes, computed in `joint`; the result has that dtype, or is bool.
    pub fn binary(f: Scalar, dtypes: [DType; 2], joint: DType) -> Expr {
        let mut code = [Instr::Input(0); 6];
        let mut length = 0;
        let mut push = |instr| {
            code[length as usize] = instr;
            length += 1;
            length - 1
        };
        let mut operand = |n: u8, dtype: DType| match push(Instr::Input(n)) {
            read if dtype.kind() != joint.kind() => push(Instr::Cast(joint, read)),
            read => read,
        };
        let (a, b) = (operand(0, dtypes[0]), operand(1, dtypes[1]));
        let value = push(Instr::Apply(f, [a, b, 0]));
        push(Instr::Cast(result(f, joint), value));
        Expr::new(2, &code[..length as usize], &[])
    }

    /// `f` of an operand of `dtype` and a number rounded to it, which stands on the left if `first`.
    pub fn number(f: Scalar, dtype: DType, number: f64, first: bool) -> Expr {
        let order = if first { [1, 0, 0] } else { [0, 1, 0] };
        let code = [
            Instr::Input(0),
            Instr::Const(0),
            Instr::Apply(f, order),
            Instr::Cast(result(f, dtype), 2),
        ];
        Expr::new(1, &code, &[Constant::new(dtype, number)])
    }

    /// Where the first operand holds, the second, else the third, as `dtype`.
    pub fn select(dtype: DType) -> Expr {
        let code = [
            Instr::Input(0),
            Instr::Input(1),
            Instr::Cast(dtype, 1),
            Instr::Input(2),
            Instr::Cast(dtype, 3),
            Instr::Apply(Scalar::Select, [0, 2, 4]),
            Instr::Cast(dtype, 5),
        ];
        Expr::new(3, &code, &[])
    }

    /// Random word `number` of `count`, from operands `number` and the two words of the key:
    /// Threefry-2x32 with 20 rounds (J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
    /// 2011) over counters laid out as MLX does.
    ///
    /// The first half of the words are the first results of counters `(i, half + i)`, the second half
    /// their second results. An odd count has one more in the middle: the first of counter `(half, 0)`.
    pub fn threefry(count: u32) -> Expr {
        const TURNS: [[u32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];
        use Scalar::{Add, Less, Or, ShiftLeft, ShiftRight, Sub, Xor};
        let mut p = Code::default();
        let number = p.push(Instr::Input(0));
        let (k0, k1) = (p.push(Instr::Input(1)), p.push(Instr::Input(2)));
        let (half, zero) = (p.word(count / 2), p.word(0));
        let ahead = p.word(count.div_ceil(2));
        let first = p.apply(Less, number, ahead);
        let in_pair = p.apply(Less, number, half);
        let (less, more) = (p.apply(Sub, number, ahead), p.apply(Add, number, ahead));
        let second_counter = p.select(in_pair, more, zero);
        let mut a = p.select(first, number, less);
        let mut b = p.select(first, second_counter, number);
        let parity = p.word(0x1bd1_1bda);
        let k2 = p.apply(Xor, k0, k1);
        let keys = [k0, k1, p.apply(Xor, k2, parity)];
        a = p.apply(Add, a, k0);
        b = p.apply(Add, b, k1);
        let turns = TURNS.map(|four| four.map(|by| (p.word(by), p.word(32 - by))));
        for group in 0..5u8 {
            for (left, right) in turns[group as usize % 2] {
                a = p.apply(Add, a, b);
                let (high, low) = (p.apply(ShiftLeft, b, left), p.apply(ShiftRight, b, right));
                let turned = p.apply(Or, high, low);
                b = p.apply(Xor, turned, a);
            }
            a = p.apply(Add, a, keys[(group as usize + 1) % 3]);
            b = p.apply(Add, b, keys[(group as usize + 2) % 3]);
            let step = p.word(u32::from(group) + 1);
            b = p.apply(Add, b, step);
        }
        let word = p.select(first, a, b);
        p.push(Instr::Cast(DType::U32, word));
        Expr::new(3, &p.code, &p.constants)
    }
}

/// The dtype of what `f` gives where it computes in `dtype`.
fn result(f: Scalar, dtype: DType) -> DType {
    match f.result(dtype.kind()) {
        Some(Kind::Bool) => DType::Bool,
        _ => dtype,
    }
}

/// A program that is written instruction by instruction.
#[derive(Default)]
struct Code {
    code: Vec<Instr>,
    constants: Vec<Constant>,
}

impl Code {
    fn push(&mut self, instr: Instr) -> u8 {
        self.code.push(instr);
        (self.code.len() - 1) as u8
    }

    fn word(&mut self, bits: u32) -> u8 {
        let dtype = DType::U32;
        self.constants.push(Constant { dtype, bits });
        self.push(Instr::Const((self.constants.len() - 1) as u8))
    }

    fn apply(&mut self, f: Scalar, a: u8, b: u8) -> u8 {
        self.push(Instr::Apply(f, [a, b, 0]))
    }

    fn select(&mut self, condition: u8, yes: u8, no: u8) -> u8 {
        self.push(Instr::Apply(Scalar::Select, [condition, yes, no]))
    }
}
