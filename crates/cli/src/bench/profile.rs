//! Where the time of a token, or of a prompt, goes.

use kiln_array::{DType, Op, Plan, Recorder, Run, Span, Step, Work};
use kiln_cpu::Limits;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Adds up what runs tell, between `start` and `stop`.
#[derive(Clone, Default)]
pub(super) struct Profile(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// When the tokens or the prompt began that are being measured.
    since: Option<Instant>,
    /// How many entries the cache has.
    seen: usize,
    sums: Sums,
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    /// Tokens or prompts.
    pub(super) count: u64,
    all: Duration,
    /// While plans ran.
    ran: Duration,
    /// By operation and operands.
    rows: BTreeMap<(String, String), Sum>,
}

/// Steps that are alike.
#[derive(Clone, Debug, Default)]
struct Sum {
    calls: u64,
    time: Duration,
    work: Work,
    /// Whether products are of bf16 numbers.
    bf16: bool,
}

impl Profile {
    /// What a backend is to call.
    pub(super) fn recorder(&self) -> Recorder {
        let profile = self.clone();
        Arc::new(move |run: &Run<'_>| profile.state().add(run))
    }

    /// Begins to measure, with so many entries in the cache.
    pub(super) fn start(&self, seen: usize) {
        let mut state = self.state();
        state.seen = seen;
        state.since = Some(Instant::now());
    }

    /// What began has made so many tokens, or has read a prompt.
    pub(super) fn stop(&self, count: u64) {
        let mut state = self.state();
        let since = state.since.take();
        state.sums.all += since.map_or(Duration::ZERO, |since| since.elapsed());
        state.sums.count += count;
    }

    /// What was measured since this was last called.
    pub(super) fn take(&self) -> Sums {
        std::mem::take(&mut self.state().sums)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, run: &Run<'_>) {
        if self.since.is_none() {
            return;
        }
        self.seen += queries(run.plan);
        self.sums.ran += run.end - run.start;
        for ((start, end), time) in divide(run.spans) {
            let steps = run.plan.steps.get(start..end).unwrap_or_default();
            let sum = self.sums.rows.entry(kind(steps)).or_default();
            sum.calls += 1;
            sum.time += time;
            for step in steps {
                let work = step.work(self.seen);
                sum.work.bytes += work.bytes;
                sum.work.operations += work.operations;
                sum.bf16 = step.inputs.first().is_some_and(|x| x.dtype == DType::BF16);
            }
        }
    }
}

/// How many tokens a plan reads.
fn queries(plan: &Plan) -> usize {
    let attention = |step: &&Step| matches!(step.op, Op::Attention { .. });
    let step = plan.steps.iter().find(attention);
    let q = step.and_then(|step| step.inputs.first());
    q.and_then(|q| q.layout.shape().first().copied())
        .unwrap_or(0)
}

/// What a row of the table is of: an operation, and the operand that matters.
fn kind(steps: &[Step]) -> (String, String) {
    let [step] = steps else {
        return ("submission".into(), format!("{} steps", steps.len()));
    };
    let operand = match step.op {
        Op::Matmul { .. } | Op::Attention { .. } => step.inputs.get(1),
        Op::Take => step.inputs.first(),
        _ => None,
    };
    let operand = operand.map_or(String::new(), |operand| operand.spec().to_string());
    (step.op.name().into(), operand)
}

/// For how long steps ran: where several do at a time, each has its share of it.
fn divide(spans: &[Span]) -> BTreeMap<(usize, usize), Duration> {
    let mut times: Vec<(Instant, bool, usize)> = Vec::with_capacity(2 * spans.len());
    for (i, span) in spans.iter().enumerate() {
        times.push((span.start, true, i));
        times.push((span.end.max(span.start), false, i));
    }
    // A span that ends begins before: of equal times, beginnings come first.
    times.sort_by_key(|(time, begins, _)| (*time, !begins));
    let mut divided = BTreeMap::new();
    let mut running: Vec<usize> = Vec::new();
    let mut last = None;
    for (time, begins, i) in times {
        let passed = last.map_or(Duration::ZERO, |last| time - last);
        for &i in &running {
            let steps = &spans[i].steps;
            let sum = divided.entry((steps.start, steps.end)).or_default();
            *sum += passed / running.len() as u32;
        }
        last = Some(time);
        if begins {
            running.push(i);
        } else {
            running.retain(|other| *other != i);
        }
    }
    divided
}

/// A line of the table: of one token or prompt.
struct Line {
    op: String,
    operand: String,
    calls: f64,
    seconds: f64,
    share: f64,
    work: Option<(f64, f64)>,
    of_limit: Option<f64>,
}

impl Sums {
    /// Bytes that a token or prompt moves.
    fn bytes(&self) -> f64 {
        let bytes: u64 = self.rows.values().map(|sum| sum.work.bytes).sum();
        bytes as f64 / self.count.max(1) as f64
    }

    /// Seconds that a token or prompt takes.
    fn seconds(&self) -> f64 {
        self.all.as_secs_f64() / self.count.max(1) as f64
    }

    fn lines(&self, limits: Option<&Limits>) -> Vec<Line> {
        let count = self.count.max(1) as f64;
        let line = |op: &str, operand: &str, calls: u64, time: Duration| Line {
            op: op.into(),
            operand: operand.into(),
            calls: calls as f64 / count,
            seconds: time.as_secs_f64() / count,
            share: time.as_secs_f64() / self.all.as_secs_f64().max(1e-9),
            work: None,
            of_limit: None,
        };
        let mut lines = Vec::new();
        for ((op, operand), sum) in &self.rows {
            let mut line = line(op, operand, sum.calls, sum.time);
            let work = [sum.work.bytes, sum.work.operations].map(|n| n as f64 / count);
            line.of_limit = limits.map(|limits| least(limits, work, sum.bf16) / line.seconds);
            line.work = Some(work.into());
            lines.push(line);
        }
        lines.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        let steps: Duration = self.rows.values().map(|sum| sum.time).sum();
        let between = self.ran.saturating_sub(steps);
        lines.push(line("between steps", "", 0, between));
        lines.push(line("host", "", 0, self.all.saturating_sub(self.ran)));
        lines
    }

    /// The table, for reading. `test` is what was measured.
    pub(super) fn table(&self, test: &str, each: &str, limits: Option<&Limits>) -> String {
        let mut text = format!(
            "\n{test}, per {each}: {:.1} us, {:.2} MB moved, {:.1} GB/s",
            self.seconds() * 1e6,
            self.bytes() / 1e6,
            self.bytes() / self.seconds().max(1e-12) / 1e9,
        );
        if let Some(limits) = limits {
            let reached = self.bytes() / self.seconds().max(1e-12) / limits.bandwidth;
            // A string takes whatever is written to it.
            let _ = write!(text, ", {:.0} % of the memory's bandwidth", 100.0 * reached);
        }
        let _ = writeln!(
            text,
            "\n{:<14} {:<28} {:>7} {:>10} {:>6} {:>9} {:>8} {:>8} {:>8}",
            "operation", "operand", "calls", "us", "time", "MB", "GB/s", "GFLOP/s", "of limit"
        );
        for line in self.lines(limits) {
            let _ = write!(
                text,
                "{:<14} {:<28} {:>7.1} {:>10.1} {:>5.1}%",
                line.op,
                line.operand,
                line.calls,
                line.seconds * 1e6,
                line.share * 100.0
            );
            if let Some((bytes, operations)) = line.work {
                let per = |n: f64| n / line.seconds.max(1e-12) / 1e9;
                let (speed, products) = (per(bytes), per(operations));
                let _ = write!(text, " {:>9.3} {speed:>8.1} {products:>8.1}", bytes / 1e6);
            }
            if let Some(of_limit) = line.of_limit {
                let _ = write!(text, " {:>7.0}%", 100.0 * of_limit);
            }
            text.push('\n');
        }
        text
    }

    pub(super) fn json(&self, each: &str, limits: Option<&Limits>) -> Value {
        let line = |line: Line| {
            json!({
                "operation": line.op,
                "operand": line.operand,
                "calls": line.calls,
                "us": line.seconds * 1e6,
                "share": line.share,
                "bytes": line.work.map(|(bytes, _)| bytes),
                "operations": line.work.map(|(_, operations)| operations),
                "of_limit": line.of_limit,
            })
        };
        json!({
            "per": each,
            "us": self.seconds() * 1e6,
            "bytes": self.bytes(),
            "of_bandwidth": limits.map(|l| self.bytes() / self.seconds().max(1e-12) / l.bandwidth),
            "operations": self.lines(limits).into_iter().map(line).collect::<Value>(),
        })
    }
}

/// The least seconds that the machine needs for bytes and products, whichever takes longer.
fn least(limits: &Limits, [bytes, operations]: [f64; 2], bf16: bool) -> f64 {
    let usable = |name: &str| name == "f32" || (bf16 && name == "bf16");
    let rates = limits.operations.iter();
    let rates = rates
        .filter(|(name, _)| usable(name))
        .map(|(_, rate)| *rate);
    let products = operations / rates.fold(1.0, f64::max);
    products.max(bytes / limits.bandwidth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_divided_among_the_steps_that_run() {
        let zero = Instant::now();
        let span = |step: usize, lane, from: u64, to: u64| Span {
            steps: step..step + 1,
            lane,
            start: zero + Duration::from_micros(from),
            end: zero + Duration::from_micros(to),
        };
        // Two threads: a step on both, one that runs alone, two at the same time.
        let spans = [
            span(0, 0, 0, 10),
            span(0, 1, 2, 14),
            span(1, 0, 20, 30),
            span(2, 0, 40, 50),
            span(3, 1, 40, 46),
        ];
        let found: Vec<_> = divide(&spans)
            .into_values()
            .map(|t| t.as_micros())
            .collect();
        assert_eq!(found, [14, 10, 7, 3]);
    }
}
