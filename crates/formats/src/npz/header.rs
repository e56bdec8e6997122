//! An array's header: magic, version, length, and a Python dictionary as text.

use crate::{Error, Type};
use std::path::Path;

pub(super) struct Header {
    pub(super) dtype: Type,
    /// Whether the first dimension is the innermost.
    pub(super) column_major: bool,
    pub(super) shape: Vec<usize>,
    /// Bytes before the data.
    pub(super) length: usize,
}

/// What is wrong with a header.
pub(super) enum Fault {
    Broken(&'static str, String),
    Dtype(String),
}

impl Fault {
    pub(super) fn name(self, path: &Path, entry: &str) -> Error {
        match self {
            Fault::Broken(expected, found) => Error::invalid(path, Some(entry), expected, found),
            Fault::Dtype(dtype) => {
                Error::unsupported(path, Some(entry), format!("array type {dtype:?}"))
            }
        }
    }
}

/// The types by what follows the byte order. A Python dictionary of one letter and a size.
const TYPES: [(&str, Type); 15] = [
    ("b1", Type::Bool),
    ("u1", Type::U8),
    ("i1", Type::I8),
    ("u2", Type::U16),
    ("i2", Type::I16),
    ("u4", Type::U32),
    ("i4", Type::I32),
    ("u8", Type::U64),
    ("i8", Type::I64),
    ("f2", Type::F16),
    ("f4", Type::F32),
    ("f8", Type::F64),
    ("c8", Type::C64),
    // MLX's bfloat16; NumPy has no name for it.
    ("V2", Type::BF16),
    ("bfloat16", Type::BF16),
];

/// The most dimensions of an array.
const RANK: usize = 32;

pub(super) fn parse(bytes: &[u8]) -> Result<Header, Fault> {
    let broken = |expected, found: &str| Fault::Broken(expected, found.to_owned());
    let Some(([b'\x93', b'N', b'U', b'M', b'P', b'Y', version, _], rest)) =
        bytes.split_first_chunk::<8>()
    else {
        return Err(broken("a NumPy array", "something else"));
    };
    let (start, length) = match (version, rest) {
        (1, [a, b, ..]) => (10, u32::from(u16::from_le_bytes([*a, *b]))),
        (2 | 3, [a, b, c, d, ..]) => (12, u32::from_le_bytes([*a, *b, *c, *d])),
        _ => {
            return Err(broken(
                "array version 1, 2 or 3",
                "another, or a cut header",
            ));
        }
    };
    let length = start + length as usize;
    let text = bytes.get(start..length).map(std::str::from_utf8);
    let Some(Ok(text)) = text else {
        return Err(broken("a header of text", "other bytes, or the end"));
    };
    let mut header = Header {
        dtype: Type::U8,
        column_major: false,
        shape: Vec::new(),
        length,
    };
    let mut scanner = Scanner(text);
    fields(&mut scanner, &mut header).map_err(|fault| match fault {
        None => {
            let found = text.chars().take(200).collect();
            Fault::Broken("a dictionary of descr, fortran_order and shape", found)
        }
        Some(dtype) => Fault::Dtype(dtype),
    })?;
    Ok(header)
}

/// Reads the dictionary. An error without a text is one of grammar; with it, a type's name.
fn fields(scanner: &mut Scanner<'_>, header: &mut Header) -> Result<(), Option<String>> {
    scanner.expect("{").ok_or(None)?;
    let mut seen = [false; 3];
    while scanner.expect("}").is_none() {
        let key = scanner.string().ok_or(None)?;
        scanner.expect(":").ok_or(None)?;
        let field = ["descr", "fortran_order", "shape"]
            .iter()
            .position(|name| *name == key)
            .filter(|&field| !seen[field])
            .ok_or(None)?;
        seen[field] = true;
        match field {
            0 => {
                let name = scanner.string().ok_or(None)?;
                header.dtype = dtype(name).ok_or_else(|| Some(name.chars().take(40).collect()))?;
            }
            1 => header.column_major = scanner.flag().ok_or(None)?,
            _ => header.shape = scanner.shape().ok_or(None)?,
        }
        if scanner.expect(",").is_none() {
            scanner.expect("}").ok_or(None)?;
            break;
        }
    }
    if seen.contains(&false) || !scanner.0.trim().is_empty() {
        return Err(None);
    }
    Ok(())
}

/// A type's name, but for big-endian ones of several bytes.
fn dtype(name: &str) -> Option<Type> {
    let (order, rest) = match name.split_at_checked(1)? {
        (order @ ("<" | "|" | "=" | ">"), rest) => (order, rest),
        _ => ("|", name),
    };
    let (_, dtype) = TYPES.iter().find(|(known, _)| *known == rest)?;
    (order != ">" || dtype.block_bytes() == 1).then_some(*dtype)
}

/// The text that is left.
struct Scanner<'a>(&'a str);

impl<'a> Scanner<'a> {
    fn expect(&mut self, token: &str) -> Option<()> {
        self.0 = self.0.trim_start().strip_prefix(token)?;
        Some(())
    }

    fn string(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start();
        let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let (string, rest) = text[1..].split_once(quote)?;
        self.0 = rest;
        Some(string)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.expect("True") {
            Some(()) => Some(true),
            None => self.expect("False").map(|()| false),
        }
    }

    /// `()`, `(3,)`, `(3, 2)`, or `(3, 2, )` as MLX writes it.
    fn shape(&mut self) -> Option<Vec<usize>> {
        self.expect("(")?;
        let mut shape = Vec::new();
        while self.expect(")").is_none() {
            let text = self.0.trim_start();
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            shape.push(text[..digits].parse().ok()?);
            // Python 2 marked long numbers so.
            self.0 = text[digits..].trim_start_matches('L');
            if shape.len() > RANK {
                return None;
            }
            if self.expect(",").is_none() {
                self.expect(")")?;
                break;
            }
        }
        Some(shape)
    }
}
