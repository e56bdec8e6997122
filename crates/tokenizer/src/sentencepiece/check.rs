//! What a `tokenizer.model` must look like before the C++ library may see it.
//!
//! The library trusts its input in places: an unknown model type is a null pointer, nested user
//! symbols overrun a fixed array, a zero byte in a piece throws through the foreign function
//! border. All of that is refused here, with what the rest of this crate would not handle exactly.

use std::ops::Range;

use super::wire::{Fields, Value};
use crate::{Error, Result};

/// Longest piece in bytes; the trainers stop at 16 characters unless told otherwise.
const PIECE_BYTES: usize = 1024;
/// Most user-defined symbols that begin with one another; the library's array holds 64.
const NESTED_SYMBOLS: usize = 32;

/// What a piece stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte(u8),
}

/// A checked model file: its bytes, and what of it this crate uses.
#[derive(Debug)]
pub(super) struct Checked {
    bytes: Vec<u8>,
    pieces: Vec<(u32, u16, Kind)>,
    pub(crate) settings: Settings,
}

/// The settings of trainer and normalizer that encoding around the library depends on.
#[derive(Debug)]
pub(crate) struct Settings {
    bpe: bool,
    byte_fallback: bool,
    pub(crate) unknown_surface: String,
    pub(crate) dummy_prefix: bool,
    pub(crate) remove_extra_whitespaces: bool,
    /// The text of the BOS piece, `<s>` unless the file names another.
    pub(crate) bos_piece: String,
    pub(crate) eos_piece: String,
}

impl Checked {
    /// Checks `bytes`. Reserves at most a small multiple of their number.
    pub(super) fn new(file: &str, bytes: Vec<u8>) -> Result<Self> {
        check(&bytes)
            .map(|(pieces, settings)| Self {
                bytes,
                pieces,
                settings,
            })
            .map_err(|fault| fault.of(file))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The text and kind of piece `id`.
    pub(super) fn piece(&self, id: u32) -> Option<(&str, Kind)> {
        let &(start, length, kind) = self.pieces.get(id as usize)?;
        let range = start as usize..start as usize + usize::from(length);
        let text = std::str::from_utf8(self.bytes.get(range)?).ok()?;
        Some((text, kind))
    }

    /// Every piece with its id.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (u32, &str, Kind)> {
        (0..).map_while(|id| self.piece(id).map(|(text, kind)| (id, text, kind)))
    }
}

/// A finding, before the file's name is known.
struct Fault {
    place: String,
    expected: &'static str,
    found: String,
}

impl Fault {
    fn at(place: impl ToString, expected: &'static str, found: impl ToString) -> Self {
        Self {
            place: place.to_string(),
            expected,
            found: found.to_string(),
        }
    }

    fn of(self, file: &str) -> Error {
        Error::Malformed {
            file: format!("{file}: {}", self.place),
            expected: self.expected.to_owned(),
            found: self.found,
        }
    }
}

type Found<T> = std::result::Result<T, Fault>;
type Pieces = Vec<(u32, u16, Kind)>;

fn check(bytes: &[u8]) -> Found<(Pieces, Settings)> {
    if u32::try_from(bytes.len()).is_err() {
        return Err(Fault::at(
            "file",
            "less than 4 GiB",
            format!("{} bytes", bytes.len()),
        ));
    }
    let mut pieces = Pieces::new();
    let (mut trainer, mut normalizer) = (None, None);
    for field in Fields::of(bytes) {
        let (number, value) =
            field.map_err(|found| Fault::at("file", "a SentencePiece model", found))?;
        match (number, value) {
            (1, Value::Bytes(message)) => pieces.push(piece(bytes, message, pieces.len())?),
            (2, Value::Bytes(message)) if trainer.is_none() => trainer = Some(message),
            (3, Value::Bytes(message)) if normalizer.is_none() => normalizer = Some(message),
            (4, Value::Bytes(_)) => {}
            (5, Value::Bytes(message)) => plain_denormalizer(message)?,
            (1..=5, _) => {
                return Err(Fault::at(
                    format_args!("field {number}"),
                    "one message",
                    "another type, or a second one",
                ));
            }
            _ => {}
        }
    }
    let trainer = trainer.ok_or_else(|| Fault::at("file", "a trainer spec", "none"))?;
    let normalizer = normalizer.ok_or_else(|| Fault::at("file", "a normalizer spec", "none"))?;
    let mut settings = Settings::default();
    read_trainer(trainer, &mut settings)?;
    read_normalizer(normalizer, &mut settings)?;
    check_vocabulary(bytes, &pieces, &settings)?;
    Ok((pieces, settings))
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bpe: false,
            byte_fallback: false,
            unknown_surface: " \u{2047} ".to_owned(),
            dummy_prefix: true,
            remove_extra_whitespaces: true,
            bos_piece: "<s>".to_owned(),
            eos_piece: "</s>".to_owned(),
        }
    }
}

fn piece(file: &[u8], message: &[u8], id: usize) -> Found<(u32, u16, Kind)> {
    let fault = |expected, found: &str| Fault::at(format_args!("piece {id}"), expected, found);
    let (mut text, mut kind) = (None, 1);
    for field in Fields::of(message) {
        match field.map_err(|found| fault("a piece", found))? {
            (1, Value::Bytes(bytes)) => text = Some(bytes),
            (2, Value::Fixed32(bits)) if f32::from_bits(bits).is_finite() => {}
            (2, _) => return Err(fault("a finite score", "another value")),
            (3, Value::Varint(value)) => kind = value,
            (1 | 3, _) => return Err(fault("a piece", "a field of another type")),
            _ => {}
        }
    }
    let text = text.ok_or_else(|| fault("a text", "none"))?;
    let place = offset(file, text);
    let spelled = std::str::from_utf8(text).map_err(|_| fault("utf-8", "other bytes"))?;
    if spelled.is_empty() || spelled.len() > PIECE_BYTES || spelled.contains('\0') {
        return Err(fault("1 to 1024 bytes without a zero", "another text"));
    }
    let kind = match kind {
        1 => Kind::Normal,
        2 => Kind::Unknown,
        3 => Kind::Control,
        4 => Kind::UserDefined,
        5 => Kind::Unused,
        6 => byte(spelled)
            .map(Kind::Byte)
            .ok_or_else(|| fault("a byte as <0xNN>", spelled))?,
        _ => return Err(fault("a piece type from 1 to 6", "another number")),
    };
    Ok((place.start as u32, text.len() as u16, kind))
}

/// Where the subslice `part` lies in `whole`.
fn offset(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

/// The byte that `<0xNN>` stands for; capital digits only, as the library writes them.
fn byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let value = u8::from_str_radix(digits, 16).ok()?;
    (format!("{value:02X}") == digits).then_some(value)
}

fn read_trainer(message: &[u8], settings: &mut Settings) -> Found<()> {
    let fault = |expected, found: &str| Fault::at("trainer spec", expected, found);
    let text = |bytes: &[u8]| {
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| fault("utf-8", "a piece name of other bytes"))
    };
    let mut kind = 1;
    for field in Fields::of(message) {
        match field.map_err(|found| fault("settings", found))? {
            (3, Value::Varint(value)) => kind = value,
            (24, Value::Varint(0)) => {}
            (24, _) => return Err(fault("whitespace as a prefix", "whitespace as a suffix")),
            (35, Value::Varint(value)) => settings.byte_fallback = value != 0,
            (44, Value::Bytes(bytes)) => settings.unknown_surface = text(bytes)?,
            (45 | 48, Value::Bytes(bytes)) => drop(text(bytes)?),
            (46, Value::Bytes(bytes)) => settings.bos_piece = text(bytes)?,
            (47, Value::Bytes(bytes)) => settings.eos_piece = text(bytes)?,
            (3 | 35 | 44..=48, _) => return Err(fault("settings", "a field of another type")),
            _ => {}
        }
    }
    settings.bpe = match kind {
        1 => false,
        2 => true,
        _ => return Err(fault("model type 1 (unigram) or 2 (bpe)", "another type")),
    };
    Ok(())
}

fn read_normalizer(message: &[u8], settings: &mut Settings) -> Found<()> {
    let fault = |expected, found: &str| Fault::at("normalizer spec", expected, found);
    for field in Fields::of(message) {
        match field.map_err(|found| fault("settings", found))? {
            (2, Value::Bytes([])) => {}
            (2, Value::Bytes(map)) => super::charsmap::check(map)
                .map_err(|found| fault("a sound table of character rules", found))?,
            (3, Value::Varint(value)) => settings.dummy_prefix = value != 0,
            (4, Value::Varint(value)) => settings.remove_extra_whitespaces = value != 0,
            (5, Value::Varint(1..)) => {}
            (5, _) => return Err(fault("whitespace written as ▁", "whitespace kept")),
            (2..=4, _) => return Err(fault("settings", "a field of another type")),
            _ => {}
        }
    }
    Ok(())
}

fn plain_denormalizer(message: &[u8]) -> Found<()> {
    for field in Fields::of(message) {
        match field.map_err(|found| Fault::at("denormalizer spec", "settings", found))? {
            (2, Value::Bytes([])) => {}
            (2, _) => return Err(Fault::at("denormalizer spec", "no character rules", "some")),
            _ => {}
        }
    }
    Ok(())
}

fn check_vocabulary(bytes: &[u8], pieces: &Pieces, settings: &Settings) -> Found<()> {
    let fault = |expected, found: &str| Fault::at("pieces", expected, found);
    let text = |&(start, length, _): &(u32, u16, Kind)| {
        bytes
            .get(start as usize..start as usize + usize::from(length))
            .unwrap_or_default()
    };
    let unknown = pieces
        .iter()
        .filter(|piece| piece.2 == Kind::Unknown)
        .count();
    if unknown != 1 {
        return Err(fault("exactly one unknown piece", &unknown.to_string()));
    }
    let normal = |kind| matches!(kind, Kind::Normal | Kind::UserDefined | Kind::Unused);
    if !pieces.iter().any(|piece| normal(piece.2)) {
        return Err(fault("at least one normal piece", "none"));
    }
    let mut seen = [false; 256];
    for &(.., kind) in pieces {
        if let Kind::Byte(byte) = kind {
            seen[usize::from(byte)] = true;
        }
    }
    let all = seen.iter().filter(|&&seen| seen).count();
    if all != if settings.byte_fallback { 256 } else { 0 } {
        return Err(fault(
            "256 byte pieces if byte fallback is on, else none",
            &all.to_string(),
        ));
    }
    let mut order: Vec<u32> = (0..pieces.len() as u32).collect();
    order.sort_unstable_by_key(|&id| text(&pieces[id as usize]));
    for pair in order.windows(2) {
        if text(&pieces[pair[0] as usize]) == text(&pieces[pair[1] as usize]) {
            return Err(fault(
                "every piece once",
                &format!("{} and {} alike", pair[0], pair[1]),
            ));
        }
    }
    let mut open: Vec<&[u8]> = Vec::new();
    for &id in &order {
        let piece = &pieces[id as usize];
        if piece.2 != Kind::UserDefined {
            continue;
        }
        while open
            .last()
            .is_some_and(|prefix| !text(piece).starts_with(prefix))
        {
            open.pop();
        }
        open.push(text(piece));
        if open.len() > NESTED_SYMBOLS {
            return Err(fault(
                "at most 32 user symbols that begin with one another",
                "more",
            ));
        }
    }
    Ok(())
}
