//! A real model, SmolLM2-135M-Instruct, from its GGUF file to text: held against what transformers
//! and mlx-lm make of it (`scripts/golden/smollm2.py`).
//!
//! The file is too large for the repository: `scripts/test` fetches it, and `KILN_SMOLLM2` names it
//! where it lies elsewhere.

#![allow(clippy::unwrap_used, reason = "a failed test panics")]

use kiln_array::{DType, Device, Mode};
use kiln_convert::{Options, Quantise};
use kiln_formats::safetensors;
use kiln_model::{Event, Model, Request, map};
use kiln_tests::devices;
use kiln_tokenizer::{Message, Tokenizer};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where the best two logits are closer than this, rounding may decide which token comes.
const CLOSE: f64 = 0.02;

const TOKENS: &str = include_str!("../golden/smollm2_tokens.json");
const HASHES: &str = include_str!("../golden/smollm2_f16_hashes.json");

/// A prompt and what others generated from it.
struct Prompt {
    id: String,
    kind: String,
    text: String,
    ids: Vec<u32>,
    runs: Value,
}

impl Prompt {
    /// The tokens of a run, and by how much each one's logit exceeded the second best.
    fn run(&self, name: &str) -> (Vec<u32>, Vec<f64>) {
        let run = &self.runs[name];
        let margins = run["margins"].as_array().unwrap().iter();
        (
            ids(&run["tokens"]),
            margins.map(|margin| margin.as_f64().unwrap()).collect(),
        )
    }
}

fn prompts() -> Vec<Prompt> {
    let list: Vec<Value> = serde_json::from_str(TOKENS).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let prompt = |entry: &Value| Prompt {
        id: text(&entry["id"]),
        kind: text(&entry["kind"]),
        text: text(&entry["text"]),
        ids: ids(&entry["prompt_ids"]),
        runs: entry["runs"].clone(),
    };
    assert_eq!(list.len(), 6);
    list.iter().map(prompt).collect()
}

fn ids(list: &Value) -> Vec<u32> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect()
}

/// The GGUF file.
fn source() -> PathBuf {
    const FILE: &str = ".cache/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let path = std::env::var_os("KILN_SMOLLM2").map_or(workspace.join(FILE), PathBuf::from);
    let missing = "run scripts/test, which fetches it, or set KILN_SMOLLM2 to its path";
    assert!(
        path.is_file(),
        "SmolLM2 is not at {}: {missing}",
        path.display()
    );
    path
}

/// What `kiln convert` makes of `source`, once for all tests.
fn converted(
    made: &'static OnceLock<PathBuf>,
    name: &str,
    source: &Path,
    options: Options,
) -> &'static Path {
    made.get_or_init(|| {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join("smollm2");
        std::fs::create_dir_all(&parent).unwrap();
        let into = parent.join(name);
        let options = Options {
            force: true,
            ..options
        };
        let mut progress = |_: &kiln_convert::Progress<'_>| ControlFlow::Continue(());
        kiln_convert::convert(source, &into, &options, &map, &mut progress).unwrap();
        into
    })
}

fn float16() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let options = Options {
        dtype: Some(DType::F16),
        ..Options::default()
    };
    converted(&MADE, "float16", &source(), options)
}

/// The processor or, where `KILN_DEVICE` is `gpu`, the GPU.
fn device() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    let gpu = std::env::var("KILN_DEVICE").is_ok_and(|device| device == "gpu");
    DEVICE.get_or_init(|| match gpu {
        true => devices::gpu().swap_remove(0),
        false => kiln_cpu::device(kiln_cpu::Options::default()).unwrap(),
    })
}

/// The likeliest token at each of `count` steps.
fn greedy(model: &Model, prompt: &[u32], count: usize) -> Vec<u32> {
    let request = Request {
        prompt: prompt.to_vec(),
        max_tokens: count,
        ..Request::default()
    };
    let events = model.generate(request).unwrap().map(|event| event.unwrap());
    let tokens = events.filter_map(|event| match event {
        Event::Token { id, .. } => Some(id),
        Event::Prefill { .. } => None,
    });
    tokens.collect()
}

fn chat(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let template = tokenizer.chat_template().unwrap();
    let text = template
        .render(&[Message::new("user", text)], true, &Map::new())
        .unwrap();
    tokenizer.encode(&text, false).unwrap()
}

#[test]
fn the_float16_tensors_are_those_of_the_reference_checkpoint() {
    let checkpoint = safetensors::open(float16(), &map).unwrap();
    let hash = |bytes| {
        Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    };
    let found: BTreeMap<String, String> = checkpoint
        .iter()
        .map(|tensor| (tensor.name.clone(), hash(checkpoint.bytes(tensor))))
        .collect();
    let expected: BTreeMap<String, String> = serde_json::from_str(HASHES).unwrap();
    assert_eq!(expected.len(), 272);
    assert_eq!(found, expected);
}

#[test]
fn the_ids_of_prompts_are_those_of_transformers() {
    let tokenizer = Tokenizer::from_directory(float16()).unwrap();
    for prompt in prompts() {
        let found = match prompt.kind.as_str() {
            "chat" => chat(&tokenizer, &prompt.text),
            _ => tokenizer.encode(&prompt.text, true).unwrap(),
        };
        assert_eq!(found, prompt.ids, "{}", prompt.id);
    }
}

#[test]
fn the_float32_tokens_are_those_of_transformers() {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let options = Options {
        dtype: Some(DType::F32),
        ..Options::default()
    };
    let model = Model::load(converted(&MADE, "float32", float16(), options), device()).unwrap();
    for prompt in prompts() {
        let (expected, _) = prompt.run("transformers-float32");
        assert_eq!(expected.len(), 64);
        assert_eq!(greedy(&model, &prompt.ids, 64), expected, "{}", prompt.id);
    }
}

#[test]
fn the_4_bit_tokens_are_those_of_mlx_lm_up_to_the_first_close_decision() {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let quantise = Quantise {
        mode: Mode::Affine,
        bits: None,
        group: None,
    };
    let options = Options {
        quantise: Some(quantise),
        dtype: Some(DType::F32),
        ..Options::default()
    };
    let model = Model::load(converted(&MADE, "4bit", float16(), options), device()).unwrap();
    let mut compared = 0;
    for prompt in prompts() {
        let (expected, margins) = prompt.run("mlx-4bit-g64-fp32");
        let sure = margins
            .iter()
            .take_while(|margin| **margin >= CLOSE)
            .count();
        let found = greedy(&model, &prompt.ids, sure);
        assert_eq!(found, expected[..sure], "{}", prompt.id);
        compared += sure;
    }
    assert_eq!(compared, 5 * 64 + 16);
}

#[test]
fn the_exact_q4_1_blocks_know_the_capital_of_france() {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let directory = converted(&MADE, "exact", &source(), Options::default());
    let tokenizer = Tokenizer::from_directory(directory).unwrap();
    let model = Model::load(directory, device()).unwrap();
    let tokens = greedy(
        &model,
        &chat(&tokenizer, "What is the capital of France?"),
        8,
    );
    let end = tokens
        .iter()
        .position(|id| tokenizer.eos_ids().contains(id))
        .unwrap();
    let answer = tokenizer.decode(&tokens[..end], true).unwrap();
    assert_eq!(answer, "The capital of France is Paris.");
}
