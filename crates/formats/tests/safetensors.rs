//! Reading and writing safetensors files.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod seeds;

use kiln_formats::safetensors::{self, Declared, INDEX, Writer};
use kiln_formats::shards::{Index, PYTORCH, SAFETENSORS};
use kiln_formats::{Bytes, Checkpoint, Error, File, Result, Type};
use seeds::{file, raw};
use std::path::Path;
use std::sync::Arc;

fn read(bytes: Vec<u8>) -> Result<Checkpoint> {
    safetensors::read(vec![file(bytes)])
}

fn refused(header: &str, data: usize) -> String {
    read(raw(header, &vec![0; data])).unwrap_err().to_string()
}

fn open(directory: &Path) -> Result<Checkpoint> {
    safetensors::open(directory, &|path| {
        Ok(Arc::new(std::fs::read(path)?) as Bytes)
    })
}

fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    directory
}

#[test]
fn data_at_any_offset_is_read_in_place() {
    for spaces in 0..8 {
        let source = file(seeds::safetensors(spaces));
        let start = 8 + source.bytes()[0] as usize + 256 * source.bytes()[1] as usize;
        let inside = source.bytes().as_ptr_range();
        let checkpoint = safetensors::read(vec![source.clone()]).unwrap();
        let tensor = checkpoint.tensor("b.weight").unwrap();
        assert_eq!((tensor.dtype, &tensor.shape[..]), (Type::U32, &[1, 2][..]));
        assert_eq!(tensor.range, start + 12..start + 20);
        let bytes = checkpoint.bytes(tensor);
        assert_eq!(bytes, [22, 23, 24, 25, 26, 27, 28, 29]);
        assert!(inside.contains(&bytes.as_ptr()), "copied");
        assert_eq!(
            bytes.as_ptr() as usize - inside.start as usize,
            tensor.range.start
        );
    }
    let starts = (0..8).map(|spaces| seeds::safetensors(spaces)[0] % 8);
    assert_eq!(starts.collect::<std::collections::BTreeSet<_>>().len(), 8);
}

#[test]
fn metadata_may_be_null_or_absent() {
    for metadata in ["", r#""__metadata__":null,"#] {
        let tensor = r#""w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
        let checkpoint = read(raw(&format!("{{{metadata}{tensor}}}"), &[7])).unwrap();
        assert_eq!(checkpoint.bytes(checkpoint.tensor("w").unwrap()), [7]);
        assert!(checkpoint.metadata().is_empty());
    }
    let checkpoint = read(seeds::safetensors(0)).unwrap();
    assert_eq!(checkpoint.metadata()["format"], "mlx");
}

#[test]
fn sizes_holes_overlaps_and_ends_are_checked() {
    let entry = |name: &str, start: u64, end: u64| {
        format!(r#""{name}":{{"dtype":"F16","shape":[2],"data_offsets":[{start},{end}]}}"#)
    };
    let two = |a: (u64, u64), b: (u64, u64)| {
        format!("{{{},{}}}", entry("a", a.0, a.1), entry("b", b.0, b.1))
    };
    assert!(read(raw(&two((0, 4), (4, 8)), &[0; 8])).is_ok());
    assert_eq!(
        refused(&two((0, 4), (5, 9)), 9),
        r#"seed: "b": expected data that begins at 4, found a hole: its data begins at 5"#
    );
    assert_eq!(
        refused(&two((0, 4), (2, 6)), 6),
        r#"seed: "b": expected data that begins at 4, found an overlap: its data begins at 2"#
    );
    assert_eq!(
        refused(&two((0, 4), (4, 7)), 7),
        r#"seed: "b": expected 4 bytes for F16 [2], found data_offsets [4, 7]"#
    );
    assert_eq!(
        refused(&two((0, 4), (4, 8)), 7),
        r#"seed: "b": expected at least 8 bytes of data, found 7; the file is cut short"#
    );
    assert_eq!(
        refused(&two((0, 4), (4, 8)), 9),
        "seed: expected 8 bytes of data, found 9"
    );
    assert!(refused(&two((0, 4), (8, 4)), 8).contains("data_offsets [8, 4]"));
}

#[test]
fn sizes_that_overflow_are_refused() {
    let max = usize::MAX;
    for shape in [
        format!("[{max}]"),
        format!("[{max},{max}]"),
        format!("[{},8]", max / 8 + 1),
    ] {
        let header = format!(r#"{{"w":{{"dtype":"F16","shape":{shape},"data_offsets":[0,0]}}}}"#);
        assert!(
            refused(&header, 0).contains("a size that fits memory"),
            "{shape}"
        );
    }
    let none = format!(r#"{{"w":{{"dtype":"F16","shape":[{max},0],"data_offsets":[0,0]}}}}"#);
    assert!(read(raw(&none, &[])).is_ok());
}

#[test]
fn names_occur_once() {
    let entry = r#""w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    let again = r#""w":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}"#;
    assert!(refused(&format!("{{{entry},{again}}}"), 2).contains("a name that occurs once"));
    let metadata = r#""__metadata__":{}"#;
    assert!(refused(&format!("{{{metadata},{metadata}}}"), 0).contains("duplicate"));
    let shards = vec![
        File::new("one", Arc::new(raw(&format!("{{{entry}}}"), &[1]))),
        File::new("two", Arc::new(raw(&format!("{{{entry}}}"), &[2]))),
    ];
    let error = safetensors::read(shards).unwrap_err().to_string();
    assert_eq!(
        error,
        r#"two: "w": expected a name that occurs once, found it also in one"#
    );
}

#[test]
fn types_and_ranks_that_are_not_known_are_refused() {
    let header = r#"{"w":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}"#;
    let error = read(raw(header, &[0])).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }));
    assert_eq!(
        error.to_string(),
        r#"seed: "w": type "F4" is not supported"#
    );
    let header = r#"{"w":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}}"#;
    assert!(refused(header, 1).contains("at most 8 sizes"));
}

#[test]
fn the_reference_reader_and_this_one_agree_on_what_is_written() {
    let declared = |name: &str, dtype, shape: &[usize]| Declared {
        name: name.into(),
        dtype,
        shape: shape.into(),
    };
    let tensors = [
        declared("z.weight", Type::U32, &[3, 2]),
        declared("a.\"quoted\" ☃", Type::BF16, &[3]),
        declared("none", Type::F32, &[0]),
        declared("m.scales", Type::U8, &[5]),
    ];
    let mut writer = Writer::new(Vec::new(), Path::new("out"), &tensors).unwrap();
    for tensor in &tensors {
        let bytes: Vec<u8> = (0..tensor.bytes().unwrap() as u8).collect();
        for piece in bytes.chunks(5) {
            writer.write(&tensor.name, piece).unwrap();
        }
    }
    let bytes = writer.finish().unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    assert_eq!((8 + length) % 64, 0);
    let header = std::str::from_utf8(&bytes[8..8 + length]).unwrap();
    let begin = r#"{"__metadata__":{"format":"mlx"},"a.\"quoted\" ☃":{"data_offsets":[24,30],"#;
    assert!(header.starts_with(begin), "{header}");
    let reference = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let checkpoint = read(bytes.clone()).unwrap();
    assert_eq!(reference.len(), checkpoint.len());
    for tensor in &tensors {
        let theirs = reference.tensor(&tensor.name).unwrap();
        let ours = checkpoint.tensor(&tensor.name).unwrap();
        assert_eq!(
            (theirs.shape(), theirs.data()),
            (&ours.shape[..], checkpoint.bytes(ours))
        );
        assert_eq!(format!("{:?}", theirs.dtype()), ours.dtype.to_string());
        let expected: Vec<u8> = (0..tensor.bytes().unwrap() as u8).collect();
        assert_eq!(theirs.data(), expected);
    }
}

#[test]
fn a_writer_insists_on_every_byte_in_order() {
    let tensors = ["a", "b"].map(|name| Declared {
        name: name.into(),
        dtype: Type::U8,
        shape: vec![2],
    });
    let writer = || Writer::new(Vec::new(), Path::new("out"), &tensors).unwrap();
    let early = writer().write("b", &[1]).unwrap_err().to_string();
    assert_eq!(
        early,
        r#"out: "b": expected bytes of "a" next, found bytes of this one"#
    );
    let long = writer().write("a", &[1, 2, 3]).unwrap_err().to_string();
    assert_eq!(long, r#"out: "a": expected at most 2 bytes more, found 3"#);
    let mut short = writer();
    short.write("a", &[1, 2]).unwrap();
    short.write("b", &[1]).unwrap();
    let short = short.finish().unwrap_err().to_string();
    assert_eq!(short, r#"out: "b": expected 1 bytes more, found the end"#);
    let twice = [tensors[0].clone(), tensors[0].clone()];
    assert!(Writer::new(Vec::new(), Path::new("out"), &twice).is_err());
}

#[test]
fn shards_are_found_by_the_index_and_merged() {
    let files = seeds::sharded();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_str(), &b[..])).collect();
    let whole = directory(&files);
    let checkpoint = open(whole.path()).unwrap();
    assert_eq!(
        checkpoint
            .iter()
            .map(|t| t.name.as_str())
            .collect::<Vec<_>>(),
        ["x", "y"]
    );
    assert_eq!(checkpoint.bytes(checkpoint.tensor("y").unwrap()), [2; 8]);
    let without_index = directory(&files[..2]);
    assert_eq!(open(without_index.path()).unwrap().len(), 2);
}

#[test]
fn missing_and_left_over_shards_are_refused() {
    let files = seeds::sharded();
    let mut files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_str(), &b[..])).collect();
    let missing = open(directory(&files[1..]).path()).unwrap_err().to_string();
    assert!(
        missing.contains("expected the shard model-00001-of-00002.safetensors"),
        "{missing}"
    );
    files.push(("model-00003-of-00003.safetensors", files[0].1));
    let extra = open(directory(&files).path()).unwrap_err().to_string();
    assert!(
        extra.contains("found also model-00003-of-00003.safetensors"),
        "{extra}"
    );
    let index = r#"{"weight_map":{"gone":"model-00001-of-00002.safetensors"}}"#;
    let gone = [files[0], (INDEX, index.as_bytes())];
    let gone = open(directory(&gone).path()).unwrap_err().to_string();
    assert!(
        gone.contains(r#""gone": expected this tensor in model-00001"#),
        "{gone}"
    );
}

#[test]
fn an_index_never_leads_out_of_its_directory() {
    for shard in [
        "../model.safetensors",
        "/etc/model.safetensors",
        "a\\\\b.safetensors",
        "..",
        "",
    ] {
        for family in [SAFETENSORS, PYTORCH] {
            let shard = shard.replace(".safetensors", family.ending);
            let index = format!(r#"{{"weight_map":{{"w":"{shard}"}}}}"#);
            let error = Index::parse(&file(index.into_bytes()), &family).unwrap_err();
            let expected = format!("expected the name of a {} file in", family.ending);
            assert!(error.to_string().contains(&expected), "{error}");
        }
    }
}

#[test]
fn shards_are_filled_in_order_and_never_empty() {
    let plan = |sizes: &[usize]| safetensors::plan_shards(sizes, 10);
    assert_eq!(plan(&[4, 6, 1, 9, 1]), [0..2, 2..4, 4..5]);
    assert_eq!(plan(&[11, 2, 12, 3]), [0..1, 1..2, 2..3, 3..4]);
    assert!(plan(&[]).iter().eq([&(0..0)]));
    assert_eq!(safetensors::shard_name(0, 1), "model.safetensors");
    assert_eq!(
        safetensors::shard_name(11, 12),
        "model-00012-of-00012.safetensors"
    );
}
