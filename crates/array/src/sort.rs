//! Order, and what it means: a sorting network of maps.

use crate::{Array, DType, Kind, Op, Result, Scalar};

/// # Sorting
///
/// By [`Op::ArgSort`], which the processor does row by row. A GPU has no kernel for it: there it is a
/// bitonic network of elementwise steps, `log² n / 2` stages over the whole array (55 for 1,024
/// elements, 153 for 131,072). Where only the largest counts, use [`Array::argmax`].
///
/// ```
/// # fn main() -> kiln_array::Result<()> {
/// use kiln_array::Array;
/// let device = kiln_cpu::device(Default::default())?;
/// let x = Array::new([3, 1, 2], &device)?;
/// assert_eq!(x.sort(0)?.to_vec::<i32>()?, [1, 2, 3]);
/// assert_eq!(x.argsort(0)?.to_vec::<u32>()?, [1, 2, 0]);
/// let (values, places) = x.topk(2, 0)?;
/// assert_eq!(values.to_vec::<i32>()?, [3, 2]);
/// assert_eq!(places.to_vec::<u32>()?, [0, 2]);
/// # Ok(()) }
/// ```
impl Array {
    /// The elements of `axis` in rising order, NaN last.
    #[track_caller]
    pub fn sort(&self, axis: i32) -> Result<Array> {
        self.take_along_axis(&self.argsort(axis)?, axis)
    }

    /// Where the elements of `axis` lie in rising order, as u32: equal ones in the order in which
    /// they lie, NaN last.
    #[track_caller]
    pub fn argsort(&self, axis: i32) -> Result<Array> {
        self.axis("argsort", axis)?;
        ordered(self.order()?, axis)
    }

    /// The `count` largest elements of `axis` in falling order, and where they lie: of equals the
    /// first, NaN before all.
    #[track_caller]
    pub fn topk(&self, count: usize, axis: i32) -> Result<(Array, Array)> {
        let at = self.axis("topk", axis)?;
        if count > self.shape()[at] {
            return self.invalid("topk", format!("at least {count} elements along axis {at}"));
        }
        let falling = self.order()?.number(Scalar::Sub, u32::MAX.into(), true)?;
        let places = ordered(falling, axis)?.slice(axis, 0..count)?;
        Ok((self.take_along_axis(&places, axis)?, places))
    }

    /// Numbers as u32 of the same order: of floats the bits, those of negative ones turned. All NaN
    /// are one number above all others.
    #[track_caller]
    fn order(&self) -> Result<Array> {
        self.plain("sort")?;
        match self.dtype().kind() {
            Kind::U32 | Kind::Bool => return self.cast(DType::U32),
            Kind::I32 => return self.cast(DType::U32)?.with_number(Scalar::Xor, 1u32 << 31),
            Kind::Float => {}
        }
        let wide = self.cast(DType::F32)?;
        let zero = Array::full(0.0, DType::F32, &[], self.device())?;
        let bits = wide.equal(0.0)?.select(&zero, &wide)?.bits()?;
        let negative = bits.greater_equal(1u32 << 31)?;
        let turned = bits.number(Scalar::Sub, u32::MAX.into(), true)?;
        let raised = bits.with_number(Scalar::Or, 1u32 << 31)?;
        let most = zero.cast(DType::U32)?.with_number(Scalar::Sub, 1)?;
        self.is_nan()?
            .select(&most, &negative.select(&turned, &raised)?)
    }
}

/// Where the keys of `axis` lie in rising order; those of equal keys rise.
#[track_caller]
fn ordered(keys: Array, axis: i32) -> Result<Array> {
    Array::make(Op::ArgSort, vec![keys.move_axis(axis, -1)?])?.move_axis(-1, axis)
}

/// What [`Op::ArgSort`] means.
pub(crate) fn network(rows: &Array) -> Result<Array> {
    let keys = &rows.move_axis(-1, 0)?;
    let shape = keys.shape();
    let (count, columns) = (shape[0], shape[1..].iter().product::<usize>());
    let length = count.next_power_of_two();
    let numbers = Array::arange(0, length as u32, 1, DType::U32, keys.device())?;
    let column = numbers.reshape(&[length, 1])?;
    // What fills up to a power of two is above all keys, and behind them where it equals one.
    let mut key = Array::full(0.0, DType::U32, &[length, columns], keys.device())?
        .with_number(Scalar::Sub, 1)?;
    let rows = keys.reshape(&[count, columns])?;
    key.write(0, &numbers.slice(0, 0..count)?, &rows)?;
    let mut place = column.broadcast(&[length, columns])?.copy()?;
    let first = numbers.slice(0, 0..length.min(2))?.equal(0)?.expand(-1)?;
    let mut block = 2;
    while block <= length {
        let mut distance = block / 2;
        while distance > 0 {
            // Element i of an even block of `distance` meets element i of the next.
            let pairs = length / (2 * distance);
            let view = [pairs, 2, distance * columns];
            let halves = |array: &Array| array.reshape(&view)?.split(1, 1);
            let ([low, high], [low_place, high_place]) = (halves(&key)?, halves(&place)?);
            let start = numbers.slice(0, 0..pairs)?.reshape(&[pairs, 1, 1])?;
            let start = start.with_number(Scalar::Mul, 2 * distance as u32)?;
            let rising = start.with_number(Scalar::And, block as u32)?.equal(0)?;
            let tie = low
                .equal(&high)?
                .logical_and(&low_place.less(&high_place)?)?;
            let less = low.less(&high)?.logical_or(&tie)?;
            let takes_low = less.equal(&rising)?.equal(&first)?;
            key = takes_low.select(&low, &high)?;
            place = takes_low.select(&low_place, &high_place)?;
            distance /= 2;
        }
        block *= 2;
    }
    let place = place.reshape(&[length, columns])?;
    place.slice(0, 0..count)?.reshape(&shape)?.move_axis(0, -1)
}
