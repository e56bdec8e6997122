//! Metadata: keys and typed values.

use super::cursor::Cursor;
use crate::{Error, Result};
use std::collections::BTreeMap;

/// Arrays of arrays deeper than this are refused.
const DEPTH: usize = 4;

/// The fewest bytes of an entry: empty key, type, a one-byte value.
const ENTRY: usize = 8 + 4 + 1;

/// A metadata value.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "one variant per type, named after it")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// A metadata array; all elements have one type.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "one variant per type, named after it")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    Strings(Strings),
    Arrays(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// Many strings in one piece of memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Strings {
    text: String,
    ends: Vec<usize>,
}

impl Strings {
    /// String `index`.
    pub fn get(&self, index: usize) -> Option<&str> {
        let start = if index == 0 {
            0
        } else {
            *self.ends.get(index - 1)?
        };
        self.text.get(start..*self.ends.get(index)?)
    }

    /// The number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|index| self.get(index).unwrap_or(""))
    }
}

impl Value {
    /// An integer of any width that is not negative.
    pub fn unsigned(&self) -> Option<u64> {
        match *self {
            Value::U8(value) => Some(value.into()),
            Value::U16(value) => Some(value.into()),
            Value::U32(value) => Some(value.into()),
            Value::U64(value) => Some(value),
            Value::I8(value) => value.try_into().ok(),
            Value::I16(value) => value.try_into().ok(),
            Value::I32(value) => value.try_into().ok(),
            Value::I64(value) => value.try_into().ok(),
            _ => None,
        }
    }

    /// A float of any width.
    pub fn float(&self) -> Option<f64> {
        match *self {
            Value::F32(value) => Some(value.into()),
            Value::F64(value) => Some(value),
            _ => None,
        }
    }

    /// A bool.
    pub fn bool(&self) -> Option<bool> {
        match *self {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// A string.
    pub fn string(&self) -> Option<&str> {
        match self {
            Value::String(value) => Some(value),
            _ => None,
        }
    }

    /// An array of strings.
    pub fn strings(&self) -> Option<&Strings> {
        match self {
            Value::Array(Array::Strings(value)) => Some(value),
            _ => None,
        }
    }

    /// An array of integers that fit i32, of any width.
    pub fn integers(&self) -> Option<Vec<i32>> {
        fn all<T: Copy + TryInto<i32>>(values: &[T]) -> Option<Vec<i32>> {
            values.iter().map(|&value| value.try_into().ok()).collect()
        }
        match self {
            Value::Array(Array::U8(values)) => all(values),
            Value::Array(Array::I8(values)) => all(values),
            Value::Array(Array::U16(values)) => all(values),
            Value::Array(Array::I16(values)) => all(values),
            Value::Array(Array::U32(values)) => all(values),
            Value::Array(Array::I32(values)) => all(values),
            Value::Array(Array::U64(values)) => all(values),
            Value::Array(Array::I64(values)) => all(values),
            _ => None,
        }
    }

    /// An array of f32.
    pub fn floats(&self) -> Option<&[f32]> {
        match self {
            Value::Array(Array::F32(values)) => Some(values),
            _ => None,
        }
    }

    /// The value in a few words: text is cut after 60 characters, of arrays only the length is said.
    pub fn summary(&self) -> String {
        match self {
            Value::U8(value) => value.to_string(),
            Value::I8(value) => value.to_string(),
            Value::U16(value) => value.to_string(),
            Value::I16(value) => value.to_string(),
            Value::U32(value) => value.to_string(),
            Value::I32(value) => value.to_string(),
            Value::U64(value) => value.to_string(),
            Value::I64(value) => value.to_string(),
            Value::F32(value) => value.to_string(),
            Value::F64(value) => value.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::String(value) => format!("{:?}", value.chars().take(60).collect::<String>()),
            Value::Array(array) => format!("{} elements", array.len()),
        }
    }
}

impl Array {
    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Array::U8(values) => values.len(),
            Array::I8(values) => values.len(),
            Array::U16(values) => values.len(),
            Array::I16(values) => values.len(),
            Array::U32(values) => values.len(),
            Array::I32(values) => values.len(),
            Array::F32(values) => values.len(),
            Array::Bool(values) => values.len(),
            Array::Strings(values) => values.len(),
            Array::Arrays(values) => values.len(),
            Array::U64(values) => values.len(),
            Array::I64(values) => values.len(),
            Array::F64(values) => values.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A file's metadata, in key order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// All keys and values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }
}

pub(super) fn read(cursor: &mut Cursor<'_>, count: u64) -> Result<Metadata> {
    let count = cursor.count("number of metadata entries", count, ENTRY)?;
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let key = cursor.string("metadata key")?.to_owned();
        let number = cursor.u32(&key)?;
        let value = value(cursor, &key, number)?;
        if entries.contains_key(&key) {
            return Err(Error::invalid(
                cursor.path(),
                Some(&key),
                "a key that occurs once",
                "two",
            ));
        }
        entries.insert(key, value);
    }
    Ok(Metadata(entries))
}

/// Reads a value of the type that the format numbers `number`.
fn value(cursor: &mut Cursor<'_>, key: &str, number: u32) -> Result<Value> {
    Ok(match number {
        0 => Value::U8(u8::from_le_bytes(cursor.array(key)?)),
        1 => Value::I8(i8::from_le_bytes(cursor.array(key)?)),
        2 => Value::U16(u16::from_le_bytes(cursor.array(key)?)),
        3 => Value::I16(i16::from_le_bytes(cursor.array(key)?)),
        4 => Value::U32(u32::from_le_bytes(cursor.array(key)?)),
        5 => Value::I32(i32::from_le_bytes(cursor.array(key)?)),
        6 => Value::F32(f32::from_le_bytes(cursor.array(key)?)),
        7 => Value::Bool(cursor.array::<1>(key)? != [0]),
        8 => Value::String(cursor.string(key)?.to_owned()),
        9 => Value::Array(array(cursor, key, 1)?),
        10 => Value::U64(u64::from_le_bytes(cursor.array(key)?)),
        11 => Value::I64(i64::from_le_bytes(cursor.array(key)?)),
        12 => Value::F64(f64::from_le_bytes(cursor.array(key)?)),
        _ => return Err(unknown(cursor, key, number)),
    })
}

fn unknown(cursor: &Cursor<'_>, key: &str, number: u32) -> Error {
    Error::invalid(
        cursor.path(),
        Some(key),
        "a value type from 0 to 12",
        format!("{number}"),
    )
}

fn array(cursor: &mut Cursor<'_>, key: &str, depth: usize) -> Result<Array> {
    let number = cursor.u32(key)?;
    let count = cursor.u64(key)?;
    Ok(match number {
        0 => Array::U8(numbers(cursor, key, count, u8::from_le_bytes)?),
        1 => Array::I8(numbers(cursor, key, count, i8::from_le_bytes)?),
        2 => Array::U16(numbers(cursor, key, count, u16::from_le_bytes)?),
        3 => Array::I16(numbers(cursor, key, count, i16::from_le_bytes)?),
        4 => Array::U32(numbers(cursor, key, count, u32::from_le_bytes)?),
        5 => Array::I32(numbers(cursor, key, count, i32::from_le_bytes)?),
        6 => Array::F32(numbers(cursor, key, count, f32::from_le_bytes)?),
        7 => Array::Bool(numbers(cursor, key, count, |byte: [u8; 1]| byte != [0])?),
        8 => Array::Strings(strings(cursor, key, count)?),
        9 if depth < DEPTH => {
            // An inner array takes at least its type and its count.
            let count = cursor.count(key, count, 12)?;
            let mut arrays = Vec::new();
            for _ in 0..count {
                arrays.push(array(cursor, key, depth + 1)?);
            }
            Array::Arrays(arrays)
        }
        9 => {
            let what = format!("an array nested deeper than {DEPTH}");
            return Err(Error::unsupported(cursor.path(), Some(key), what));
        }
        10 => Array::U64(numbers(cursor, key, count, u64::from_le_bytes)?),
        11 => Array::I64(numbers(cursor, key, count, i64::from_le_bytes)?),
        12 => Array::F64(numbers(cursor, key, count, f64::from_le_bytes)?),
        _ => return Err(unknown(cursor, key, number)),
    })
}

fn numbers<T, const N: usize>(
    cursor: &mut Cursor<'_>,
    key: &str,
    count: u64,
    from: fn([u8; N]) -> T,
) -> Result<Vec<T>> {
    let count = cursor.count(key, count, N)?;
    let bytes = cursor.take(key, count * N)?;
    Ok(bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|&chunk| from(chunk))
        .collect())
}

fn strings(cursor: &mut Cursor<'_>, key: &str, count: u64) -> Result<Strings> {
    let count = cursor.count(key, count, 8)?;
    let mut ahead = cursor.clone();
    let mut length = 0;
    for _ in 0..count {
        length += ahead.string(key)?.len();
    }
    let text = String::with_capacity(length);
    let mut strings = Strings {
        text,
        ends: Vec::with_capacity(count),
    };
    for _ in 0..count {
        strings.text.push_str(cursor.string(key)?);
        strings.ends.push(strings.text.len());
    }
    Ok(strings)
}
