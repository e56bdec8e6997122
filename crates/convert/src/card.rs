//! The model card.

use crate::receipt::{Converted, Receipt};
use std::collections::BTreeMap;

/// MLX's front matter, and what was done.
pub(crate) fn card(receipt: &Receipt) -> String {
    let mut card = format!(
        "---\nlanguage: en\nlibrary_name: mlx\npipeline_tag: text-generation\ntags:\n- mlx\n---\n\n\
         Converted from {} with {}: {:.3} bits per weight. `conversion.json` tells of every \
         tensor.\n\n\
         | format | tensors | bytes | largest relative error | largest error | least cosine |\n\
         |---|---|---|---|---|---|\n",
        receipt.source, receipt.tool, receipt.bits_per_weight,
    );
    for (format, tensors) in formats(receipt) {
        let bytes: u64 = tensors.iter().map(|tensor| tensor.bytes).sum();
        let errors = |of: fn(&Converted) -> f64| tensors.iter().map(move |tensor| of(tensor));
        card.push_str(&format!(
            "| {format} | {} | {bytes} | {:.3e} | {:.3e} | {:.6} |\n",
            tensors.len(),
            errors(|tensor| tensor.error.relative).fold(0.0, f64::max),
            errors(|tensor| tensor.error.most).fold(0.0, f64::max),
            errors(|tensor| tensor.error.cosine).fold(1.0, f64::min),
        ));
    }
    card.push_str("\n| file of the source | bytes | sha256 |\n|---|---|---|\n");
    for file in &receipt.source_files {
        card.push_str(&format!(
            "| {} | {} | {} |\n",
            file.name, file.bytes, file.sha256
        ));
    }
    card.push_str("\n| file | bytes | sha256 |\n|---|---|---|\n");
    for file in &receipt.files {
        card.push_str(&format!(
            "| {} | {} | {} |\n",
            file.name, file.bytes, file.sha256
        ));
    }
    if let Some(trip) = &receipt.tokenizer {
        let (same, probes) = (trip.same, trip.probes);
        card.push_str(&format!(
            "\nOf {probes} texts, {same} are what they were after encoding and decoding.\n"
        ));
    }
    if let Some(verified) = &receipt.verified {
        card.push_str(&format!(
            "\nOn a text of {} tokens: KL divergence {:.5} from the source, the likeliest token is the \
             same in {:.1} % of all places, perplexity {:.3} (source: {:.3}).\n",
            verified.tokens,
            verified.divergence,
            100.0 * verified.agreement,
            verified.perplexity,
            verified.source_perplexity,
        ));
    }
    for note in &receipt.notes {
        card.push_str(&format!("\n* {note}"));
    }
    if !receipt.notes.is_empty() {
        card.push('\n');
    }
    card
}

/// The tensors of each format.
fn formats(receipt: &Receipt) -> BTreeMap<String, Vec<&Converted>> {
    let mut formats: BTreeMap<String, Vec<&Converted>> = BTreeMap::new();
    for tensor in &receipt.tensors {
        let name = match (tensor.bits, tensor.group) {
            (Some(bits), Some(group)) => format!("{} {bits} bits, group {group}", tensor.kind),
            _ => tensor.kind.clone(),
        };
        formats.entry(name).or_default().push(tensor);
    }
    formats
}
