//! Arrays as text.

use crate::{Array, DType, Error, Result};
use std::fmt::{self, Write};

/// More elements than this are not all shown, but `EDGE` at either end of each axis.
const ALL: usize = 1000;
const EDGE: usize = 3;

/// The elements as NumPy lays them out, with commas, in columns; of more than 1,000 the first and last
/// three of each axis. Computes them if they are not yet, **and waits**; `{:?}` never does. Where that
/// fails, the error is what is shown.
///
/// ```
/// # fn main() -> kiln_array::Result<()> {
/// let device = kiln_cpu::device(Default::default())?;
/// let x = kiln_array::Array::new([[1.0, -2.5], [10.0, 0.0]], &device)?;
/// assert_eq!(x.to_string(), "[[   1, -2.5],\n [  10,    0]]");
/// # Ok(()) }
/// ```
impl fmt::Display for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rows of no elements are shown as well.
        let rows = self.shape();
        let shown = rows.iter().fold(1usize, |n, &l| n.saturating_mul(l.max(1)));
        let short = shown > ALL;
        let words = match self.edges(short).and_then(|shown| shown.words()) {
            Ok(words) => words,
            Err(error) => return write!(f, "{}: {error}", self.spec()),
        };
        let width = words.iter().map(String::len).max().unwrap_or(0);
        let mut text = Text {
            words: words.into_iter(),
            lengths: &self.shape(),
            short,
            width,
            out: f,
        };
        text.axis(0)
    }
}

impl Array {
    /// What is shown of the array: all, or the ends of each axis next to each other.
    fn edges(&self, short: bool) -> Result<Array> {
        let mut shown = self.clone();
        for (axis, &length) in self.shape().iter().enumerate() {
            if short && length > 2 * EDGE {
                let axis = axis as i32;
                let [first, last] = [
                    shown.slice(axis, 0..EDGE)?,
                    shown.slice(axis, length - EDGE..length)?,
                ];
                shown = crate::concat(&[&first, &last], axis)?;
            }
        }
        Ok(shown)
    }

    /// Each element as a word.
    fn words(&self) -> Result<Vec<String>> {
        fn all<T: ToString>(values: Vec<T>) -> Vec<String> {
            values.iter().map(T::to_string).collect()
        }
        Ok(match self.dtype() {
            DType::Bool => all(self.to_bools()?),
            DType::U8 => all(self.to_vec::<u8>()?),
            DType::U32 => all(self.to_vec::<u32>()?),
            DType::I32 => all(self.to_vec::<i32>()?),
            DType::F16 => all(self.to_vec::<half::f16>()?),
            DType::BF16 => all(self.to_vec::<half::bf16>()?),
            DType::F32 => all(self.to_vec::<f32>()?),
            DType::Quantised(_) => {
                return Err(Error::Format("quantised rows; cast them first".into()));
            }
        })
    }
}

/// Words being laid out.
struct Text<'t, 'f> {
    words: std::vec::IntoIter<String>,
    lengths: &'t [usize],
    short: bool,
    width: usize,
    out: &'t mut fmt::Formatter<'f>,
}

impl Text<'_, '_> {
    fn axis(&mut self, axis: usize) -> fmt::Result {
        let Some(&length) = self.lengths.get(axis) else {
            let word = self.words.next().unwrap_or_default();
            return write!(self.out, "{word:>width$}", width = self.width);
        };
        let cut = self.short && length > 2 * EDGE;
        let shown = if cut { 2 * EDGE } else { length };
        let inner = self.lengths.len() - axis - 1;
        self.out.write_char('[')?;
        for i in 0..shown {
            if i > 0 {
                self.gap(axis, inner)?;
            }
            if cut && i == EDGE {
                self.out.write_str("...")?;
                self.gap(axis, inner)?;
            }
            self.axis(axis + 1)?;
        }
        self.out.write_char(']')
    }

    /// What separates elements of an axis: a new line for each axis inside.
    fn gap(&mut self, axis: usize, inner: usize) -> fmt::Result {
        match inner {
            0 => self.out.write_str(", "),
            _ => write!(self.out, ",{:\n<inner$}{:axis$} ", "", ""),
        }
    }
}
