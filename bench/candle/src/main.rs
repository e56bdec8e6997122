//! Measures candle on one GGUF file, once: a worker of `scripts/bench`, as `workers/common.py` says.

use anyhow::{Context, Result};
use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;
use clap::Parser;
use serde_json::{Map, json};
use std::fs::File;
use std::time::Instant;

/// Tokens of the prompt whose first answer is timed.
const FIRST: usize = 8;

#[derive(Parser)]
struct Arguments {
    model: String,
    #[arg(long)]
    threads: usize,
    #[arg(long, default_value_t = 512)]
    prompt: usize,
    #[arg(long, default_value_t = 128)]
    generate: usize,
    #[arg(long, value_delimiter = ',')]
    depths: Vec<String>,
}

struct Engine {
    model: ModelWeights,
    vocabulary: usize,
    length: usize,
}

impl Engine {
    fn load(path: &str) -> Result<Engine> {
        let mut file = File::open(path).with_context(|| path.to_owned())?;
        let content = Content::read(&mut file)?;
        let table = content.tensor_infos.get("token_embd.weight");
        let vocabulary = table.context("no embedding")?.shape.dims()[0];
        let model = ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?;
        Ok(Engine {
            model,
            vocabulary,
            length: 0,
        })
    }

    fn ids(&self, from: usize, count: usize) -> Vec<u32> {
        let id = |at: usize| (at * 7919 % self.vocabulary) as u32;
        (from..from + count).map(id).collect()
    }

    /// What comes at position 0 begins anew.
    fn reset(&mut self) {
        self.length = 0;
    }

    fn read(&mut self, ids: &[u32]) -> Result<()> {
        for chunk in ids.chunks(512) {
            let given = Tensor::new(chunk, &Device::Cpu)?.unsqueeze(0)?;
            let logits = self.model.forward(&given, self.length)?;
            logits.flatten_all()?.to_vec1::<f32>()?;
            self.length += chunk.len();
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let asked = Arguments::parse();
    let before = memory();
    let start = Instant::now();
    let mut engine = Engine::load(&asked.model)?;
    let load = start.elapsed().as_secs_f64();
    engine.read(&engine.ids(0, FIRST))?;
    let first = start.elapsed().as_secs_f64();
    let mut found = json!({"version": "0.11.1", "load_s": load, "first_s": first});
    if asked.prompt > 0 {
        engine.reset();
        let ids = engine.ids(0, asked.prompt);
        let start = Instant::now();
        engine.read(&ids)?;
        found["pp"] = rate(asked.prompt, start).into();
    }
    let mut rates = Map::new();
    let depths = asked.depths.iter().filter(|depth| !depth.is_empty());
    for depth in depths.filter(|_| asked.generate > 0) {
        engine.reset();
        let count: usize = depth.parse()?;
        engine.read(&engine.ids(0, count))?;
        let tokens = engine.ids(count, asked.generate);
        engine.read(&tokens[..1])?;
        let start = Instant::now();
        for token in &tokens[1..] {
            engine.read(&[*token])?;
        }
        rates.insert(depth.clone(), rate(tokens.len() - 1, start).into());
    }
    found["tg"] = rates.into();
    found["peak_bytes"] = memory().saturating_sub(before).into();
    found["threads"] = asked.threads.into();
    println!("{found}");
    Ok(())
}

fn rate(tokens: usize, start: Instant) -> f64 {
    tokens as f64 / start.elapsed().as_secs_f64()
}

/// The most memory that this process has had, in bytes; 0 where the system does not say.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB"));
    kilobytes.and_then(|n| n.trim().parse().ok()).unwrap_or(0) * 1024
}
