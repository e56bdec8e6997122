//! The perplexity of a text: exp of the mean surprise at each token, given those before it.
//!
//! `cargo run --release --example perplexity -- my-model text.txt`

#![allow(clippy::print_stdout, reason = "an example prints")]

use kiln::sample::log_sum_exp;
use kiln::{DType, Model, Tokenizer};
use std::path::PathBuf;

/// Tokens whose logits are in memory at once.
const PART: usize = 256;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let usage = "usage: perplexity MODEL FILE";
    let (path, file) = (
        arguments.next().ok_or(usage)?,
        arguments.next().ok_or(usage)?,
    );
    let model = Model::load(&path, &kiln::cpu(Default::default())?)?;
    let tokenizer = Tokenizer::from_directory(&path)?;
    let mut ids = tokenizer.encode(&std::fs::read_to_string(file)?, true)?;
    ids.truncate(model.config().context);
    if ids.len() < 2 {
        return Err("a text of one token is no surprise".into());
    }
    let mut cache = model.cache(ids.len())?;
    let mut surprise = 0.0;
    for part in ids[..ids.len() - 1].chunks(PART) {
        let first = cache.len();
        let logits = model.forward_all(part, &mut cache)?.cast(DType::F32)?;
        let logits = logits.to_vec::<f32>()?;
        for (row, next) in logits.chunks(model.config().vocab).zip(&ids[first + 1..]) {
            surprise += f64::from(log_sum_exp(row)? - row[*next as usize]);
        }
    }
    let tokens = ids.len() - 1;
    println!(
        "{:.4} over {tokens} tokens",
        (surprise / tokens as f64).exp()
    );
    Ok(())
}
