//! Small valid files, built byte by byte, for tests to read and to damage.
#![allow(dead_code, reason = "each test binary uses its part")]

use kiln_formats::safetensors::{Declared, INDEX, Writer};
use kiln_formats::{File, Type};
use std::path::Path;
use std::sync::Arc;

/// A file of these contents, called `seed`.
pub(crate) fn file(bytes: Vec<u8>) -> File {
    File::new("seed", Arc::new(bytes))
}

/// A file with this header and these data, with nothing aligned.
pub(crate) fn raw(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// A file with four tensors, one of them without elements, `n` spaces behind its header.
pub(crate) fn safetensors(spaces: usize) -> Vec<u8> {
    let header = concat!(
        r#"{"__metadata__":{"format":"mlx"},"#,
        r#""a.weight":{"data_offsets":[0,12],"dtype":"F16","shape":[2,3]},"#,
        r#""b.none":{"data_offsets":[12,12],"dtype":"F32","shape":[0,4]},"#,
        r#""b.weight":{"data_offsets":[12,20],"dtype":"U32","shape":[1,2]},"#,
        r#""z":{"data_offsets":[20,21],"dtype":"BOOL","shape":[]}}"#,
    );
    let data: Vec<u8> = (0..20).map(|i| 10 + i).chain([1]).collect();
    raw(&format!("{header}{}", " ".repeat(spaces)), &data)
}

/// Two shards and their index, as (file name, contents); the index is last.
pub(crate) fn sharded() -> Vec<(String, Vec<u8>)> {
    let shard = |name: &str, value: u8| {
        let declared = Declared {
            name: name.into(),
            dtype: Type::BF16,
            shape: vec![2, 2],
        };
        let mut writer = Writer::new(Vec::new(), Path::new("shard"), &[declared]).unwrap();
        writer.write(name, &[value; 8]).unwrap();
        writer.finish().unwrap()
    };
    let names = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    let index = format!(
        r#"{{"metadata":{{"total_size":16}},"weight_map":{{"x":"{}","y":"{}"}}}}"#,
        names[0], names[1]
    );
    vec![
        (names[0].into(), shard("x", 1)),
        (names[1].into(), shard("y", 2)),
        (INDEX.into(), index.into_bytes()),
    ]
}

/// Bytes of a GGUF file, appended one field at a time.
#[derive(Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    pub(crate) fn u32(&mut self, value: u32) -> &mut Bytes {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Bytes {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn string(&mut self, text: &str) -> &mut Bytes {
        self.u64(text.len() as u64);
        self.0.extend(text.as_bytes());
        self
    }

    /// A metadata entry: key, number of the type, the value's bytes.
    pub(crate) fn entry(&mut self, key: &str, number: u32, value: &[u8]) -> &mut Bytes {
        self.string(key).u32(number);
        self.0.extend(value);
        self
    }

    /// A tensor's description; `sizes` fastest first.
    pub(crate) fn tensor(
        &mut self,
        name: &str,
        sizes: &[u64],
        number: u32,
        offset: u64,
    ) -> &mut Bytes {
        self.string(name).u32(sizes.len() as u32);
        for &size in sizes {
            self.u64(size);
        }
        self.u32(number).u64(offset)
    }

    /// Zeros up to the next multiple of `alignment`.
    pub(crate) fn pad(&mut self, alignment: usize) -> &mut Bytes {
        self.0.resize(self.0.len().next_multiple_of(alignment), 0);
        self
    }
}

/// Magic, version and counts.
pub(crate) fn gguf_start(version: u32, tensors: u64, entries: u64) -> Bytes {
    let mut bytes = Bytes(b"GGUF".to_vec());
    bytes.u32(version).u64(tensors).u64(entries);
    bytes
}

/// The readable types: name, number, and bytes of a tensor of 256 elements (of 32 for F32).
pub(crate) const READABLE: [(&str, u32, u64, usize); 14] = [
    ("f32", 0, 32, 128),
    ("f16", 1, 256, 512),
    ("q4_0", 2, 256, 144),
    ("q4_1", 3, 256, 160),
    ("q8_0", 8, 256, 272),
    ("q6_k", 14, 256, 210),
    ("q5_0", 6, 256, 176),
    ("q5_1", 7, 256, 192),
    ("q2_k", 10, 256, 84),
    ("q3_k", 11, 256, 110),
    ("q4_k", 12, 256, 144),
    ("q5_k", 13, 256, 176),
    ("mxfp4", 39, 256, 136),
    ("bf16", 30, 256, 512),
];

/// A file with metadata of every type and a tensor of every readable type.
pub(crate) fn gguf(version: u32) -> Vec<u8> {
    let mut bytes = gguf_start(version, READABLE.len() as u64, 16);
    let mut strings = Bytes::default();
    strings.u32(8).u64(3).string("a").string("").string("☃");
    let mut nested = Bytes::default();
    nested.u32(9).u64(2).u32(0).u64(2);
    nested.0.extend([1, 2]);
    nested.u32(7).u64(1);
    nested.0.push(1);
    let mut integers = Bytes::default();
    integers.u32(5).u64(2).u32(7).u32(u32::MAX);
    bytes
        .entry("a.u8", 0, &[200])
        .entry("a.i8", 1, &[200])
        .entry("a.u16", 2, &[1, 2])
        .entry("a.i16", 3, &[1, 0xff])
        .entry("a.u32", 4, &[1, 2, 3, 4])
        .entry("a.i32", 5, &[0xff; 4])
        .entry("a.f32", 6, &1.5f32.to_le_bytes())
        .entry("a.bool", 7, &[1])
        .entry("a.u64", 10, &[0, 0, 0, 0, 0, 0, 0, 1])
        .entry("a.i64", 11, &[0xff; 8])
        .entry("a.f64", 12, &0.1f64.to_le_bytes())
        .entry("b.strings", 9, &strings.0)
        .entry("b.nested", 9, &nested.0)
        .entry("b.integers", 9, &integers.0)
        .entry("general.alignment", 4, &16u32.to_le_bytes());
    bytes.string("general.architecture").u32(8).string("llama");
    let mut offset = 0;
    for (name, number, elements, size) in READABLE {
        bytes.tensor(name, &[elements, 1], number, offset);
        offset += size.next_multiple_of(16) as u64;
    }
    bytes.pad(16);
    for (index, (_, _, _, size)) in READABLE.into_iter().enumerate() {
        bytes.0.extend((0..size).map(|i| (i * 7 + index) as u8));
        bytes.pad(16);
    }
    bytes.0
}
