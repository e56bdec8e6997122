//! A conversation with a model.
//!
//! `cargo run --release --example chat -- my-model`

#![allow(clippy::print_stdout, reason = "an example prints")]

use kiln::{Event, Message, Model, Request, Tokenizer};
use std::io::{BufRead, Write};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: chat MODEL")?;
    let path = PathBuf::from(path);
    let model = Model::load(&path, &kiln::cpu(Default::default())?)?;
    let tokenizer = Tokenizer::from_directory(&path)?;
    let template = tokenizer.chat_template()?;
    let mut messages = Vec::new();
    print!("> ");
    std::io::stdout().flush()?;
    for line in std::io::stdin().lock().lines() {
        messages.push(Message::new("user", line?));
        let text = template.render(&messages, true, &Default::default())?;
        let request = Request {
            prompt: tokenizer.encode(&text, false)?,
            max_tokens: 200,
            eos: tokenizer.eos_ids().to_vec(),
            ..Request::default()
        };
        let answer = answer(&model, &tokenizer, request)?;
        messages.push(Message::new("assistant", answer));
        print!("\n> ");
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// Prints an answer while it comes.
fn answer(
    model: &Model,
    tokenizer: &Tokenizer,
    request: Request,
) -> Result<String, Box<dyn std::error::Error>> {
    let mut text = tokenizer.detokenizer(true);
    let mut answer = String::new();
    for event in model.generate(request)? {
        match event? {
            Event::Prefill { done, total } if done < total => {
                eprintln!("reading the prompt: {done} of {total} tokens");
            }
            Event::Prefill { .. } => {}
            Event::Token { id, .. } => {
                let piece = text.push(id);
                print!("{piece}");
                std::io::stdout().flush()?;
                answer.push_str(&piece);
            }
        }
    }
    answer.push_str(&text.finish());
    Ok(answer)
}
