//! How measurements are shown: the table of llama-bench, or JSON.

use super::profile::Sums;
use super::{Bed, Counts, Outcome, Row, Tokens, limits, median};
use crate::output;
use kiln_cpu::Limits;
use serde_json::{Value, json};

const HEAD: [&str; 7] = [
    "model", "size", "params", "backend", "threads", "test", "t/s",
];

/// The widths of the columns; the first and `test` are wide because names are.
const WIDTHS: [usize; 7] = [27, 10, 10, 8, 7, 16, 20];

fn line(cells: [&str; 7]) -> String {
    let mut line = String::new();
    for (i, (cell, width)) in cells.into_iter().zip(WIDTHS).enumerate() {
        let padded = if matches!(i, 0 | 3) {
            format!("{cell:<width$}")
        } else {
            format!("{cell:>width$}")
        };
        line.push_str(&format!("| {padded} "));
    }
    line + "|\n"
}

/// The two lines above the rows.
pub(super) fn head() -> String {
    let rule = |i: usize| {
        let dashes = "-".repeat(WIDTHS[i] - 1);
        if matches!(i, 0 | 3) {
            format!("{dashes}-")
        } else {
            format!("{dashes}:")
        }
    };
    let rules: [String; 7] = std::array::from_fn(rule);
    line(HEAD) + &line(std::array::from_fn(|i| rules[i].as_str()))
}

pub(super) fn row(bed: &Bed, row: &Row) -> String {
    let size = output::size(bed.model.weight_bytes() as u64);
    let parameters = output::count(bed.parameters);
    let threads = bed.machine.threads;
    let threads = threads.map_or("-".into(), |threads| threads.to_string());
    let rate = format!("{:.2} ± {:.2}", row.mean(), row.deviation());
    line([
        &bed.name,
        &size,
        &parameters,
        &bed.machine.backend,
        &threads,
        &row.test,
        &rate,
    ])
}

/// Where the time of a test went; nothing if that was not asked.
pub(super) fn profile(row: &Row, limits: Option<&Limits>) -> String {
    let table = |sums: &Sums| sums.table(&row.test, each_of(row), limits);
    row.sums.as_ref().map_or(String::new(), table)
}

/// What a test's times are of.
fn each_of(row: &Row) -> &'static str {
    if row.tokens.is_some() {
        "token"
    } else {
        "prompt"
    }
}

pub(super) fn json(bed: &Bed, outcome: &Outcome) -> Value {
    let results = outcome.rows.iter().map(|row| {
        let mut result = json!({
            "test": row.test,
            "tok_s": row.mean(),
            "stddev": row.deviation(),
            "samples": row.rates,
        });
        if let Some(tokens) = &row.tokens {
            result["per_token"] = per_token(tokens);
        }
        if let Some(sums) = &row.sums {
            result["profile"] = sums.json(each_of(row), outcome.limits.as_ref());
        }
        result
    });
    let mut object = json!({
        "model": {
            "name": bed.name,
            "bytes": bed.model.weight_bytes(),
            "parameters": bed.parameters,
        },
        "device": bed.machine.device.to_string(),
        "backend": bed.machine.backend,
        "threads": bed.machine.threads,
        "load_s": bed.load.as_secs_f64(),
        "peak_memory_bytes": outcome.peak,
        "results": results.collect::<Value>(),
    });
    if let Some(limits) = &outcome.limits {
        object["limits"] = limits::json(limits);
    }
    object
}

fn per_token(tokens: &Tokens) -> Value {
    let Counts {
        nodes,
        steps,
        copies,
        misses,
        allocations,
    } = tokens.counts;
    json!({
        "build_us": median(&tokens.build),
        "host_us": median(&tokens.host),
        "encode_us": (!tokens.encode.is_empty()).then(|| median(&tokens.encode)),
        "nodes": each(nodes, tokens),
        "steps": each(steps, tokens),
        "copies": each(copies, tokens),
        "misses": each(misses, tokens),
        "allocations": each(allocations, tokens),
    })
}

/// A count's share of one token.
fn each(count: u64, tokens: &Tokens) -> f64 {
    count as f64 / tokens.host.len().max(1) as f64
}

/// What the table has no column for, on standard error.
pub(super) fn remarks(bed: &Bed, outcome: &Outcome) {
    output::say(format_args!("device: {}", bed.machine.device));
    output::say(format_args!("load: {:.3} s", bed.load.as_secs_f64()));
    if let Some(limits) = &outcome.limits {
        output::say(format_args!("limits: {}", limits::line(limits)));
    }
    for row in &outcome.rows {
        if let Some(tokens) = &row.tokens {
            output::say(remark(&row.test, tokens));
        }
    }
    if let Some(bytes) = outcome.peak {
        output::say(format_args!("peak memory: {} MB", bytes / 1_000_000));
    }
}

fn remark(test: &str, tokens: &Tokens) -> String {
    let per = |count| each(count, tokens);
    let Counts {
        nodes,
        steps,
        copies,
        misses,
        allocations,
    } = tokens.counts;
    let encode = match tokens.encode.is_empty() {
        true => String::new(),
        false => format!(", {:.1} µs to encode and queue it", median(&tokens.encode)),
    };
    format!(
        "{test}: of a token's time {:.1} µs are the host's ({:.1} µs to build the graph{encode}); \
         per token {} nodes, {} steps, {} copies, {} misses, {} allocations",
        median(&tokens.host),
        median(&tokens.build),
        per(nodes),
        per(steps),
        per(copies),
        per(misses),
        per(allocations),
    )
}
