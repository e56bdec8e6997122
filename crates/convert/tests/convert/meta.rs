//! Meta's files: as many as there are, in each dtype.

use crate::made::*;
use crate::torch::{converted, golden, weights};
use kiln_convert::Options;
use kiln_plan::DType;
use std::collections::BTreeMap;

#[test]
fn the_number_of_shards_changes_no_byte_of_any_file() {
    let files = |form: &str| {
        let (place, _) = converted(form);
        let entries = place.destination().read_dir().unwrap();
        let file = |entry: std::io::Result<std::fs::DirEntry>| {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            (path.file_name().unwrap().to_owned(), bytes)
        };
        let mut files: BTreeMap<_, _> = entries.map(file).collect();
        // The card and the receipt name the source.
        for name in ["README.md", "conversion.json"] {
            files.remove(std::ffi::OsStr::new(name)).unwrap();
        }
        files
    };
    for dtype in ["", "_bf16", "_f32"] {
        let one = files(&format!("meta1{dtype}"));
        assert_eq!(one.len(), 3);
        assert!(one == files(&format!("meta2{dtype}")), "{dtype}");
        assert!(one == files(&format!("meta4{dtype}")), "{dtype}");
    }
    assert!(files("meta1") == files("meta2_rows"));
}

/// PyTorch rounded the numbers of `meta1_f32` to those of the others.
#[test]
fn files_of_meta_keep_their_dtype_or_round_as_pytorch_does() {
    let names = [
        ("f16", "meta1", "float16", DType::F16),
        ("bf16", "meta1_bf16", "bfloat16", DType::BF16),
        ("f32", "meta1_f32", "float32", DType::F32),
    ];
    for (name, form, config, dtype) in names {
        let (place, _) = converted(form);
        let expected = weights(&place);
        assert_eq!(place.result_config()["torch_dtype"], config);
        for (stored, ..) in expected.values() {
            assert_eq!(stored, &name.to_uppercase(), "{form}");
        }
        let place = Place::new();
        let options = Options {
            dtype: Some(dtype),
            ..Options::default()
        };
        place.convert_from(&golden("meta4_f32"), &options).unwrap();
        assert!(weights(&place) == expected, "{form}");
    }
}
