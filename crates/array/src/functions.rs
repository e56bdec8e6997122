//! The operations as methods and operators.

use crate::construct::room;
use crate::{Array, Bits, DType, Device, Error, Expr, Op, Pairing, Result, Scalar};
use std::panic::Location;

impl Array {
    /// `f` of every element, in this array's dtype.
    #[track_caller]
    pub fn unary(&self, f: Scalar) -> Result<Array> {
        self.map(Expr::unary(f, self.dtype()))
    }

    /// `f` of elements of two arrays in their joint dtype, shapes broadcast. The result has that
    /// dtype, or bool for a comparison.
    #[track_caller]
    pub fn binary(&self, f: Scalar, other: &Array) -> Result<Array> {
        let inputs = vec![self.clone(), other.clone()];
        // Integers divide as floats do, as in MLX.
        let joint = match joint(self, other, &inputs)? {
            integer if f == Scalar::Div && !integer.is_float() => DType::F32,
            joint => joint,
        };
        let expr = Expr::binary(f, [self.dtype(), other.dtype()], joint);
        Array::make(Op::Map(expr), inputs)
    }

    /// `f` of every element and a number, which is first rounded to the array's dtype. With a
    /// fraction, or to divide, integers become f32.
    #[track_caller]
    pub fn with_number(&self, f: Scalar, number: impl Into<f64>) -> Result<Array> {
        self.number(f, number.into(), false)
    }

    #[track_caller]
    pub(crate) fn number(&self, f: Scalar, number: f64, first: bool) -> Result<Array> {
        // Integers divide as floats do, as in MLX.
        if !self.dtype().is_float() && (number.fract() != 0.0 || f == Scalar::Div) {
            self.plain("map")?;
            return self.cast(DType::F32)?.number(f, number, first);
        }
        self.map(Expr::number(f, self.dtype(), number, first))
    }

    /// Where this bool array holds, `yes`, else `no`; all three broadcast.
    #[track_caller]
    pub fn select(&self, yes: &Array, no: &Array) -> Result<Array> {
        let inputs = vec![self.clone(), yes.clone(), no.clone()];
        let joint = joint(yes, no, &inputs)?;
        Array::make(Op::Map(Expr::select(joint)), inputs)
    }

    /// Rows `ids` (u32) of this table: [`Op::Take`].
    #[track_caller]
    pub fn take(&self, ids: &Array) -> Result<Array> {
        Array::make(Op::Take, vec![self.clone(), ids.clone()])
    }

    /// Stores slice `i` of `source` at `positions[i]` of `axis`: [`Op::Write`]. This handle then
    /// stands for the new version. The memory is changed in place if no other handle needs the old
    /// version when this is evaluated, and copied otherwise.
    #[track_caller]
    pub fn write(&mut self, axis: i32, positions: &Array, source: &Array) -> Result<()> {
        let axis = self.axis("write", axis)? as u8;
        let inputs = vec![self.clone(), source.cast(self.dtype())?, positions.clone()];
        *self = Array::make(Op::Write { axis }, inputs)?;
        Ok(())
    }

    /// [`Op::RmsNorm`].
    #[track_caller]
    pub fn rms_norm(&self, weight: &Array, eps: f32) -> Result<Array> {
        Array::make(
            Op::RmsNorm { eps: eps.into() },
            vec![self.clone(), weight.clone()],
        )
    }

    /// [`Op::LayerNorm`].
    #[track_caller]
    pub fn layer_norm(&self, weight: &Array, bias: &Array, eps: f32) -> Result<Array> {
        let inputs = vec![self.clone(), weight.clone(), bias.clone()];
        Array::make(Op::LayerNorm { eps: eps.into() }, inputs)
    }

    /// Turns the first `heads` heads of `[tokens, heads, size]`: [`Op::Rope`].
    #[track_caller]
    pub fn rope(&self, positions: &Array, heads: usize, rope: &Rope) -> Result<Array> {
        let op = Op::Rope {
            pairing: rope.pairing,
            heads: u32::try_from(heads).unwrap_or(u32::MAX),
            scale: Bits::from(rope.scale),
        };
        Array::make(
            op,
            vec![self.clone(), positions.clone(), rope.frequencies.clone()],
        )
    }

    /// `self · weightsᵀ`: [`Op::Matmul`].
    #[track_caller]
    pub fn matmul(&self, weights: &Array) -> Result<Array> {
        Array::make(
            Op::Matmul { epilogue: None },
            vec![self.clone(), weights.clone()],
        )
    }

    /// [`Op::Attention`] of these queries; `window` 0 sees everything before.
    #[track_caller]
    pub fn attention(
        &self,
        keys: &Array,
        values: &Array,
        positions: &Array,
        scale: f32,
        window: usize,
    ) -> Result<Array> {
        let op = Op::Attention {
            scale: scale.into(),
            window: u32::try_from(window).unwrap_or(u32::MAX),
        };
        Array::make(
            op,
            vec![
                self.clone(),
                keys.clone(),
                values.clone(),
                positions.clone(),
            ],
        )
    }
}

/// How positions turn heads: the parameters of [`Array::rope`].
#[derive(Clone, Debug)]
pub struct Rope {
    /// Which elements are a pair.
    pub pairing: Pairing,
    /// Radians per position for each pair, f32.
    pub frequencies: Array,
    /// Factor on what turns.
    pub scale: f32,
}

impl Rope {
    /// Unscaled angles: pair `i` of a head's first `size` elements, an even number, turns by
    /// `base^(-2i/size)` radians per position.
    #[track_caller]
    pub fn plain(size: usize, base: f32, pairing: Pairing, device: &Device) -> Result<Rope> {
        let pairs = size / 2;
        let step = f64::from(base).ln() / pairs.max(1) as f64;
        let mut frequencies = room(pairs)?;
        frequencies.extend((0..pairs).map(|i| (-(i as f64) * step).exp() as f32));
        if !size.is_multiple_of(2) {
            return Err(Error::Invalid {
                op: "rope",
                expected: format!("an even number of elements, not {size}"),
                inputs: Vec::new(),
                site: Location::caller(),
            });
        }
        Ok(Rope {
            pairing,
            frequencies: Array::from_slice(&frequencies, &[pairs], device)?,
            scale: 1.0,
        })
    }
}

#[track_caller]
fn joint(a: &Array, b: &Array, inputs: &[Array]) -> Result<DType> {
    let site = Location::caller();
    a.dtype().join(b.dtype()).ok_or_else(|| Error::Invalid {
        op: "map",
        expected: "dtypes with a joint one (cast one of them)".into(),
        inputs: inputs.iter().map(Array::spec).collect(),
        site,
    })
}

// One line for each operator and each way of passing the operands.
macro_rules! operators {
    ($($trait:ident $method:ident;)+) => { $(
        operators!(@arrays $trait $method: Array, Array; &Array, Array; Array, &Array; &Array, &Array);
        operators!(@number $trait $method f32: Array, &Array);
        operators!(@number $trait $method i32: Array, &Array);
        operators!(@first $trait $method f32: Array, &Array);
        operators!(@first $trait $method i32: Array, &Array);
    )+ };
    (@arrays $trait:ident $method:ident: $($a:ty, $b:ty);+) => { $(
        impl std::ops::$trait<$b> for $a {
            type Output = Result<Array>;
            #[track_caller]
            fn $method(self, other: $b) -> Result<Array> {
                self.binary(Scalar::$trait, &other)
            }
        }
    )+ };
    (@number $trait:ident $method:ident $number:ty: $($a:ty),+) => { $(
        impl std::ops::$trait<$number> for $a {
            type Output = Result<Array>;
            #[track_caller]
            fn $method(self, number: $number) -> Result<Array> {
                self.number(Scalar::$trait, number.into(), false)
            }
        }
    )+ };
    (@first $trait:ident $method:ident $number:ty: $($a:ty),+) => { $(
        impl std::ops::$trait<$a> for $number {
            type Output = Result<Array>;
            #[track_caller]
            fn $method(self, array: $a) -> Result<Array> {
                array.number(Scalar::$trait, self.into(), true)
            }
        }
    )+ };
}

impl std::ops::Neg for &Array {
    type Output = Result<Array>;
    #[track_caller]
    fn neg(self) -> Result<Array> {
        self.negative()
    }
}

operators! {
    Add add;
    Sub sub;
    Mul mul;
    Div div;
}
