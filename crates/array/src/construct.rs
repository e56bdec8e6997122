//! Arrays from what the host has, and back.

use crate::{Array, Bytes, Constant, DType, Device, Element, Error, Part, Result, Shape};
use half::{bf16, f16};
use std::sync::Arc;

/// Numbers, and arrays and vectors of them, nested up to four deep: what [`Array::new`] takes.
///
/// A float literal is an f32, an integer literal an i32.
pub trait Nested {
    /// The dtype of the numbers.
    const DTYPE: DType;
    /// Appends the lengths of the axes, outermost first; those of the first element where it nests.
    fn lengths(&self, lengths: &mut Vec<usize>);
    /// Appends the numbers' bytes. `false` if lengths differ from `lengths`.
    fn bytes(&self, lengths: &[usize], bytes: &mut Vec<u8>) -> bool;
}

macro_rules! numbers {
    ($($number:ty: $dtype:ident,)+) => { $(
        impl Nested for $number {
            const DTYPE: DType = DType::$dtype;
            fn lengths(&self, _: &mut Vec<usize>) {}
            fn bytes(&self, lengths: &[usize], bytes: &mut Vec<u8>) -> bool {
                bytes.extend_from_slice(bytemuck::bytes_of(self));
                lengths.is_empty()
            }
        }
    )+ };
}

numbers!(f32: F32, f16: F16, bf16: BF16, u8: U8, u32: U32, i32: I32,);

impl Nested for bool {
    const DTYPE: DType = DType::Bool;
    fn lengths(&self, _: &mut Vec<usize>) {}
    fn bytes(&self, lengths: &[usize], bytes: &mut Vec<u8>) -> bool {
        bytes.push(u8::from(*self));
        lengths.is_empty()
    }
}

impl<T: Nested> Nested for [T] {
    const DTYPE: DType = T::DTYPE;
    fn lengths(&self, lengths: &mut Vec<usize>) {
        lengths.push(self.len());
        if let Some(first) = self.first() {
            first.lengths(lengths);
        }
    }
    fn bytes(&self, lengths: &[usize], bytes: &mut Vec<u8>) -> bool {
        match lengths {
            [length, inner @ ..] if *length == self.len() => {
                self.iter().all(|item| item.bytes(inner, bytes))
            }
            _ => false,
        }
    }
}

macro_rules! lists {
    ($(($($generics:tt)+) $list:ty;)+) => { $(
        impl<$($generics)+> Nested for $list {
            const DTYPE: DType = T::DTYPE;
            fn lengths(&self, lengths: &mut Vec<usize>) {
                self[..].lengths(lengths);
            }
            fn bytes(&self, lengths: &[usize], bytes: &mut Vec<u8>) -> bool {
                self[..].bytes(lengths, bytes)
            }
        }
    )+ };
}

lists! {
    (T: Nested, const N: usize) [T; N];
    (T: Nested) Vec<T>;
    (T: Nested) &[T];
    (T: Nested, const N: usize) &[T; N];
    (T: Nested) &Vec<T>;
}

/// A vector whose memory an array uses.
struct Owned<T>(Vec<T>);

impl<T: Element> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// # Making and reading arrays
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kiln_array::{Array, DType};
/// let device = kiln_cpu::device(Default::default())?;
///
/// let x = Array::new([[1.0, 2.0], [3.0, 4.0]], &device)?;
/// assert_eq!(*x.shape(), [2, 2]);
/// let held = Array::from_vec(vec![1u32, 2, 3], &[3], &device)?;
/// assert_eq!(Array::from_slice(&[1u32, 2, 3], &[3], &device)?.to_vec::<u32>()?, [1, 2, 3]);
/// let raw = Array::from_bytes(DType::U8, &[2], vec![7, 8].into(), &device)?;
/// assert_eq!(raw.to_vec::<u8>()?, [7, 8]);
///
/// let ones = Array::ones(DType::F32, &[2], &device)?;
/// let zeros = Array::zeros(DType::F32, &[2], &device)?;
/// assert_eq!((ones + zeros)?.to_vec::<f32>()?, [1.0, 1.0]);
/// assert_eq!(Array::full(7.0, DType::I32, &[1], &device)?.item::<i32>()?, 7);
/// assert_eq!(Array::zeroed(DType::U8, &[1], &device)?.item::<u8>()?, 0);
/// let odd = Array::arange(1, 8, 2, DType::U32, &device)?;
/// assert_eq!(odd.to_vec::<u32>()?, [1, 3, 5, 7]);
///
/// let mut host = [0.0f32; 4];
/// x.read_into(&mut host)?;
/// assert_eq!(host, [1.0, 2.0, 3.0, 4.0]);
/// assert_eq!(Vec::<u32>::try_from(&held)?, [1, 2, 3]);
/// # Ok(()) }
/// ```
impl Array {
    /// An array of a number, or of nested arrays or vectors of numbers, copied. An error if rows
    /// differ in length or nest more than four deep.
    #[track_caller]
    pub fn new<T: Nested>(values: T, device: &Device) -> Result<Array> {
        let (mut lengths, mut bytes) = (Vec::new(), Vec::new());
        values.lengths(&mut lengths);
        if values.bytes(&lengths, &mut bytes) {
            return Array::from_bytes(T::DTYPE, &lengths, bytes.into(), device);
        }
        Err(Error::Invalid {
            op: "new",
            expected: format!("rows of equal lengths {lengths:?}"),
            inputs: Vec::new(),
            site: std::panic::Location::caller(),
        })
    }

    /// An array of `values`, row after row, of the lengths `shape`. The CPU uses the vector's
    /// memory, a GPU copies it.
    #[track_caller]
    pub fn from_vec<T: Element>(values: Vec<T>, shape: &[usize], device: &Device) -> Result<Array> {
        let length = values.len() * size_of::<T>();
        let bytes = Bytes::new(Arc::new(Owned(values)), 0..length).unwrap_or_else(|| vec![].into());
        let rows = shape.first().copied().unwrap_or(1);
        Array::from_parts(T::DTYPE, shape, vec![Part::plain(rows, bytes)], device)
    }

    /// An array of ones. One element in memory.
    #[track_caller]
    pub fn ones(dtype: DType, shape: &[usize], device: &Device) -> Result<Array> {
        Array::full(1.0, dtype, shape, device)
    }

    /// The numbers `start`, `start + step`, … below `stop` (above, for a negative step), computed
    /// in f64 on the host and rounded to `dtype`.
    #[track_caller]
    pub fn arange(
        start: impl Into<f64>,
        stop: impl Into<f64>,
        step: impl Into<f64>,
        dtype: DType,
        device: &Device,
    ) -> Result<Array> {
        let (start, stop, step) = (start.into(), stop.into(), step.into());
        let count = ((stop - start) / step).ceil();
        let count = if count > 0.0 { count as usize } else { 0 };
        let counted = step != 0.0 && !step.is_nan() && !(start - stop).is_nan();
        let shape = Shape::new(&[count]).filter(|_| counted && !dtype.is_quantised());
        let Some(shape) = shape else {
            return Err(Error::Invalid {
                op: "arange",
                expected: format!(
                    "a plain dtype, a step, and numbers that fit in memory, not {dtype} and {count}"
                ),
                inputs: Vec::new(),
                site: std::panic::Location::caller(),
            });
        };
        let values = (0..count).map(|i| start + i as f64 * step);
        Array::numbers(values, &shape, dtype, device)
    }

    /// Numbers rounded to a plain dtype, as many as the shape has elements.
    #[track_caller]
    pub(crate) fn numbers(
        values: impl ExactSizeIterator<Item = f64>,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Array> {
        let mut bytes: Vec<u8> = room(values.len().saturating_mul(dtype.bytes()))?;
        for value in values {
            let bits = Constant::new(dtype, value).bits;
            let single = f32::from_bits(bits);
            match dtype {
                DType::F16 => bytes.extend(f16::from_f32(single).to_le_bytes()),
                DType::BF16 => bytes.extend(bf16::from_f32(single).to_le_bytes()),
                DType::Bool | DType::U8 => bytes.push(bits as u8),
                _ => bytes.extend(bits.to_le_bytes()),
            }
        }
        Array::from_bytes(dtype, shape, bytes.into(), device)
    }

    /// The elements, row after row, computed if they are not yet, into `out`, which is as long.
    /// Waits.
    #[track_caller]
    pub fn read_into<T: Element>(&self, out: &mut [T]) -> Result<()> {
        if self.dtype() != T::DTYPE || out.len() != self.shape().elements() {
            let expected = format!("an array of {} {}", out.len(), T::DTYPE);
            return self.invalid("read_into", expected);
        }
        self.read(bytemuck::cast_slice_mut(out))
    }

    /// The conditions' elements as bools, computed if they are not yet. Waits.
    #[track_caller]
    pub fn to_bools(&self) -> Result<Vec<bool>> {
        if self.dtype() != DType::Bool {
            return self.invalid("to_bools", "an array of bool");
        }
        let bytes = self.cast(DType::U8)?.to_vec::<u8>()?;
        Ok(bytes.into_iter().map(|byte| byte != 0).collect())
    }
}

/// An empty vector with room for so many elements on the host.
pub(crate) fn room<T>(count: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    match values.try_reserve_exact(count) {
        Ok(()) => Ok(values),
        Err(_) => Err(Error::Memory {
            device: "the host".into(),
            bytes: count.saturating_mul(size_of::<T>()),
        }),
    }
}

impl<T: Element> TryFrom<&Array> for Vec<T> {
    type Error = Error;

    /// [`Array::to_vec`].
    #[track_caller]
    fn try_from(array: &Array) -> Result<Vec<T>> {
        array.to_vec()
    }
}
