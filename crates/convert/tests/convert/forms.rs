//! One model in every form: what it computes.

use crate::made::Place;
use crate::torch::{FORMS, golden};
use kiln_convert::{Layout, Options, load};
use kiln_model::Model;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// The logits of what is at `path` after a few ids, read as `kiln run` reads it.
pub(crate) fn logits(path: &Path) -> Vec<f32> {
    let device = kiln_cpu::device(kiln_cpu::Options::default()).unwrap();
    let model = if path.join("model.safetensors").exists() {
        Model::load(path, &device).unwrap()
    } else {
        let go_on = &mut |_: &kiln_convert::Progress<'_>| ControlFlow::Continue(());
        let (config, checkpoint) = load(path, &crate::made::open, go_on).unwrap();
        Model::new(config, &checkpoint, &device).unwrap()
    };
    let mut cache = model.cache(8).unwrap();
    let logits = model.forward_all(&[3, 1, 4, 1, 5, 9], &mut cache).unwrap();
    logits
        .cast(kiln_plan::DType::F32)
        .unwrap()
        .to_vec()
        .unwrap()
}

/// `source` in another layout; the place keeps it.
fn converted(source: &Path, layout: Layout) -> (Place, PathBuf) {
    let place = Place::new();
    let options = Options {
        layout,
        ..Options::default()
    };
    place.convert_from(source, &options).unwrap();
    let made = place.destination();
    let path = match layout {
        Layout::Gguf => made.join("model.gguf"),
        Layout::Mlx | Layout::Npz => made,
    };
    (place, path)
}

/// Weights are the same numbers in every form, so logits are equal to the last bit.
#[test]
fn every_form_of_a_model_gives_the_same_logits() {
    let expected = logits(&golden("bin"));
    assert_eq!(expected.len(), 6 * 20);
    assert!(expected.iter().all(|logit| logit.is_finite()));
    assert!(
        expected.iter().any(|logit| logit.abs() > 0.1),
        "{expected:?}"
    );
    for form in FORMS {
        assert!(logits(&golden(form)) == expected, "{form}");
    }
    // What is written of it: safetensors and npz from either rows, and GGUF.
    for form in ["bin", "meta2", "npz"] {
        for layout in [Layout::Mlx, Layout::Npz] {
            let (_place, path) = converted(&golden(form), layout);
            assert!(logits(&path) == expected, "{form} as {layout:?}");
        }
    }
    let (words, _) = converted(&golden("meta1"), Layout::Mlx);
    let directory = words.destination();
    std::fs::write(
        directory.join("tokenizer.json"),
        crate::gguf_output::TOKENIZER,
    )
    .unwrap();
    let (_place, path) = converted(&directory, Layout::Gguf);
    assert!(logits(&path) == expected, "GGUF");
}
