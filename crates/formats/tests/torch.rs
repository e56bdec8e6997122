//! PyTorch and npz files that PyTorch, NumPy and MLX wrote: scripts/golden/torch_files.py.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod seeds;

use kiln_formats::{Checkpoint, Error, File, Result, Source, Tensor, npz, sniff, torch};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/torch")
        .join(name)
}

fn file(name: &str) -> File {
    File::new(name, Arc::new(std::fs::read(path(name)).unwrap()))
}

/// A tensor's elements in row-major order.
fn gathered(checkpoint: &Checkpoint, tensor: &Tensor) -> Vec<u8> {
    let (bytes, size) = (checkpoint.bytes(tensor), tensor.dtype.block_bytes());
    let Some(strides) = &tensor.strides else {
        return bytes.to_vec();
    };
    let mut out = Vec::new();
    for number in 0..tensor.elements() {
        let (mut left, mut at) = (number, 0);
        for (&length, &stride) in tensor.shape.iter().zip(strides).rev() {
            at += left % length * stride;
            left /= length;
        }
        out.extend(&bytes[at * size..(at + 1) * size]);
    }
    out
}

/// Compares with what the script wrote down, and says how many tensors are not row-major.
fn check(checkpoint: &Checkpoint, golden: &str) -> usize {
    let values: Value =
        serde_json::from_slice(&std::fs::read(path("values.json")).unwrap()).unwrap();
    let expected = values[golden].as_object().unwrap();
    assert_eq!(checkpoint.len(), expected.len());
    for (name, expected) in expected {
        let tensor = checkpoint.tensor(name).unwrap();
        assert_eq!(tensor.dtype.to_string(), expected["dtype"], "{name}");
        assert_eq!(serde_json::json!(tensor.shape), expected["shape"], "{name}");
        let data = gathered(checkpoint, tensor);
        let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected["data"], "{name}");
    }
    checkpoint
        .iter()
        .filter(|tensor| tensor.strides.is_some())
        .count()
}

fn refused(result: Result<Checkpoint>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn every_view_and_type_is_read_from_both_formats() {
    for name in ["views.pth", "views_legacy.pth", "protocol4.pth"] {
        assert_eq!(sniff(&path(name)).unwrap(), Source::Torch);
        let checkpoint = torch::read(vec![file(name)]).unwrap();
        // columns, steps, transposed, cube, column, parameter
        assert_eq!(check(&checkpoint, "views"), 6, "{name}");
        let range = |name| checkpoint.tensor(name).unwrap().range.clone();
        assert!(range("view.row").start > range("view.transposed").start);
        assert!(
            range("view.row").end == range("view.transposed").end,
            "one storage"
        );
    }
}

#[test]
fn a_state_dict_with_metadata_is_a_checkpoint() {
    let checkpoint = torch::read(vec![file("module.bin")]).unwrap();
    assert_eq!(check(&checkpoint, "module"), 0);
}

#[test]
fn arrays_are_read_as_numpy_and_mlx_write_them() {
    for (name, golden, strided) in [
        ("numpy.npz", "arrays", 1),
        ("packed.npz", "arrays", 1),
        ("mlx.npz", "mlx", 2),
    ] {
        assert_eq!(sniff(&path(name)).unwrap(), Source::Npz);
        let checkpoint = npz::read(vec![file(name)]).unwrap();
        assert_eq!(check(&checkpoint, golden), strided, "{name}");
    }
}

#[test]
fn what_a_pickle_would_call_is_named_and_not_called() {
    let error = torch::read(vec![file("calls.pth")]).unwrap_err();
    let Error::Refused {
        opcode: "GLOBAL",
        asked,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(asked, "posix.system");
    let text = error.to_string();
    assert!(text.contains("opcode GLOBAL at byte"), "{text}");
    assert!(text.contains("nothing is imported or called"), "{text}");
    let module = refused(torch::read(vec![file("whole_module.pth")]));
    assert!(
        module.contains("torch.nn.modules.container.Sequential"),
        "{module}"
    );
}

#[test]
fn what_is_no_dictionary_of_tensors_is_refused() {
    let cases = [
        (
            "training.pth",
            r#""epoch": expected a tensor, found a number"#,
        ),
        (
            "bare.pth",
            "expected a dictionary of tensors, found a tensor",
        ),
        ("plain.pkl", "not a checkpoint that PyTorch wrote"),
        ("numpy.npz", "expected a PyTorch file, found an npz file"),
    ];
    for (name, expected) in cases {
        let error = refused(torch::read(vec![file(name)]));
        assert!(error.contains(expected), "{error}");
    }
    let error = refused(npz::read(vec![file("views.pth")]));
    assert!(
        error.contains("expected an npz file, found a PyTorch file"),
        "{error}"
    );
}

/// A pickle of these instructions in a stream of PyTorch's older format.
fn stream(pickle: &[u8]) -> File {
    let legacy = std::fs::read(path("views_legacy.pth")).unwrap();
    seeds::file([&legacy[..137], pickle].concat())
}

#[test]
fn no_instruction_reaches_outside_of_the_file() {
    let cases: [(&[u8], &str); 9] = [
        (
            b"\x80\x02cos\nsystem\n.",
            r#"GLOBAL at byte 2 of the pickle asks for "os.system""#,
        ),
        (
            b"\x80\x02X\x02\0\0\0osX\x06\0\0\0system\x93.",
            r#"asks for "os.system""#,
        ),
        (
            b"\x80\x02(ios\nsystem\n.",
            r#"INST at byte 3 of the pickle asks for "os.system""#,
        ),
        (
            b"\x80\x02ccollections\nOrderedDict\n)\x81.",
            r#"NEWOBJ at byte 28"#,
        ),
        (
            b"\x80\x02ctorch\nFloatStorage\n)R.",
            r#"REDUCE at byte 23 of the pickle asks for "torch.FloatStorage""#,
        ),
        (b"\x80\x02ccollections\nOrderedDict\n}b.", "BUILD"),
        (
            b"\x80\x02\x82\x05.",
            r#"EXT1 at byte 2 of the pickle asks for "something outside of the file""#,
        ),
        (
            b"\x80\x02P1\n.",
            r#"PERSID at byte 2 of the pickle asks for "1""#,
        ),
        (b"\x80\x02X\x06\0\0\0moduleQ.", "BINPERSID"),
    ];
    for (pickle, expected) in cases {
        let error = torch::read(vec![stream(pickle)]).unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let error = refused(torch::read(vec![stream(b"\x80\x02I1\n.")]));
    assert!(
        error.contains("expected an opcode that weights need, found opcode 0x49"),
        "{error}"
    );
}

/// A dictionary of one tensor of eight elements in the older format. Sizes, strides, then what
/// follows the storage's length.
fn one_tensor(sizes: &[u8], strides: &[u8], view: &[u8]) -> File {
    stream(&pickled(sizes, strides, view))
}

fn pickled(sizes: &[u8], strides: &[u8], view: &[u8]) -> Vec<u8> {
    let tuple = |numbers: &[u8]| {
        let items: Vec<u8> = numbers.iter().flat_map(|&n| [b'K', n]).collect();
        [b"(", &items[..], b"t"].concat()
    };
    let parts: [&[u8]; 13] = [
        b"\x80\x02}X\x01\0\0\0w",
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        b"X\x07\0\0\0storagectorch\nFloatStorage\n",
        b"X\x01\0\0\x000X\x03\0\0\0cpuK\x08",
        view,
        b"tQK\0",
        &tuple(sizes),
        &tuple(strides),
        b"\x89}tRs.",
        b"\x80\x02](X\x01\0\0\x000e.",
        &8u64.to_le_bytes(),
        &[1; 32],
        b"",
    ];
    parts.concat()
}

#[test]
fn tensors_lie_within_their_storages() {
    let read = |sizes, strides, view| torch::read(vec![one_tensor(sizes, strides, view)]);
    assert_eq!(read(&[2, 4], &[4, 1], b"N").unwrap().len(), 1);
    assert_eq!(read(&[8], &[1], b"").unwrap().len(), 1);
    type Case<'a> = (&'a [u8], &'a [u8], &'a [u8], &'a str);
    let cases: [Case<'_>; 6] = [
        (
            &[2, 5],
            &[4, 1],
            b"N",
            "elements of their own within the storage",
        ),
        (
            &[2, 4],
            &[5, 1],
            b"N",
            "elements of their own within the storage",
        ),
        // More elements than the storage has: repeated ones.
        (
            &[200, 200],
            &[0, 0],
            b"N",
            "elements of their own within the storage",
        ),
        (&[8], &[1, 1], b"N", "the arguments that PyTorch writes"),
        (&[1; 9], &[1; 9], b"N", "the arguments that PyTorch writes"),
        (&[8], &[1], b"(K\x01K\x02t", "a view of another storage"),
    ];
    for (sizes, strides, view, expected) in cases {
        let error = refused(read(sizes, strides, view));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_a_pickle_repeats_is_held_once() {
    // Lists of two of the list before, 60 deep: 2^60 values if they were copied.
    let mut pickle = b"\x80\x02]q\x00".to_vec();
    for depth in 0..60 {
        pickle.extend([b']', b'(', b'h', depth, b'h', depth, b'e', b'q', depth + 1]);
    }
    pickle.push(b'.');
    let error = refused(torch::read(vec![stream(&pickle)]));
    assert!(
        error.contains("expected a list of storages") || error.contains("cut short"),
        "{error}"
    );
}

#[test]
fn a_name_is_one_tensors() {
    let mut bytes = pickled(&[8], &[1], b"N");
    for (old, new) in [
        (&b"}X\x01\0\0\0w"[..], &b"}(X\x01\0\0\0wq\0"[..]),
        (b"}tRs.", b"}tRq\x01h\0h\x01u."),
    ] {
        let at = bytes
            .windows(old.len())
            .position(|part| part == old)
            .unwrap();
        bytes.splice(at..at + old.len(), new.iter().copied());
    }
    let error = refused(torch::read(vec![stream(&bytes)]));
    assert!(
        error.contains(r#""w": expected a name of its own"#),
        "{error}"
    );
}

#[test]
fn a_storage_holds_what_the_pickle_says() {
    let mut bytes = pickled(&[8], &[1], b"N");
    let count = bytes.len() - 40;
    assert_eq!(bytes[count..count + 8], 8u64.to_le_bytes());
    bytes[count] = 7;
    let error = refused(torch::read(vec![stream(&bytes)]));
    assert!(error.contains("as many elements in storage"), "{error}");
}

/// A zip file of one stored entry, whose record in the directory is changed, and its own header with
/// it.
fn zip(names: [&str; 2], change: impl Fn(&mut Vec<u8>)) -> File {
    zip_apart(names, change, |_| ())
}

/// The same; then its own header alone is changed.
fn zip_apart(
    names: [&str; 2],
    change: impl Fn(&mut Vec<u8>),
    apart: impl Fn(&mut Vec<u8>),
) -> File {
    let mut record = b"PK\x01\x02".to_vec();
    record.extend([0; 24]);
    record.extend((names[1].len() as u16).to_le_bytes());
    record.extend([0; 16]);
    change(&mut record);
    let mut bytes = b"PK\x03\x04\0\0".to_vec();
    bytes.extend(&record[8..28]);
    bytes.extend((names[0].len() as u16).to_le_bytes());
    bytes.extend([0, 0]);
    apart(&mut bytes);
    bytes.extend(names[0].bytes());
    let start = bytes.len();
    bytes.extend(&record);
    bytes.extend(names[1].bytes());
    let size = bytes.len() - start;
    bytes.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    bytes.extend((size as u32).to_le_bytes());
    bytes.extend((start as u32).to_le_bytes());
    bytes.extend([0, 0]);
    seeds::file(bytes)
}

#[test]
fn a_zip_file_has_one_meaning() {
    let read = |file| refused(torch::read(vec![file]));
    let same = ["a/data.pkl"; 2];
    let plain = read(zip(same, |_| ()));
    assert!(plain.contains("more of a pickle"), "{plain}");
    let other = read(zip(["a/data.pkl", "b/data.pkl"], |_| ()));
    assert!(other.contains("the name of an entry"), "{other}");
    let secret = read(zip(same, |record| record[8] = 1));
    assert!(secret.contains("encryption is not supported"), "{secret}");
    let packed = read(zip(same, |record| record[10] = 12));
    assert!(packed.contains("zip method 12"), "{packed}");
    let deflated = read(zip(same, |record| record[10] = 8));
    assert!(deflated.contains("a packed entry"), "{deflated}");
    let long = read(zip(same, |record| (record[20], record[24]) = (200, 200)));
    assert!(long.contains("the size of an entry"), "{long}");
    for at in [6, 8, 14, 18, 22] {
        let other = read(zip_apart(same, |_| (), |header| header[at] = 1));
        assert!(other.contains("the header of an entry"), "{at}: {other}");
    }
    // What was not known when the header was written may differ, but not the method.
    let later = |at: usize| {
        let late = |record: &mut Vec<u8>| record[8] = 8;
        read(zip_apart(same, late, |header| header[at] = 1))
    };
    for at in [14, 18, 22] {
        assert_eq!(later(at), plain);
    }
    assert!(later(8).contains("the header of an entry"));
    let none = read(zip(["a/b/data.pkl"; 2], |_| ()));
    assert!(none.contains("one data.pkl in the zip file"), "{none}");
}

#[test]
fn a_pickle_has_the_checksum_that_the_directory_says() {
    let whole = std::fs::read(path("module.bin")).unwrap();
    torch::read(vec![seeds::file(whole.clone())]).unwrap();
    // Names, sizes and keys that would still make a checkpoint.
    let mut changed = 0;
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        if let Err(error) = torch::read(vec![seeds::file(bytes)])
            && error.to_string().contains("checksum")
        {
            changed += 1;
        }
    }
    assert!(changed > 10, "{changed}");
}

#[test]
fn a_file_that_ends_early_is_cut_short() {
    for name in ["views.pth", "views_legacy.pth"] {
        let whole = std::fs::read(path(name)).unwrap();
        for length in [whole.len() - 1, whole.len() / 2] {
            let error = refused(torch::read(vec![seeds::file(whole[..length].to_vec())]));
            assert!(error.contains("cut short"), "{error}");
        }
    }
}
