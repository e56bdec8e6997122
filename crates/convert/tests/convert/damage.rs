//! Damaged sources: an error or a conversion, never a panic.

use crate::made::*;
use kiln_convert::{Error, Options, Progress, convert, inspect};
use kiln_formats::Bytes;
use kiln_plan::DType;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Plans and begins a conversion for every damaged version of `file`; says how many began.
fn begun(place: &Place, source: &Path, file: &Path, damaged: usize) -> usize {
    let whole = std::fs::read(file).unwrap();
    let rest: Bytes = Arc::new(whole.clone());
    let mut begun = 0;
    for at in 0..damaged.min(whole.len()) {
        for bit in [at % 8, (at + 5) % 8] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            let bytes: Bytes = Arc::new(bytes);
            let opened = |path: &Path| match path {
                _ if path == file => Ok(Arc::clone(&bytes)),
                _ if path.ends_with("model.gguf") => Ok(Arc::clone(&rest)),
                other => open(other),
            };
            let stop = &mut |_: &Progress<'_>| ControlFlow::Break(());
            let options = Options::default();
            let result = convert(source, &place.destination(), &options, &opened, stop);
            begun += usize::from(matches!(result, Err(Error::Interrupted)));
            let _ = inspect(source, &opened);
        }
    }
    assert_eq!(place.names(), ["source"]);
    begun
}

#[test]
fn no_damaged_configuration_panics() {
    let mut config = config();
    config["rope_scaling"] = serde_json::json!({"rope_type": "linear", "factor": 2.0});
    config["torch_dtype"] = "float16".into();
    let place = hugging_face(&config, DType::F16);
    let file = place.source().join("config.json");
    let length = config.to_string().len();
    let begun = begun(&place, &place.source(), &file, usize::MAX);
    assert!(begun > 0 && begun < 2 * length, "{begun} of {length}");
}

#[test]
fn no_damaged_quantised_configuration_panics() {
    let (place, _) = crate::packed::packed(&crate::packed::mixed(), DType::F16);
    let mut config = json_of(&place.source().join("config.json"));
    config
        .as_object_mut()
        .unwrap()
        .shift_remove("quantization_config");
    let text = config.to_string();
    place.put("config.json", &text);
    let file = place.source().join("config.json");
    let begun = begun(&place, &place.source(), &file, usize::MAX);
    assert!(
        begun > 0 && begun < 2 * text.len(),
        "{begun} of {}",
        text.len()
    );
}

#[test]
fn no_damaged_gguf_header_panics() {
    let (place, path) = crate::gguf::place(|_| {});
    let header = 3000;
    let begun = begun(&place, &path, &path, header);
    assert!(begun > 0 && begun < 2 * header, "{begun}");
}

#[test]
fn no_damaged_torch_file_or_params_panic() {
    let place = crate::torch::copy("meta2");
    let part = place.source().join("consolidated.01.pth");
    let pickle = 1500;
    let count = begun(&place, &place.source(), &part, pickle);
    assert!(count > 0 && count < 2 * pickle, "{count}");
    let params = place.source().join("params.json");
    let length = std::fs::read(&params).unwrap().len();
    let count = begun(&place, &place.source(), &params, usize::MAX);
    assert!(count > 0 && count < 2 * length, "{count}");
}
