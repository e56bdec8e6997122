//! What is done with any bytes at all. A parser may refuse them; it must not panic, hang, or take more
//! memory than they justify.
//!
//! The fuzz targets call these functions, and so does a test of the workspace, with the kept corpora.

use kiln_convert::Rule;
use kiln_formats::shards::{Index, PYTORCH, SAFETENSORS};
use kiln_formats::{
    Checkpoint, File, gguf as ggufs, npz as npzs, safetensors as safes, torch as torches,
};
use kiln_tokenizer::{ChatTemplate, Source, Tokenizer};
use std::path::Path;
use std::sync::Arc;

/// A parser's name, which is that of its corpus, and what is done; the answer is whether the bytes were
/// understood.
pub type Parser = (&'static str, fn(&[u8]) -> bool);

/// All of them.
pub const ALL: [Parser; 7] = [
    ("safetensors", safetensors),
    ("gguf", gguf),
    ("npz", npz),
    ("torch", torch),
    ("config", config),
    ("tokenizer", tokenizer),
    ("rules", rules),
];

fn file(bytes: &[u8]) -> File {
    File::new("bytes", Arc::new(bytes.to_vec()))
}

/// Looks at every tensor, and at the values of its first blocks.
fn look(checkpoint: &Checkpoint) {
    let mut out = [0.0; 256];
    for tensor in checkpoint {
        let bytes = checkpoint.bytes(tensor);
        assert_eq!(bytes.len(), tensor.range.len());
        let (block, size) = (tensor.dtype.block(), tensor.dtype.block_bytes());
        let blocks = (256 / block).min(bytes.len() / size.max(1));
        let read = ggufs::dequantise(
            tensor.dtype,
            &bytes[..blocks * size],
            &mut out[..blocks * block],
        );
        assert_eq!(read, ggufs::is_readable(tensor.dtype));
    }
}

/// A safetensors file, or the index of its shards.
pub fn safetensors(bytes: &[u8]) -> bool {
    let _ = kiln_formats::sniff_bytes(bytes, bytes.len() as u64);
    let mut understood = false;
    if let Ok(checkpoint) = safes::read(vec![file(bytes)]) {
        look(&checkpoint);
        understood = true;
    }
    for family in [SAFETENSORS, PYTORCH] {
        if let Ok(index) = Index::parse(&file(bytes), &family) {
            let directory = Path::new("directory");
            for shard in index.shards() {
                assert_eq!(directory.join(shard).parent(), Some(directory));
            }
            understood = true;
        }
    }
    understood
}

/// A GGUF file.
pub fn gguf(bytes: &[u8]) -> bool {
    let Ok(gguf) = ggufs::read(file(bytes)) else {
        return false;
    };
    look(gguf.checkpoint());
    for (_, value) in gguf.metadata().iter() {
        let texts = value.strings().map(|strings| strings.iter().count());
        assert!(!value.summary().is_empty() || texts.is_some());
    }
    true
}

/// An npz file.
pub fn npz(bytes: &[u8]) -> bool {
    let read = npzs::read(vec![file(bytes)]);
    read.inspect(look).is_ok()
}

/// A PyTorch file: a zip file or a stream of pickles.
pub fn torch(bytes: &[u8]) -> bool {
    let read = torches::read(vec![file(bytes)]);
    read.inspect(look).is_ok()
}

/// A `config.json`.
pub fn config(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes).ok();
    text.is_some_and(|text| kiln_model::Config::parse(Path::new("config.json"), text).is_ok())
}

/// A `tokenizer.json` or a `tokenizer.model`, and a chat template.
pub fn tokenizer(bytes: &[u8]) -> bool {
    let mut understood = false;
    for source in [Source::Json, Source::Model] {
        let Ok(tokenizer) = Tokenizer::from_bytes(source, "bytes", bytes.to_vec()) else {
            continue;
        };
        understood = true;
        let Ok(ids) = tokenizer.encode("Kiln ☃ 12 \n<s>", true) else {
            continue;
        };
        let _ = tokenizer.decode(&ids, false);
        let mut text = tokenizer.detokenizer(true);
        for id in ids {
            text.push(id);
        }
        text.finish();
    }
    // A template is most of what is text.
    let template = std::str::from_utf8(bytes).is_ok_and(|t| ChatTemplate::new("bytes", t).is_ok());
    understood || template && bytes.contains(&b'%')
}

/// A rule, or a file of them.
pub fn rules(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes).ok();
    let lines = text.is_some_and(|text| text.lines().all(|line| line.parse::<Rule>().is_ok()));
    let file = Rule::file(Path::new("rules.toml"), &|_| Ok(Arc::new(bytes.to_vec())));
    lines || file.is_ok()
}
