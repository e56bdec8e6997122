//! The layout of MLX's example programs: npz with Meta's names, rows and settings.

use crate::made::*;
use kiln_convert::{Layout, Options, Quantise, convert, load};
use kiln_formats::{Checkpoint, File, npz};
use kiln_plan::{DType, Mode};
use std::ops::ControlFlow;
use std::path::Path;

fn to_npz(bits: Option<usize>) -> Options {
    let quantise = |bits| Quantise {
        mode: Mode::Affine,
        bits: Some(bits),
        group: Some(32),
    };
    Options {
        quantise: bits.map(quantise),
        layout: Layout::Npz,
        ..Options::default()
    }
}

fn go_on(_: &kiln_convert::Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn arrays(directory: &Path) -> Checkpoint {
    let path = directory.join("weights.npz");
    npz::read(vec![File::open(&path, &open).unwrap()]).unwrap()
}

/// The bytes of all tensors.
fn bytes(checkpoint: &Checkpoint) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let tensor = |tensor: &kiln_formats::Tensor| {
        let bytes = checkpoint.bytes(tensor).to_vec();
        (tensor.name.clone(), tensor.shape.clone(), bytes)
    };
    checkpoint.iter().map(tensor).collect()
}

#[test]
fn there_and_back_changes_no_byte() {
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        for bits in [None, Some(4), Some(8)] {
            let place = with_layers(3, dtype);
            let direct = Options {
                layout: Layout::Mlx,
                ..to_npz(bits)
            };
            place.convert(&direct).unwrap();
            let expected = bytes(&place.result());
            std::fs::remove_dir_all(place.destination()).unwrap();

            place.convert(&to_npz(bits)).unwrap();
            let back = place.destination().with_file_name("back");
            let plain = Options::default();
            convert(&place.destination(), &back, &plain, &open, &mut go_on).unwrap();
            let found = kiln_formats::safetensors::open(&back, &open).unwrap();
            assert!(bytes(&found) == expected, "{dtype}, {bits:?} bits");
            // In memory, too.
            let (_, found) = load(&place.destination(), &open, &mut go_on).unwrap();
            assert!(
                bytes(&found) == expected,
                "{dtype}, {bits:?} bits in memory"
            );
        }
    }
}

#[test]
fn names_rows_and_settings_are_the_example_programs() {
    let place = hugging_face(&config(), DType::F16);
    let report = place.convert(&to_npz(Some(4))).unwrap();
    let names: Vec<&str> = report.files.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "README.md",
        "config.json",
        "conversion.json",
        "tokenizer.json",
        "weights.npz",
    ];
    assert_eq!(names, expected);
    let settings = place.result_config();
    let keys: Vec<&String> = settings.as_object().unwrap().keys().collect();
    let expected = [
        "dim",
        "n_layers",
        "head_dim",
        "hidden_dim",
        "n_heads",
        "n_kv_heads",
        "norm_eps",
        "vocab_size",
        "rope_theta",
        "model_type",
        "quantization",
    ];
    assert_eq!(keys, expected);
    assert_eq!(
        settings["quantization"],
        serde_json::json!({"group_size": 32, "bits": 4})
    );
    std::fs::remove_dir_all(place.destination()).unwrap();

    place.convert(&to_npz(None)).unwrap();
    let written = arrays(&place.destination());
    // Every array begins at a multiple of 64 bytes.
    assert!(written.iter().all(|tensor| tensor.range.start % 64 == 0));
    let source = kiln_formats::safetensors::open(&place.source(), &open).unwrap();
    let wo = source
        .tensor("model.layers.1.self_attn.o_proj.weight")
        .unwrap();
    let found = written.tensor("layers.1.attention.wo.weight").unwrap();
    assert!(source.bytes(wo) == written.bytes(found));
    // Row `half + i` of a head is the neighbour of row `i`.
    let k = source
        .tensor("model.layers.1.self_attn.k_proj.weight")
        .unwrap();
    let found = written.tensor("layers.1.attention.wk.weight").unwrap();
    let (from, to) = (source.bytes(k), written.bytes(found));
    let row = |bytes: &[u8], row: usize| bytes[row * 2 * HIDDEN..][..2 * HIDDEN].to_vec();
    for head in 0..KV_HEADS {
        for i in 0..HEAD_DIM / 2 {
            let start = head * HEAD_DIM;
            assert_eq!(row(to, start + 2 * i), row(from, start + i));
            assert_eq!(
                row(to, start + 2 * i + 1),
                row(from, start + HEAD_DIM / 2 + i)
            );
        }
    }
    // The programs know no tied head.
    let [head, embedding] = ["output.weight", "tok_embeddings.weight"].map(|name| {
        let tensor = written.tensor(name).unwrap();
        written.bytes(tensor).to_vec()
    });
    assert!(head == embedding);
}

#[test]
fn metas_files_keep_their_rows() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torch");
    let expected = arrays(&golden.join("npz"));
    for form in ["meta1", "meta4", "npz", "bin"] {
        let place = Place::new();
        place
            .convert_from(&golden.join(form), &to_npz(None))
            .unwrap();
        let found = arrays(&place.destination());
        for (name, shape, bytes) in bytes(&found) {
            let tensor = expected
                .tensor(&name)
                .unwrap_or_else(|| panic!("{form}: {name}"));
            assert_eq!(tensor.shape, shape, "{form}: {name}");
            let same = tensor.strides.is_some() || expected.bytes(tensor) == bytes;
            assert!(same, "{form}: {name}");
        }
    }
}

#[test]
fn what_the_programs_cannot_express_is_refused() {
    let mut scaled = config();
    scaled["rope_scaling"] = serde_json::json!({"rope_type": "linear", "factor": 2.0});
    let place = hugging_face(&scaled, DType::F16);
    assert!(
        place
            .refused(&to_npz(None))
            .contains("rope_scaling in the npz layout")
    );
    let place = hugging_face(&config(), DType::F16);
    let mixed = Options {
        rules: vec!["*.v_proj=8".parse().unwrap()],
        ..to_npz(Some(4))
    };
    assert!(
        place
            .refused(&mixed)
            .contains("layers of different formats")
    );
    let mut mxfp4 = to_npz(None);
    mxfp4.quantise = Some(Quantise {
        mode: Mode::Mxfp4,
        bits: None,
        group: None,
    });
    assert!(place.refused(&mxfp4).contains("mxfp4 in the npz layout"));
}
