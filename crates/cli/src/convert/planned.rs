//! What a conversion would do, printed.

use crate::output;
use kiln::convert::{Plan, Planned};
use serde_json::json;

/// Prints every tensor and the totals: a table, or a JSON object.
pub(super) fn print(plan: &Plan, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return output::write_json(&json!({
            "tensors": plan.tensors(),
            "parameters": plan.parameters(),
            "bytes": plan.bytes(),
            "bits_per_weight": plan.bits_per_weight(),
            "memory_bytes": plan.memory(),
            "notes": plan.notes(),
        }));
    }
    output::write(&output::plain(&text(plan)))
}

fn text(plan: &Plan) -> String {
    let heads = ["source", "as", "", "target", "as", "bytes", "error", "rule"];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(plan.tensors().iter().map(row));
    let mut text = output::table(&rows);
    for note in plan.notes() {
        text.push_str(&format!("note: {note}\n"));
    }
    text.push_str(&format!(
        "{} parameters in {}: {:.3} bits per weight; the conversion needs {} of memory\n",
        output::count(plan.parameters()),
        output::size(plan.bytes()),
        plan.bits_per_weight(),
        output::size(plan.memory()),
    ));
    text
}

fn row(planned: &Planned) -> [String; 8] {
    let kind = match (planned.bits, planned.group) {
        (Some(bits), Some(group)) => format!("{} {bits} bits, group {group}", planned.kind),
        _ => planned.kind.clone(),
    };
    let measured = planned.measured.as_deref().unwrap_or_default();
    let error = measured
        .iter()
        .find(|(bits, _)| Some(*bits) == planned.bits);
    [
        planned.source.clone(),
        format!("{} {:?}", planned.source_dtype, planned.source_shape),
        "->".into(),
        planned.name.clone(),
        kind,
        planned.bytes.to_string(),
        error.map_or(String::new(), |(_, error)| format!("{error:.2e}")),
        planned.rule.clone().unwrap_or_default(),
    ]
}
