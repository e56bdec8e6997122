//! Pickles as data.
//!
//! A pickle is a program for a stack machine that can import any function and call it. This machine
//! knows the instructions that dictionaries of tensors are made of. It builds plain values; what a
//! pickle imports must be in a table of names that stand for tensors and their parts, and no name
//! ever becomes a function. Values refer to each other by number, so that what a pickle repeats is
//! held once, and memory is in proportion to its bytes.

use super::globals::{self, Global};
use crate::view::View;
use crate::{Error, Result, Type};
use std::collections::HashMap;
use std::path::Path;

/// Pickles longer than this are not read. What a checkpoint says about a tensor takes some hundred
/// bytes, and a byte of a pickle can make a hundred of memory.
const LIMIT: usize = 16_000_000;

/// What a pickle can say. Lists, dictionaries and tensors lie in the [`Heap`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i128),
    Float,
    Text(&'a str),
    Global(&'static Global),
    /// A tuple or a list.
    Items(usize),
    Dict(usize),
    Storage(usize),
    Tensor(usize),
}

impl Value<'_> {
    /// What messages call it.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "a bool",
            Value::Int(_) | Value::Float => "a number",
            Value::Text(_) => "text",
            Value::Global(global) => global.name,
            Value::Items(_) => "a list or tuple",
            Value::Dict(_) => "a dictionary",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a tensor",
        }
    }
}

/// A stretch of elements that tensors are views of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage<'a> {
    /// What it is found by.
    pub(super) key: &'a str,
    /// The type of its elements; `None` for bytes whose type each tensor says.
    pub(super) dtype: Option<Type>,
    /// How many elements, or bytes, it has.
    pub(super) length: usize,
}

impl Storage<'_> {
    /// How many bytes it has.
    pub(super) fn bytes(&self) -> Option<usize> {
        let size = self.dtype.map_or(1, Type::block_bytes);
        self.length.checked_mul(size)
    }
}

/// The values that a pickle builds.
#[derive(Default)]
pub(super) struct Heap<'a> {
    pub(super) items: Vec<Vec<Value<'a>>>,
    pub(super) dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    pub(super) storages: Vec<Storage<'a>>,
    /// Views, nameless, and the numbers of their storages.
    pub(super) tensors: Vec<(usize, View)>,
}

/// A pickle that was read.
pub(super) struct Pickle<'a> {
    pub(super) value: Value<'a>,
    pub(super) heap: Heap<'a>,
    /// Where the bytes behind it begin.
    pub(super) end: usize,
}

/// What an instruction does.
#[derive(Clone, Copy)]
enum Do {
    Stop,
    Skip(usize),
    Push(Value<'static>),
    Unsigned(usize),
    Signed(usize),
    Long,
    Float,
    Text(usize),
    Put(usize),
    Memoize,
    Get(usize),
    Mark,
    NewList,
    NewDict,
    Tuple(usize),
    MarkedTuple,
    Append,
    Appends,
    SetItem,
    SetItems,
    Global,
    StackGlobal,
    Persistent,
    Reduce,
    Build,
    /// It would make an object of a class, or take something from outside of the file.
    Refuse,
}

/// The instructions: byte, Python's name, what it does.
const OPCODES: [(u8, &str, Do); 47] = [
    (0x80, "PROTO", Do::Skip(1)),
    (0x95, "FRAME", Do::Skip(8)),
    (b'.', "STOP", Do::Stop),
    (b'(', "MARK", Do::Mark),
    (b'N', "NONE", Do::Push(Value::None)),
    (0x88, "NEWTRUE", Do::Push(Value::Bool(true))),
    (0x89, "NEWFALSE", Do::Push(Value::Bool(false))),
    (b'K', "BININT1", Do::Unsigned(1)),
    (b'M', "BININT2", Do::Unsigned(2)),
    (b'J', "BININT", Do::Signed(4)),
    (0x8a, "LONG1", Do::Long),
    (b'G', "BINFLOAT", Do::Float),
    (b'X', "BINUNICODE", Do::Text(4)),
    (0x8c, "SHORT_BINUNICODE", Do::Text(1)),
    (0x8d, "BINUNICODE8", Do::Text(8)),
    (b'U', "SHORT_BINSTRING", Do::Text(1)),
    (b'T', "BINSTRING", Do::Text(4)),
    (b'q', "BINPUT", Do::Put(1)),
    (b'r', "LONG_BINPUT", Do::Put(4)),
    (0x94, "MEMOIZE", Do::Memoize),
    (b'h', "BINGET", Do::Get(1)),
    (b'j', "LONG_BINGET", Do::Get(4)),
    (b']', "EMPTY_LIST", Do::NewList),
    (b'}', "EMPTY_DICT", Do::NewDict),
    (b')', "EMPTY_TUPLE", Do::Tuple(0)),
    (0x85, "TUPLE1", Do::Tuple(1)),
    (0x86, "TUPLE2", Do::Tuple(2)),
    (0x87, "TUPLE3", Do::Tuple(3)),
    (b't', "TUPLE", Do::MarkedTuple),
    (b'a', "APPEND", Do::Append),
    (b'e', "APPENDS", Do::Appends),
    (b's', "SETITEM", Do::SetItem),
    (b'u', "SETITEMS", Do::SetItems),
    (b'c', "GLOBAL", Do::Global),
    (0x93, "STACK_GLOBAL", Do::StackGlobal),
    (b'Q', "BINPERSID", Do::Persistent),
    (b'R', "REDUCE", Do::Reduce),
    (b'b', "BUILD", Do::Build),
    (b'i', "INST", Do::Refuse),
    (b'o', "OBJ", Do::Refuse),
    (0x81, "NEWOBJ", Do::Refuse),
    (0x92, "NEWOBJ_EX", Do::Refuse),
    (b'P', "PERSID", Do::Refuse),
    (0x82, "EXT1", Do::Refuse),
    (0x83, "EXT2", Do::Refuse),
    (0x84, "EXT4", Do::Refuse),
    (0x97, "NEXT_BUFFER", Do::Refuse),
];

/// Reads the pickle that begins at `start` of `bytes`. `path` is for messages.
///
/// # Errors
/// Anything that is not made of tensors and plain values, or ends early.
pub(super) fn read<'a>(path: &'a Path, bytes: &'a [u8], start: usize) -> Result<Pickle<'a>> {
    let end = start.saturating_add(LIMIT).min(bytes.len());
    let mut machine = Machine {
        path,
        bytes: &bytes[..end],
        start,
        at: start,
        opcode: (0, ""),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        heap: Heap::default(),
    };
    loop {
        if let Some(value) = machine.step()? {
            return Ok(Pickle {
                value,
                end: machine.at,
                heap: machine.heap,
            });
        }
    }
}

pub(super) struct Machine<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    /// Where the pickle begins; messages count from there.
    start: usize,
    at: usize,
    /// Where the instruction that is carried out is, and its name.
    opcode: (usize, &'static str),
    stack: Vec<Value<'a>>,
    /// The heights of the stack at the marks that are open.
    marks: Vec<usize>,
    memo: HashMap<u64, Value<'a>>,
    pub(super) heap: Heap<'a>,
}

impl<'a> Machine<'a> {
    /// An instruction that breaks a rule.
    pub(super) fn invalid(&self, expected: &str, found: &str) -> Error {
        let (at, name) = self.opcode;
        let found = format!("{found} (opcode {name} at byte {at} of the pickle)");
        Error::invalid(self.path, None, expected, found)
    }

    /// An instruction that asks for something outside of the data.
    pub(super) fn refused(&self, asked: &str) -> Error {
        let (at, opcode) = self.opcode;
        Error::refused(self.path, opcode, at, asked)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length);
        let Some(bytes) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            let found = "its end; the file is cut short or damaged";
            return Err(self.invalid("more of a pickle (100 MB at most)", found));
        };
        self.at += length;
        Ok(bytes)
    }

    fn number(&mut self, width: usize) -> Result<u64> {
        let bytes = self.take(width)?;
        let number = |all, &byte| all << 8 | u64::from(byte);
        Ok(bytes.iter().rev().fold(0, number))
    }

    /// The text up to the next line's end.
    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().take(1000).position(|&byte| byte == b'\n');
        let length = length.ok_or_else(|| self.invalid("a line of text", "none"))?;
        let line = self.take(length)?;
        self.take(1)?;
        self.text(line)
    }

    fn text(&self, bytes: &'a [u8]) -> Result<&'a str> {
        std::str::from_utf8(bytes).map_err(|_| self.invalid("UTF-8 text", "other bytes"))
    }

    pub(super) fn pop(&mut self) -> Result<Value<'a>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let value = self.stack.pop().filter(|_| self.stack.len() >= floor);
        value.ok_or_else(|| self.invalid("a value on the stack", "none"))
    }

    /// The values above the last mark.
    fn marked(&mut self) -> Result<Vec<Value<'a>>> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => Err(self.invalid("a mark on the stack", "none")),
        }
    }

    fn push_items(&mut self, items: Vec<Value<'a>>) {
        self.stack.push(Value::Items(self.heap.items.len()));
        self.heap.items.push(items);
    }

    pub(super) fn new_dict(&mut self) -> Value<'a> {
        self.heap.dicts.push(Vec::new());
        Value::Dict(self.heap.dicts.len() - 1)
    }

    /// The container on top of the stack, which stays there.
    fn top(&self) -> Value<'a> {
        self.stack.last().copied().unwrap_or(Value::None)
    }

    /// Carries out the next instruction. Gives the pickle's value at the end.
    fn step(&mut self) -> Result<Option<Value<'a>>> {
        self.opcode = (self.at - self.start, "?");
        let byte = self.take(1)?[0];
        let Some((_, name, action)) = OPCODES.iter().find(|entry| entry.0 == byte) else {
            let found = format!("opcode {byte:#04x}");
            return Err(self.invalid("an opcode that weights need", &found));
        };
        self.opcode.1 = name;
        match *action {
            Do::Stop => return self.pop().map(Some),
            Do::Skip(length) => self.take(length).map(|_| ())?,
            Do::Mark => self.marks.push(self.stack.len()),
            Do::Global | Do::StackGlobal | Do::Persistent | Do::Reduce | Do::Build => {
                self.object(*action)?;
            }
            Do::Refuse => return Err(self.refuse(name)),
            Do::Put(_) | Do::Memoize | Do::Get(_) => self.remember(*action)?,
            Do::Append | Do::Appends | Do::SetItem | Do::SetItems => self.fill(*action)?,
            Do::NewList => self.push_items(Vec::new()),
            Do::NewDict => {
                let dict = self.new_dict();
                self.stack.push(dict);
            }
            Do::MarkedTuple => {
                let items = self.marked()?;
                self.push_items(items);
            }
            Do::Tuple(length) => {
                let mut items = Vec::with_capacity(length);
                for _ in 0..length {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push_items(items);
            }
            constant => {
                let value = self.constant(constant)?;
                self.stack.push(value);
            }
        }
        Ok(None)
    }

    fn constant(&mut self, action: Do) -> Result<Value<'a>> {
        Ok(match action {
            Do::Unsigned(width) => Value::Int(self.number(width)?.into()),
            Do::Signed(width) => Value::Int((self.number(width)? as u32 as i32).into()),
            Do::Long => {
                let length = self.number(1)? as usize;
                let bytes = self.take(length)?;
                if length > 16 {
                    return Err(self.invalid("a number of at most 16 bytes", "a longer one"));
                }
                let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
                let mut all = [if negative { 0xff } else { 0 }; 16];
                all[..length].copy_from_slice(bytes);
                Value::Int(i128::from_le_bytes(all))
            }
            Do::Float => self.take(8).map(|_| Value::Float)?,
            Do::Text(width) => {
                let length = usize::try_from(self.number(width)?).unwrap_or(usize::MAX);
                let bytes = self.take(length)?;
                Value::Text(self.text(bytes)?)
            }
            Do::Push(value) => value,
            _ => Value::None,
        })
    }

    fn remember(&mut self, action: Do) -> Result<()> {
        let place = match action {
            Do::Put(width) | Do::Get(width) => self.number(width)?,
            _ => self.memo.len() as u64,
        };
        if let Do::Get(_) = action {
            let value = self.memo.get(&place).copied();
            let value = value.ok_or_else(|| self.invalid("a value that was kept", "none"))?;
            self.stack.push(value);
            return Ok(());
        }
        let value = self.pop()?;
        self.stack.push(value);
        self.memo.insert(place, value);
        Ok(())
    }

    /// Puts values into the list or dictionary below them.
    fn fill(&mut self, action: Do) -> Result<()> {
        let values = match action {
            Do::Append => vec![self.pop()?],
            Do::SetItem => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.marked()?,
        };
        let lists = matches!(action, Do::Append | Do::Appends);
        match self.top() {
            Value::Items(list) if lists => self.heap.items[list].extend(values),
            Value::Dict(dict) if !lists && values.len().is_multiple_of(2) => {
                let pairs = values.as_chunks::<2>().0.iter();
                self.heap.dicts[dict].extend(pairs.map(|[key, value]| (*key, *value)));
            }
            other => return Err(self.invalid("a list or dictionary to fill", other.kind())),
        }
        Ok(())
    }

    fn object(&mut self, action: Do) -> Result<()> {
        let value = match action {
            Do::Global => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?
            }
            Do::StackGlobal => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => self.global(module, name)?,
                (other, _) => return Err(self.invalid("a module and a name", other.kind())),
            },
            Do::Persistent => {
                let id = self.pop()?;
                globals::storage(self, id)?
            }
            Do::Reduce => {
                let (arguments, called) = (self.pop()?, self.pop()?);
                globals::call(self, called, arguments)?
            }
            // What a dictionary carries beside its entries, such as the versions of modules.
            _ => match (self.pop()?, self.pop()?) {
                (_, dict @ Value::Dict(_)) => dict,
                (_, other) => return Err(self.refused(other.kind())),
            },
        };
        self.stack.push(value);
        Ok(())
    }

    fn global(&self, module: &str, name: &str) -> Result<Value<'a>> {
        match globals::find(module, name) {
            Some(global) => Ok(Value::Global(global)),
            None => Err(self.refused(&format!("{module}.{name}"))),
        }
    }

    /// The error for an instruction that is never carried out, with the name that it asks for.
    fn refuse(&mut self, name: &str) -> Error {
        let global = |value: &Value<'a>| match value {
            Value::Global(global) => Some(format!("{}.{}", global.module, global.name)),
            _ => None,
        };
        let asked = match name {
            "INST" => self
                .line()
                .and_then(|module| Ok(format!("{module}.{}", self.line()?)))
                .ok(),
            "PERSID" => self.line().map(str::to_owned).ok(),
            _ => self.stack.iter().rev().find_map(global),
        };
        self.refused(asked.as_deref().unwrap_or("something outside of the file"))
    }
}
