//! The header: parsing and its rules.

use crate::{Error, File, Result, Type};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// The key that holds text instead of a tensor.
pub(super) const METADATA: &str = "__metadata__";

/// More dimensions than any weight has; keeps a shape's memory in proportion to its text.
const RANK: usize = 8;

pub(super) struct Header {
    /// Where the data begins in the file.
    pub(super) data: usize,
    pub(super) entries: Vec<Entry>,
    pub(super) metadata: BTreeMap<String, String>,
}

pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: Type,
    pub(super) shape: Vec<usize>,
    /// Bytes within the data.
    pub(super) offsets: Range<usize>,
}

/// Parses the header of `file` and checks that its tensors cover the data exactly.
pub(super) fn parse(header: &[u8], file: &File) -> Result<Header> {
    let json: Json = serde_json::from_slice(header).map_err(|error| {
        let found: String = error.to_string().chars().take(300).collect();
        Error::invalid(file.path(), None, "a JSON header with tensors", found)
    })?;
    if let Some((name, dtype)) = json.unknown {
        let dtype: String = dtype.chars().take(40).collect();
        return Err(Error::unsupported(
            file.path(),
            Some(&name),
            format!("type {dtype:?}"),
        ));
    }
    let data = 8 + header.len();
    check(&json.entries, file, file.bytes().len() - data)?;
    Ok(Header {
        data,
        entries: json.entries,
        metadata: json.metadata,
    })
}

/// Sizes follow from type and shape, and the tensors cover `length` bytes without hole or overlap.
fn check(entries: &[Entry], file: &File, length: usize) -> Result<()> {
    let invalid = |entry: &Entry, expected, found| {
        Err(Error::invalid(
            file.path(),
            Some(&entry.name),
            expected,
            found,
        ))
    };
    let mut order: Vec<&Entry> = entries.iter().collect();
    order.sort_by_key(|entry| (entry.offsets.start, entry.offsets.end));
    let mut end = 0;
    for entry in order {
        let Range { start, end: stop } = entry.offsets.clone();
        let (dtype, shape) = (entry.dtype, &entry.shape);
        let Some(bytes) = dtype.bytes(shape) else {
            return invalid(
                entry,
                "a size that fits memory".into(),
                format!("shape {shape:?}"),
            );
        };
        if stop.checked_sub(start) != Some(bytes) {
            let expected = format!("{bytes} bytes for {dtype} {shape:?}");
            return invalid(entry, expected, format!("data_offsets [{start}, {stop}]"));
        }
        if start != end {
            let what = if start < end { "an overlap" } else { "a hole" };
            let found = format!("{what}: its data begins at {start}");
            return invalid(entry, format!("data that begins at {end}"), found);
        }
        if stop > length {
            let found = format!("{length}; the file is cut short");
            return invalid(entry, format!("at least {stop} bytes of data"), found);
        }
        end = stop;
    }
    if end != length {
        let found = format!("{length}");
        return Err(Error::invalid(
            file.path(),
            None,
            format!("{end} bytes of data"),
            found,
        ));
    }
    Ok(())
}

/// The header as JSON, before its numbers are checked.
struct Json {
    entries: Vec<Entry>,
    metadata: BTreeMap<String, String>,
    /// The first tensor whose type has no known name, and that name.
    unknown: Option<(String, String)>,
}

#[derive(serde::Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Shape,
    data_offsets: (usize, usize),
}

struct Shape(Vec<usize>);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Json;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Json, A::Error> {
                tensors(map)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

fn tensors<'de, A: MapAccess<'de>>(mut map: A) -> std::result::Result<Json, A::Error> {
    let mut json = Json {
        entries: Vec::new(),
        metadata: BTreeMap::new(),
        unknown: None,
    };
    let mut metadata_seen = false;
    while let Some(name) = map.next_key::<String>()? {
        let named = |error: A::Error| de::Error::custom(format_args!("{name:.200}: {error}"));
        if name == METADATA {
            if std::mem::replace(&mut metadata_seen, true) {
                return Err(de::Error::duplicate_field(METADATA));
            }
            // MLX writes null where there is no metadata.
            let text: Option<BTreeMap<String, String>> = map.next_value().map_err(named)?;
            json.metadata = text.unwrap_or_default();
            continue;
        }
        let fields: Fields<'de> = map.next_value().map_err(named)?;
        match Type::from_safetensors(&fields.dtype) {
            Some(dtype) => json.entries.push(Entry {
                name,
                dtype,
                shape: fields.shape.0,
                offsets: fields.data_offsets.0..fields.data_offsets.1,
            }),
            None if json.unknown.is_none() => {
                json.unknown = Some((name, fields.dtype.into_owned()));
            }
            None => {}
        }
    }
    Ok(json)
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {RANK} sizes")
            }
            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut sequence: A,
            ) -> std::result::Result<Shape, A::Error> {
                let mut sizes = Vec::with_capacity(2);
                while let Some(size) = sequence.next_element()? {
                    if sizes.len() == RANK {
                        return Err(de::Error::invalid_length(RANK + 1, &self));
                    }
                    sizes.push(size);
                }
                Ok(Shape(sizes))
            }
        }
        deserializer.deserialize_seq(Sizes)
    }
}
