//! What a conversion did: `conversion.json`.
//!
//! It holds no time and no path of the machine, so that the same conversion writes the same bytes
//! everywhere.

use crate::file::{self, Hashed};
use crate::measure::Distance;
use crate::output::parent;
use crate::plan::Plan;
use crate::source::Extra;
use crate::verify::Verified;
use crate::{Error, Result};
use kiln_formats::Sums;
use kiln_tokenizer::Tokenizer;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Its name in the output.
pub(crate) const RECEIPT: &str = "conversion.json";

/// The number of this layout of the receipt. A change of what a key means raises it.
const SCHEMA: u32 = 1;

/// Texts whose ids must stand for the same texts.
const PROBES: [&str; 16] = [
    "hello world",
    "The quick brown fox jumps over the lazy dog.",
    " leading and  double   spaces, and one at the end ",
    "line one\nline two\n\n\tindented\r\nlast",
    "Ça déjà vu — naïve café, Größe, smörgåsbord",
    "Привет, мир! Съешь ещё этих мягких булок.",
    "你好，世界。日本語のテスト、한국어 시험.",
    "مرحبا بالعالم שלום עולם",
    "नमस्ते दुनिया สวัสดีชาวโลก",
    "👋🏽 👩‍👩‍👧‍👦 🇪🇺 ✓ ∑ ≤ ½ 𝔘𝔫𝔦",
    "e\u{301} \u{200b} \u{a0} \u{feff}",
    "fn main() { println!(\"{:?}\", vec![1, 2, 3]); }",
    "{\"key\": [true, null, -1.5e-3]}",
    "https://example.org/path?query=1&other=%20#part",
    "0123456789 3.14159 1,000,000 0xDEADBEEF",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!!!!????",
];

/// What a conversion did, for programs to read.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Receipt {
    /// The layout of this receipt.
    pub schema: u32,
    /// The program and its version.
    pub tool: String,
    /// The source's name, without its directory.
    pub source: String,
    /// All files of the source that were read, in name order.
    pub source_files: Vec<Hashed>,
    /// All files of the output but this one, in name order.
    pub files: Vec<Hashed>,
    /// Weights of the model.
    pub parameters: u64,
    /// Bytes of the tensors written.
    pub bytes: u64,
    /// `8 · bytes / parameters`.
    pub bits_per_weight: f64,
    /// Every tensor of the model, in the order in which they are written.
    pub tensors: Vec<Converted>,
    /// Whether the tokenizer gives back the texts that it is given; `None` without a tokenizer.
    pub tokenizer: Option<RoundTrip>,
    /// What the model makes of a text, compared with the source; `None` where that was not asked
    /// for. Its last digits depend on the processor.
    pub verified: Option<Verified>,
    /// What is not as it was in the source, and what is missing.
    pub notes: Vec<String>,
}

/// What became of one tensor.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Converted {
    /// The name it is written under; quantised ones have scales and biases beside it.
    pub name: String,
    /// Its name in the source.
    pub source: String,
    /// How the source stores it.
    pub source_dtype: String,
    /// What the weights are, row-major, however they are stored.
    pub shape: Vec<usize>,
    /// How it is written: a float type, or the mode of a quantised one.
    pub kind: String,
    /// Bits of a weight's code; `None` if it is not quantised.
    pub bits: Option<usize>,
    /// Weights per scale.
    pub group: Option<usize>,
    /// The rule that decided; `None` where none is about it.
    pub rule: Option<String>,
    /// Bytes written, with scales and biases.
    pub bytes: u64,
    /// How far the weights are from those of the source.
    pub error: Distance,
}

/// What came back of texts that were encoded and decoded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RoundTrip {
    /// Texts tried.
    pub probes: usize,
    /// Those that came back as they were.
    pub same: usize,
    /// The others.
    pub changed: Vec<String>,
}

impl Receipt {
    pub(crate) fn new(plan: &Plan, distances: &[Distance]) -> Receipt {
        let tensors = plan.tensors().into_iter().zip(distances);
        let converted = tensors.map(|(planned, &error)| Converted {
            name: planned.name,
            source: planned.source,
            source_dtype: planned.source_dtype,
            shape: planned.shape,
            kind: planned.kind,
            bits: planned.bits,
            group: planned.group,
            rule: planned.rule,
            bytes: planned.bytes,
            error,
        });
        Receipt {
            schema: SCHEMA,
            tool: concat!("kiln ", env!("CARGO_PKG_VERSION")).to_owned(),
            source: plan.name(),
            source_files: Vec::new(),
            files: Vec::new(),
            parameters: plan.parameters(),
            bytes: plan.bytes(),
            bits_per_weight: plan.bits_per_weight(),
            tensors: converted.collect(),
            tokenizer: None,
            verified: None,
            notes: plan.notes.clone(),
        }
    }
}

/// The files of the source: those that were opened, and those that go along.
pub(crate) fn sources(
    mut opened: BTreeMap<PathBuf, Sums>,
    extras: &[Extra],
) -> BTreeMap<PathBuf, Sums> {
    for extra in extras {
        if let Extra::Copy(path) = extra {
            opened.entry(path.clone()).or_default();
        }
    }
    opened
}

/// What a file of the source is called: its path in the directory that the source is, or its name.
pub(crate) fn name_in(source: &Path, file: &Path) -> String {
    let directory = if source.is_dir() {
        source
    } else {
        parent(source)
    };
    let name = file.strip_prefix(directory).ok();
    let name = name
        .or_else(|| file.file_name().map(Path::new))
        .unwrap_or(file);
    name.display().to_string()
}

/// Hashes the source's files and checks the sums they have of their own, until `stop` is set.
pub(crate) fn hash_sources(plan: &Plan, stop: &AtomicBool) -> Result<Vec<Hashed>> {
    let go_on = || !stop.load(Ordering::Relaxed);
    let hash = |(path, sums): (&PathBuf, &Sums)| {
        let (bytes, sha256) = file::hashed(path, sums.clone(), &go_on)?;
        let name = name_in(&plan.path, path);
        Ok::<_, Error>(Hashed {
            name,
            bytes,
            sha256,
        })
    };
    let mut files = Vec::with_capacity(plan.sources.len());
    for source in &plan.sources {
        files.push(hash(source)?);
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// Encodes and decodes texts with the tokenizer of a directory. `None` if it has none, or one that
/// cannot be read; the note says why.
pub(crate) fn round_trip(
    directory: &Path,
    has_tokenizer: bool,
) -> (Option<RoundTrip>, Option<String>) {
    if !has_tokenizer {
        return (None, None);
    }
    let tokenizer = match Tokenizer::from_directory(directory) {
        Ok(tokenizer) => tokenizer,
        Err(_) => {
            let note = "the tokenizer cannot be read, so text cannot be encoded";
            return (None, Some(note.to_owned()));
        }
    };
    let same = |text: &&&str| {
        let ids = tokenizer.encode(text, false);
        let back = ids.and_then(|ids| tokenizer.decode(&ids, false));
        back.is_ok_and(|back| back == **text)
    };
    let changed: Vec<String> = PROBES
        .iter()
        .filter(|text| !same(text))
        .map(|text| (*text).to_owned())
        .collect();
    let trip = RoundTrip {
        probes: PROBES.len(),
        same: PROBES.len() - changed.len(),
        changed,
    };
    (Some(trip), None)
}
