//! Reading GGUF files.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod seeds;

use kiln_formats::gguf::{self, Array, Value};
use kiln_formats::{BlockType, Error, Type};
use seeds::{file, gguf_start};

/// The error's message for these contents.
fn refused(bytes: Vec<u8>) -> String {
    gguf::read(file(bytes)).unwrap_err().to_string()
}

#[test]
fn values_are_those_of_the_reference() {
    let bytes = include_bytes!("golden/blocks.gguf");
    let expected: Vec<f32> = include_bytes!("golden/blocks.f32")
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    let gguf = gguf::read(file(bytes.to_vec())).unwrap();
    let mut tensors: Vec<_> = gguf.checkpoint().iter().collect();
    tensors.sort_by_key(|tensor| tensor.range.start);
    assert_eq!(tensors.len(), 14);
    for (tensor, expected) in tensors.iter().zip(expected.chunks(3 * 512)) {
        assert_eq!(tensor.shape, [3, 512]);
        let mut values = vec![0.0; 3 * 512];
        assert!(gguf::dequantise(
            tensor.dtype,
            gguf.checkpoint().bytes(tensor),
            &mut values
        ));
        for (i, (value, expected)) in values.iter().zip(expected).enumerate() {
            assert_eq!(
                value.to_bits(),
                expected.to_bits(),
                "{} element {i}",
                tensor.name
            );
        }
    }
}

#[test]
fn metadata_is_what_the_reference_wrote() {
    let gguf = gguf::read(file(include_bytes!("golden/blocks.gguf").to_vec())).unwrap();
    let metadata = gguf.metadata();
    let get = |key: &str| metadata.get(key).unwrap_or_else(|| panic!("{key}"));
    assert_eq!(get("test.u8"), &Value::U8(250));
    assert_eq!(get("test.i8"), &Value::I8(-7));
    assert_eq!(get("test.u16"), &Value::U16(65_000));
    assert_eq!(get("test.i16"), &Value::I16(-3_000));
    assert_eq!(get("test.u32"), &Value::U32(4_000_000_000));
    assert_eq!(get("test.i32"), &Value::I32(-2_000_000_000));
    assert_eq!(get("test.f32"), &Value::F32(0.1));
    assert_eq!(get("test.bool"), &Value::Bool(true));
    assert_eq!(get("test.string").string(), Some("Kiln ☃ brennt"));
    assert_eq!(get("test.u64"), &Value::U64(1 << 60));
    assert_eq!(get("test.i64"), &Value::I64(-(1 << 60)));
    assert_eq!(get("test.f64"), &Value::F64(0.1));
    let strings: Vec<&str> = get("test.strings").strings().unwrap().iter().collect();
    assert_eq!(strings, ["", "a", "日本", "", "Ġthe"]);
    assert_eq!(get("test.integers").integers(), Some(vec![1, -2, 3]));
    assert_eq!(get("test.floats").floats(), Some(&[0.5, -1.5][..]));
    assert_eq!(get("general.architecture").string(), Some("llama"));
}

#[test]
fn both_versions_are_read_and_shapes_are_row_major() {
    for version in [2, 3] {
        let gguf = gguf::read(file(seeds::gguf(version))).unwrap();
        assert_eq!((gguf.version, gguf.alignment), (version, 16));
        assert_eq!(gguf.metadata().iter().len(), 16);
        let tensor = gguf.checkpoint().tensor("q6_k").unwrap();
        assert_eq!(
            (tensor.dtype, &tensor.shape[..]),
            (Type::Gguf(BlockType::Q6_K), &[1, 256][..])
        );
        assert_eq!(gguf.checkpoint().bytes(tensor).len(), 210);
        let nested = gguf.metadata().get("b.nested").unwrap();
        let inner = vec![Array::U8(vec![1, 2]), Array::Bool(vec![true])];
        assert_eq!(nested, &Value::Array(Array::Arrays(inner)));
    }
}

#[test]
fn tensors_are_slices_of_the_source() {
    let source = file(seeds::gguf(3));
    let inside = source.bytes().as_ptr_range();
    let gguf = gguf::read(source.clone()).unwrap();
    for tensor in gguf.checkpoint() {
        assert!(inside.contains(&gguf.checkpoint().bytes(tensor).as_ptr()));
    }
}

#[test]
fn types_that_are_not_readable_are_listed_by_name_and_size() {
    let mut bytes = gguf_start(3, 1, 0);
    bytes
        .tensor("w", &[256, 2], 15, 0)
        .pad(32)
        .0
        .extend([0; 584]);
    let gguf = gguf::read(file(bytes.0)).unwrap();
    let tensor = gguf.checkpoint().tensor("w").unwrap();
    assert_eq!(tensor.dtype.to_string(), "Q8_K");
    assert_eq!(gguf.checkpoint().bytes(tensor).len(), 584);
    assert!(!gguf::is_readable(tensor.dtype));
    assert!(!gguf::dequantise(tensor.dtype, &[0; 292], &mut [0.0; 256]));
}

#[test]
fn dequantising_into_the_wrong_length_is_refused() {
    let q8_0 = Type::Gguf(BlockType::Q8_0);
    assert!(gguf::dequantise(q8_0, &[0; 34], &mut [0.0; 32]));
    assert!(!gguf::dequantise(q8_0, &[0; 34], &mut [0.0; 64]));
    assert!(!gguf::dequantise(q8_0, &[0; 34], &mut [0.0; 31]));
    assert!(!gguf::dequantise(q8_0, &[0; 33], &mut [0.0; 32]));
}

#[test]
fn errors_name_the_tensor_or_key_and_both_sides() {
    let mut rank = gguf_start(3, 1, 0);
    rank.tensor("deep", &[1, 1, 1, 1, 1], 0, 0);
    assert_eq!(
        refused(rank.0),
        r#"seed: "deep": expected at most 4 dimensions, found 5"#
    );

    let mut number = gguf_start(3, 1, 0);
    number.tensor("odd", &[32], 99, 0);
    assert_eq!(
        refused(number.0),
        r#"seed: "odd": tensor type number 99 is not supported"#
    );

    let mut rows = gguf_start(3, 1, 0);
    rows.tensor("rows", &[33], 2, 0).pad(32);
    let expected = r#"seed: "rows": expected rows of whole Q4_0 blocks (32), found shape [33]"#;
    assert_eq!(refused(rows.0), expected);

    let mut offset = gguf_start(3, 1, 0);
    offset.tensor("w", &[32], 2, 8).pad(32);
    assert_eq!(
        refused(offset.0),
        r#"seed: "w": expected an offset divisible by 32, found 8"#
    );

    let mut cut = gguf_start(3, 1, 0);
    cut.tensor("w", &[32], 2, 0).pad(32).0.push(0);
    let expected =
        r#"seed: "w": expected bytes 64 to 82, found a file of 65 bytes; it is cut short"#;
    assert_eq!(refused(cut.0), expected);

    let mut twice = gguf_start(3, 0, 2);
    twice.entry("k", 0, &[1]).entry("k", 0, &[1]);
    assert_eq!(
        refused(twice.0),
        r#"seed: "k": expected a key that occurs once, found two"#
    );

    let mut alignment = gguf_start(3, 0, 1);
    alignment.entry("general.alignment", 4, &[48, 0, 0, 0]);
    let expected = r#"seed: "general.alignment": expected a power of two of type u32, found 48"#;
    assert_eq!(refused(alignment.0), expected);
}

#[test]
fn overlapping_tensors_and_equal_names_are_refused() {
    let mut overlap = gguf_start(3, 2, 0);
    overlap
        .tensor("a", &[64], 2, 0)
        .tensor("b", &[32], 2, 32)
        .pad(32)
        .0
        .extend([0; 64]);
    assert!(refused(overlap.0).contains(r#"it overlaps "a""#));
    let mut twice = gguf_start(3, 2, 0);
    twice
        .tensor("a", &[32], 2, 0)
        .tensor("a", &[32], 2, 32)
        .pad(32)
        .0
        .extend([0; 64]);
    assert!(refused(twice.0).contains("a name that occurs once"));
}

#[test]
fn arrays_nested_too_deep_are_refused() {
    let mut bytes = gguf_start(3, 0, 1);
    bytes.string("k").u32(9);
    for _ in 0..2_000 {
        bytes.u32(9).u64(1);
    }
    assert!(refused(bytes.0).contains("nested deeper than 4"));
}

#[test]
fn other_versions_and_byte_orders_are_unsupported() {
    for (version, what) in [(1, "GGUF version 1"), (3 << 24, "a big-endian GGUF file")] {
        let error = gguf::read(file(gguf_start(version, 0, 0).0)).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }));
        assert!(error.to_string().contains(what), "{error}");
    }
}
