//! npz files built byte by byte: headers, entries that overlap, packed data.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod seeds;

use kiln_formats::{Checkpoint, File, Result, Type, npz};

/// A file within a zip file that is made up: name, place of its bytes, packing, size unpacked.
struct Entry<'a> {
    name: &'a str,
    data: Vec<u8>,
    /// Where the directory says that it is, if not where it is.
    place: Option<u32>,
    method: u8,
    size: u32,
    /// CRC-32, or 0 for none.
    sum: u32,
}

fn stored(name: &str, data: Vec<u8>) -> Entry<'_> {
    let size = data.len() as u32;
    Entry {
        name,
        data,
        place: None,
        method: 0,
        size,
        sum: 0,
    }
}

fn zip(entries: &[Entry<'_>]) -> File {
    let mut bytes = Vec::new();
    let mut places = Vec::new();
    for entry in entries {
        places.push(bytes.len() as u32);
        let mut header = b"PK\x03\x04".to_vec();
        header.extend([0; 22]);
        header[8] = entry.method;
        header[14..18].copy_from_slice(&entry.sum.to_le_bytes());
        header[18..22].copy_from_slice(&(entry.data.len() as u32).to_le_bytes());
        header[22..26].copy_from_slice(&entry.size.to_le_bytes());
        bytes.extend(header);
        bytes.extend([entry.name.len() as u8, 0, 0, 0]);
        bytes.extend(entry.name.bytes());
        bytes.extend(&entry.data);
    }
    let start = bytes.len();
    for (index, entry) in entries.iter().enumerate() {
        let place = entry.place.unwrap_or(places[index]);
        let mut record = b"PK\x01\x02".to_vec();
        record.extend([0; 42]);
        record[10] = entry.method;
        record[16..20].copy_from_slice(&entry.sum.to_le_bytes());
        record[20..24].copy_from_slice(&(entry.data.len() as u32).to_le_bytes());
        record[24..28].copy_from_slice(&entry.size.to_le_bytes());
        record[28] = entry.name.len() as u8;
        record[42..46].copy_from_slice(&place.to_le_bytes());
        bytes.extend(record);
        bytes.extend(entry.name.bytes());
    }
    let size = bytes.len() - start;
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([(entries.len() as u16).to_le_bytes(); 2].concat());
    bytes.extend((size as u32).to_le_bytes());
    bytes.extend((start as u32).to_le_bytes());
    bytes.extend([0, 0]);
    seeds::file(bytes)
}

/// An array with this dictionary and so many bytes of data.
fn array(dictionary: &str, data: usize) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\0".to_vec();
    bytes.extend((dictionary.len() as u16).to_le_bytes());
    bytes.extend(dictionary.bytes());
    bytes.extend((0..data).map(|i| i as u8));
    bytes
}

fn read(dictionary: &str, data: usize) -> Result<Checkpoint> {
    npz::read(vec![zip(&[stored("a.npy", array(dictionary, data))])])
}

#[test]
fn headers_are_read_in_all_their_spellings() {
    let cases = [
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   \n",
            24,
            Type::F32,
            vec![2, 3],
        ),
        (
            r#"{"shape":(3,2,),"fortran_order":False,"descr":"<V2"}"#,
            12,
            Type::BF16,
            vec![3, 2],
        ),
        (
            "{'descr': '|V2', 'fortran_order': True, 'shape': (5, )}",
            10,
            Type::BF16,
            vec![5],
        ),
        (
            "{'descr': '>u1', 'fortran_order': True, 'shape': ()}",
            1,
            Type::U8,
            vec![],
        ),
        (
            "{'descr': '<u4', 'fortran_order': False, 'shape': (1L, 0L)}",
            0,
            Type::U32,
            vec![1, 0],
        ),
    ];
    for (dictionary, data, dtype, shape) in cases {
        let checkpoint = read(dictionary, data).unwrap();
        let tensor = checkpoint.tensor("a").unwrap();
        assert_eq!(
            (tensor.dtype, &tensor.shape),
            (dtype, &shape),
            "{dictionary}"
        );
        assert_eq!(tensor.strides, None, "{dictionary}");
        assert_eq!(checkpoint.bytes(tensor).len(), data);
    }
    let checkpoint = read(
        "{'descr': '<f2', 'fortran_order': True, 'shape': (2, 3)}",
        12,
    )
    .unwrap();
    assert_eq!(checkpoint.tensor("a").unwrap().strides, Some(vec![1, 2]));
}

#[test]
fn headers_that_break_a_rule_are_refused() {
    let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
    let cases = [
        (
            good.replace("<f4", ">f4"),
            r#"array type ">f4" is not supported"#,
        ),
        (
            good.replace("<f4", "|O"),
            r#"array type "|O" is not supported"#,
        ),
        (
            good.replace("(2, 3)", "(2, 4)"),
            "as many bytes as type and shape ask for",
        ),
        (
            good.replace("(2, 3)", "(2, 2)"),
            "as many bytes as type and shape ask for",
        ),
        (good.replace("(2, 3)", "(-2, 3)"), "a dictionary of descr"),
        (
            good.replace("(2, 3)", "(99999999999999999999, 3)"),
            "a dictionary of descr",
        ),
        (
            good.replace("(2, 3)", "(4294967296, 4294967296)"),
            "as many bytes as",
        ),
        (good.replace("'shape'", "'descr'"), "a dictionary of descr"),
        (good.replace("}", "} 1"), "a dictionary of descr"),
        (good.replace("False", "0"), "a dictionary of descr"),
    ];
    for (dictionary, expected) in cases {
        let error = read(&dictionary, 24).unwrap_err().to_string();
        assert!(error.contains(expected), "{dictionary}: {error}");
    }
    // A header of 4 GiB in a file of a few bytes.
    let long = b"\x93NUMPY\x02\0\xff\xff\xff\xff".to_vec();
    let error = npz::read(vec![zip(&[stored("a.npy", long)])]).unwrap_err();
    assert!(error.to_string().contains("a header of text"), "{error}");
}

#[test]
fn entries_are_arrays_with_names_and_bytes_of_their_own() {
    let good = || array("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", 4);
    let refused = |entries: &[Entry<'_>]| npz::read(vec![zip(entries)]).unwrap_err().to_string();
    let twice = refused(&[stored("a.npy", good()), stored("a.npy", good())]);
    assert!(
        twice.contains("a name that occurs once in the zip file"),
        "{twice}"
    );
    let other = refused(&[stored("a.npy", good()), stored("readme.txt", good())]);
    assert!(other.contains("arrays alone"), "{other}");
    // An entry within another: a small file could be large unpacked.
    let mut inner = b"PK\x03\x04".to_vec();
    inner.extend([0; 14]);
    inner.extend([(good().len() as u32).to_le_bytes(); 2].concat());
    inner.extend([5, 0, 0, 0]);
    inner.extend(b"b.npy");
    inner.extend(good());
    let within = Entry {
        place: Some(35),
        ..stored("b.npy", good())
    };
    let overlap = refused(&[stored("a.npy", inner), within]);
    assert!(
        overlap.contains(r#""b.npy": expected an entry of its own bytes"#),
        "{overlap}"
    );
}

#[test]
fn packed_data_have_the_size_that_is_said() {
    // One stored block of deflate, then one that says how long it is, wrongly.
    let plain = array("{'descr': '|u1', 'fortran_order': False, 'shape': (4,)}", 4);
    let length = plain.len() as u16;
    let mut packed = vec![1];
    packed.extend(length.to_le_bytes());
    packed.extend((!length).to_le_bytes());
    packed.extend(&plain);
    let read = |size: usize| {
        let entry = Entry {
            method: 8,
            size: size as u32,
            ..stored("a.npy", packed.clone())
        };
        npz::read(vec![zip(&[entry])])
    };
    let checkpoint = read(plain.len()).unwrap();
    let tensor = checkpoint.tensor("a").unwrap();
    assert_eq!(checkpoint.bytes(tensor), [0, 1, 2, 3]);
    assert_eq!(checkpoint.path(tensor).to_str(), Some("seed"));
    let error = read(u32::MAX as usize).unwrap_err().to_string();
    assert!(error.contains("deflated ones"), "{error}");
    for (sum, whole) in [(crc32fast::hash(&plain), true), (1, false)] {
        let entry = Entry {
            method: 8,
            size: plain.len() as u32,
            sum,
            ..stored("a.npy", packed.clone())
        };
        assert_eq!(npz::read(vec![zip(&[entry])]).is_ok(), whole);
    }
    for size in [plain.len() - 1, plain.len() + 1] {
        let error = read(size).unwrap_err().to_string();
        let expected = format!("expected deflated data of {size} bytes");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn what_is_written_is_read() {
    use kiln_formats::safetensors::Declared;
    let declared = |name: &str, dtype, shape: &[usize]| Declared {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
    };
    let all = [
        declared("a", Type::F16, &[3, 5]),
        declared("nothing", Type::F32, &[0, 4]),
        declared("b.weight", Type::BF16, &[7]),
        declared("codes", Type::U32, &[2, 1]),
        declared("scalar", Type::F32, &[]),
    ];
    let contents = |tensor: &Declared| -> Vec<u8> {
        let count = tensor.bytes().unwrap();
        (0..count)
            .map(|i| (i * 7 + tensor.name.len()) as u8)
            .collect()
    };
    let mut writer = npz::Writer::new(Vec::new(), "made".as_ref(), &all).unwrap();
    for tensor in &all {
        for piece in contents(tensor).chunks(4) {
            writer.write(&tensor.name, piece).unwrap();
        }
    }
    let bytes = writer.finish().unwrap();
    let file = File::new("made", std::sync::Arc::new(bytes));
    let read = npz::read(vec![file]).unwrap();
    assert_eq!(read.len(), all.len());
    for expected in &all {
        let tensor = read.tensor(&expected.name).unwrap();
        assert_eq!(
            (tensor.dtype, &tensor.shape),
            (expected.dtype, &expected.shape)
        );
        assert!(
            read.bytes(tensor) == contents(expected),
            "{}",
            expected.name
        );
    }
}

#[test]
fn bytes_of_the_wrong_tensor_are_not_written() {
    use kiln_formats::safetensors::Declared;
    let tensor = |name: &str| Declared {
        name: name.to_owned(),
        dtype: Type::U8,
        shape: vec![4],
    };
    let writer =
        || npz::Writer::new(Vec::new(), "made".as_ref(), &[tensor("a"), tensor("b")]).unwrap();
    assert!(writer().write("b", &[1]).is_err());
    assert!(writer().write("a", &[1; 5]).is_err());
    assert!(writer().finish().is_err());
    let twice = [tensor("a"), tensor("a")];
    assert!(npz::Writer::new(Vec::new(), "made".as_ref(), &twice).is_err());
    let blocks = Declared {
        dtype: Type::F8E4M3,
        ..tensor("a")
    };
    assert!(npz::Writer::new(Vec::new(), "made".as_ref(), &[blocks]).is_err());
}
