//! How alike texts are, by the mean of their last hidden states.
//!
//! `cargo run --release --example embeddings -- my-model "a cat" "a kitten" "an invoice"`

#![allow(clippy::print_stdout, reason = "an example prints")]

use kiln::{DType, Model, Tokenizer};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: embeddings MODEL TEXT…")?;
    let path = PathBuf::from(path);
    let model = Model::load(&path, &kiln::cpu(Default::default())?)?;
    let tokenizer = Tokenizer::from_directory(&path)?;
    let texts: Vec<String> = arguments.collect();
    let mut vectors = Vec::new();
    for text in &texts {
        vectors.push(embedding(&model, &tokenizer.encode(text, true)?)?);
    }
    for (text, vector) in texts.iter().zip(&vectors) {
        let alike = vectors.iter().map(|other| {
            let cosine: f32 = vector.iter().zip(other).map(|(a, b)| a * b).sum();
            format!("{cosine:6.3}")
        });
        println!("{}  {text}", alike.collect::<Vec<_>>().join(" "));
    }
    Ok(())
}

/// The mean over the tokens of the last hidden state, of length 1.
fn embedding(model: &Model, ids: &[u32]) -> kiln::Result<Vec<f32>> {
    let mut states = model.hidden_states(ids, &mut model.cache(ids.len())?)?;
    // What remains of the list is not kept by the evaluation.
    let last = states.swap_remove(states.len() - 1);
    drop(states);
    let mut mean = last.cast(DType::F32)?.mean(0)?.to_vec::<f32>()?;
    let length = mean.iter().map(|x| x * x).sum::<f32>().sqrt();
    mean.iter_mut().for_each(|x| *x /= length);
    Ok(mean)
}
