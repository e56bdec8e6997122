//! Whether the checkpoint holds the model's tensors and no others.

use crate::config::{EMBEDDING, Expected, HEAD, Llama};
use crate::plan::layer;
use crate::source::{Model, stored_names};
use crate::stored::Stored;
use crate::{Error, Result};
use kiln_formats::Checkpoint;
use serde_json::Value;
use std::collections::BTreeSet;

/// Keeps the list of expected tensors in proportion to the file.
pub(super) fn check_layers(model: &Model, llama: &Llama) -> Result<()> {
    let most = model.shards.iter().map(Checkpoint::len).sum();
    if llama.layers <= most {
        return Ok(());
    }
    let found = format!("{most} tensors in all");
    let expected = format!("the tensors of {} layers", llama.layers);
    Err(kiln_formats::Error::invalid(&model.path, None, expected, found).into())
}

/// Decides by bytes whether the head is the embedding; the result is what the configuration then
/// says. Gives the head that is to be converted, if there is one.
pub(super) fn head(model: &mut Model, llama: &Llama) -> Result<Option<Expected>> {
    // A quantised one is its codes, scales and biases.
    let planes = |name: &str| {
        let path = layer(name);
        let plane = |plane| model.find(&format!("{path}.{plane}"));
        Ok::<_, Error>([plane("weight")?, plane("scales")?, plane("biases")?])
    };
    let (head, embedding) = (planes(HEAD)?, planes(EMBEDDING)?);
    let has_head = head[0].is_some();
    let mut same = true;
    for planes in head.iter().zip(&embedding) {
        same = same
            && match planes {
                (Some(head), Some(embedding)) => head.equals(embedding)?,
                (head, embedding) => head.is_none() && embedding.is_none(),
            };
    }
    let (tied, note) = match (has_head, llama.tied) {
        (true, _) if same => (
            true,
            Some("the head equals the embedding: stored once, tied"),
        ),
        (true, Some(true)) => (
            false,
            Some("the head differs from the embedding though config.json says tied: untied"),
        ),
        (true, _) => (false, None),
        (false, Some(false)) => (false, None),
        (false, _) => (true, None),
    };
    model.notes.extend(note.map(str::to_owned));
    model
        .config
        .insert("tie_word_embeddings".into(), tied.into());
    Ok((!tied).then(|| llama.head()))
}

/// Every tensor of the checkpoint has a place in the model, or is known to be of no use.
pub(super) fn check_names(model: &mut Model, expected: &[Expected]) -> Result<()> {
    let known: BTreeSet<String> = expected
        .iter()
        .map(|expected| model.names.of(&expected.name))
        .chain([model.names.of(HEAD)])
        .collect();
    let planes = match (&model.scheme, model.config.get("quantization")) {
        (Some(scheme), _) => matrices(expected)
            .flat_map(|name| scheme.planes(name))
            .collect(),
        (None, Some(Value::Object(_))) => planes(model, expected),
        _ => BTreeSet::new(),
    };
    let mut unmapped = Vec::new();
    let (mut dropped, mut zero) = (0, 0);
    for name in stored_names(&model.shards) {
        if known.contains(name) || planes.contains(name) {
            continue;
        }
        if model.names.is_computed(name) {
            dropped += 1
        } else if model.scheme.is_some() && is_zero_bias(&model.shards, name)? {
            zero += 1
        } else {
            unmapped.push(name)
        }
    }
    if dropped > 0 {
        model.notes.push(format!(
            "{} with rope frequencies left out",
            tensors(dropped)
        ));
    }
    if zero > 0 {
        model
            .notes
            .push(format!("{} of biases that are 0 left out", tensors(zero)));
    }
    if unmapped.is_empty() {
        return Ok(());
    }
    let first = unmapped[..unmapped.len().min(5)].join(", ");
    let found = match kind(&unmapped) {
        Some(kind) => format!(
            "{} besides, as {kind} has: {first}",
            tensors(unmapped.len())
        ),
        None => format!("{} besides: {first}", tensors(unmapped.len())),
    };
    let expected = "only the tensors of a Llama model";
    Err(kiln_formats::Error::invalid(&model.path, None, expected, found).into())
}

/// Whether this is a bias of nothing but zeros, as programs that quantise write them for layers that
/// have none.
fn is_zero_bias(shards: &[Checkpoint], name: &str) -> Result<bool> {
    if !name.ends_with(".bias") {
        return Ok(false);
    }
    for shard in shards {
        if let Some(tensor) = shard.tensor(name) {
            let bytes = Stored::one(shard, tensor).open()?.all()?;
            if bytes.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The names of scales and biases that quantised layers may have.
fn planes(model: &Model, expected: &[Expected]) -> BTreeSet<String> {
    let planes = |name: &str| {
        let path = layer(name);
        ["scales", "biases"].map(|plane| model.names.of(&format!("{path}.{plane}")))
    };
    matrices(expected).flat_map(planes).collect()
}

/// The names of the weights of layers, the head among them whether or not it is expected.
fn matrices(expected: &[Expected]) -> impl Iterator<Item = &str> {
    let matrices = expected.iter().filter(|expected| expected.is_matrix());
    matrices
        .map(|expected| expected.name.as_str())
        .chain([HEAD])
}

pub(super) fn tensors(count: usize) -> String {
    if count == 1 {
        "1 tensor".into()
    } else {
        format!("{count} tensors")
    }
}

/// What kind of checkpoint has tensors of such names.
fn kind(names: &[&str]) -> Option<&'static str> {
    let kinds = [
        (".qweight", "a GPTQ or AWQ checkpoint"),
        (".qzeros", "a GPTQ or AWQ checkpoint"),
        (".scales", "a quantised checkpoint"),
        (".weight_scale", "an FP8 or compressed checkpoint"),
        (".weight_packed", "a compressed checkpoint"),
        ("lora_", "a LoRA adapter"),
        ("vision", "a model with a vision tower"),
        ("experts.", "a mixture of experts"),
        ("_exps.", "a mixture of experts"),
    ];
    kinds
        .into_iter()
        .find(|(part, _)| names.iter().any(|name| name.contains(part)))
        .map(|(_, kind)| kind)
}
