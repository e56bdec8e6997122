//! What a GGUF file says of a model and of its tokenizer.

use crate::config::{Config, Llama};
use crate::{Error, Result};
use kiln_formats::gguf::Entry;
use kiln_tokenizer::GgufTokenizer;
use serde_json::Value;
use std::path::Path;

/// Refuses what is not written.
///
/// # Errors
/// A scaled rope.
pub(crate) fn check(path: &Path, config: &Config) -> Result<()> {
    match config.get("rope_scaling").filter(|value| !value.is_null()) {
        None => Ok(()),
        Some(_) => {
            let what = "rope_scaling in a GGUF file";
            Err(kiln_formats::Error::unsupported(path, None, what).into())
        }
    }
}

/// The metadata of a model with this configuration, whose tokenizer's files lie in `directory`.
///
/// # Errors
/// A tokenizer that has no form in GGUF files.
pub(crate) fn metadata(
    path: &Path,
    name: &str,
    config: &Config,
    directory: &Path,
) -> Result<Vec<(String, Entry)>> {
    let llama = Llama::read(path, config)?;
    let tokenizer = GgufTokenizer::from_directory(directory)?;
    let number = |key: &str| config.get(key).and_then(Value::as_f64);
    let count = |number: usize| Entry::U32(u32::try_from(number).unwrap_or(u32::MAX));
    let text = |text: &str| Entry::Text(text.to_owned());
    let context = number("max_position_embeddings").unwrap_or(4096.0) as usize;
    let mut all = vec![
        ("general.architecture", text("llama")),
        ("general.name", text(name)),
        ("general.quantization_version", Entry::U32(2)),
        ("llama.block_count", count(llama.layers)),
        ("llama.context_length", count(context)),
        ("llama.embedding_length", count(llama.hidden)),
        ("llama.feed_forward_length", count(llama.intermediate)),
        ("llama.attention.head_count", count(llama.heads)),
        ("llama.attention.head_count_kv", count(llama.kv_heads)),
        ("llama.attention.key_length", count(llama.head_dim)),
        ("llama.attention.value_length", count(llama.head_dim)),
        (
            "llama.attention.layer_norm_rms_epsilon",
            Entry::F32(number("rms_norm_eps").unwrap_or(1e-6) as f32),
        ),
        ("llama.rope.dimension_count", count(llama.head_dim)),
        (
            "llama.rope.freq_base",
            Entry::F32(number("rope_theta").unwrap_or(10_000.0) as f32),
        ),
        ("llama.vocab_size", count(llama.vocab)),
    ];
    if tokenizer.tokens.len() > llama.vocab {
        let found = format!("{} tokens", tokenizer.tokens.len());
        let expected = format!("at most {} tokens, the embedding's rows", llama.vocab);
        let error = kiln_formats::Error::invalid(path, None, expected, found);
        return Err(Error::File(error));
    }
    all.extend(of_tokenizer(tokenizer, llama.vocab));
    Ok(all
        .into_iter()
        .map(|(key, entry)| (key.to_owned(), entry))
        .collect())
}

/// The tokenizer's part. There are as many tokens as the embedding has rows.
fn of_tokenizer(mut tokenizer: GgufTokenizer, vocab: usize) -> Vec<(&'static str, Entry)> {
    for id in tokenizer.tokens.len()..vocab {
        tokenizer.tokens.push(format!("[PAD{id}]"));
        tokenizer.token_types.push(5);
    }
    let mut all = vec![
        ("tokenizer.ggml.model", Entry::Text(tokenizer.model)),
        ("tokenizer.ggml.tokens", Entry::Texts(tokenizer.tokens)),
        (
            "tokenizer.ggml.token_type",
            Entry::Integers(tokenizer.token_types),
        ),
        ("tokenizer.ggml.merges", Entry::Texts(tokenizer.merges)),
    ];
    let ids = [
        ("tokenizer.ggml.bos_token_id", tokenizer.bos),
        ("tokenizer.ggml.eos_token_id", tokenizer.eos),
    ];
    let texts = [
        ("tokenizer.ggml.pre", tokenizer.pre),
        ("tokenizer.chat_template", tokenizer.chat_template),
    ];
    all.extend(
        ids.into_iter()
            .filter_map(|(key, id)| Some((key, Entry::U32(id?)))),
    );
    all.extend(
        texts
            .into_iter()
            .filter_map(|(key, text)| Some((key, Entry::Text(text?)))),
    );
    let add = tokenizer.add_bos.map(Entry::Bool);
    all.extend(add.map(|add| ("tokenizer.ggml.add_bos_token", add)));
    all
}
