//! `kiln diff`: in what two checkpoints differ.

use crate::exit::Code;
use crate::progress::Bar;
use crate::{interrupt, output};
use clap::Args;
use kiln::convert::{Compared, Diff};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Compare two checkpoints: names, how tensors are stored, shapes, numbers, configuration
///
/// Reads whatever kiln convert reads; the two may be of different kinds. Prints the tensors and the
/// keys of the configuration that differ: the length of the difference over the length of the first
/// one's weights, the largest difference of two weights, and the cosine of the angle between them.
/// Exits with 0 where the checkpoints are equal, with 7 where they differ.
#[derive(Debug, Args)]
pub(crate) struct Differ {
    /// A checkpoint
    first: PathBuf,

    /// Another one
    second: PathBuf,

    /// Print a JSON object with all tensors instead of the table
    #[arg(long)]
    json: bool,
}

pub(crate) fn diff(task: &Differ) -> anyhow::Result<Code> {
    interrupt::listen()?;
    let mut bar = Bar::of_bytes(false);
    let mut progress = |progress: &kiln::convert::Progress<'_>| {
        bar.set(progress.done, progress.total, progress.tensor);
        match interrupt::asked() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let diff = kiln::convert::diff(&task.first, &task.second, &kiln::map, &mut progress);
    bar.clear();
    let diff = diff?;
    match task.json {
        true => output::write_json(&serde_json::to_value(&diff)?)?,
        false => output::write(&output::plain(&text(&diff)))?,
    }
    Ok(match diff.equal {
        true => Code::Success,
        false => Code::Verification,
    })
}

fn text(diff: &Diff) -> String {
    let heads = [
        "tensor",
        "first",
        "second",
        "relative error",
        "largest error",
        "cosine",
    ];
    let mut rows = vec![heads.map(str::to_owned)];
    let differing: Vec<&Compared> = diff.tensors.iter().filter(|one| !one.equal()).collect();
    rows.extend(differing.iter().copied().map(row));
    let mut text = String::new();
    if !differing.is_empty() {
        text.push_str(&output::table(&rows));
    }
    for (names, which) in [(&diff.only_first, "first"), (&diff.only_second, "second")] {
        for name in names {
            text.push_str(&format!("{name}: only in the {which}\n"));
        }
    }
    for (key, values) in &diff.config {
        let [first, second] = values.each_ref().map(|value| match value {
            Some(value) => value.to_string(),
            None => "absent".into(),
        });
        text.push_str(&format!("config.json {key}: {first}, {second}\n"));
    }
    let alone = diff.only_first.len() + diff.only_second.len();
    text.push_str(&match diff.equal {
        true => format!("equal: {} tensors\n", diff.tensors.len()),
        false => format!(
            "{} of {} tensors differ, {alone} are only in one, {} keys of the configuration differ\n",
            differing.len(),
            diff.tensors.len(),
            diff.config.len(),
        ),
    });
    text
}

fn row(tensor: &Compared) -> [String; 6] {
    let number = |of: fn(&kiln::convert::Distance) -> f64, digits: fn(f64) -> String| {
        tensor
            .error
            .as_ref()
            .map_or(String::new(), |error| digits(of(error)))
    };
    let [first, second] =
        [0, 1].map(|side| format!("{} {:?}", tensor.stored[side], tensor.shapes[side]));
    [
        tensor.name.clone(),
        first,
        second,
        number(|error| error.relative, |value| format!("{value:.3e}")),
        number(|error| error.most, |value| format!("{value:.3e}")),
        number(|error| error.cosine, |value| format!("{value:.6}")),
    ]
}
